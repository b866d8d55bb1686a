//! Snapshots that arrive: images at once, states in pieces.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use quorate_proto::MemberId;
use quorate_proto::raftpb::Message;

use super::act::{image_index, split};
use super::{Delivery, Event, World};
use crate::check::Violation;
use crate::node::{Cuts, End, Machine};

/// Milliseconds until a sender hears of what became of its snapshot.
const TOLD_MS: u64 = 2;
/// Milliseconds until a sender hears that its snapshot was broken off.
const BROKEN_OFF_MS: u64 = 20;
/// Pieces of a state.
const PIECES: [u64; 4] = [1, 3, 8, 20];
/// Milliseconds between two, at most.
const PIECE_MS_MAX: u64 = 5;
/// Rows of a state that are written at once.
const BATCHES_ROWS: [u64; 4] = [3, 20, 200, 50_000];

impl World {
    /// Takes in what comes with a snapshot.
    pub(super) fn receive_snapshot(&mut self, number: u64, delivery: Delivery) {
        let (Some(image), Some(machine)) = (&delivery.image, self.machines.get_mut(&number)) else {
            return;
        };
        if image.is_state {
            return self.begin_state(number, delivery);
        }
        let index = image_index(&delivery.message);
        let bytes = image.bytes.clone();
        let stored = machine.store_image(index, &bytes);
        let stored = stored.map_err(|e| e.to_string());
        self.tell_sender(&delivery, stored.is_ok(), TOLD_MS);
        match stored {
            Ok(path) => self.align(number, delivery, &path),
            Err(why) => self.say(|| format!("m{number} cannot store image {index}: {why}")),
        }
    }

    fn begin_state(&mut self, number: u64, delivery: Delivery) {
        self.endanger_arrival(number);
        let mut draw = |among| usize::try_from(self.forms.choose(among)).unwrap_or(1);
        let cuts = Cuts {
            pieces: draw(&PIECES),
            batch_rows: draw(&BATCHES_ROWS),
        };
        let (Some(image), Some(running)) = (
            delivery.image.as_ref(),
            self.machines
                .get_mut(&number)
                .and_then(|m| m.running.as_mut()),
        ) else {
            return;
        };
        let (kv, bytes) = (&running.recovery.kv, image.bytes.clone());
        let begun = running.arrivals.begin(&running.place, kv, bytes, cuts);
        match begun {
            Ok(arrival) => self.next_piece(number, arrival, delivery),
            Err(why) => self.refuse_state(number, &delivery, &why),
        }
    }

    fn next_piece(&mut self, machine: u64, number: u64, delivery: Delivery) {
        let ms = 1 + self.forms.below(PIECE_MS_MAX);
        self.after(ms, machine, Event::Piece { number, delivery });
    }

    /// Takes the next piece of a state in, unless its sender has gone or cannot be heard any more.
    pub(super) fn receive_piece(&mut self, number: u64, arrival: u64, delivery: Delivery) {
        let is_heard = self.life(delivery.from) == delivery.epoch
            && self.is_up(delivery.from)
            && !self.network.is_cut(delivery.from, number, self.now_ms);
        let writes_back = self.forms.one_in(3);
        let end = delivery.image.as_ref().map_or(End::Cut, |image| image.end);
        let Some(running) = self.running(number) else {
            return;
        };
        if !is_heard {
            running.arrivals.forget(arrival);
            self.hit("state was cut short");
            self.say(|| format!("m{number} hears no more of state {arrival}"));
            return self.tell_sender(&delivery, false, BROKEN_OFF_MS);
        }
        let is_last = match running.arrivals.take_piece(arrival, writes_back) {
            Ok(is_last) => is_last,
            Err(why) if end == End::Whole => return self.refuse_state(number, &delivery, &why),
            Err(why) => {
                self.hit("state damaged and refused");
                return self.say(|| format!("m{number} makes nothing of state {arrival}: {why}"));
            }
        };
        if !is_last {
            return self.next_piece(number, arrival, delivery);
        }
        if end == End::Wrong {
            // Its sender gets to know by itself.
            running.arrivals.forget(arrival);
            return self.hit("state damaged and refused");
        }
        let index = image_index(&delivery.message);
        let before = self.snap_names(number);
        let Some(running) = self.running(number) else {
            return;
        };
        let kept = running.arrivals.keep(arrival, index);
        if kept.is_err()
            && let Some(name) = self.left_of_state(number, &before)
        {
            let text = format!("{name:?} is left on m{number} of a state that it could not keep");
            return self.fail(Violation::new("resources return to their floor", text));
        }
        match (kept, end) {
            (Ok(path), End::Whole) => {
                self.hit("state filled a database");
                self.tell_sender(&delivery, true, TOLD_MS);
                self.align(number, delivery, &path);
            }
            (Err(why), End::Whole) => self.refuse_state(number, &delivery, &why),
            (Err(_), _) => self.hit("state was cut short"),
            (Ok(_), _) => {
                let text = format!("m{number} takes the beginning of a state for all of it");
                self.fail(Violation::new("states have an end", text));
            }
        }
    }

    fn snap_names(&self, number: u64) -> Vec<OsString> {
        let machine = self.machines.get(&number);
        machine.map_or_else(Vec::new, Machine::snap_names)
    }

    /// Returns the name of a file that was not there before, where the power is still on. The unfinished one was.
    fn left_of_state(&self, number: u64, before: &[OsString]) -> Option<OsString> {
        if !self.machines.get(&number).is_some_and(Machine::has_power) {
            return None;
        }
        let mut names = self.snap_names(number).into_iter();
        names.find(|name| !before.contains(name))
    }

    fn refuse_state(&mut self, number: u64, delivery: &Delivery, why: &str) {
        self.hit(if why.contains("another snapshot") {
            "state gave way to another"
        } else if why.contains("already exists") {
            "state was there already"
        } else {
            "state refused for the disk's sake"
        });
        self.say(|| format!("m{number} takes no more of a state: {why}"));
        self.tell_sender(delivery, false, TOLD_MS);
    }

    fn tell_sender(&mut self, delivery: &Delivery, ok: bool, ms: u64) {
        let to = MemberId(delivery.message.to.unwrap_or(0));
        let event = Event::SnapshotSent { to, ok };
        self.after_in(ms, delivery.from, delivery.epoch, event);
    }

    /// Brings a snapshot in line with what came with it, and hands it to the member.
    fn align(&mut self, number: u64, delivery: Delivery, path: &Path) {
        let Delivery {
            from: sender,
            mut message,
            ..
        } = delivery;
        let index = image_index(&message);
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        let aligned = machine.align_image(&mut message, path);
        self.say(|| match &aligned {
            Ok(()) => format!("m{number} stores the image of snapshot {index} from m{sender}"),
            Err(why) => format!("m{number} refuses the image of snapshot {index}: {why}"),
        });
        if aligned.is_ok() {
            self.hit("snapshot received");
            self.hand_over(number, *message);
        }
    }

    /// Hands a message to a member.
    pub(super) fn hand_over(&mut self, number: u64, message: Message) {
        let index = image_index(&message);
        let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
        let term = metadata.and_then(|m| m.term);
        let Some((machine, running)) = split(self.machines.get_mut(&number)) else {
            return;
        };
        let before = running.member.view().committed();
        running.member.handle_messages(vec![message]);
        if before < index && running.member.view().committed() >= index {
            // What the log held up to there is replaced by the snapshot; what it held behind stays only behind the
            // same entry.
            let rest = machine.log.split_off(&(index + 1));
            let agrees = machine.log.get(&index).map(|entry| entry.term) == term;
            let last = rest.last_key_value().map_or(0, |(last, _)| *last);
            if !agrees {
                *machine.overwritten = last.max(*machine.overwritten);
            }
            *machine.log = if agrees { rest } else { BTreeMap::new() };
        }
    }
}
