//! A run from its plan to its report: faults, then none, then copies, then a restart of everything.
use std::collections::BTreeMap;

use quorate_core::{Applied, Outcome};

use crate::check::{
    SPREAD_S_MAX, State, Violation, can_be_read, check_agreement, check_floor, state_of,
};
use crate::client::{Callers, Puts, Workload};
use crate::coverage::Coverage;
use crate::plan::{Narrow, Plan};
use crate::{Trace, World};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything held.
    Clean,
    /// Something did not.
    Violated(Violation),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How it ended.
    pub ended: Ended,
    /// Digest of everything that happened: equal for equal plans.
    pub digest: u64,
    /// Events that happened.
    pub events: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Entries that were committed.
    pub committed: u64,
    /// Faults that happened.
    pub faults: u64,
    /// What was counted.
    pub coverage: Coverage,
    /// The last lines of the trace, if they were kept.
    pub lines: Vec<String>,
}

/// Election timeouts within which a cluster without faults must serve, beside the time that requests may wait.
const SERVES_WITHIN_ELECTIONS: u64 = 40;
/// Milliseconds that a cluster beyond the atlas is watched for.
const BEYOND_MS: u64 = 8_000;
/// Milliseconds within which what was done is let go of: as long as moved indexes wait for a flush, and a snapshot after it.
const FLOOR_WITHIN_MS: u64 = 10_000;
/// Looks in a row at which nothing must be left over.
const FLOOR_LOOKS: u32 = 2;
/// Milliseconds between two looks at whether something holds.
const LOOK_MS: u64 = 20;

impl Report {
    /// Makes the report of a run that did not get to its end.
    pub fn of(seed: u64, violation: Violation) -> Self {
        Self {
            seed,
            ended: Ended::Violated(violation),
            digest: 0,
            events: 0,
            simulated_ms: 0,
            committed: 0,
            faults: 0,
            coverage: Coverage::default(),
            lines: Vec::new(),
        }
    }
}

/// From this seed on clients do everything, and all answers are held against the model; before it they do little else
/// than put, and so do more of it.
pub const EVERYTHING_FROM: u64 = 1_000_000;

/// Runs a seed with the clients that its plan asks for.
pub fn run_seed(seed: u64, narrow: &Narrow, trace: Trace) -> Report {
    let plan = Plan::draw(seed, narrow);
    if seed < EVERYTHING_FROM {
        let mut workload = Puts::new(&plan);
        return run(plan, &mut workload, trace);
    }
    let mut workload = Callers::new(&plan);
    run(plan, &mut workload, trace)
}

/// Runs a plan with a workload.
pub fn run(plan: Plan, workload: &mut dyn Workload, trace: Trace) -> Report {
    let seed = plan.seed;
    let begin_is_beyond = plan.is_beyond;
    let mut world = World::new(plan, trace);
    let begin_ms = world.now_ms();
    let mut run = Run {
        world: &mut world,
        workload,
    };
    let ended = match run.all(begin_is_beyond) {
        Ok(()) => Ended::Clean,
        Err(violation) => Ended::Violated(violation),
    };
    Report {
        seed,
        ended,
        digest: world.digest(),
        events: world.events(),
        simulated_ms: world.now_ms() - begin_ms,
        committed: world.committed().len() as u64,
        faults: world.faults_done(),
        coverage: world.coverage().clone(),
        lines: world.trace().lines(),
    }
}

type Checked<T = ()> = Result<T, Violation>;

struct Run<'a> {
    world: &'a mut World,
    workload: &'a mut dyn Workload,
}

impl Run<'_> {
    fn all(&mut self, is_beyond: bool) -> Checked {
        self.workload.start(self.world);
        let length_ms = self.world.plan().length_ms;
        self.run_ms(length_ms)?;
        self.workload.stop(self.world);
        self.world.end_faults();
        if is_beyond {
            return self.beyond();
        }
        self.converge("after the faults")?;
        self.idle()?;
        let states = self.agree()?;
        self.workload.check(self.world)?;
        self.world.try_copies(&states);
        self.pump()?;
        self.world.restart_everything();
        self.converge("after the restart of everything")?;
        self.agree()?;
        self.unchanged(&states)?;
        self.workload.check(self.world)
    }

    /// After faults that may have taken more than a minority. A start reads most, and so finds most.
    fn beyond(&mut self) -> Checked {
        self.run_ms(BEYOND_MS)?;
        self.serve_or_stop()?;
        self.world.restart_everything();
        self.serve_or_stop()
    }

    /// Who can serve does, who cannot says so, and nobody lies.
    fn serve_or_stop(&mut self) -> Checked {
        let limit_ms = self.patience_ms();
        let what = "every member runs, or has said why it does not";
        self.run_until("loud stop", what, limit_ms, |run| {
            Ok(run.world.has_nobody_gone_silently())
        })?;
        let is_sound = self.world.has_sound_majority();
        if is_sound {
            let leads = "a majority is sound, and one leads";
            self.run_until("liveness", leads, limit_ms, |run| {
                Ok(run.world.leader().is_some())
            })?;
        }
        for number in self.world.up() {
            if is_sound {
                self.serves(number, "a majority is sound", limit_ms)?;
            } else {
                self.answers(number, limit_ms)?;
            }
        }
        self.world.hit(if is_sound {
            "sound majority served beyond the atlas"
        } else if self.world.leader().is_none() {
            "cluster stopped beyond the atlas"
        } else {
            "damaged majority went on beyond the atlas"
        });
        self.workload.check(self.world)
    }

    /// Lets time pass.
    fn run_ms(&mut self, ms: u64) -> Checked {
        let until_ms = self.world.now_ms() + ms;
        while self.world.step(until_ms) {
            self.pump()?;
        }
        self.pump()
    }

    /// Tells the workload what has happened.
    fn pump(&mut self) -> Checked {
        loop {
            if let Some(violation) = self.world.violation() {
                return Err(violation.clone());
            }
            let notes = self.world.take_notes();
            if notes.is_empty() {
                return Ok(());
            }
            for note in notes {
                if let Err(violation) = self.workload.note(self.world, note) {
                    self.world.fail(violation.clone());
                    return Err(violation);
                }
            }
        }
    }

    fn run_until(
        &mut self,
        check: &'static str,
        what: &str,
        limit_ms: u64,
        mut holds: impl FnMut(&mut Self) -> Checked<bool>,
    ) -> Checked {
        let end_ms = self.world.now_ms() + limit_ms;
        while !holds(self)? {
            if self.world.now_ms() >= end_ms {
                let text = format!(
                    "{what}: not within {limit_ms} ms; {}",
                    self.world.describe()
                );
                let violation = Violation::new(check, text);
                self.world.fail(violation.clone());
                return Err(violation);
            }
            self.run_ms(LOOK_MS)?;
        }
        Ok(())
    }

    /// How long a cluster may take to serve again.
    fn patience_ms(&self) -> u64 {
        let election_ms = self.world.plan().limits.election_ms();
        4 * quorate_core::request_timeout_ms(election_ms) + SERVES_WITHIN_ELECTIONS * election_ms
    }

    /// Waits until the cluster is whole, every member serves, and all have applied the same.
    fn converge(&mut self, when: &str) -> Checked {
        let limit_ms = self.patience_ms();
        let whole = format!("{when}, all members run and one leads");
        self.run_until("liveness", &whole, limit_ms, |run| {
            Ok(run.world.is_whole() && run.world.leader().is_some())
        })?;
        for number in self.world.up() {
            self.serves(number, when, limit_ms)?;
        }
        let found = format!("{when}, whoever differs is stopped and replaced");
        self.run_until("members that differ stop", &found, limit_ms, |run| {
            Ok(run.world.has_nobody_different() && run.world.is_whole())
        })?;
        // After a failed read a database gives nothing more; the next flush ends its member, which then starts again.
        let same = format!("{when}, all members have applied the same and can be read");
        self.run_until("liveness", &same, limit_ms, |run| {
            Ok(run.world.is_level() && run.world.is_whole() && can_be_read(run.world))
        })
    }

    /// Waits until a member that runs serves a write, or ends.
    fn serves(&mut self, number: u64, when: &str, limit_ms: u64) -> Checked {
        let serves = format!("{when}, m{number} serves a write");
        let mut asked = None;
        self.run_until("liveness", &serves, limit_ms, |run| {
            if !run.world.is_up(number) {
                return Ok(true);
            }
            let answer = asked.and_then(|token| run.world.told(token));
            match answer {
                Some(Outcome::Applied(Applied::Put(_))) => return Ok(true),
                Some(Outcome::Failed(error)) if is_an_answer(&error) => return Ok(true),
                Some(_) => asked = None,
                None => {}
            }
            if asked.is_none_or(|token| !run.world.waits(token)) {
                asked = run.world.probe(number);
            }
            Ok(false)
        })
    }

    /// Waits until a member that runs has said what became of a write, be it that it timed out, or ends.
    fn answers(&mut self, number: u64, limit_ms: u64) -> Checked {
        let what = format!("a majority is lost, and m{number} says what became of a write");
        let asked = self.world.probe(number);
        self.run_until("loud stop", &what, limit_ms, |run| {
            Ok(asked.is_none_or(|token| !run.world.waits(token)))
        })
    }

    fn idle(&mut self) -> Checked {
        let limit_ms = self.patience_ms();
        // Where few leases may end in a second, a new leader lets them end one behind the other.
        let ends_per_s = self.world.plan().limits.ends_per_s();
        let spread_ms = ends_per_s.map_or(0, |_| SPREAD_S_MAX * 1_000);
        let what = "everybody is answered, and all leases have ended";
        self.run_until("liveness", what, limit_ms + spread_ms, |run| {
            Ok(run.workload.is_idle())
        })?;
        self.run_until("liveness", "all work ends", limit_ms, |run| {
            Ok(run.world.is_level() && run.world.is_at_rest())
        })
    }

    fn agree(&mut self) -> Checked<BTreeMap<u64, State>> {
        self.run_until("liveness", "all members hold still", 60_000, |run| {
            Ok(run.world.is_level() && run.world.is_at_rest())
        })?;
        let checked = check_agreement(self.world);
        if let Err(violation) = &checked {
            self.world.fail(violation.clone());
        }
        let states = checked?;
        self.come_to_the_floor()?;
        Ok(states)
    }

    /// Waits until nothing is left over, at so many looks in a row.
    fn come_to_the_floor(&mut self) -> Checked {
        let end_ms = self.world.now_ms() + FLOOR_WITHIN_MS;
        let mut looks = 0;
        loop {
            match check_floor(self.world) {
                Ok(()) => looks += 1,
                Err(violation) if self.world.now_ms() >= end_ms => {
                    self.world.fail(violation.clone());
                    return Err(violation);
                }
                Err(_) => looks = 0,
            }
            if looks == FLOOR_LOOKS {
                return Ok(());
            }
            self.run_ms(LOOK_MS)?;
        }
    }

    /// Checks that everybody still holds at the old revision what was there before the restart.
    fn unchanged(&mut self, before: &BTreeMap<u64, State>) -> Checked {
        for (number, old) in before {
            let Some(machine) = self.world.machine(*number) else {
                continue;
            };
            let now = match state_of(machine, old.revision) {
                Ok(now) => now,
                Err(_) if machine.running.is_none() || machine.damage.is_some() => continue,
                Err(why) => {
                    let text = format!("m{number} cannot read revision {}: {why}", old.revision);
                    return Err(Violation::new("restart changes nothing", text));
                }
            };
            let hashes = now.hash.zip(old.hash).filter(|_| {
                // What was compacted since is not in the newer hash.
                now.compact_revision == old.compact_revision
            });
            let same = now.revision >= old.revision && hashes.is_none_or(|(a, b)| a == b);
            if !same {
                let text = format!("m{number} held {old:?} and holds {now:?} after a restart");
                return Err(Violation::new("restart changes nothing", text));
            }
        }
        Ok(())
    }
}

/// Says whether a refusal is as good as an answer: the member is able to serve.
fn is_an_answer(error: &quorate_core::Error) -> bool {
    use quorate_core::Error as E;
    matches!(error, E::NoSpace | E::Corrupt | E::Auth(_) | E::Mvcc(_))
}
