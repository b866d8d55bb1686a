//! The engine's inbox: everything that happens to a member, in one bounded queue.
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use quorate_core::{Intake, Submission};
use quorate_wal::Synced;

/// Submissions that may wait for the engine at once.
const MAX_SUBMISSIONS: usize = 100_000;

/// What reaches the engine besides submissions and time. Bounded by what the engine itself has under way.
#[derive(Debug)]
pub(crate) enum Event {
    /// The log has synced up to a ticket.
    Synced(Synced),
    /// The backend has flushed.
    Flushed,
    /// A compaction is done.
    Compacted,
    /// A snapshot file is durable.
    SnapshotSaved {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// A thread failed for good: the member must end.
    Fatal(String),
    /// An operator asked for the end.
    Stop,
}

#[derive(Debug, Default)]
struct Inbox {
    submissions: Vec<Submission>,
    events: Vec<Event>,
    /// Whether the engine sleeps and wants to be woken.
    sleeping: bool,
}

/// The queue's two ends in one: any thread may put in, only the engine takes out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    shared: Arc<(Mutex<Inbox>, Condvar)>,
}

impl Queue {
    /// Puts an event in.
    pub(crate) fn push(&self, event: Event) {
        let (inbox, wake) = &*self.shared;
        let mut inbox = inbox.lock();
        inbox.events.push(event);
        if std::mem::take(&mut inbox.sleeping) {
            wake.notify_one();
        }
    }

    /// Says whether nothing waits for the engine.
    pub(crate) fn is_empty(&self) -> bool {
        let inbox = self.shared.0.lock();
        inbox.submissions.is_empty() && inbox.events.is_empty()
    }

    /// Takes everything out, waiting for something until `until`. The vectors given are swapped in, so that their room
    /// is used again.
    pub(crate) fn take(
        &self,
        until: Instant,
        submissions: &mut Vec<Submission>,
        events: &mut Vec<Event>,
    ) {
        debug_assert!(submissions.is_empty() && events.is_empty());
        let (inbox, wake) = &*self.shared;
        let mut inbox = inbox.lock();
        while inbox.submissions.is_empty() && inbox.events.is_empty() {
            inbox.sleeping = true;
            if wake.wait_until(&mut inbox, until).timed_out() {
                break;
            }
        }
        inbox.sleeping = false;
        std::mem::swap(&mut inbox.submissions, submissions);
        std::mem::swap(&mut inbox.events, events);
    }
}

impl Intake for Queue {
    fn submit(&self, submissions: &mut Vec<Submission>) {
        let (inbox, wake) = &*self.shared;
        let mut inbox = inbox.lock();
        let room = MAX_SUBMISSIONS
            .saturating_sub(inbox.submissions.len())
            .min(submissions.len());
        inbox.submissions.extend(submissions.drain(..room));
        if std::mem::take(&mut inbox.sleeping) {
            wake.notify_one();
        }
    }

    fn fail(&self, why: String) {
        self.push(Event::Fatal(why));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_core::Token;

    use super::*;

    #[test]
    fn what_finds_no_room_stays_with_the_caller() {
        let queue = Queue::default();
        let mut many: Vec<_> = (0..MAX_SUBMISSIONS as u64 + 2)
            .map(|t| Submission::ReadIndex { token: Token(t) })
            .collect();
        queue.submit(&mut many);
        assert_eq!(many.len(), 2);
        let (mut submissions, mut events) = (Vec::new(), Vec::new());
        queue.take(Instant::now(), &mut submissions, &mut events);
        assert_eq!(submissions.len(), MAX_SUBMISSIONS);
        assert_eq!(submissions[1], Submission::ReadIndex { token: Token(1) });
    }

    #[test]
    fn a_sleeping_engine_is_woken_by_an_event() {
        let queue = Queue::default();
        let other = queue.clone();
        let thread = std::thread::spawn(move || other.push(Event::Compacted));
        let (mut submissions, mut events) = (Vec::new(), Vec::new());
        queue.take(
            Instant::now() + Duration::from_secs(60),
            &mut submissions,
            &mut events,
        );
        assert_eq!(events.len(), 1);
        thread.join().unwrap();
    }
}
