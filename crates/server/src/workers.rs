//! The threads that touch the disk: the log's, the backend's, and one for slow odds and ends.
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate_backend::FlushJob;
use quorate_core::SnapshotToSave;
use quorate_mvcc::{CompactionJob, Progress};
use quorate_snap::{Snapshot, SnapshotId, Snapshotter};
use quorate_wal::{PrepareJob, Preparing, Wal};

use crate::log_writer::{Log, LogOrder, LogWriter, run_log};
use crate::metrics::{CompactionTimer, Metrics};
use crate::queue::{Event, Queue};

/// Jobs that may wait for the backend's or the chores' thread; the engine has at most one of each kind under way.
const MAX_JOBS: usize = 16;
/// Pause between two steps of preparing a log segment, which leaves the disk to those who wait for it.
const PREPARE_PAUSE: Duration = Duration::from_millis(2);

/// What the backend's thread is told.
pub(crate) enum BackendOrder {
    Flush(FlushJob),
    Compact(CompactionJob),
    Stop,
}

/// What the chores' thread is told.
pub(crate) enum Chore {
    Save(SnapshotToSave),
    Prepare(PrepareJob),
    Stop,
}

/// The threads' ends of their queues.
pub(crate) struct Workers {
    pub(crate) log: Log,
    pub(crate) backend: SyncSender<BackendOrder>,
    pub(crate) chores: SyncSender<Chore>,
    threads: Vec<JoinHandle<()>>,
}

/// Settings of the threads.
#[derive(Clone, Debug)]
pub(crate) struct WorkerOptions {
    /// Pause between two steps of a compaction.
    pub(crate) compaction_pause: Duration,
    /// Snapshot files kept.
    pub(crate) keep_snapshots: usize,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        wal: Wal,
        snapshotter: Snapshotter,
        queue: &Queue,
        metrics: &Metrics,
        options: &WorkerOptions,
    ) -> std::io::Result<Self> {
        let (backend, backend_orders) = sync_channel(MAX_JOBS);
        let (chores, chore_orders) = sync_channel(MAX_JOBS);
        let mut threads = Vec::new();
        let writer = LogWriter::new(wal, chores.clone());
        let (log, log_orders, writer) = Log::new(writer);
        let events = queue.clone();
        threads.push(spawn("wal", move || {
            run_log(&writer, &log_orders, &events)
        })?);
        let (events, pause, meters) = (queue.clone(), options.compaction_pause, metrics.clone());
        threads.push(spawn("backend", move || {
            run_backend(&backend_orders, &events, pause, &meters)
        })?);
        let (events, to_log, keep) = (queue.clone(), log.orders(), options.keep_snapshots);
        threads.push(spawn("chores", move || {
            run_chores(snapshotter, &chore_orders, &events, &to_log, keep)
        })?);
        Ok(Self {
            log,
            backend,
            chores,
            threads,
        })
    }

    /// Ends the threads after all they were told, and waits for them.
    pub(crate) fn join(mut self) {
        // An end that has gone ended with a fatal event, which the engine knows of.
        let _ = self.chores.send(Chore::Stop);
        let _ = self.backend.send(BackendOrder::Stop);
        self.log.send(LogOrder::Stop);
        for thread in self.threads {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Flushes come before compaction steps, so that a long compaction never delays one.
fn run_backend(orders: &Receiver<BackendOrder>, queue: &Queue, pause: Duration, metrics: &Metrics) {
    let mut compaction: Option<(CompactionJob, CompactionTimer)> = None;
    let mut next_step = Instant::now();
    loop {
        let order = if compaction.is_some() {
            orders.recv_timeout(next_step.saturating_duration_since(Instant::now()))
        } else {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match order {
            Ok(BackendOrder::Flush(job)) => {
                let started = metrics.clock();
                match job.run() {
                    Ok(_) => queue.push(Event::Flushed),
                    Err(e) => {
                        return queue.push(Event::Fatal(format!("cannot flush the backend: {e}")));
                    }
                }
                metrics.backend_commit(started);
            }
            Ok(BackendOrder::Compact(job)) => {
                compaction = Some((job, metrics.compaction()));
                next_step = Instant::now();
            }
            Ok(BackendOrder::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() < next_step {
            continue;
        }
        let Some((mut job, mut timer)) = compaction.take() else {
            continue;
        };
        match timer.step(&mut job) {
            Ok(Progress::Done(summary)) => {
                timer.end(&summary);
                queue.push(Event::Compacted);
            }
            Ok(_) => {
                compaction = Some((job, timer));
                next_step = Instant::now() + pause;
            }
            Err(e) => return queue.push(Event::Fatal(format!("cannot compact: {e}"))),
        }
    }
}

/// Preparing a log segment goes on in steps between other chores.
fn run_chores(
    snapshotter: Snapshotter,
    orders: &Receiver<Chore>,
    queue: &Queue,
    log: &SyncSender<LogOrder>,
    keep: usize,
) {
    let mut preparing: Option<PrepareJob> = None;
    loop {
        let chore = match preparing {
            Some(_) => orders.recv_timeout(PREPARE_PAUSE),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match chore {
            Ok(Chore::Save(snapshot)) => {
                if let Err(e) = save(&snapshotter, snapshot, queue, keep) {
                    return queue.push(Event::Fatal(format!("cannot save a snapshot: {e}")));
                }
            }
            Ok(Chore::Prepare(job)) => preparing = Some(job),
            // A segment that is not finished is removed at the next opening.
            Ok(Chore::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        preparing = match preparing.map(PrepareJob::step) {
            None => None,
            Some(Ok(Preparing::More(job))) => Some(job),
            Some(Ok(Preparing::Done(segment))) => {
                let _ = log.try_send(LogOrder::Prepared(segment));
                None
            }
            Some(Err(e)) => {
                tracing::warn!(error = %e, "failed to prepare the next log segment");
                None
            }
        };
    }
}

fn save(
    snapshotter: &Snapshotter,
    snapshot: SnapshotToSave,
    queue: &Queue,
    keep: usize,
) -> Result<(), quorate_snap::Error> {
    let (index, term) = (snapshot.index, snapshot.term);
    snapshotter.save(&Snapshot {
        id: SnapshotId { term, index },
        body: snapshot.body,
    })?;
    queue.push(Event::SnapshotSaved { index, term });
    if let Err(e) = snapshotter.release(keep) {
        tracing::warn!(error = %e, "failed to remove old snapshot files");
    }
    Ok(())
}
