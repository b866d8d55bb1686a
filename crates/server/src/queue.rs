//! The engine's inbox: everything that happens to a member, in one bounded queue.
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use quorate_core::{Intake, Stores, Submission};
use quorate_proto::MemberId;
use quorate_proto::raftpb::Message;
use quorate_wal::Synced;

/// Submissions that may wait for the engine at once.
const MAX_SUBMISSIONS: usize = 100_000;
/// Messages of other members that may wait; more are dropped, and raft sends again.
const MAX_MESSAGES: usize = 8_192;
/// Bytes of entries in them; a single message is taken whatever it holds.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Other events from outside the engine that may wait; more tell nothing new.
const MAX_REPORTS: usize = 4_096;

/// What reaches the engine besides submissions and time. Bounded by what the engine itself has under way.
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
    /// A leader sends its state, whose image is stored durably and named by the message's index.
    PeerSnapshot(Box<Message>),
    /// A snapshot sent to a member arrived, or never will.
    SnapshotSent {
        /// The member.
        id: MemberId,
        /// Whether it arrived.
        ok: bool,
    },
    /// A message to this member was lost, or is likely to be.
    Unreachable(MemberId),
    /// Others say that this member is none any more.
    Removed,
    /// Members told their versions, or did not.
    MemberVersions(Vec<(MemberId, Option<String>)>),
    /// The database of a received snapshot is in place and restored.
    Installed(Box<Stores>),
    /// A thread failed for good: the member must end.
    Fatal(String),
    /// An operator asked for the end.
    Stop,
}

#[derive(Default)]
struct Inbox {
    submissions: Vec<Submission>,
    events: Vec<Event>,
    messages: Vec<Message>,
    message_bytes: usize,
    /// Whether the engine sleeps and wants to be woken.
    sleeping: bool,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.events.is_empty() && self.messages.is_empty()
    }
}

/// What the engine takes out in one turn.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) submissions: Vec<Submission>,
    pub(crate) events: Vec<Event>,
    pub(crate) messages: Vec<Message>,
}

impl Taken {
    fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.events.is_empty() && self.messages.is_empty()
    }
}

fn entry_bytes(entry: &quorate_proto::raftpb::Entry) -> usize {
    entry.data.as_ref().map_or(0, bytes::Bytes::len)
}

/// The queue's two ends in one: any thread may put in, only the engine takes out.
#[derive(Clone, Default)]
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
        self.shared.0.lock().is_empty()
    }

    /// Puts the word in that a member cannot be reached; one too many is dropped, because the next one says the same.
    pub(crate) fn push_unreachable(&self, id: MemberId) {
        let (inbox, wake) = &*self.shared;
        let mut inbox = inbox.lock();
        let known = |e: &Event| matches!(e, Event::Unreachable(other) if *other == id);
        if inbox.events.len() >= MAX_REPORTS || inbox.events.iter().any(known) {
            return;
        }
        inbox.events.push(Event::Unreachable(id));
        if std::mem::take(&mut inbox.sleeping) {
            wake.notify_one();
        }
    }

    /// Puts messages in and returns how many found no room.
    pub(crate) fn push_messages(&self, messages: Vec<Message>) -> usize {
        let (inbox, wake) = &*self.shared;
        let mut inbox = inbox.lock();
        let mut dropped = 0;
        for message in messages {
            let bytes: usize = message.entries.iter().map(entry_bytes).sum();
            let is_full = inbox.messages.len() >= MAX_MESSAGES
                || inbox.message_bytes > 0 && inbox.message_bytes + bytes > MAX_MESSAGE_BYTES;
            if is_full {
                dropped += 1;
            } else {
                inbox.message_bytes += bytes;
                inbox.messages.push(message);
            }
        }
        if std::mem::take(&mut inbox.sleeping) {
            wake.notify_one();
        }
        dropped
    }

    /// Takes everything out, waiting for something until `until`. The vectors given are swapped in, so that their room
    /// is used again.
    pub(crate) fn take(&self, until: Instant, taken: &mut Taken) {
        debug_assert!(taken.is_empty());
        let (inbox, wake) = &*self.shared;
        let mut inbox = inbox.lock();
        while inbox.is_empty() {
            inbox.sleeping = true;
            if wake.wait_until(&mut inbox, until).timed_out() {
                break;
            }
        }
        inbox.sleeping = false;
        inbox.message_bytes = 0;
        std::mem::swap(&mut inbox.submissions, &mut taken.submissions);
        std::mem::swap(&mut inbox.events, &mut taken.events);
        std::mem::swap(&mut inbox.messages, &mut taken.messages);
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
        let mut taken = Taken::default();
        queue.take(Instant::now(), &mut taken);
        assert_eq!(taken.submissions.len(), MAX_SUBMISSIONS);
        assert_eq!(
            taken.submissions[1],
            Submission::ReadIndex { token: Token(1) }
        );
    }

    #[test]
    fn a_sleeping_engine_is_woken_by_an_event() {
        let queue = Queue::default();
        let other = queue.clone();
        let thread = std::thread::spawn(move || other.push(Event::Compacted));
        let mut taken = Taken::default();
        queue.take(Instant::now() + Duration::from_secs(60), &mut taken);
        assert_eq!(taken.events.len(), 1);
        thread.join().unwrap();
    }

    #[test]
    fn messages_are_bounded_in_number_and_bytes_but_one_is_always_taken() {
        let of = |bytes: usize| Message {
            entries: vec![quorate_proto::raftpb::Entry {
                data: Some(vec![0; bytes].into()),
                ..Default::default()
            }],
            ..Message::default()
        };
        let queue = Queue::default();
        let huge = of(MAX_MESSAGE_BYTES + 1);
        assert_eq!(queue.push_messages(vec![huge, of(1), of(0)]), 2);
        queue.take(Instant::now(), &mut Taken::default());
        let many = vec![Message::default(); MAX_MESSAGES + 3];
        assert_eq!(queue.push_messages(many), 3);
        for _ in 0..3 {
            queue.push_unreachable(MemberId(1));
        }
        let mut taken = Taken::default();
        queue.take(Instant::now(), &mut taken);
        assert_eq!(
            (taken.messages.len(), taken.events.len()),
            (MAX_MESSAGES, 1)
        );
    }
}
