//! The queue of events.
use std::cmp::Ordering;

use super::{Event, World};

/// An event in the queue.
pub(super) struct Item {
    pub(super) at_ms: u64,
    pub(super) sequence: u64,
    /// 0 for the world itself.
    pub(super) machine: u64,
    pub(super) epoch: u64,
    pub(super) event: Event,
    /// Whether it waits for a machine that stands still.
    pub(super) is_put_off: bool,
}

impl Ord for Item {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.sequence).cmp(&(self.at_ms, self.sequence))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Item {}

impl World {
    /// Puts an event into the queue.
    pub(super) fn after(&mut self, ms: u64, machine: u64, event: Event) {
        let epoch = self.machines.get(&machine).map_or(0, |m| m.epoch);
        self.after_in(ms, machine, epoch, event);
    }

    pub(super) fn after_in(&mut self, ms: u64, machine: u64, epoch: u64, event: Event) {
        self.enqueue(ms, machine, epoch, event, false);
    }

    /// Puts an event off until a machine stands still no longer.
    pub(super) fn put_off(&mut self, ms: u64, machine: u64, epoch: u64, event: Event) {
        self.enqueue(ms, machine, epoch, event, true);
    }

    fn enqueue(&mut self, ms: u64, machine: u64, epoch: u64, event: Event, is_put_off: bool) {
        self.sequence += 1;
        self.queue.push(Item {
            at_ms: self.now_ms + ms,
            sequence: self.sequence,
            machine,
            epoch,
            event,
            is_put_off,
        });
    }

    /// Lets all that was put off happen now, in the order in which it came: nobody stands still any more.
    pub(super) fn wake_sleepers(&mut self) {
        let mut items = std::mem::take(&mut self.queue).into_vec();
        for item in items.iter_mut().filter(|item| item.is_put_off) {
            item.at_ms = self.now_ms;
        }
        self.queue = items.into();
    }
}
