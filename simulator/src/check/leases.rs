//! Leases against clocks: none ends before its time.
//!
//! A lease ends early when the member that ends it did not see its time pass, on its own clock, since somebody last began
//! to renew it with success, or since it was granted. Clocks of machines are read whenever that matters. What a leader
//! before has renewed while another was chosen already is covered by the election timeout that the new one grants on top;
//! clocks that run at different rates may take a part of that back, and that much is allowed for.
//!
//! A revocation names a lease by its id alone, as in etcd. Its leader meant the lease that had the id by the entries that it
//! had applied. When another is granted before the revocation is applied, that one ends; the time of the former counts.
//!
//! A leader gives a lease what is left of it by the last checkpoint before its term, and goes by that until somebody renews
//! the lease: its own checkpoints change nothing for itself, whoever led before. A checkpoint names an id alone as well, and
//! may cross with a new grant: what was left before is then given to the lease after, as in etcd. But it leaves what is left for
//! the leader that makes it, on the leader's own clock: no less than a revocation by that leader would have to wait for. And it
//! takes nothing from a renewal that was told of after it was made, other than in etcd: leaders hold the answer back until no
//! checkpoint is on its way.
use std::collections::BTreeMap;

use quorate_proto::etcdserverpb::InternalRaftRequest;

use super::Violation;
use crate::Origin;
use crate::model::{Answer, Model, Step};

/// What a leader says that has not applied the first entry of its term yet, as etcd's does.
const FOREVER_S: i64 = 9_223_372_036;

/// A lease is about to end so many milliseconds before it does.
const ENDING_MS: u64 = 50;

/// What the clocks of all machines say at one moment, in milliseconds.
pub type Clocks = BTreeMap<u64, u64>;

/// Since when the time of a lease runs.
#[derive(Clone, Debug)]
struct Running {
    /// When it was granted or renewed last, at the earliest.
    since: Clocks,
    /// Renewals by when they were told of, in true time, after the grant; the last few.
    told: Vec<(u64, Clocks)>,
    ttl_ms: u64,
    /// The last checkpoint of each term after that, in order.
    checkpoints: Vec<Checkpoint>,
    /// The entry of its grant.
    granted: u64,
}

impl Running {
    /// Returns the checkpoint that the leader of a term was promoted with and goes by.
    fn promoted_with(&self, term: u64) -> Option<&Checkpoint> {
        let mut checkpoints = self.checkpoints.iter();
        let found = checkpoints.rfind(|c| c.term < term);
        found.filter(|c| c.left_ms > 0)
    }
}

/// What was left of a lease.
#[derive(Clone, Debug)]
struct Checkpoint {
    /// The term of the leader that said so.
    term: u64,
    /// When it was committed.
    since: Clocks,
    /// 0 when an earlier one is taken back, or when it counts for nothing.
    left_ms: u64,
}

/// What is left of a lease is told in whole seconds.
const ROUNDED_MS: u64 = 1_000;

/// Seconds over which the ends of leases are spread at most.
pub(crate) const SPREAD_S_MAX: u64 = 60;

type Checked<T = ()> = Result<T, Violation>;

/// Renewals of a lease that are remembered, so that one is found that no checkpoint can have crossed with.
const TOLD_MAX: usize = 8;

/// The times of all leases.
#[derive(Debug)]
pub struct LeaseTimes {
    /// What may go wrong between two leaders, in milliseconds.
    slack_ms: u64,
    election_ms: u64,
    /// How many leases a promotion lets end in a second, if that is few.
    ends_per_s: Option<u64>,
    /// The most leases that lived at once.
    leases_most: u64,
    running: BTreeMap<i64, Running>,
    /// Leases that ended, in order.
    former: BTreeMap<i64, Vec<Running>>,
}

impl LeaseTimes {
    /// Makes it for a cluster with this election timeout.
    pub fn new(election_ms: u64) -> Self {
        Self {
            slack_ms: election_ms / 2,
            election_ms,
            ends_per_s: None,
            leases_most: 0,
            running: BTreeMap::new(),
            former: BTreeMap::new(),
        }
    }

    /// The same for a cluster whose leaders let no more leases than this end in a second when they begin to lead, if that is few.
    #[must_use]
    pub fn with_spread(mut self, ends_per_s: Option<u64>) -> Self {
        self.ends_per_s = ends_per_s;
        self
    }

    /// Looks at an entry that was just committed; `machine` is that of the member that proposed it.
    ///
    /// # Errors
    /// It ends a lease before its time, or will.
    pub fn committed(
        &mut self,
        step: &Step,
        clocks: &Clocks,
        machine: Option<u64>,
        origin: &Origin,
    ) -> Result<(), Violation> {
        let Some(request) = step.request.as_deref() else {
            return Ok(());
        };
        if let Some(r) = &request.lease_checkpoint {
            for checkpoint in &r.checkpoints {
                let left = (checkpoint.id, checkpoint.remaining_ttl);
                self.judge_checkpoint(left, step, machine, origin)?;
                if let Some(running) = self.running.get_mut(&checkpoint.id) {
                    let is_overtaken = running
                        .told
                        .last()
                        .is_some_and(|(ms, _)| *ms > origin.at_ms);
                    let left_s = u64::try_from(checkpoint.remaining_ttl).unwrap_or(0);
                    running.checkpoints.retain(|c| c.term < step.term);
                    running.checkpoints.push(Checkpoint {
                        term: step.term,
                        since: clocks.clone(),
                        left_ms: if is_overtaken { 0 } else { left_s * 1_000 },
                    });
                }
            }
        }
        if let Ok(Answer::Grant { id, ttl_s }) = &step.outcome {
            let running = Running {
                since: clocks.clone(),
                told: vec![(0, clocks.clone())],
                ttl_ms: u64::try_from(*ttl_s).unwrap_or(0) * 1_000,
                checkpoints: Vec::new(),
                granted: step.index,
            };
            self.running.insert(*id, running);
            self.leases_most = self.leases_most.max(self.running.len() as u64);
        }
        if let Some(r) = &request.lease_revoke
            && step.outcome.is_ok()
            && let Some(running) = self.running.remove(&r.id)
        {
            let lives = self.former.entry(r.id).or_default();
            lives.push(running);
            if is_expiry(step, request) {
                let meant = lives.iter().rfind(|life| life.granted <= origin.applied);
                let Some(meant) = meant.cloned() else {
                    let text = format!(
                        "entry {} ends lease {} before it was granted",
                        step.index, r.id
                    );
                    return Err(Violation::new("leases last as long as granted", text));
                };
                return self.judge(r.id, &meant, step, clocks, machine);
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        id: i64,
        running: &Running,
        step: &Step,
        clocks: &Clocks,
        machine: Option<u64>,
    ) -> Result<(), Violation> {
        let passed = |since: &Clocks| {
            let machine = machine?;
            let (now, then) = (clocks.get(&machine)?, since.get(&machine)?);
            Some(now.saturating_sub(*then))
        };
        // Who was not there yet when it began has its own beginning to wait for.
        let Some(passed_ms) = passed(&running.since) else {
            return Ok(());
        };
        if passed_ms + self.slack_ms >= running.ttl_ms {
            return Ok(());
        }
        let by_checkpoint = running
            .promoted_with(step.term)
            .is_some_and(|c| passed(&c.since).is_none_or(|ms| ms + self.slack_ms >= c.left_ms));
        if by_checkpoint {
            return Ok(());
        }
        let text = format!(
            "lease {id} of {} ms is ended by entry {} after {passed_ms} ms on the clock of m{}",
            running.ttl_ms,
            step.index,
            machine.unwrap_or(0)
        );
        Err(Violation::new("leases last as long as granted", text))
    }

    /// A checkpoint gives the next leader no less than its maker has left to wait.
    fn judge_checkpoint(
        &self,
        (id, remaining_s): (i64, i64),
        step: &Step,
        machine: Option<u64>,
        origin: &Origin,
    ) -> Result<(), Violation> {
        let is_its_own = machine == Some(origin.machine);
        let (Some(running), Ok(said_s @ 1..)) = (self.running.get(&id), u64::try_from(remaining_s))
        else {
            return Ok(());
        };
        if !is_its_own || running.granted > origin.applied {
            return Ok(());
        }
        self.check_most((id, said_s), running, step)?;
        let mut told = running.told.iter();
        let uncrossed = told.rfind(|(told_ms, _)| *told_ms < origin.at_ms);
        let passed = |since: &Clocks| {
            let then = since.get(&origin.machine)?;
            Some(origin.own_ms.saturating_sub(*then))
        };
        let Some(passed_ms) = uncrossed.and_then(|(_, since)| passed(since)) else {
            return Ok(());
        };
        let mut left_ms = running.ttl_ms.saturating_sub(passed_ms);
        if let Some(before) = running.promoted_with(step.term) {
            let left = passed(&before.since).map(|ms| before.left_ms.saturating_sub(ms));
            left_ms = left_ms.min(left.unwrap_or(0));
        }
        if said_s * 1_000 + self.slack_ms >= left_ms {
            return Ok(());
        }
        let text = format!(
            "entry {} says that {said_s} s of lease {id} are left, and it is {left_ms} ms on the clock of m{}",
            step.index, origin.machine
        );
        Err(Violation::new("checkpoints leave what is left", text))
    }

    /// Checks that a leader leaves no more of a lease than it has given it itself: the granted time, or what an earlier leader left,
    /// and what a promotion adds to that.
    fn check_most(&self, (id, said_s): (i64, u64), running: &Running, step: &Step) -> Checked {
        let earlier = running.checkpoints.iter().filter(|c| c.term < step.term);
        let given_ms = earlier.map(|c| c.left_ms).fold(running.ttl_ms, u64::max);
        let added_ms = self.election_ms + ROUNDED_MS + self.spread_s() * 1_000;
        if said_s * 1_000 <= given_ms + added_ms {
            return Ok(());
        }
        let text = format!(
            "entry {} says that {said_s} s of lease {id} are left, which was given {given_ms} ms",
            step.index
        );
        Err(Violation::new("checkpoints leave what is left", text))
    }

    /// Returns how much more than its own time a promotion may give a lease, in seconds, so that not all end at once.
    pub fn spread_s(&self) -> u64 {
        let spread_s = |rate: u64| (self.leases_most.div_ceil(rate) + 1).min(SPREAD_S_MAX);
        self.ends_per_s.map_or(0, spread_s)
    }

    /// Says whether who had applied so much can mean the lease that has the id now.
    pub fn is_for_present(&self, id: i64, known: u64) -> bool {
        self.running.get(&id).is_some_and(|r| r.granted <= known)
    }

    /// Says whether the time of a lease is about to end on the clock of a machine, or has ended a moment ago.
    pub fn is_ending(&self, id: i64, clocks: &Clocks, machine: u64) -> bool {
        let passed_ms = self.running.get(&id).and_then(|running| {
            let (now, then) = (clocks.get(&machine)?, running.since.get(&machine)?);
            Some((now.saturating_sub(*then), running.ttl_ms))
        });
        passed_ms.is_some_and(|(passed_ms, ttl_ms)| {
            passed_ms + ENDING_MS >= ttl_ms && passed_ms <= ttl_ms + self.election_ms
        })
    }

    /// Takes a renewal that succeeded: it was asked for when the clocks said so. `model` and the true time are of the answer.
    ///
    /// # Errors
    /// The time it was given is not the lease's.
    pub fn renewed(
        &mut self,
        model: &Model,
        id: i64,
        ttl_s: i64,
        (since, place): (&Clocks, u64),
        now_ms: u64,
    ) -> Result<(), Violation> {
        let was_there = |ttl: i64| {
            (place..=model.index())
                .any(|i| model.leases().at(id, i).is_some_and(|l| l.ttl_s == ttl))
        };
        if !was_there(ttl_s) {
            let text = format!("lease {id} is renewed for {ttl_s} s, which it never had then");
            return Err(Violation::new("renewals are of leases there are", text));
        }
        if let Some(running) = self.running.get_mut(&id) {
            let is_newer = since
                .iter()
                .all(|(m, ms)| running.since.get(m).is_none_or(|s| s <= ms));
            if is_newer {
                running.since = since.clone();
                running.checkpoints.clear();
                running.told.push((now_ms, since.clone()));
                if running.told.len() > TOLD_MAX {
                    running.told.remove(0);
                }
            }
        }
        Ok(())
    }

    /// Takes the answer that there is no such lease; it was asked for when `place` was applied there.
    ///
    /// # Errors
    /// There was, all the time.
    pub fn missed(&self, model: &Model, id: i64, place: u64) -> Result<(), Violation> {
        let is_missing = (place..=model.index()).any(|i| model.leases().at(id, i).is_none());
        if is_missing {
            return Ok(());
        }
        let text = format!("lease {id} is said to be gone, and is there since entry {place}");
        Err(Violation::new("leases there are can be found", text))
    }

    /// Takes the answer to what is left of a lease; it was asked for when `place` was the newest committed entry.
    ///
    /// # Errors
    /// More is left than was ever given, or the keys are others.
    pub fn told(
        &self,
        model: &Model,
        (id, place): (i64, u64),
        (left_s, granted_s): (i64, i64),
        keys: Option<&[bytes::Bytes]>,
    ) -> Result<(), Violation> {
        let extension_s = i64::try_from(self.election_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
        let mut sorted = keys.map(<[_]>::to_vec);
        if let Some(keys) = &mut sorted {
            keys.sort_unstable();
        }
        let fits = (place..=model.index()).any(|index| {
            let has_keys = |keys: &Vec<_>| *keys == model.keys_of_lease(id, index);
            let life = model.leases().at(id, index);
            life.is_some_and(|l| l.ttl_s == granted_s) && sorted.as_ref().is_none_or(has_keys)
        });
        // A checkpoint of an earlier lease with its id may say more than it was granted.
        let lives = (place..=model.index()).filter_map(|index| model.leases().at(id, index));
        let checkpoints = lives.filter_map(|life| life.checkpoint.map(|(_, left_s)| left_s));
        let ever_s = checkpoints.max().unwrap_or(0).max(granted_s);
        let spread_s = i64::try_from(self.spread_s()).unwrap_or(i64::MAX);
        let most_s = ever_s + extension_s + spread_s;
        let is_too_long = left_s > most_s && left_s != FOREVER_S;
        if !fits || is_too_long {
            let text = format!(
                "lease {id} is said to have {left_s} of {granted_s} s and the keys {keys:?}"
            );
            return Err(Violation::new("leases are what the log says", text));
        }
        Ok(())
    }
}

/// Says whether a revocation was made by a leader for the end of a lease's time.
fn is_expiry(step: &Step, request: &InternalRaftRequest) -> bool {
    step.proposer.tag == 0 && request.lease_revoke.is_some()
}

#[cfg(test)]
mod tests;
