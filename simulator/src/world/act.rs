//! Events, one after the other, as they reach a member.
use std::collections::BTreeMap;

use quorate_core::received_file;
use quorate_proto::MemberId;

use super::{Delivery, Event, Item, Note, World};
use crate::check::Violation;
use crate::node::{DIFFERS, Machine, Running};

/// Ticks made up for at most after a pause, as in the server's engine.
const MAX_LATE_TICKS: u64 = 10;
/// How long a removed member lives on, on its own clock, as in the server's engine.
const REMOVAL_DELAY_MS: u64 = 1_000;
/// Milliseconds between two steps of preparing a log segment, as in the server's workers.
const PREPARE_PAUSE_MS: u64 = 2;

/// Milliseconds after which it is tried again to kill a member whose disk was damaged.
const KILL_LATER_MS: u64 = 50;
/// Steps of a compaction without a pause, once nothing goes wrong any more.
const STEPS_AT_ONCE: usize = 64;

/// What an event came to: why the member cannot go on, if it cannot.
type Acted = Result<(), String>;

impl World {
    pub(super) fn happen(&mut self, item: Item) {
        let Item {
            machine: number,
            epoch,
            event,
            ..
        } = item;
        match event {
            Event::Wake(alarm) => return self.notes.push_back(Note::Wake(alarm)),
            Event::Fault(kind) => return self.misfortune(kind),
            Event::Operator => return self.operate(),
            Event::Start => return self.start(number, epoch),
            _ => {}
        }
        let now_ms = self.now_ms;
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        // Messages reach whoever runs at the address; anything else belongs to one life of the member.
        let is_stale = machine.epoch != epoch && !matches!(event, Event::Deliver(_));
        if is_stale {
            return self.nobody_there(event);
        }
        if machine.is_paused(now_ms) {
            let is_first = std::mem::take(&mut machine.is_pause_news);
            let leads = machine.member().is_some_and(|member| member.leads());
            if is_first {
                self.coverage.hit(match leads {
                    true => "leader paused",
                    false => "member paused",
                });
            }
            let mut ms = machine.paused_until_ms - now_ms;
            if matches!(event, Event::Deliver(_) | Event::Tick) {
                // Who wakes up may read what clients ask before it reads what other members have said meanwhile.
                ms += machine.deaf_ms;
            }
            return self.put_off(ms, number, epoch, event);
        }
        let own_ms = machine.clock.at(now_ms);
        let Some(running) = machine.running.as_mut() else {
            return self.nobody_there(event);
        };
        running.member.handle_time(own_ms);
        self.say_event(number, &event);
        let acted = self.act(number, event);
        self.settle_disk(number, acted);
    }

    /// Writes what happens to a member into the trace.
    fn say_event(&mut self, number: u64, event: &Event) {
        let is_small = matches!(
            event,
            Event::Tick | Event::Inbox | Event::Watch | Event::Prepare | Event::Compare(_)
        );
        if !self.trace.is_on() || is_small && !self.trace.is_full() {
            return;
        }
        let text = match event {
            Event::Deliver(delivery) => tell_message(delivery.from, &delivery.message),
            Event::Piece { number, .. } => format!("Piece of state {number}"),
            other => format!("{other:?}"),
        };
        let operations = self.machine(number).map_or(0, |m| m.disk.operations());
        let is_full = self.trace.is_full();
        self.say(|| match is_full {
            true => format!("m{number} ({operations}) {text}"),
            false => format!("m{number} {text}"),
        });
    }

    /// Goes on after something that may have touched the disk.
    pub(super) fn settle_disk(&mut self, number: u64, acted: Acted) {
        let Some(machine) = self.machines.get(&number) else {
            return;
        };
        if machine.running.is_none() {
            return;
        }
        self.count_mishaps(number);
        let has_power = self.machines.get(&number).is_some_and(Machine::has_power);
        if !has_power {
            return self.lose_power(number);
        }
        match acted {
            Ok(()) => self.perform(number),
            Err(why) => self.give_up(number, why),
        }
    }

    fn nobody_there(&mut self, event: Event) {
        if let Event::Deliver(delivery) | Event::Piece { delivery, .. } = event {
            self.return_to_sender(&delivery);
        }
    }

    fn act(&mut self, number: u64, event: Event) -> Acted {
        let Some(machine) = self.machines.get_mut(&number) else {
            return Ok(());
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        match event {
            Event::Tick => self.tick(number),
            Event::Inbox => {
                let submissions = std::mem::take(&mut running.inbox);
                running.member.handle_submissions(submissions);
            }
            Event::Deliver(delivery) => return self.deliver(number, delivery),
            Event::Piece {
                number: arrival,
                delivery,
            } => self.receive_piece(number, arrival, delivery),
            Event::SnapshotSent { to, ok } => running.member.handle_snapshot_sent(to, ok),
            Event::Unreachable(id) => running.member.handle_unreachable(id),
            Event::Fatal(why) => return Err(why),
            Event::Compare(comparing) => self.compare(number, comparing),
            Event::Log => return self.log_written(number),
            Event::Flush => return self.flush(number),
            Event::Compact => return self.compact(number),
            Event::Defragment => return self.defragment_step(number),
            Event::Save => {
                running.save_snapshot()?;
                self.hit("snapshot saved");
            }
            Event::Prepare => self.prepare(number),
            Event::Install => return self.install(number),
            Event::Watch => return self.watch(number),
            Event::Versions => self.tell_versions(number),
            Event::Replace if self.nemesis.is_over() => {}
            Event::Replace => self.begin_stop(number),
            Event::Kill if machine.hides > 0 => self.after(KILL_LATER_MS, number, Event::Kill),
            Event::Kill if self.nemesis.is_over() => {}
            Event::Kill => self.kill(number),
            Event::ToldRemoved => self.retire(number, "is told that it was removed"),
            Event::Wake(_) | Event::Fault(_) | Event::Operator | Event::Start => {}
        }
        Ok(())
    }

    fn tick(&mut self, number: u64) {
        let now_ms = self.now_ms;
        let links = self.links_of(number);
        let Some((machine, running)) = split(self.machines.get_mut(&number)) else {
            return;
        };
        let own_ms = machine.clock.at(now_ms);
        let rate_ppm = machine.clock.rate_ppm();
        let tick_ms = machine.limits.tick_ms;
        let mut late = 0;
        while own_ms >= running.next_tick_ms {
            if late == 0 {
                running.member.set_links(links.clone());
            }
            running.member.handle_tick(own_ms);
            running.next_tick_ms += tick_ms;
            late += 1;
            if late == MAX_LATE_TICKS {
                running.next_tick_ms = own_ms + tick_ms;
            }
        }
        let next_ms = machine.clock.true_ms(running.next_tick_ms - own_ms);
        if self.is_turned_away(number) {
            return self.retire(number, "is told that it was removed, as it dials");
        }
        let Some((_, running)) = split(self.machines.get_mut(&number)) else {
            return;
        };
        let is_over = running
            .removed_ms
            .is_some_and(|ms| own_ms >= ms + REMOVAL_DELAY_MS);
        let stops = running.stops_ms;
        let leads = running.member.leads();
        if rate_ppm != 0 {
            self.hit(match rate_ppm > 0 {
                true => "clock ran fast",
                false => "clock ran slow",
            });
        }
        if late > 1 {
            self.hit("late ticks were made up for");
        }
        if is_over {
            return self.retire(number, "ends, since it was removed");
        }
        if stops.is_some_and(|ms| !leads || now_ms >= ms) {
            return self.finish_stop(number);
        }
        self.after(next_ms, number, Event::Tick);
    }

    fn deliver(&mut self, number: u64, delivery: Delivery) -> Acted {
        let Some((machine, running)) = split(self.machines.get_mut(&number)) else {
            return Ok(());
        };
        let message = &delivery.message;
        let view = running.member.view();
        if message.to != Some(machine.member_id.0) {
            self.hit("message for another member dropped");
            self.return_to_sender(&delivery);
            return Ok(());
        }
        let from = MemberId(message.from.unwrap_or(0));
        if view.is_removed(from) {
            let sender = self.machines.get(&delivery.from);
            if sender.is_some_and(|m| m.member_id == from) {
                self.after_in(2, delivery.from, delivery.epoch, Event::ToldRemoved);
            } else {
                // It was only passed on.
                self.return_to_sender(&delivery);
            }
            return Ok(());
        }
        running.remember(from, delivery.from);
        if delivery.image.is_some() {
            self.receive_snapshot(number, delivery);
        } else {
            self.hand_over(number, *delivery.message);
        }
        Ok(())
    }

    fn log_written(&mut self, number: u64) -> Acted {
        let Some((machine, running)) = split(self.machines.get_mut(&number)) else {
            return Ok(());
        };
        running.is_writing = false;
        let segments = running.wal.segment_count();
        let written = running.write_log();
        let is_released = running.wal.segment_count() < segments;
        let synced = written?;
        if machine.disk.is_powered() {
            let batches = std::mem::take(&mut running.writing);
            if machine.durable.appended(&batches) {
                *machine.hides = machine.hides.saturating_sub(1);
            }
        }
        if let Some(synced) = synced {
            running.member.handle_synced(&synced);
        }
        let prepares = running.prepare.is_none();
        if prepares && let Some(job) = running.wal.take_prepare_job() {
            running.prepare = Some(job);
            self.after(PREPARE_PAUSE_MS, number, Event::Prepare);
        }
        if is_released {
            self.hit("log segment was released");
        }
        Ok(())
    }

    fn flush(&mut self, number: u64) -> Acted {
        let Some(running) = self.running(number) else {
            return Ok(());
        };
        if let Some(job) = running.flush.take() {
            job.run()
                .map_err(|e| format!("cannot flush the backend: {e}"))?;
            running.member.handle_flushed();
        }
        Ok(())
    }

    fn compact(&mut self, number: u64) -> Acted {
        // Steps of one row would take minutes for what was left to do by a busy cluster.
        let at_once = if self.nemesis.is_over() {
            STEPS_AT_ONCE
        } else {
            1
        };
        let Some(running) = self.running(number) else {
            return Ok(());
        };
        let (mut is_done, mut steps) = (false, running.compaction_steps);
        for _ in 0..at_once {
            steps += 1;
            is_done = running.compact_step()?;
            if is_done {
                break;
            }
        }
        running.compaction_steps = if is_done { 0 } else { steps };
        if is_done {
            self.hit("compaction ended");
            if steps > 2 {
                self.hit("compaction in several steps");
            }
        } else {
            let ms = self.disk_ms(number, 1);
            self.after(ms, number, Event::Compact);
        }
        Ok(())
    }

    fn prepare(&mut self, number: u64) {
        let Some(running) = self.running(number) else {
            return;
        };
        let (more, done) = running.prepare_step();
        if more {
            self.after(PREPARE_PAUSE_MS, number, Event::Prepare);
        }
        if done {
            self.hit("log segment was prepared ahead");
        }
    }

    fn install(&mut self, number: u64) -> Acted {
        self.endanger_install(number);
        let Some(running) = self.running(number) else {
            return Ok(());
        };
        let Some(install) = running.install.take() else {
            return Ok(());
        };
        let (compacts, flushes) = (running.compaction.is_some(), running.flush.is_some());
        let defragments = running.defragmentation.is_some();
        let watches = running.hub.stats().watchers > 0;
        let received = running.place.snap_dir.join(received_file(install.index));
        let is_received = running.place.disk.exists(&received).unwrap_or(false);
        let stores = running.restore(install.index)?;
        drop(running.member.handle_installed(stores));
        running.compared = install.index - 1;
        if running.member.digest_at(install.index).is_none() {
            let text = format!(
                "m{number} does not know its digest after snapshot {}",
                install.index
            );
            self.fail(Violation::new("every member knows its digest", text));
        }
        self.installs += 1;
        if let Some(machine) = self.machines.get_mut(&number) {
            // What went another way is gone.
            machine.damage.take_if(|damage| *damage == DIFFERS);
        }
        self.say(|| format!("m{number} installs snapshot {}", install.index));
        self.hit("snapshot installed");
        for (is, name) in [
            (compacts, "snapshot installed while compacting"),
            (flushes, "snapshot installed while flushing"),
            (defragments, "snapshot installed while defragmenting"),
            (watches, "watch stream crossed an installation"),
            (is_received, "received database installed"),
        ] {
            if is {
                self.hit(name);
            }
        }
        Ok(())
    }

    fn watch(&mut self, number: u64) -> Acted {
        let own_ms = self.member_now_ms(number);
        let Some(running) = self.running(number) else {
            return Ok(());
        };
        running.hub.tick(own_ms);
        let more = running.advance_watches()?;
        let streams = running.hub.take_ready();
        if !streams.is_empty() {
            let machine = number;
            self.notes
                .push_back(Note::StreamsReady { machine, streams });
        }
        if more {
            self.nudge(number);
        }
        Ok(())
    }

    pub(super) fn running(&mut self, number: u64) -> Option<&mut Running> {
        self.machines.get_mut(&number)?.running.as_mut()
    }
}

/// Tells a message in a few words.
fn tell_message(from: u64, message: &quorate_proto::raftpb::Message) -> String {
    use std::fmt::Write as _;
    let mut text = format!("hears from m{from}: {}", message.r#type().as_str_name());
    let mut add = |name: &str, value: u64| {
        if value > 0 {
            // Writing to a string never fails.
            let _ = write!(text, ", {name} {value}");
        }
    };
    add("term", message.term.unwrap_or(0));
    add("index", message.index.unwrap_or(0));
    add("term there", message.log_term.unwrap_or(0));
    add("entries", message.entries.len() as u64);
    add("commit", message.commit.unwrap_or(0));
    add(
        "refused, last",
        u64::from(message.reject == Some(true)) * message.reject_hint.unwrap_or(0).max(1),
    );
    text
}

/// Borrows a machine and the member that runs on it, side by side.
pub(super) fn split(machine: Option<&mut Machine>) -> Option<(Side<'_>, &mut Running)> {
    let Machine {
        running,
        clock,
        limits,
        disk,
        durable,
        member_id,
        hides,
        log,
        overwritten,
        ..
    } = machine?;
    let side = Side {
        clock,
        limits,
        disk,
        durable,
        member_id: *member_id,
        hides,
        log,
        overwritten,
    };
    Some((side, running.as_mut()?))
}

/// What of a machine lies beside the member that runs on it.
pub(super) struct Side<'a> {
    pub(super) clock: &'a crate::Clock,
    pub(super) limits: &'a crate::plan::Limits,
    pub(super) disk: &'a quorate_disk::SimDisk,
    pub(super) durable: &'a mut crate::check::Durable,
    pub(super) member_id: MemberId,
    pub(super) hides: &'a mut u8,
    pub(super) log: &'a mut BTreeMap<u64, crate::Committed>,
    pub(super) overwritten: &'a mut u64,
}

pub(super) fn image_index(message: &quorate_proto::raftpb::Message) -> u64 {
    let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
    metadata.and_then(|m| m.index).unwrap_or(0)
}
