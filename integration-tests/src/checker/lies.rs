//! Recordings made wrong on purpose: what the checker must notice in a recording that was right.

use bytes::Bytes;

use super::evaluate::says_changed;
use super::record::{Message, OpResult, Reading, Recording, Reply, Request, Watch};

/// How a recording is made wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A client says that a write was acknowledged which never took effect.
    LostWrite,
    /// A linearizable read shows an older state, with that state's revision.
    StaleRead,
    /// A serializable read shows a value that was never there.
    InventedRead,
    /// Two acknowledged writes have their revisions exchanged.
    SwappedWrites,
    /// Two writes are acknowledged with one revision.
    SameRevision,
    /// A comparison that failed is said to have held.
    FalseSuccess,
    /// A watch leaves an event out.
    WatchGap,
    /// A watch brings a revision twice.
    WatchTwice,
    /// A watch brings two revisions in the wrong order.
    WatchOrder,
    /// A lease was promised for longer than it lived.
    EarlyEnd,
    /// One member's hash differs.
    OtherHash,
}

impl Lie {
    /// All of them.
    pub const ALL: [Lie; 11] = [
        Lie::LostWrite,
        Lie::StaleRead,
        Lie::InventedRead,
        Lie::SwappedWrites,
        Lie::SameRevision,
        Lie::FalseSuccess,
        Lie::WatchGap,
        Lie::WatchTwice,
        Lie::WatchOrder,
        Lie::EarlyEnd,
        Lie::OtherHash,
    ];

    /// Makes a recording wrong; `false` when it has nothing that could be.
    #[must_use]
    pub fn tell(self, recording: &mut Recording) -> bool {
        let told = match self {
            Lie::LostWrite => lose_write(recording),
            Lie::StaleRead => make_stale(recording),
            Lie::InventedRead => invent(recording),
            Lie::SwappedWrites => swap_writes(recording),
            Lie::SameRevision => same_revision(recording),
            Lie::FalseSuccess => false_success(recording),
            Lie::WatchGap => on_watch(recording, |messages| {
                let wide = messages.iter_mut().filter(|m| !m.events.is_empty());
                wide.rev().nth(1).map(|message| message.events.clear())
            }),
            Lie::WatchTwice => on_watch(recording, |messages| {
                let again = messages
                    .iter()
                    .rev()
                    .find(|m| !m.events.is_empty())?
                    .clone();
                messages.push(again);
                Some(())
            }),
            Lie::WatchOrder => on_watch(recording, |messages| {
                let full = |message: &&mut Message| !message.events.is_empty();
                let mut last = messages.iter_mut().rev().filter(full);
                let (one, other) = (last.next()?, last.next()?);
                std::mem::swap(&mut one.events, &mut other.events);
                Some(())
            }),
            Lie::EarlyEnd => promise_longer(recording),
            Lie::OtherHash => other_hash(recording),
        };
        told.is_some()
    }
}

/// The acknowledged writes of keys, in the order of their revisions.
fn writes(recording: &Recording) -> Vec<usize> {
    let mut found: Vec<(i64, usize)> = Vec::new();
    for (number, call) in recording.calls.iter().enumerate() {
        if let (Request::Keys(_), Some(answer)) = (&call.request, call.reply.answer())
            && says_changed(&answer.results)
        {
            found.push((answer.revision, number));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, number)| number).collect()
}

fn lose_write(recording: &mut Recording) -> Option<()> {
    let middle = writes(recording);
    let mut lost = recording.calls[*middle.get(middle.len() / 2)?].clone();
    lost.request = Request::put(b"lost", b"a value that no member ever saw", 0);
    if let Reply::Done(answer) = &mut lost.reply {
        answer.results = vec![OpResult::Put(None)];
        answer.succeeded = true;
        // Behind everything: the history ends before it.
        answer.revision += 1_000_000_000;
    }
    recording.calls.push(lost);
    Some(())
}

fn make_stale(recording: &mut Recording) -> Option<()> {
    let answer_of =
        |recording: &Recording, number: usize| recording.calls[number].reply.answer().cloned();
    let reads: Vec<usize> = (0..recording.calls.len())
        .filter(|number| {
            let call = &recording.calls[*number];
            let is_range = matches!(&call.request, Request::Keys(txn) if txn.reading == Reading::Linearizable && txn.at == 0);
            let is_read = call.reply.answer().is_some_and(|a| matches!(a.results[..], [OpResult::Range(_)]));
            is_range && is_read
        })
        .collect();
    for later in &reads {
        for earlier in &reads {
            let (old, new) = (&recording.calls[*earlier], &recording.calls[*later]);
            let (from, to) = (
                answer_of(recording, *earlier)?,
                answer_of(recording, *later)?,
            );
            if old.request == new.request
                && old.ended_us < new.begun_us
                && from.revision < to.revision
            {
                recording.calls[*later].reply = Reply::Done(from);
                return Some(());
            }
        }
    }
    None
}

fn invent(recording: &mut Recording) -> Option<()> {
    let is_local = |request: &Request| matches!(request, Request::Keys(txn) if txn.reading == Reading::Serializable);
    let calls = recording.calls.iter_mut();
    for call in calls.filter(|call| is_local(&call.request)) {
        if let Reply::Done(answer) = &mut call.reply
            && let Some(OpResult::Range(kvs)) = answer.results.first_mut()
            && let Some(kv) = kvs.first_mut()
        {
            kv.value = Bytes::from_static(b"nobody wrote this");
            return Some(());
        }
    }
    None
}

fn swap_writes(recording: &mut Recording) -> Option<()> {
    let writes = writes(recording);
    let (one, other) = (*writes.first()?, *writes.last()?);
    let revision = |number: usize| recording.calls[number].reply.answer().map(|a| a.revision);
    let (first, last) = (revision(one)?, revision(other)?);
    for (number, revision) in [(one, last), (other, first)] {
        if let Reply::Done(answer) = &mut recording.calls[number].reply {
            answer.revision = revision;
        }
    }
    (first != last).then_some(())
}

fn same_revision(recording: &mut Recording) -> Option<()> {
    let writes = writes(recording);
    let (one, other) = (*writes.first()?, *writes.last()?);
    let revision = recording.calls[one].reply.answer()?.revision;
    if let Reply::Done(answer) = &mut recording.calls[other].reply {
        answer.revision = revision;
    }
    (one != other).then_some(())
}

fn false_success(recording: &mut Recording) -> Option<()> {
    for call in &mut recording.calls {
        let Request::Keys(txn) = &call.request else {
            continue;
        };
        let puts = txn.then.len();
        let Reply::Done(answer) = &mut call.reply else {
            continue;
        };
        if !answer.succeeded && txn.otherwise.is_empty() {
            answer.succeeded = true;
            answer.results = vec![OpResult::Put(None); puts];
            return Some(());
        }
    }
    None
}

/// Changes the messages of the watch that has most events.
fn on_watch(
    recording: &mut Recording,
    change: impl Fn(&mut Vec<Message>) -> Option<()>,
) -> Option<()> {
    let events = |watch: &Watch| watch.messages.iter().map(|m| m.events.len()).sum::<usize>();
    // Another watch of everything shows the truth.
    let watch = recording
        .watches
        .iter_mut()
        .max_by_key(|watch| events(watch))?;
    change(&mut watch.messages)
}

fn promise_longer(recording: &mut Recording) -> Option<()> {
    const HOUR_S: i64 = 3_600;
    let revoked: Vec<i64> = recording
        .calls
        .iter()
        .filter_map(|call| match call.request {
            Request::Revoke(lease) => Some(lease),
            _ => None,
        })
        .collect();
    let gone = recording
        .calls
        .iter()
        .find_map(|call| match (&call.request, &call.reply) {
            (Request::Renew(lease), Reply::Done(answer))
                if answer.ttl <= 0 && !revoked.contains(lease) =>
            {
                Some(*lease)
            }
            _ => None,
        })?;
    for call in &mut recording.calls {
        if let (Request::Grant { lease, .. }, Reply::Done(answer)) =
            (&call.request, &mut call.reply)
            && *lease == gone
        {
            answer.ttl += HOUR_S;
            return Some(());
        }
    }
    None
}

fn other_hash(recording: &mut Recording) -> Option<()> {
    let last = recording.hashes.last_mut()?;
    last.hash = !last.hash;
    (recording.hashes.len() > 1).then_some(())
}
