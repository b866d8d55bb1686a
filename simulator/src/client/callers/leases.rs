//! What only the leader knows of leases, asked wherever a client happens to be.
use bytes::Bytes;
use quorate_auth::Operation;
use quorate_core::{Error, Outcome, Submission};
use quorate_lease::Lessor;
use quorate_proto::LeaseId;

use super::admin::Errand;
use super::draw::signed;
use super::{Callers, Checked, Waiting};
use crate::World;
use crate::check::{Clocks, Violation};

/// How often another member is asked in its stead.
const FORWARDS_MAX: u32 = 4;

/// Of leases that are about to end, one in so many is renewed, at every look.
const LATE_ONE_IN: u64 = 4;

/// After so many renewals of leases with a checkpoint leadership moves, on average.
const MOVES_ONE_IN: u64 = 4;

/// What is left of a lease, or how long ago it ended, is told in whole seconds: two looks at the same end differ by less than this.
const LOOKS_DIFFER_MS: u64 = 2_000;

/// When a leader meant a lease to end, when that was first looked at in its term.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeantEnd {
    term: u64,
    /// The life of its machine.
    life: u64,
    /// The entry of its grant.
    granted: u64,
    /// On the leader's clock, to a second.
    end_ms: u64,
}

/// A question to the leader.
#[derive(Clone, Debug)]
pub(super) struct LeaseAsk {
    id: i64,
    what: Ask,
    /// What the clocks said when it was first asked.
    since: Clocks,
    /// What the member that is asked now had applied then.
    place: u64,
    /// When that member was asked, if it stood still then.
    slept_ms: Option<u64>,
    forwards: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Renew,
    TimeToLive { keys: bool },
}

impl LeaseAsk {
    /// Says whether it may wait for the revocation of a lease: of one past its end, on the member that was asked.
    pub(super) fn waits_for_end(&self, world: &World, machine: u64) -> bool {
        let member = world.machine(machine).and_then(|m| m.member());
        let now_ms = world.member_now_ms(machine);
        let left = member.and_then(|m| m.stores().lessor.time_to_live(LeaseId(self.id), now_ms));
        self.what == Ask::Renew && left.is_some_and(|left| left.remaining_s <= 0)
    }
}

impl Callers {
    pub(super) fn renew(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        id: i64,
    ) -> Checked {
        self.ask_leader(world, machine, client, id, Ask::Renew)
    }

    pub(super) fn time_to_live(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        id: i64,
        keys: bool,
    ) -> Checked {
        self.ask_leader(world, machine, client, id, Ask::TimeToLive { keys })
    }

    fn ask_leader(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        id: i64,
        what: Ask,
    ) -> Checked {
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        let keys = Self::lease_keys(world, machine, Some(id));
        let lease = LeaseId(id);
        let operation = match what {
            Ask::Renew => Operation::LeaseKeepAlive(lease),
            Ask::TimeToLive { keys } => Operation::LeaseTimeToLive { id: lease, keys },
        };
        if !self.door(world, machine, &identity, &operation, &keys)? {
            return Ok(());
        }
        if what == Ask::Renew {
            self.renewed.insert(id);
        }
        let ask = LeaseAsk {
            id,
            what,
            since: Self::clocks(world),
            place: 0,
            slept_ms: None,
            forwards: 0,
        };
        self.ask_at(world, machine, ask);
        Ok(())
    }

    /// Takes that a lease was granted: renewals of an earlier one with its id do not count for it.
    pub(super) fn lease_began(&mut self, id: i64) {
        let is_renewal = |ask: &LeaseAsk| ask.id == id && ask.what == Ask::Renew;
        let waits = self
            .waiting
            .values()
            .any(|asked| matches!(&asked.what, Waiting::Lease(ask) if is_renewal(ask)));
        if !waits {
            self.renewed.remove(&id);
        }
    }

    /// Renews leases in the last moment, or a little later: when the leader is about to end them.
    pub(super) fn renew_late(&mut self, world: &mut World) -> Checked {
        let Some(leader) = world.leader().filter(|leader| world.is_ready(*leader)) else {
            return Ok(());
        };
        let clocks = Self::clocks(world);
        let living = self.model.leases().living().map(|(id, _)| id);
        let ending: Vec<i64> = living
            .filter(|id| self.times.is_ending(*id, &clocks, leader))
            .collect();
        for id in ending {
            if self.random.one_in(LATE_ONE_IN) {
                world.hit("lease renewed in the last moment");
                self.renew(world, leader, 0, id)?;
            }
        }
        Ok(())
    }

    /// Renews leases at leaders that stand still: they must not do it by themselves once they wake up.
    pub(super) fn renew_at_sleepers(&mut self, world: &mut World) -> Checked {
        let now_ms = world.now_ms();
        let sleeps = |m: &&crate::Machine| {
            m.is_paused(now_ms) && m.member().is_some_and(quorate_core::Member::leads)
        };
        let sleepers: Vec<u64> = world.machines().filter(sleeps).map(|m| m.number).collect();
        for machine in sleepers {
            let living: Vec<i64> = self.model.leases().living().map(|(id, _)| id).collect();
            if let Some(id) = self.random.pick(&living) {
                world.hit("lease renewed at a leader that stood still");
                self.renew(world, machine, 0, id)?;
            }
        }
        Ok(())
    }

    /// Moves leadership after some renewals of leases that had a checkpoint: whoever leads next must not go by that.
    fn lead_elsewhere(&mut self, world: &mut World, id: i64) -> Checked {
        let life = self.model.leases().now(id);
        if life.is_some_and(|l| l.checkpoint.is_some()) && self.random.one_in(MOVES_ONE_IN) {
            world.hit("leadership asked to move after a renewal");
            return self.administrate(world, 0, 0, Errand::MoveLeader);
        }
        Ok(())
    }

    /// Takes that something of a term is committed: its leader leads.
    pub(super) fn reigns(&mut self, term: u64, now_ms: u64) {
        self.reigns.entry(term).or_insert(now_ms);
    }

    /// Checks that no leader that was asked in its sleep renews a lease when another was at work already: it must ask others
    /// when it wakes up, and a majority knows.
    fn check_reign(&self, world: &World, machine: u64, ask: &LeaseAsk) -> Checked {
        let (Some(view), Some(asked_ms)) = (world.view(machine), ask.slept_ms) else {
            return Ok(());
        };
        let mut later = self.reigns.range(view.term() + 1..);
        let Some((term, since_ms)) = later.next() else {
            return Ok(());
        };
        if *since_ms >= asked_ms {
            return Ok(());
        }
        let text = format!(
            "m{machine} renews lease {} in term {}, asked for at {asked_ms} ms; the leader of term {term} is at work since {since_ms} ms",
            ask.id,
            view.term()
        );
        Err(Violation::new("who renews leases leads", text))
    }

    /// Returns the lessor of a member that leads, its term, and what it has applied.
    fn primary(world: &World, machine: u64) -> Option<(&Lessor, u64, u64)> {
        let place = Self::place(world, machine)?;
        let member = world.machine(machine)?.member()?;
        let lessor = &member.stores().lessor;
        let is_primary = lessor.is_primary();
        is_primary.then(|| (lessor, member.view().term(), place))
    }

    /// Checks that no leader gives a lease more than was left of it at its last checkpoint, and an election timeout. Leases
    /// that somebody has tried to renew are left out: the leader may have done so. So are checkpoints that a leader made for
    /// an earlier lease of the id, and that were applied to this one: only the next leader goes by them.
    pub(super) fn check_remaining(&self, world: &mut World) -> Checked {
        let (election_ms, ready) = (world.plan().limits.election_ms(), world.ready());
        let spread_s = self.times.spread_s();
        let extension_s = signed(election_ms.div_ceil(1_000) + 1 + spread_s);
        for machine in ready {
            let Some((lessor, term, place)) = Self::primary(world, machine) else {
                continue;
            };
            let now_ms = world.member_now_ms(machine);
            let mut compared = 0;
            for (id, life) in self.model.leases().living() {
                let checkpoint = life.checkpoint.filter(|(index, left)| {
                    let is_earlier = self.model.step(*index).is_some_and(|s| s.term < term);
                    let counts =
                        is_earlier || self.times.is_for_present(id, world.origin(*index).applied);
                    *index <= place && *left > 0 && counts
                });
                let (Some((_, left_s)), false) = (checkpoint, self.renewed.contains(&id)) else {
                    continue;
                };
                let told = lessor
                    .time_to_live(LeaseId(id), now_ms)
                    .map(|t| t.remaining_s);
                if told.is_some_and(|told_s| told_s > left_s + extension_s) {
                    let text = format!(
                        "m{machine} gives lease {id} {told:?} s, of which {left_s} s were left at a checkpoint"
                    );
                    return Err(Violation::new("no lease outlives its checkpoints", text));
                }
                compared += 1;
            }
            if compared > 0 {
                world.hit("lease compared with its checkpoint");
            }
        }
        Ok(())
    }

    /// Checks that a leader ends leases when it meant to: as long as it leads, nothing but a renewal moves the end of a lease.
    /// Leases that somebody has tried to renew are left out.
    pub(super) fn check_ends(&mut self, world: &mut World) -> Checked {
        for machine in world.ready() {
            let Some((lessor, term, place)) = Self::primary(world, machine) else {
                continue;
            };
            let now_ms = world.member_now_ms(machine);
            let mut is_compared = false;
            for (id, life) in self.model.leases().living() {
                if self.renewed.contains(&id) || life.granted > place {
                    continue;
                }
                let told = lessor.time_to_live(LeaseId(id), now_ms);
                let Some(end_ms) = told
                    .and_then(|t| now_ms.checked_add_signed(t.remaining_s.saturating_mul(1_000)))
                else {
                    continue;
                };
                let present = MeantEnd {
                    term,
                    life: world.life(machine),
                    granted: life.granted,
                    end_ms,
                };
                let meant = self.ends.get(&(machine, id)).filter(|meant| {
                    let is_of = |end: &MeantEnd| (end.term, end.life, end.granted);
                    is_of(meant) == is_of(&present)
                });
                let Some(meant) = meant else {
                    self.ends.insert((machine, id), present);
                    continue;
                };
                if end_ms.abs_diff(meant.end_ms) >= LOOKS_DIFFER_MS {
                    let text = format!(
                        "m{machine} means to end lease {id} at {end_ms} ms on its clock, and meant to at {} ms; nobody renewed it",
                        meant.end_ms
                    );
                    return Err(Violation::new("leaders end leases when they mean to", text));
                }
                is_compared = true;
            }
            if is_compared {
                world.hit("end of a lease compared with what was meant");
            }
        }
        Ok(())
    }

    fn ask_at(&mut self, world: &mut World, machine: u64, mut ask: LeaseAsk) {
        ask.place = Self::place(world, machine).unwrap_or(0);
        let (now_ms, asked) = (world.now_ms(), world.machine(machine));
        ask.slept_ms = asked.is_some_and(|m| m.is_paused(now_ms)).then_some(now_ms);
        let id = LeaseId(ask.id);
        let token = world.submit(machine, |token| match ask.what {
            Ask::Renew => Submission::LeaseRenew { token, id },
            Ask::TimeToLive { keys } => Submission::LeaseTimeToLive { token, id, keys },
        });
        self.wait(world, machine, token, Waiting::Lease(ask));
    }

    pub(super) fn lease_answered(
        &mut self,
        world: &mut World,
        machine: u64,
        mut ask: LeaseAsk,
        outcome: &Outcome,
    ) -> Checked {
        let id = ask.id;
        match outcome {
            Outcome::LeaseRenewed { ttl_s: 0 }
            | Outcome::LeaseTimeToLive {
                remaining_s: -1,
                granted_s: 0,
                ..
            } => {
                world.hit("lease not found");
                self.times.missed(&self.model, id, ask.place)
            }
            Outcome::LeaseRenewed { ttl_s } => {
                world.hit("lease renewed");
                self.check_reign(world, machine, &ask)?;
                self.lead_elsewhere(world, id)?;
                let since = (&ask.since, ask.place);
                let now_ms = world.now_ms();
                self.times.renewed(&self.model, id, *ttl_s, since, now_ms)
            }
            Outcome::LeaseTimeToLive {
                remaining_s,
                granted_s,
                keys,
            } => {
                let wanted = ask.what == Ask::TimeToLive { keys: true };
                let keys: Option<&[Bytes]> = wanted.then_some(keys);
                world.hit("time to live told");
                let times = (*remaining_s, *granted_s);
                self.times.told(&self.model, (id, ask.place), times, keys)
            }
            Outcome::Failed(Error::NotLeader { leader }) => {
                ask.forwards += 1;
                let next = world.machine_of(*leader).filter(|m| *m != machine);
                if let Some(next) = next.filter(|_| ask.forwards <= FORWARDS_MAX) {
                    world.hit("question about a lease forwarded");
                    self.ask_at(world, next, ask);
                }
                Ok(())
            }
            Outcome::Failed(Error::TooManyRequests) => {
                world.hit("question about a lease refused: too many requests");
                Ok(())
            }
            Outcome::Failed(_) => Ok(()),
            other => {
                let text = format!("a question about lease {id} is answered by {other:?}");
                Err(Violation::new("answers make sense", text))
            }
        }
    }

    pub(super) fn list_leases(&mut self, world: &mut World, machine: u64, client: u64) -> Checked {
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        let keys = Self::lease_keys(world, machine, None);
        let all = [LeaseId(0)];
        let operation = Operation::LeaseLeases(&all);
        if !self.door(world, machine, &identity, &operation, &keys)? {
            return Ok(());
        }
        let place = Self::place(world, machine).unwrap_or(0);
        let token = world.submit(machine, |token| Submission::LeaseLeases { token });
        self.wait(world, machine, token, Waiting::Leases { place });
        Ok(())
    }

    pub(super) fn leases_listed(
        &mut self,
        world: &mut World,
        machine: u64,
        place: u64,
        outcome: &Outcome,
    ) -> Checked {
        let Outcome::LeaseLeases(ids) = outcome else {
            return Ok(());
        };
        let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        world.hit("leases listed");
        let is_right = (place..=self.model.index()).any(|i| self.model.leases().all_at(i) == ids);
        if is_right {
            return Ok(());
        }
        let text = format!(
            "m{machine} lists {ids:?}; after entry {place} there were {:?}",
            self.model.leases().all_at(place)
        );
        Err(Violation::new("leases are what the log says", text))
    }
}
