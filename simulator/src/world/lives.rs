//! Starts and ends of members.
use std::collections::BTreeMap;

use quorate_core::DIVERGED;

use super::compare::TAKEN_AWAY;
use super::{Event, Note, World};
use crate::Machine;
use crate::check::{State, Violation};
use crate::node::{BUMP, CLUSTER_VERSION, Status};
use crate::plan::FaultKind;

/// How long a member that stops waits for another to lead, as in the server's engine.
const TRANSFER_MS: u64 = 2_000;
/// Milliseconds after which a member that ended by itself is started again.
const RESTART_MS: u64 = 100;

impl World {
    /// Starts the member on a machine, unless it runs or never will again.
    pub(super) fn start(&mut self, number: u64, epoch: u64) {
        let now_ms = self.now_ms;
        let is_due = self
            .machines
            .get(&number)
            .is_some_and(|m| m.running.is_none() && m.epoch == epoch && m.status == Status::Down);
        if !is_due {
            return;
        }
        let has_other_limits = self.draw_limits_again(number);
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        let opened = machine.open(now_ms);
        if !machine.has_power() {
            self.say(|| format!("m{number} loses power while it starts"));
            self.hit("power lost while starting");
            return self.lose_power(number);
        }
        let found = match opened {
            Ok(found) => found,
            Err(why) => return self.refuse(number, why),
        };
        if let Some(why) = found.violation {
            return self.fail(Violation::new("durability", format!("m{number}: {why}")));
        }
        if let Some(why) = found.mismatch {
            let text = format!("m{number}: {why}");
            return self.fail(Violation::new("voters are the members", text));
        }
        self.say(|| {
            let new = if found.is_new { ", new" } else { "" };
            format!(
                "m{number} starts{new}, {} entries behind its log",
                found.unapplied
            )
        });
        self.count_start(number, &found, has_other_limits);
        let first = 1 + self.random.below(self.plan.limits.tick_ms);
        self.after(first, number, Event::Tick);
        self.begin_comparison(number);
        self.settle_disk(number, Ok(()));
    }

    fn draw_limits_again(&mut self, number: u64) -> bool {
        let one_in = self.plan.faults.rate(FaultKind::Limits);
        let Some(machine) = self.machines.get_mut(&number) else {
            return false;
        };
        let draws = machine.epoch > 0 && machine.random.one_in(one_in);
        if draws {
            machine.limits.draw_own(&mut machine.random);
        }
        draws
    }

    /// A start that did not succeed.
    fn refuse(&mut self, number: u64, why: String) {
        let may_fail = self.may_fail(number);
        let damage = self.machines.get(&number).and_then(|m| m.damage);
        let is_damaged = damage.is_some();
        self.count_found(damage);
        self.say(|| format!("m{number} does not start: {why}"));
        self.end(number, None);
        if !may_fail {
            let text = format!("m{number} does not start: {why}");
            return self.fail(Violation::new("disks that nothing happened to", text));
        }
        if is_damaged {
            self.hit("member refused to start on a damaged disk");
            self.set_status(number, Status::Refused(why));
            return;
        }
        self.hit("start failed and was tried again");
        self.after(RESTART_MS * 5, number, Event::Start);
    }

    fn set_status(&mut self, number: u64, status: Status) {
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.status = status;
        }
    }

    /// A member that cannot go on: its process ends.
    pub(super) fn give_up(&mut self, number: u64, why: String) {
        let may_fail = self.may_fail(number);
        let machine = self.machines.get(&number);
        let damage = machine.and_then(|m| m.damage);
        let may_differ = machine.is_some_and(|m| self.may_differ(m));
        let is_too_old = machine.is_some_and(|m| is_too_old(m, &why));
        self.say(|| format!("m{number} cannot go on: {why}"));
        self.end(number, None);
        if is_too_old {
            self.give_way(number);
            return self.after(RESTART_MS, number, Event::Start);
        }
        if !may_fail {
            let text = format!("m{number} cannot go on, and nothing happened to its disk: {why}");
            return self.fail(Violation::new("disks that nothing happened to", text));
        }
        if why == DIVERGED && !may_differ {
            let text = format!("m{number} is told to stop, and its state is that of the others");
            return self.fail(Violation::new("who is sound is not suspected", text));
        }
        self.count_found(damage);
        if why == DIVERGED {
            self.hit("member whose state differs stopped");
        } else if why == TAKEN_AWAY {
            self.hit("member whose state differs was taken away");
        } else if damage.is_some() {
            self.hit("member stopped on a damaged disk");
        } else {
            self.hit("member stopped at a failed disk");
        }
        let is_final = why.contains("data was lost") || why == DIVERGED || why == TAKEN_AWAY;
        if is_final || damage.is_some() && self.random.one_in(2) {
            // Only an operator can help.
            return self.set_status(number, Status::Refused(why));
        }
        let ms = RESTART_MS + self.random.below(3 * RESTART_MS);
        self.after(ms, number, Event::Start);
    }

    /// Puts a member of the usual version in the place of an older one, for good.
    fn give_way(&mut self, number: u64) {
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.limits.downgrades = false;
            self.hit("older version gave way to the newer one");
        }
    }

    /// The power goes: what was not synced is lost as chance has it.
    pub(super) fn lose_power(&mut self, number: u64) {
        if self.machines.get(&number).is_some_and(|m| m.only_dies) {
            self.hit("process killed inside a disk operation");
            return self.kill(number);
        }
        let seed = self.random.number();
        self.hit("power lost");
        let machine = self.machines.get(&number);
        if machine.is_some_and(|m| m.is_doomed && !m.has_power()) {
            self.hit("power lost inside a disk operation");
        }
        self.say(|| format!("m{number} loses power"));
        let Some(machine) = self.machines.get(&number) else {
            return;
        };
        if let Some(running) = &machine.running {
            let names = [
                (running.is_writing, "power lost with a log write under way"),
                (running.flush.is_some(), "power lost while flushing"),
                (running.compaction.is_some(), "power lost while compacting"),
                (
                    running.defragmentation.is_some(),
                    "power lost while defragmenting",
                ),
                (
                    running.install.is_some(),
                    "power lost while installing a snapshot",
                ),
                (
                    !running.arrivals.is_empty(),
                    "power lost while a state arrived",
                ),
                (
                    !running.saves.is_empty(),
                    "power lost while saving a snapshot",
                ),
                (
                    running.prepare.is_some(),
                    "power lost while preparing a segment",
                ),
            ];
            for (is, name) in names {
                if is {
                    self.hit(name);
                }
            }
        }
        self.end(number, Some(seed));
        let ms = self.back_ms();
        self.after(ms, number, Event::Start);
    }

    /// The process is killed.
    pub(super) fn kill(&mut self, number: u64) {
        self.hit("process killed");
        self.say(|| format!("m{number} is killed"));
        self.end(number, None);
        let ms = self.back_ms();
        self.after(ms, number, Event::Start);
    }

    /// Draws how long a machine stays down.
    fn back_ms(&mut self) -> u64 {
        let election_ms = self.plan.limits.election_ms();
        if self.random.one_in(4) {
            return self.random.below(6 * election_ms) + election_ms;
        }
        1 + self.random.below(election_ms)
    }

    /// Ends the process on a machine, and tells everybody.
    pub(super) fn end(&mut self, number: u64, lost_power: Option<u64>) {
        self.count_mishaps(number);
        let hidden = self.machines.get(&number).is_some_and(|m| m.hides > 0);
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        let ran = machine.running.is_some();
        machine.end(lost_power);
        (machine.is_faulty, machine.has_met_fault) = (false, false);
        if hidden {
            // What was lost at the log's end cannot be told from what was never written: its owner must not come back.
            machine.status = Status::Refused("its log's end was damaged".to_owned());
        }
        let lost: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, n)| **n == number)
            .map(|(t, _)| *t)
            .collect();
        for token in lost {
            self.waiting.remove(&token);
            if !self.operator.lost(token) {
                self.notes.push_back(Note::Lost {
                    machine: number,
                    token,
                });
            }
        }
        if ran {
            self.notes.push_back(Note::Ended { machine: number });
        }
    }

    /// The member is asked to stop in order: leadership moves first.
    pub(super) fn begin_stop(&mut self, number: u64) {
        let until_ms = self.now_ms + TRANSFER_MS;
        let Some(running) = self.running(number) else {
            return;
        };
        let leads = running.member.leads();
        let moves = running.member.transfer_leadership_for_stop().is_some();
        if moves {
            running.stops_ms = Some(until_ms);
        }
        self.say(|| format!("m{number} is asked to stop"));
        if leads {
            self.hit("stopped in order while leading");
        }
        if !moves {
            self.finish_stop(number);
        }
    }

    /// Ends in order: callers are told, the log and the database are written, then the process ends.
    pub(super) fn finish_stop(&mut self, number: u64) {
        self.hit("stopped in order");
        if let Some(running) = self.running(number) {
            running.member.stop();
        }
        self.perform(number);
        let failed = self.machines.get_mut(&number).and_then(|m| m.close().err());
        if self.machines.get(&number).is_some_and(|m| !m.has_power()) {
            return self.lose_power(number);
        }
        if let Some(why) = failed {
            return self.give_up(number, why);
        }
        self.say(|| format!("m{number} has stopped"));
        self.end(number, None);
        let ms = self.back_ms();
        self.after(ms, number, Event::Start);
    }

    /// A member that was removed ends for good.
    pub(super) fn retire(&mut self, number: u64, why: &str) {
        self.say(|| format!("m{number} {why}"));
        if why.contains("told") {
            self.hit("member was told that it is removed");
        }
        self.end(number, None);
        self.set_status(number, Status::Removed);
    }
}

/// Says whether a member of an older version ends because the cluster has agreed on more since it was started, for example as its
/// downgrade was canceled just then.
fn is_too_old(machine: &Machine, why: &str) -> bool {
    let own = &machine.version;
    let has_more = machine.member().is_some_and(|member| {
        let view = member.view();
        let storage = view.storage_version();
        *view.cluster_version() != **own || !storage.is_empty() && *storage != **own
    });
    *own != CLUSTER_VERSION && why.contains("server version") && has_more
}

impl World {
    /// Restarts every member, each in its own way.
    pub(crate) fn restart_everything(&mut self) {
        self.say(|| "everything restarts".to_owned());
        for number in self.up() {
            match self.random.below(3) {
                0 => self.kill(number),
                1 => self.lose_power(number),
                _ => self.finish_stop(number),
            }
        }
    }

    /// Tries what an operator makes of the data of one member: it goes on alone, or a backup of it becomes a new cluster.
    pub(crate) fn try_copies(&mut self, states: &BTreeMap<u64, State>) {
        let sound: Vec<u64> = states
            .keys()
            .copied()
            .filter(|n| !self.may_fail(*n) && self.machine(*n).is_some_and(Machine::votes))
            .collect();
        let (Some(number), way) = (self.random.pick(&sound), self.random.below(3)) else {
            return;
        };
        let now_ms = self.now_ms;
        let revision = states.get(&number).map_or(0, |state| state.revision);
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        let (tried, name) = match way {
            0 => (
                machine.go_on_alone(now_ms, revision),
                "member went on alone",
            ),
            1 => (
                machine.restore_backup(now_ms, revision, None),
                "backup became a new cluster",
            ),
            _ => (
                machine.restore_backup(now_ms, revision, Some(BUMP)),
                "backup became a new cluster at a higher revision",
            ),
        };
        self.say(|| format!("m{number}'s data: {name}"));
        self.hit(name);
        if let Err(why) = tried {
            let text = format!("m{number}, {name}: {why}");
            self.fail(Violation::new("copies hold what the member held", text));
        }
    }

    /// Says whether the member on a machine runs.
    pub fn is_up(&self, number: u64) -> bool {
        self.machine(number).is_some_and(|m| m.running.is_some())
    }

    /// Says whether a token is still to be answered.
    pub fn waits(&self, token: quorate_core::Token) -> bool {
        self.waiting.contains_key(&token)
    }

    /// Says whether all members that run have applied the same.
    pub fn is_level(&self) -> bool {
        let mut applied = self
            .machines()
            .filter_map(|m| Some(m.member()?.view().applied()));
        let first = applied.next();
        applied.all(|a| Some(a) == first)
    }

    /// Says whether no disk has anything to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.machines().filter_map(|m| m.running.as_ref()).all(|r| {
            r.unwritten.is_empty()
                && !r.is_writing
                && r.compaction.is_none()
                && r.defragmentation.is_none()
                && r.install.is_none()
                && r.arrivals.is_empty()
                && r.saves.is_empty()
                && !r.is_watch_due
                && !r.member.view().is_compacting()
                && r.member.view().proposals_pending() == 0
        })
    }

    /// Describes where everybody is, in one line.
    pub fn describe(&self) -> String {
        let one = |m: &Machine| match m.member() {
            None => format!("m{} {:?}", m.number, m.status),
            Some(member) => {
                let view = member.view();
                format!(
                    "m{} term {} leader {} committed {} applied {} members {:?}",
                    m.number,
                    view.term(),
                    view.leader(),
                    view.committed(),
                    view.applied(),
                    view.members().iter().map(|m| m.id).collect::<Vec<_>>()
                )
            }
        };
        self.machines().map(one).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trace;
    use crate::plan::Plan;

    /// Seed 1700345.
    #[test]
    fn who_is_too_old_for_the_cluster_is_started_as_the_newer_version() {
        let mut world = World::new(Plan::quiet(1, 1), Trace::Off);
        while world.step(5_000) {}
        let machine = world.machines.get_mut(&1).unwrap();
        machine.version = "3.6.0".to_owned();
        machine.limits.downgrades = true;
        let why = "storage version 3.7.0 is newer than what server version 3.6.0 can read";
        world.give_up(1, why.to_owned());
        assert_eq!(world.violation(), None);
        while world.step(6_000) {}
        let machine = world.machine(1).unwrap();
        assert!(machine.running.is_some() && !machine.limits.downgrades);
        assert_eq!(machine.version, CLUSTER_VERSION);
        world.give_up(1, why.to_owned());
        assert!(world.violation().is_some(), "the newer one has no excuse");
    }
}
