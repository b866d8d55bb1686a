//! Does what a member asks for, as the server's engine and its threads do.
use quorate_core::{Actions, Notice, Outcome, Token};

use super::act::split;
use super::{Committed, Event, Note, Origin, World};
use crate::Lie;
use crate::check::Violation;

/// Milliseconds after which other members' versions are known.
const VERSIONS_MS: u64 = 5;

impl World {
    /// Does what a member asks for, until it asks for nothing that can be done at once.
    pub(super) fn perform(&mut self, number: u64) {
        while let Some(running) = self.running(number) {
            let mut actions = running.member.take_actions();
            let fatal = actions.fatal.take();
            let writes_here = running.member.view().reads_are_linearizable()
                && !actions.persist.is_empty()
                && !running.is_writing
                && running.unwritten.is_empty()
                && fatal.is_none();
            let writes_here = writes_here && self.random.one_in(2);
            self.perform_once(number, actions, writes_here);
            if self.machines.get(&number).is_some_and(|m| !m.has_power()) {
                return self.lose_power(number);
            }
            if let Some(why) = fatal {
                return self.give_up(number, why);
            }
            if !writes_here {
                return;
            }
            // The only voter's engine appends by itself.
            self.hit("only voter wrote its log itself");
            let Some(running) = self.running(number) else {
                return;
            };
            running.writing = std::mem::take(&mut running.unwritten);
            let written = running.write_log();
            let Some((machine, running)) = split(self.machines.get_mut(&number)) else {
                return;
            };
            if !machine.disk.is_powered() {
                return self.lose_power(number);
            }
            match written {
                Err(why) => return self.give_up(number, why),
                Ok(synced) => {
                    let batches = std::mem::take(&mut running.writing);
                    if machine.durable.appended(&batches) {
                        *machine.hides = machine.hides.saturating_sub(1);
                    }
                    if let Some(synced) = synced {
                        running.member.handle_synced(&synced);
                    }
                }
            }
        }
    }

    fn perform_once(&mut self, number: u64, mut actions: Actions, writes_here: bool) {
        let Some((machine, running)) = split(self.machines.get_mut(&number)) else {
            return;
        };
        let origin = Origin {
            machine: number,
            applied: running.applied,
            at_ms: self.now_ms,
            own_ms: machine.clock.at(self.now_ms),
        };
        let mut overwritten = false;
        for entry in actions.persist.iter().flat_map(|b| &b.entries) {
            let last = machine.log.last_key_value().map_or(0, |(last, _)| *last);
            if last >= entry.index {
                machine.log.split_off(&entry.index);
                *machine.overwritten = last.max(*machine.overwritten);
                overwritten = true;
            }
            let (index, entry) = Committed::of(entry);
            let place = (index, entry.term);
            self.unsettled.entry(place).or_insert(origin);
            machine.log.insert(index, entry);
        }
        for change in std::mem::take(&mut actions.peers) {
            running.change_peer(change);
        }
        if overwritten {
            self.hit("entry overwritten in a log");
        }
        self.observe(number);
        self.send_all(
            number,
            std::mem::take(&mut actions.send),
            std::mem::take(&mut actions.images),
        );
        self.write(number, &mut actions, writes_here);
        for (token, outcome) in std::mem::take(&mut actions.replies) {
            self.answer(number, token, outcome);
        }
        if actions.published {
            self.nudge(number);
        }
        self.schedule(number, &mut actions);
        self.tell(number, actions);
    }

    /// Hands batches to the log and starts its next write.
    fn write(&mut self, number: u64, actions: &mut Actions, writes_here: bool) {
        let Some(running) = self.running(number) else {
            return;
        };
        running.unwritten.append(&mut actions.persist);
        running.release = actions.release_log.or(running.release);
        let has_work = !running.unwritten.is_empty() || running.release.is_some();
        if has_work && !running.is_writing && !writes_here {
            self.begin_write(number);
        }
    }

    fn begin_write(&mut self, number: u64) {
        let Some(running) = self.running(number) else {
            return;
        };
        running.is_writing = true;
        running.writing = std::mem::take(&mut running.unwritten);
        let ms = self.disk_ms(number, 1);
        self.after(ms, number, Event::Log);
    }

    /// Draws how long the disk takes, with all that slows it down.
    pub(super) fn disk_ms(&mut self, number: u64, times: u64) -> u64 {
        let Some(machine) = self.machines.get_mut(&number) else {
            return 1;
        };
        let limit = machine.limits.sync_ms * times;
        let ms = 1 + machine.random.below(limit) + machine.slowness_ms(self.now_ms);
        let stall_ms = self.nemesis.stall_ms(number, self.now_ms);
        if stall_ms >= self.plan.limits.election_ms() {
            self.hit("disk stalled for an election timeout");
        }
        ms + stall_ms
    }

    fn schedule(&mut self, number: u64, actions: &mut Actions) {
        let Some(running) = self.running(number) else {
            return;
        };
        let saves = actions.save_snapshots.len();
        running
            .saves
            .extend(std::mem::take(&mut actions.save_snapshots));
        let flush = actions.flush.is_some();
        running.flush = actions.flush.take().or(running.flush.take());
        let compact = actions.compact.is_some();
        running.compaction = actions.compact.take().or(running.compaction.take());
        let install = actions.install.is_some();
        running.install = actions.install.take().or(running.install.take());
        let work = [
            (usize::from(flush), 2, (|| Event::Flush) as fn() -> Event),
            (usize::from(compact), 2, || Event::Compact),
            (saves, 1, || Event::Save),
            (usize::from(install), 8, || Event::Install),
        ];
        for (count, times, event) in work {
            for _ in 0..count {
                let ms = self.disk_ms(number, times);
                self.after(ms, number, event());
            }
        }
    }

    fn tell(&mut self, number: u64, actions: Actions) {
        for notice in &actions.notices {
            self.notice(number, notice);
        }
        if actions.ask_versions {
            self.after(VERSIONS_MS, number, Event::Versions);
        }
        for index in actions.unused_images {
            self.hit("snapshot not wanted when it came");
            if let Some(machine) = self.machines.get_mut(&number) {
                machine.forget_image(index);
            }
        }
        let own_ms = self.member_now_ms(number);
        let Some(running) = self.running(number) else {
            return;
        };
        if actions.removed && running.removed_ms.is_none() {
            running.removed_ms = Some(own_ms);
            self.say(|| format!("m{number} applies its own removal"));
            self.hit("member applied its own removal");
        }
        if actions.ready {
            if let Some(running) = self.running(number) {
                running.is_ready = true;
            }
            self.say(|| format!("m{number} is ready for clients"));
            self.notes.push_back(Note::Ready { machine: number });
        }
    }

    fn notice(&mut self, number: u64, notice: &Notice) {
        self.count_notice(number, notice);
        self.witness(notice);
        self.say(|| format!("m{number} says {notice:?}"));
    }

    /// Says whether an answer is kept from who waits for it, which is a lie.
    fn withholds(&mut self, token: Token) -> bool {
        match self.lie {
            Some(Lie::Hang) => self.operator.takes(token),
            Some(Lie::Answer) if !self.operator.takes(token) => {
                self.lie = None;
                true
            }
            _ => false,
        }
    }

    fn answer(&mut self, number: u64, token: Token, outcome: Outcome) {
        self.witness(&(token, number, &outcome));
        self.count_outcome(&outcome);
        if self.withholds(token) {
            return;
        }
        let Some(machine) = self.waiting.remove(&token) else {
            // Its caller has gone, or it comes twice.
            if !self.cancelled.remove(&token) {
                let text = format!("m{number} answers {token:?} twice, or unasked: {outcome:?}");
                self.fail(Violation::new("one answer each", text));
            }
            return;
        };
        self.say(|| {
            format!(
                "m{number} answers {}: {}",
                token.0,
                shorten(&format!("{outcome:?}"))
            )
        });
        self.operator.forget(token);
        if self.operator.takes(token) {
            return self.operator_answered(token, outcome);
        }
        self.notes.push_back(Note::Answered {
            machine,
            token,
            outcome,
        });
    }
}

/// Cuts a text that is long.
pub(super) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(CHARS_MAX).collect();
    format!("{start}...")
}
