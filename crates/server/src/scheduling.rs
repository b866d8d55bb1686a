//! How the process' threads come by a processor: at once, or in their turn.
//!
//! A thread that is woken takes the processor from another one, so that what it was woken for is done at once. With few calls
//! under way that is what makes them quick. With many, and all processors busy, each thread then runs for the one or two
//! things that have come so far, which cost less than getting there does. In their turn (Linux: `SCHED_BATCH`) the threads
//! find more to do each time, and all calls are done sooner.
//!
//! | state | callers at one time, at most, between two looks | state then |
//! |---|---|---|
//! | at once | fewer than [`MANY`] | at once |
//! | at once | more | in turn |
//! | in turn | fewer than [`FEW`], at [`CALM_LOOKS`] looks in a row | at once |
//! | in turn | any other | in turn |
//!
//! A sole voter's threads stay as they are: it waits for its own disk alone, and gathers what comes meanwhile anyway.
use std::fs;
use std::time::Duration;

/// How often the callers are looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Callers that wait for the engine at one time from which on threads take turns.
const MANY: usize = 48;
/// Callers below which there are few.
const FEW: usize = 24;
/// Looks in a row that find few callers before threads run at once again.
const CALM_LOOKS: u32 = 5;

/// Who decides about it.
pub(crate) struct Scheduling {
    /// Whether the process runs under the usual policy: one that an operator has set stays.
    is_free: bool,
    in_turn: bool,
    calm_looks: u32,
}

impl Scheduling {
    pub(crate) fn new() -> Self {
        Self {
            is_free: has_usual_policy(),
            in_turn: false,
            calm_looks: 0,
        }
    }

    /// Takes the most callers that waited at one time since the last look, and whether the member is the only voter.
    pub(crate) fn look(&mut self, most_waiting: usize, is_alone: bool) {
        if self.is_free && self.judge(most_waiting, is_alone) {
            let policy = if self.in_turn {
                libc::SCHED_BATCH
            } else {
                libc::SCHED_OTHER
            };
            set_policy_of_all(policy);
        }
    }

    /// Says whether the state changes.
    fn judge(&mut self, most_waiting: usize, is_alone: bool) -> bool {
        if !self.in_turn {
            self.in_turn = most_waiting >= MANY && !is_alone;
            self.calm_looks = 0;
            return self.in_turn;
        }
        let is_calm = most_waiting < FEW || is_alone;
        self.calm_looks = if is_calm { self.calm_looks + 1 } else { 0 };
        self.in_turn = self.calm_looks < CALM_LOOKS;
        !self.in_turn
    }
}

/// Sets the policy of every thread there is; those that they start later take it over. A system that refuses leaves all as
/// it is.
fn set_policy_of_all(policy: i32) {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return;
    };
    let names = threads.flatten().map(|thread| thread.file_name());
    for id in names.filter_map(|name| name.to_str()?.parse().ok()) {
        set_policy(id, policy);
    }
}

#[expect(unsafe_code, reason = "the system's call has no safe form")]
fn set_policy(thread: i32, policy: i32) {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads `usual`, which lives until it is back, and touches no other memory of the process. A thread that
    // is gone, or another's that has its number by now, is refused or, if it is ours, meant as well.
    let _ = unsafe { libc::sched_setscheduler(thread, policy, &raw const usual) };
}

#[expect(unsafe_code, reason = "the system's call has no safe form")]
fn has_usual_policy() -> bool {
    // SAFETY: the call touches no memory of the process.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_OTHER }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduling() -> Scheduling {
        Scheduling {
            is_free: false,
            in_turn: false,
            calm_looks: 0,
        }
    }

    #[test]
    fn threads_take_turns_from_many_callers_on_until_there_have_been_few_for_long() {
        let mut scheduling = scheduling();
        let mut turns = |looks: &[usize]| -> Vec<bool> {
            let look = |most: &usize| {
                scheduling.judge(*most, false);
                scheduling.in_turn
            };
            looks.iter().map(look).collect()
        };
        assert_eq!(turns(&[0, FEW, MANY - 1]), [false, false, false]);
        assert_eq!(turns(&[MANY, 0, 0, FEW]), [true, true, true, true]);
        assert_eq!(turns(&[0, 0, 0, FEW - 1]), [true, true, true, true]);
        assert_eq!(turns(&[0, 0]), [false, false]);
    }

    #[test]
    fn threads_of_a_sole_voter_stay_as_they_are() {
        let mut scheduling = scheduling();
        assert!(!scheduling.judge(MANY, true));
        assert!(scheduling.judge(MANY, false));
        for _ in 1..CALM_LOOKS {
            assert!(!scheduling.judge(MANY, true));
        }
        assert!(scheduling.judge(MANY, true) && !scheduling.in_turn);
    }

    #[test]
    fn every_thread_gets_the_policy_and_loses_it_again() {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = fs::read_link("/proc/thread-self").unwrap();
            ready.send(own.file_name().unwrap().to_owned()).unwrap();
            let _ = ended.recv();
        });
        let id = is_ready.recv().unwrap().into_string().unwrap();
        for policy in [libc::SCHED_BATCH, libc::SCHED_OTHER] {
            set_policy_of_all(policy);
            assert_eq!(policy_of(&id), policy);
        }
        drop(end);
        thread.join().unwrap();
    }

    /// The 41st field of a thread's stat, see proc(5); the second may hold blanks and ends with a bracket.
    fn policy_of(id: &str) -> i32 {
        let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields
            .split_whitespace()
            .nth(41 - 3)
            .unwrap()
            .parse()
            .unwrap()
    }
}
