//! The digest of everything that happens: two runs that end with the same one did the same, in the same order, with the same outcomes.
use std::fmt::{self, Debug, Write as _};

use quorate_proto::raftpb::Message;

use super::act::image_index;
use super::{Committed, Event, Item, World};

/// A running digest.
#[derive(Clone, Debug)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl World {
    /// Folds in what somebody was told, or found.
    pub fn witness(&mut self, what: &dyn Debug) {
        // A digest takes everything.
        let _ = write!(self.digest, "{what:?}");
    }

    /// Folds in an event: when, to whom, which, and what is in it.
    pub(super) fn fold_event(&mut self, item: &Item) {
        self.digest.number(item.at_ms ^ item.sequence << 24);
        self.digest.number(item.machine ^ item.epoch << 32);
        let (code, target, outcome) = code(&item.event);
        self.digest.number(code ^ target << 8 ^ outcome << 56);
        if let Event::Fatal(why) = &item.event {
            self.digest.bytes(why.as_bytes());
        }
        if let Event::Deliver(delivery) | Event::Piece { delivery, .. } = &item.event {
            self.fold_message(&delivery.message);
        }
    }

    /// Folds in a message, but for what its entries hold: that is folded in when they are committed.
    pub(super) fn fold_message(&mut self, message: &Message) {
        let kind = u64::try_from(message.r#type.unwrap_or(0)).unwrap_or(0);
        let entries = message.entries.len() as u64;
        let refused = u64::from(message.reject == Some(true));
        for number in [
            kind ^ entries << 8 ^ refused << 56,
            message.from.unwrap_or(0) ^ message.to.unwrap_or(0).rotate_left(32),
            message.index.unwrap_or(0) ^ message.term.unwrap_or(0).rotate_left(32),
            message.log_term.unwrap_or(0) ^ message.commit.unwrap_or(0).rotate_left(32),
            image_index(message) ^ message.reject_hint.unwrap_or(0).rotate_left(32),
        ] {
            self.digest.number(number);
        }
    }

    /// Folds in what an event has left behind on its machine.
    pub(super) fn fold_machine(&mut self, number: u64) {
        let Some(machine) = self.machines.get(&number) else {
            return;
        };
        self.digest.number(machine.disk.operations());
        let Some(member) = machine.member() else {
            return;
        };
        let view = member.view();
        self.digest
            .number(view.term() ^ view.leader().0.rotate_left(32));
        self.digest
            .number(view.applied() ^ view.committed().rotate_left(32));
    }

    pub(super) fn fold_entry(&mut self, entry: &Committed) {
        self.digest
            .number(entry.index ^ entry.term << 40 ^ u64::from(entry.kind) << 32);
        self.digest.bytes(&entry.data);
    }
}

/// Returns the number of an event's kind, who or what it is about, and how it ended.
fn code(event: &Event) -> (u64, u64, u64) {
    match event {
        Event::Tick => (1, 0, 0),
        Event::Inbox => (2, 0, 0),
        Event::Deliver(delivery) => (3, delivery.from, u64::from(delivery.image.is_some())),
        Event::Piece { number, delivery } => (4, *number ^ delivery.from << 32, 0),
        Event::SnapshotSent { to, ok } => (5, to.0, u64::from(*ok)),
        Event::Unreachable(id) => (6, id.0, 0),
        Event::Fatal(_) => (7, 0, 0),
        Event::Compare(comparing) => (8, comparing.digest(), 0),
        Event::Log => (9, 0, 0),
        Event::Flush => (10, 0, 0),
        Event::Compact => (11, 0, 0),
        Event::Defragment => (12, 0, 0),
        Event::Save => (13, 0, 0),
        Event::Prepare => (14, 0, 0),
        Event::Install => (15, 0, 0),
        Event::Watch => (16, 0, 0),
        Event::Versions => (17, 0, 0),
        Event::ToldRemoved => (18, 0, 0),
        Event::Start => (19, 0, 0),
        Event::Replace => (20, 0, 0),
        Event::Kill => (21, 0, 0),
        Event::Fault(kind) => (22, *kind as u64, 0),
        Event::Operator => (23, 0, 0),
        Event::Wake(alarm) => (24, *alarm, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::{Trace, World};

    fn of(fold: impl FnOnce(&mut World)) -> u64 {
        let mut world = World::new(Plan::quiet(1, 3), Trace::Off);
        fold(&mut world);
        world.digest()
    }

    fn item(machine: u64, event: Event) -> Item {
        Item {
            at_ms: 5,
            sequence: 6,
            machine,
            epoch: 1,
            event,
            is_put_off: false,
        }
    }

    #[test]
    fn kind_target_and_outcome_of_an_event_change_the_digest() {
        let to = quorate_proto::MemberId(1);
        let sent = |to, ok| Event::SnapshotSent { to, ok };
        let digest = |machine, event| of(|world| world.fold_event(&item(machine, event)));
        let all = [
            of(|_| {}),
            digest(1, Event::Flush),
            digest(2, Event::Flush),
            digest(1, Event::Log),
            digest(1, sent(to, true)),
            digest(1, sent(to, false)),
            digest(1, sent(quorate_proto::MemberId(2), false)),
            digest(1, Event::Wake(1)),
            digest(1, Event::Wake(2)),
            digest(1, Event::Fatal("a".to_owned())),
            digest(1, Event::Fatal("b".to_owned())),
        ];
        let different: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(digest(1, Event::Flush), digest(1, Event::Flush));
    }

    #[test]
    fn what_somebody_was_told_changes_the_digest() {
        let told = |what: &str| of(|world| world.witness(&what));
        assert_ne!(told("put at 5"), told("put at 6"));
        let entry = |data: &'static [u8]| Committed {
            index: 1,
            term: 1,
            kind: 0,
            data: data.into(),
        };
        let held = |data| of(|world| world.fold_entry(&entry(data)));
        assert_ne!(held(b"abcdefgh1"), held(b"abcdefgh2"));
    }
}
