//! Work that is in nobody's way: on threads to which the system gives a processor after all others.
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_core::View;
use tokio::sync::oneshot;

use crate::status::{Code, Status};

/// How far such a thread stands back, as a nice value: where others want the processors it gets about a tenth of one, and
/// whoever is woken for a call need not wait until its time is up.
const NICE: i32 = 10;

/// How long nothing is done after a step, as a multiple of the time it took, while the member applies entries meanwhile: the
/// work then takes a sixth of a processor at most, and all of one when nobody else needs it.
const PAUSE_FACTOR: u32 = 5;
/// The longest pause: a step that took long because the machine is busy must not make the work endless.
const PAUSE_MAX: Duration = Duration::from_millis(30);

type Job = Box<dyn FnOnce() + Send>;

/// What the thread of the whole process for [`run`] takes; as many wait as there are callers.
static JOBS: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

/// Lets all other threads go before the calling one, for good; without effect where the system does not allow it.
pub fn give_way() {
    let thread = rustix::thread::gettid();
    let _ = rustix::process::setpriority_process(Some(thread), NICE);
}

/// The pace of long work that is done in small steps: it leaves a busy member its processors.
pub struct Pace {
    view: Arc<View>,
    applied: u64,
}

impl Pace {
    /// Begins at what the member has applied by now.
    #[must_use]
    pub fn new(view: Arc<View>) -> Self {
        Self {
            applied: view.applied(),
            view,
        }
    }

    /// Returns how long nothing is to be done after work that took so long: not at all while the member applies nothing.
    pub fn pause(&mut self, worked: Duration) -> Duration {
        let applied = self.view.applied();
        let has_applied = std::mem::replace(&mut self.applied, applied) != applied;
        pause_after(worked, has_applied)
    }

    /// Runs a step in the background, one of the whole process at a time, and pauses after it.
    pub(crate) async fn step<T: Send + 'static, R: Send + 'static>(
        &mut self,
        mut what: T,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<(T, R), Status> {
        let done = run(move || {
            let begun = Instant::now();
            let done = work(&mut what);
            (what, done, begun.elapsed())
        });
        let (what, done, worked) = done.await?;
        let pause = self.pause(worked);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok((what, done))
    }
}

fn pause_after(worked: Duration, has_applied: bool) -> Duration {
    if has_applied {
        PAUSE_MAX.min(worked * PAUSE_FACTOR)
    } else {
        Duration::ZERO
    }
}

/// Runs something on the one thread of the process that gives way. What nobody waits for any more is not begun.
async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let (done, is_done) = oneshot::channel();
    let job = move || {
        if !done.is_closed() {
            let _ = done.send(work());
        }
    };
    begin(Box::new(job)).map_err(|e| Status::new(Code::Unknown, e.to_string()))?;
    // It fails only when the thread ended in a panic.
    is_done.await.map_err(|_| Status::STOPPED)
}

fn begin(job: Job) -> io::Result<()> {
    let mut jobs = JOBS.lock();
    let job = match &*jobs {
        None => job,
        Some(jobs) => match jobs.send(job) {
            Ok(()) => return Ok(()),
            Err(mpsc::SendError(job)) => job,
        },
    };
    let (sender, queue) = mpsc::channel::<Job>();
    let named = thread::Builder::new().name("background".to_owned());
    named.spawn(move || {
        give_way();
        job();
        queue.into_iter().for_each(|job| job());
    })?;
    *jobs = Some(sender);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_one_after_the_other_by_a_thread_that_gives_way() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let who = || {
            let thread = rustix::thread::gettid();
            let nice = rustix::process::getpriority_process(Some(thread)).unwrap();
            (thread, nice)
        };
        let before = who();
        let first = runtime.block_on(run(who)).unwrap();
        let second = runtime.block_on(run(who)).unwrap();
        assert_eq!(first, second);
        assert_ne!(first.0, before.0);
        assert_eq!(first.1, NICE.max(before.1));
        assert_eq!(who(), before);
    }

    #[test]
    fn work_pauses_only_while_the_member_applies() {
        let worked = Duration::from_millis(2);
        assert_eq!(pause_after(worked, false), Duration::ZERO);
        assert_eq!(pause_after(worked, true), worked * PAUSE_FACTOR);
        assert_eq!(pause_after(Duration::from_secs(9), true), PAUSE_MAX);
    }

    #[test]
    fn work_that_nobody_waits_for_is_not_begun() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (go, gone) = mpsc::channel::<()>();
            let mut first = Box::pin(run(move || gone.recv()));
            let mut second = Box::pin(run(|| unreachable!("its caller has gone")));
            tokio::select! {
                biased;
                _ = &mut first => unreachable!("it is told to end below"),
                _ = &mut second => unreachable!("it stands behind"),
                () = std::future::ready(()) => {}
            }
            drop(second);
            go.send(()).unwrap();
            first.await.unwrap().unwrap();
            run(|| ()).await.unwrap();
        });
    }
}
