//! What goes wrong, when, and with whom.
use std::collections::BTreeMap;

use quorate_disk::OperationKind;

use super::{Event, Note, World};
use crate::Random;
use crate::node::Status;
use crate::plan::{FaultKind, Plan};

/// Clocks run at most so much too fast or too slow, in parts in a million.
const DRIFT_PPM_MAX: u64 = 100_000;
/// Disk operations within which the power goes.
const TORN_OPERATIONS: u64 = 60;
/// Disk operations within which it goes when a state arrives.
const ARRIVAL_OPERATIONS: u64 = 200;
/// Kinds of disk operations whose order matters most: the power goes before one of them more often than chance would have it.
const ORDERED: [OperationKind; 4] = [
    OperationKind::Rename,
    OperationKind::Remove,
    OperationKind::SyncDir,
    OperationKind::Sync,
];
/// Of these, so many are let through at most before.
const SPARED: u64 = 3;

/// Everything that goes wrong, each kind with chance of its own.
pub(super) struct Nemesis {
    randoms: BTreeMap<FaultKind, Random>,
    /// Disks that are slow, until when, and by how much a sync.
    stalls: BTreeMap<u64, (u64, u64)>,
    /// Disks that are full.
    full: Vec<u64>,
    done: u64,
    is_over: bool,
}

impl Nemesis {
    pub(super) fn new(plan: &Plan) -> Self {
        let random = |kind: &FaultKind| (*kind, Random::of(plan.seed, kind.name()));
        Self {
            randoms: FaultKind::ALL.iter().map(random).collect(),
            stalls: BTreeMap::new(),
            full: Vec::new(),
            done: 0,
            is_over: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Returns how much longer a machine's disk takes now, in milliseconds.
    pub(super) fn stall_ms(&self, number: u64, now_ms: u64) -> u64 {
        let stall = self
            .stalls
            .get(&number)
            .filter(|(until, _)| now_ms < *until);
        stall.map_or(0, |(_, ms)| *ms)
    }

    pub(super) fn is_full(&self, number: u64) -> bool {
        self.full.contains(&number)
    }
}

impl World {
    /// Sets when each kind happens first.
    pub(super) fn begin_faults(&mut self) {
        let kinds: Vec<_> = self
            .plan
            .faults
            .iter()
            .filter(|(kind, _)| kind.recurs())
            .collect();
        for (kind, _) in kinds {
            self.next_fault(kind);
        }
        if self.plan.faults.rate(FaultKind::Membership) > 0
            || self
                .plan
                .faults
                .iter()
                .any(|(kind, _)| kind.may_cost_a_member())
        {
            self.begin_to_operate(500);
        }
    }

    fn next_fault(&mut self, kind: FaultKind) {
        let every_ms = self.plan.faults.rate(kind);
        let random = self.nemesis.randoms.get_mut(&kind);
        let ms = random.map_or(every_ms, |r| 1 + r.below(2 * every_ms));
        self.after(ms, 0, Event::Fault(kind));
    }

    /// Lets a fault happen.
    pub(super) fn misfortune(&mut self, kind: FaultKind) {
        if self.nemesis.is_over {
            return;
        }
        self.next_fault(kind);
        if self.nemesis.done >= self.plan.faults_max {
            return;
        }
        self.nemesis.done += 1;
        // It is put back with what was drawn from it.
        let Some(mut random) = self.nemesis.randoms.remove(&kind) else {
            return;
        };
        self.strike(kind, &mut random);
        self.nemesis.randoms.insert(kind, random);
    }

    /// Lets a fault happen to a message of a client, one in so many; draws a number below its rate with it.
    pub(super) fn befall(&mut self, kind: FaultKind, one_in: u64) -> Option<u64> {
        let rate = self.plan.faults.rate(kind);
        if rate == 0 || self.nemesis.is_over || self.nemesis.done >= self.plan.faults_max {
            return None;
        }
        let random = self.nemesis.randoms.get_mut(&kind)?;
        let drawn = random.one_in(one_in).then(|| random.below(rate));
        self.nemesis.done += u64::from(drawn.is_some());
        drawn
    }

    fn strike(&mut self, kind: FaultKind, random: &mut Random) {
        let standing: Vec<u64> = self.standing().into_iter().collect();
        let leader = self.leader().filter(|_| random.one_in(3));
        let Some(victim) = leader.or_else(|| random.pick(&standing)) else {
            return;
        };
        let is_up = self.machine(victim).is_some_and(|m| m.running.is_some());
        match kind {
            FaultKind::Cut | FaultKind::OneWay | FaultKind::Bridge => {
                self.cut_links(kind, victim, &standing, random);
            }
            FaultKind::Drift | FaultKind::Jump => self.spoil_clock(kind, victim, random),
            FaultKind::Pause => self.pause(victim, random),
            FaultKind::Slow | FaultKind::Stall => self.slow_down(kind, victim, random),
            FaultKind::Kill if is_up => self.kill(victim),
            FaultKind::Power if is_up => self.lose_power(victim),
            FaultKind::Blackout => {
                let up = self.up();
                if up.len() > 1 {
                    self.hit("power lost everywhere at once");
                }
                for number in up {
                    self.lose_power(number);
                }
            }
            FaultKind::Torn | FaultKind::Die => {
                self.plan_power_loss(victim, kind == FaultKind::Die, random);
            }
            FaultKind::Stop if is_up => self.begin_stop(victim),
            FaultKind::SyncFailure => self.fail_next(victim, OperationKind::Sync),
            FaultKind::WriteFailure => self.fail_next(victim, OperationKind::Write),
            FaultKind::ReadFailure => self.fail_next(victim, OperationKind::Read),
            FaultKind::ShortRead => self.shorten_reads(victim, random),
            FaultKind::StartFailure => self.fail_start(victim, random),
            FaultKind::Full => self.fill(victim, random),
            FaultKind::Rot
            | FaultKind::Latent
            | FaultKind::ReadRot
            | FaultKind::WriteRot
            | FaultKind::LostWrite
            | FaultKind::StrayWrite => self.damage_some(victim, kind, random),
            FaultKind::ClientCut if is_up => {
                self.say(|| format!("clients lose their connections to m{victim}"));
                self.notes.push_back(Note::CutOff { machine: victim });
            }
            FaultKind::Wipe => self.wipe(victim),
            FaultKind::Diverge if is_up => self.diverge(victim),
            FaultKind::Membership => self.operator.want_change(random),
            FaultKind::Transfer => self.transfer(victim, &standing, random),
            _ => {}
        }
    }

    fn cut_links(&mut self, kind: FaultKind, victim: u64, standing: &[u64], random: &mut Random) {
        let election_ms = self.plan.limits.election_ms();
        let until_ms = self.now_ms + random.between(election_ms / 2, 6 * election_ms);
        let others: Vec<u64> = standing.iter().copied().filter(|n| *n != victim).collect();
        match kind {
            FaultKind::OneWay => {
                let hears = random.one_in(2);
                for other in others {
                    let (from, to) = if hears {
                        (victim, other)
                    } else {
                        (other, victim)
                    };
                    self.network.cut(from, to, until_ms);
                }
                self.fresh_cuts.push((victim, "link cut one way"));
                self.say(|| {
                    format!(
                        "m{victim} {} nobody",
                        if hears { "reaches" } else { "hears" }
                    )
                });
            }
            FaultKind::Bridge => {
                let Some(other) = random.pick(&others) else {
                    return;
                };
                self.network.cut(victim, other, until_ms);
                self.network.cut(other, victim, until_ms);
                let name = "two reach each other only through a third";
                self.fresh_cuts.push((victim, name));
                self.say(|| format!("m{victim} and m{other} do not reach each other"));
            }
            _ => {
                let alone = random.one_in(2);
                let side: Vec<u64> = standing
                    .iter()
                    .copied()
                    .filter(|n| *n == victim || !alone && random.one_in(2))
                    .collect();
                for a in &side {
                    for b in standing.iter().filter(|b| !side.contains(b)) {
                        self.network.cut(*a, *b, until_ms);
                        self.network.cut(*b, *a, until_ms);
                    }
                }
                let leads = self.leader() == Some(victim);
                let name = match (side.len(), leads) {
                    (1, true) => "leader cut off",
                    (1, false) => "member cut off",
                    _ => "cluster cut in two",
                };
                self.fresh_cuts.push((victim, name));
                self.say(|| format!("{side:?} are cut off until {until_ms} ms"));
            }
        }
    }

    fn spoil_clock(&mut self, kind: FaultKind, victim: u64, random: &mut Random) {
        let now_ms = self.now_ms;
        let election_ms = self.plan.limits.election_ms();
        let Some(machine) = self.machines.get_mut(&victim) else {
            return;
        };
        if kind == FaultKind::Drift {
            let size = i64::try_from(random.below(DRIFT_PPM_MAX + 1)).unwrap_or(0);
            let rate = if random.one_in(2) { size } else { -size };
            machine.clock.set_rate(now_ms, rate);
            return self.say(|| format!("m{victim}'s clock runs {rate} ppm fast"));
        }
        if random.one_in(2) {
            let size = i64::try_from(random.below(10 * 365 * 86_400_000)).unwrap_or(0);
            machine.clock.wall_offset_ms = if random.one_in(2) { size } else { -size };
            return self.say(|| format!("m{victim}'s wall clock jumps"));
        }
        let ms = random.between(1, 3 * election_ms);
        machine.clock.jump(ms);
        if self.is_up(victim) {
            self.hit("clock jumped");
        }
        self.say(|| format!("m{victim}'s clock jumps by {ms} ms"));
    }

    fn pause(&mut self, victim: u64, random: &mut Random) {
        let election_ms = self.plan.limits.election_ms();
        let elections = random.choose(&[5, 5, 5, 20]);
        let until_ms = self.now_ms + random.between(10, elections * election_ms);
        if let Some(machine) = self.machines.get_mut(&victim) {
            machine.paused_until_ms = machine.paused_until_ms.max(until_ms);
            machine.is_pause_news = true;
            machine.deaf_ms = random.choose(&[0, 3]);
        }
        self.say(|| format!("m{victim} stands still until {until_ms} ms"));
    }

    fn slow_down(&mut self, kind: FaultKind, victim: u64, random: &mut Random) {
        let election_ms = self.plan.limits.election_ms();
        let until_ms = self.now_ms + random.between(election_ms, 8 * election_ms);
        if kind == FaultKind::Slow {
            let ms = random.between(5, election_ms / 2);
            if let Some(machine) = self.machines.get_mut(&victim) {
                machine.slow = (ms, until_ms);
            }
            return self.say(|| format!("m{victim} is slow by {ms} ms until {until_ms} ms"));
        }
        let ms = random.between(election_ms / 4, 3 * election_ms);
        self.nemesis.stalls.insert(victim, (until_ms, ms));
        self.say(|| format!("m{victim}'s disk takes {ms} ms longer until {until_ms} ms"));
    }

    fn plan_power_loss(&mut self, victim: u64, only_dies: bool, random: &mut Random) {
        let operations = random.below(TORN_OPERATIONS);
        let Some(machine) = self.machines.get_mut(&victim) else {
            return;
        };
        if machine.is_doomed || machine.status == Status::Removed {
            return;
        }
        let before = random.one_in(3).then(|| random.pick(&ORDERED)).flatten();
        match before {
            Some(kind) => machine.disk.power_off_before(kind, operations % SPARED),
            None => machine
                .disk
                .power_off_at(machine.disk.operations() + operations),
        }
        machine.is_doomed = true;
        machine.only_dies = only_dies;
        self.say(|| {
            let what = if only_dies { "be killed" } else { "lose power" };
            match before {
                Some(kind) => format!("m{victim} will {what} before a {kind:?} of its disk"),
                None => format!("m{victim} will {what} after {operations} operations of its disk"),
            }
        });
    }

    /// Lets the power go, sometimes, where the database of a snapshot takes the place of the one before: that is soon done,
    /// and seldom.
    pub(super) fn endanger_install(&mut self, victim: u64) {
        let is_on = !self.nemesis.is_over && self.nemesis.done < self.plan.faults_max;
        let random = self.nemesis.randoms.get_mut(&FaultKind::Torn);
        let is_kind = self.plan.faults.rate(FaultKind::Torn) > 0 && is_on;
        let Some(random) = random.filter(|_| is_kind) else {
            return;
        };
        let (strikes, kind) = (random.one_in(2), random.pick(&ORDERED[..3]));
        // What makes the new database does the same before.
        let spared = random.below(SPARED);
        let Some(machine) = self.machines.get_mut(&victim) else {
            return;
        };
        if let Some(kind) = kind.filter(|_| strikes && !machine.is_doomed) {
            machine.disk.power_off_before(kind, spared);
            machine.is_doomed = true;
            self.say(|| format!("m{victim} will lose power before a {kind:?} of its disk"));
        }
    }

    /// Lets the power go, sometimes, while a state fills a database.
    pub(super) fn endanger_arrival(&mut self, victim: u64) {
        let is_on = !self.nemesis.is_over && self.nemesis.done < self.plan.faults_max;
        let random = self.nemesis.randoms.get_mut(&FaultKind::Torn);
        let is_kind = self.plan.faults.rate(FaultKind::Torn) > 0 && is_on;
        let Some(random) = random.filter(|_| is_kind) else {
            return;
        };
        let (strikes, operations) = (random.one_in(4), random.below(ARRIVAL_OPERATIONS));
        let Some(machine) = self.machines.get_mut(&victim) else {
            return;
        };
        if strikes && !machine.is_doomed {
            let disk = &machine.disk;
            disk.power_off_at(disk.operations() + operations);
            machine.is_doomed = true;
            self.say(|| format!("m{victim} will lose power after {operations} operations"));
        }
    }

    fn fill(&mut self, victim: u64, random: &mut Random) {
        if let Some(at) = self.nemesis.full.iter().position(|n| *n == victim) {
            self.nemesis.full.remove(at);
            return self.fill_disk(victim, false, random);
        }
        self.nemesis.full.push(victim);
        self.fill_disk(victim, true, random);
    }

    fn wipe(&mut self, victim: u64) {
        if !self.may_be_damaged(victim) || self.plan.is_beyond {
            return;
        }
        self.say(|| format!("m{victim} loses all its data"));
        self.hit("member lost all its data");
        self.end(victim, None);
        if let Some(machine) = self.machines.get_mut(&victim) {
            machine.damage = Some("wiped");
            machine.status = Status::Refused("its data is gone".to_owned());
        }
    }

    fn transfer(&mut self, victim: u64, standing: &[u64], random: &mut Random) {
        let target = random
            .pick(standing)
            .and_then(|n| self.machine(n))
            .map(|m| m.member_id);
        let leader = self.leader().unwrap_or(victim);
        if let Some(target) = target {
            self.say(|| format!("leadership of m{leader} is to move to {target}"));
            self.move_leader(leader, target);
        }
    }

    /// Ends all that is wrong: links, clocks, disks; what is down comes back.
    pub(crate) fn end_faults(&mut self) {
        self.say(|| "faults stop".to_owned());
        self.nemesis.is_over = true;
        self.nemesis.stalls.clear();
        self.nemesis.full.clear();
        self.network.heal();
        self.fresh_cuts.clear();
        self.operator.finish();
        self.lose_lost_power();
        let (now_ms, numbers) = (self.now_ms, self.machines.keys().copied());
        numbers
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|number| self.count_mishaps(number));
        for machine in self.machines.values_mut() {
            // What it has not met yet it never will.
            machine.is_faulty &= machine.has_met_fault;
            machine.disk.clear_faults();
            machine.disk.set_capacity(None);
            machine.clock.set_rate(now_ms, 0);
            machine.paused_until_ms = machine.paused_until_ms.min(now_ms);
            machine.slow = (0, 0);
            machine.disk.power_off_at(u64::MAX);
            (machine.is_doomed, machine.only_dies) = (false, false);
        }
        self.wake_sleepers();
        self.start_all();
        self.after(1, 0, Event::Operator);
    }

    /// Ends members whose disk has no power any more and that nothing has happened to since: one that stands still, for
    /// example, while a client reads there.
    fn lose_lost_power(&mut self) {
        let is_dark = |m: &&crate::Machine| m.running.is_some() && !m.has_power();
        let dark: Vec<u64> = self
            .machines
            .values()
            .filter(is_dark)
            .map(|m| m.number)
            .collect();
        for number in dark {
            self.lose_power(number);
        }
    }

    /// Starts every member that is down and may come back.
    pub(super) fn start_all(&mut self) {
        let down: Vec<_> = self
            .machines
            .values()
            .filter(|m| m.status == Status::Down)
            .map(|m| (m.number, m.epoch))
            .collect();
        for (number, epoch) in down {
            self.start(number, epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trace;

    /// Seed 1001620: until the pause would have been over it had no tick, and answered nobody.
    #[test]
    fn who_stands_still_wakes_with_the_end_of_the_faults() {
        let mut world = World::new(Plan::quiet(1, 1), Trace::Off);
        while world.step(5_000) {}
        world.machines.get_mut(&1).unwrap().paused_until_ms = 90_000;
        while world.step(6_000) {}
        world.end_faults();
        let begun = world.events();
        while world.step(7_000) {}
        assert!(world.events() > begun + 5, "it ticks");
    }

    /// Seed 1700685.
    #[test]
    fn who_lost_power_unnoticed_ends_with_the_faults() {
        let mut world = World::new(Plan::quiet(1, 1), Trace::Off);
        while world.step(5_000) {}
        let machine = world.machines.get_mut(&1).unwrap();
        machine.paused_until_ms = 9_000;
        machine.disk.power_off_at(0);
        let life = world.life(1);
        world.end_faults();
        assert!(world.machine(1).is_some_and(crate::Machine::has_power));
        assert!(world.is_up(1) && world.life(1) > life);
    }
}
