//! The engine's inbox: everything that happens to a member, in one bounded queue, and who works it off.
//!
//! | who | when |
//! |---|---|
//! | whoever put something small in | nobody is at it, and the member has others to hear from: what it does then waits for no sync, at most for reads of the database |
//! | whoever is at it | it looks again before it lets go, so that nobody need be woken |
//! | the engine's thread | all else: what is large or rare, what a sole voter writes, the ticks |
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
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
/// Submissions, messages, and bytes of entries in these that whoever put them in works off itself at most.
const MAX_HELPED: usize = 64;
const MAX_HELPED_BYTES: usize = 64 << 10;
/// Turns that a helper takes at most before it goes back to its own work. The log's thread takes one: what it is given to
/// write meanwhile waits for it.
const MAX_HELPED_TURNS: u32 = 4;
const MAX_TURNS_OF_LOG: u32 = 1;

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

/// Takes turns of the engine on any thread.
pub(crate) trait Turns: Send + Sync {
    /// Works off what is in the inbox, on behalf of the caller of [`Queue`], which has made it the inbox' owner. Ends
    /// with [`Queue::release`] saying that it is none any more, after `turns_max` turns at the latest.
    fn help(&self, turns_max: u32);
}

/// Who is at a turn.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    /// A thread that put something in.
    Helper,
    /// The engine's thread.
    Engine,
}

#[derive(Default)]
struct Inbox {
    submissions: Vec<Submission>,
    events: Vec<Event>,
    messages: Vec<Message>,
    message_bytes: usize,
    /// Whether there is an event that only the engine's own thread should take.
    has_rare: bool,
    /// Who is at a turn. Whoever it is looks at the inbox again before it lets go.
    owner: Owner,
    /// Whether others than the engine's thread may take turns.
    takes_help: bool,
    /// Whether the engine's thread sleeps and wants to be woken for what is put in.
    sleeping: bool,
    /// Whether the engine's thread has a tick to do and waits for the owner to let go. Nobody else takes a turn then.
    waits_for_owner: bool,
    /// Whether the engine has come to its end, which its thread must hear of.
    is_over: bool,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        let is_empty = self.submissions.is_empty() && self.events.is_empty();
        is_empty && self.messages.is_empty() && !self.is_over
    }

    /// Says whether somebody else than the engine's thread may work it off.
    fn is_for_helpers(&self) -> bool {
        self.takes_help
            && !self.waits_for_owner
            && !self.is_over
            && !self.has_rare
            && self.submissions.len() <= MAX_HELPED
            && self.messages.len() <= MAX_HELPED
            && self.message_bytes <= MAX_HELPED_BYTES
    }

    fn take(&mut self, taken: &mut Taken) {
        self.message_bytes = 0;
        self.has_rare = false;
        std::mem::swap(&mut self.submissions, &mut taken.submissions);
        std::mem::swap(&mut self.events, &mut taken.events);
        std::mem::swap(&mut self.messages, &mut taken.messages);
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

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    helper: OnceLock<Weak<dyn Turns>>,
}

/// The queue's two ends in one: any thread may put in, one at a time takes out.
#[derive(Clone, Default)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

impl Queue {
    /// Lets threads that put something in take turns themselves. Only the first call counts.
    pub(crate) fn set_helper(&self, helper: Weak<dyn Turns>) {
        let _ = self.shared.helper.set(helper);
    }

    /// Puts an event in.
    pub(crate) fn push(&self, event: Event) {
        let mut inbox = self.shared.inbox.lock();
        inbox.events.push(event);
        inbox.has_rare = true;
        self.was_put_in(inbox, 0);
    }

    /// Puts the log's word in. A log that has nothing more to write may do what follows from it.
    pub(crate) fn push_synced(&self, synced: Synced, may_help: bool) {
        let mut inbox = self.shared.inbox.lock();
        inbox.events.push(Event::Synced(synced));
        let turns_max = if may_help { MAX_TURNS_OF_LOG } else { 0 };
        self.was_put_in(inbox, turns_max);
    }

    /// Sees to it that somebody looks at the inbox: the caller if it has time for turns, which nobody else takes now.
    fn was_put_in(&self, mut inbox: MutexGuard<'_, Inbox>, turns_max: u32) {
        if inbox.owner != Owner::Nobody {
            return;
        }
        if turns_max > 0
            && inbox.is_for_helpers()
            && let Some(helper) = self.shared.helper.get().and_then(Weak::upgrade)
        {
            inbox.owner = Owner::Helper;
            drop(inbox);
            helper.help(turns_max);
        } else if std::mem::take(&mut inbox.sleeping) {
            self.shared.wake.notify_one();
        }
    }

    /// Takes what is there, for a helper, which owns the inbox; nothing if by now there is more than a helper should do.
    pub(crate) fn take_now(&self, taken: &mut Taken) {
        debug_assert!(taken.is_empty());
        let mut inbox = self.shared.inbox.lock();
        if inbox.is_for_helpers() {
            inbox.take(taken);
        }
    }

    /// Lets a helper go; `false` when there is more that it should do first, if it likes to stay. What is left is for the
    /// engine's thread, and so is the end.
    pub(crate) fn release(&self, likes_to_stay: bool, takes_help: bool, is_over: bool) -> bool {
        let mut inbox = self.shared.inbox.lock();
        inbox.takes_help = takes_help;
        inbox.is_over |= is_over;
        if likes_to_stay && !inbox.is_empty() && inbox.is_for_helpers() {
            return false;
        }
        inbox.owner = Owner::Nobody;
        let is_due = inbox.waits_for_owner || !inbox.is_empty();
        if is_due && std::mem::take(&mut inbox.sleeping) {
            self.shared.wake.notify_one();
        }
        true
    }

    /// Says whether nothing waits for the engine.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.inbox.lock().is_empty()
    }

    /// Puts the word in that a member cannot be reached; one too many is dropped, because the next one says the same.
    pub(crate) fn push_unreachable(&self, id: MemberId) {
        let mut inbox = self.shared.inbox.lock();
        let known = |e: &Event| matches!(e, Event::Unreachable(other) if *other == id);
        if inbox.events.len() >= MAX_REPORTS || inbox.events.iter().any(known) {
            return;
        }
        inbox.events.push(Event::Unreachable(id));
        self.was_put_in(inbox, 0);
    }

    /// Puts messages in and returns how many found no room.
    pub(crate) fn push_messages(&self, messages: Vec<Message>) -> usize {
        let mut inbox = self.shared.inbox.lock();
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
        self.was_put_in(inbox, MAX_HELPED_TURNS);
        dropped
    }

    /// Takes everything out, waiting for something until `until`, and owns the inbox until the next call; for the engine's
    /// thread. The vectors given are swapped in, so that their room is used again.
    pub(crate) fn take(&self, until: Instant, takes_help: bool, taken: &mut Taken) {
        debug_assert!(taken.is_empty());
        let Shared { inbox, wake, .. } = &*self.shared;
        let mut inbox = inbox.lock();
        if inbox.owner == Owner::Engine {
            inbox.owner = Owner::Nobody;
        }
        inbox.takes_help = takes_help;
        let mut is_due = false;
        while inbox.owner != Owner::Nobody || inbox.is_empty() && !is_due {
            inbox.sleeping = true;
            if is_due {
                inbox.waits_for_owner = true;
                wake.wait(&mut inbox);
            } else {
                is_due = wake.wait_until(&mut inbox, until).timed_out();
            }
        }
        inbox.sleeping = false;
        inbox.waits_for_owner = false;
        inbox.owner = Owner::Engine;
        inbox.take(taken);
    }
}

impl Intake for Queue {
    fn submit(&self, submissions: &mut Vec<Submission>) {
        let mut inbox = self.shared.inbox.lock();
        let room = MAX_SUBMISSIONS
            .saturating_sub(inbox.submissions.len())
            .min(submissions.len());
        inbox.submissions.extend(submissions.drain(..room));
        self.was_put_in(inbox, MAX_HELPED_TURNS);
    }

    fn fail(&self, why: String) {
        self.push(Event::Fatal(why));
    }
}

#[cfg(test)]
mod tests;
