//! Runs of scenarios: load, faults, and the verdict.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::disk::Stall;
use super::fleet::{Cluster, Healed, Setup};
use super::load::{Load, LoadOptions};
use super::proxy::Place;
use super::scenario::{Program, SCENARIOS, Scenario, Step, Who, Wires};
use crate::binary::Binary;
use crate::checker::{Lie, Recording, Reply, Verdict, check};
use crate::failure::{Failure, Outcome};
use crate::random::Random;

/// How long writes may fail when a quorum is whole again. Machines that run tests are slow.
const RECOVER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a cluster may take none when the wires are in order again and nothing else is wrong: two election time-outs, and ten
/// times that for machines that have other things to do.
const SERVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long members of our own need to compare their digests twice.
const COMPARED: Duration = Duration::from_millis(2_500);
/// What members of our own say when their digests differ.
const DIFFERENT: [&str; 2] = [
    "holds another state than a majority",
    "members hold different states",
];
/// How long leases may last after the last renewal: the longest one, a few changes of leaders, and a slow machine.
const LEASES_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a hand-over is tried, which a change of leaders can get in the way of.
const LEAD_TRIES: usize = 5;
/// The time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// How to run scenarios.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// The programs of the members, in turn.
    pub binaries: Vec<Binary>,
    /// Members.
    pub members: usize,
    /// What the run is made of; the same seed asks for the same, though not at the same moments.
    pub seed: u64,
    /// How long faults go on.
    pub time: Duration,
    /// Makes the recording wrong, to see that this is noticed.
    pub lie: Option<Lie>,
}

impl ChaosOptions {
    /// Whether some member runs a program that is not Quorate's.
    fn is_mixed(&self) -> bool {
        let is_foreign = |binary: &Binary| !binary.path().ends_with("quorate");
        self.binaries.iter().any(is_foreign)
    }
}

/// What a run of a scenario came to.
#[derive(Debug)]
pub struct Report {
    /// The scenario.
    pub name: &'static str,
    /// Steps done to the cluster.
    pub steps: usize,
    /// How long the cluster was under load.
    pub time: Duration,
    /// The longest time between two acknowledged writes.
    pub longest_gap: Duration,
    /// From the end of all faults to the next acknowledged write.
    pub recovered: Duration,
    /// The longest time from wires that are in order again to the first linearizable read, and until every member that runs
    /// answers one.
    pub healed: Option<Healed>,
    /// What the checker says.
    pub verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.verdict;
        write!(
            f,
            "{:<16} {:>5.1} s, {:>3} steps: {:>6} calls, {:>6} writes acknowledged, {:>4} unanswered done and {:>4} not, \
             {:>5} linearizable and {:>5} serializable reads, {:>6} events in {:>3} watches, {:>3} leases ended, \
             longest gap {:>5} ms, recovered in {:>5} ms",
            self.name,
            self.time.as_secs_f64(),
            self.steps,
            v.calls,
            v.acknowledged,
            v.unanswered_done,
            v.unanswered_not_done,
            v.linearizable_reads,
            v.serializable_reads,
            v.events,
            v.watches,
            v.leases_ended,
            self.longest_gap.as_millis(),
            self.recovered.as_millis(),
        )?;
        if let Some(healed) = self.healed {
            let (first, all) = (healed.first.as_millis(), healed.all.as_millis());
            write!(
                f,
                ", wires healed: served after {first:>4} ms, all after {all:>5} ms"
            )?;
        }
        Ok(())
    }
}

/// A run that was not clean.
#[derive(Debug)]
pub struct Broken {
    /// The scenario.
    pub scenario: &'static str,
    /// The seed of its run.
    pub seed: u64,
    /// What was wrong.
    pub failure: Failure,
}

/// Runs every scenario that can be run here, or one, each on a fresh cluster, until the time is up; `tell` gets a line for each.
///
/// # Errors
/// A promise was broken, or something could not be done that must be possible.
pub fn chaos(
    options: &ChaosOptions,
    only: Option<&'static Scenario>,
    total: Duration,
    mut tell: impl FnMut(Result<Report, String>),
) -> Result<(), Broken> {
    let deadline = Instant::now() + total;
    let mut seed = options.seed;
    for round in 0_u64.. {
        for scenario in SCENARIOS {
            let is_skipped = only.is_some_and(|only| only.name != scenario.name)
                || scenario.is_ours && options.is_mixed();
            if is_skipped {
                continue;
            }
            if Instant::now() >= deadline {
                return Ok(());
            }
            if let Some(obstacle) = scenario.disk.obstacle() {
                if round == 0 {
                    tell(Err(format!("{:<16} skipped: {obstacle}", scenario.name)));
                }
                continue;
            }
            let options = ChaosOptions {
                seed,
                ..options.clone()
            };
            let report = run(&options, scenario).map_err(|failure| Broken {
                scenario: scenario.name,
                seed,
                failure,
            })?;
            tell(Ok(report));
            seed += 1;
        }
    }
    Ok(())
}

/// Runs one scenario on a fresh cluster and judges it.
///
/// # Errors
/// A promise was broken, or something could not be done that must be possible.
pub fn run(options: &ChaosOptions, scenario: &'static Scenario) -> Outcome<Report> {
    let mut recorded = record(options, scenario)?;
    if let Some(lie) = options.lie
        && !lie.tell(&mut recorded.recording)
    {
        return Err(Failure::new("there was nothing to lie about"));
    }
    recorded.judge()
}

/// A run that is not judged yet.
#[derive(Debug)]
pub struct Recorded {
    /// What clients saw.
    pub recording: Recording,
    scenario: &'static Scenario,
    steps: usize,
    time: Duration,
    recovered: Duration,
    healed: Option<Healed>,
    logs: String,
}

impl Recorded {
    /// Judges it.
    ///
    /// # Errors
    /// A promise was broken; the recording is kept.
    pub fn judge(&self) -> Outcome<Report> {
        let verdict = check(&self.recording);
        if verdict.violation_count > 0 {
            return Err(refuse(&verdict, &self.recording, &self.logs));
        }
        Ok(Report {
            name: self.scenario.name,
            steps: self.steps,
            time: self.time,
            longest_gap: longest_gap(&self.recording),
            recovered: self.recovered,
            healed: self.healed,
            verdict,
        })
    }
}

/// Runs one scenario on a fresh cluster.
///
/// # Errors
/// Something could not be done that must be possible.
pub fn record(options: &ChaosOptions, scenario: &'static Scenario) -> Outcome<Recorded> {
    let binaries = match scenario.is_migration {
        true => options.binaries[..1].to_vec(),
        false => options.binaries.clone(),
    };
    let setup = Setup {
        binaries,
        members: options.members,
        disk: scenario.disk,
        args: scenario.args.iter().map(|&arg| arg.to_owned()).collect(),
        seed: options.seed,
        is_direct: false,
    };
    let cluster = Cluster::start(&setup)?;
    let load = Load::start(&cluster.sites(), &LoadOptions::new(options.seed))?;
    let mut run = Run {
        cluster,
        load,
        scenario,
        programs: options.binaries.clone(),
        random: Random::new(options.seed ^ 0x0005_7e95),
        same: 0,
        steps: 0,
        stalled: Vec::new(),
        full: Vec::new(),
        healed: None,
    };
    let begun = Instant::now();
    let faults = run.faults(options.time);
    faults.map_err(|failure| run.cluster.failure(&failure.to_string()))?;
    let recovered = run.mend();
    let recovered = recovered.map_err(|failure| run.cluster.failure(&failure.to_string()))?;
    let (time, steps, healed) = (begun.elapsed(), run.steps, run.healed);
    let asks = |step: &Step| matches!(step, Step::Defragment(_));
    if scenario.steps.iter().any(asks) && run.cluster.defragmented() == 0 {
        return Err(run.cluster.failure("no member was defragmented"));
    }
    let (recording, logs) = run.end()?;
    Ok(Recorded {
        recording,
        scenario,
        steps,
        time,
        recovered,
        healed,
        logs,
    })
}

struct Run {
    cluster: Cluster,
    load: Load,
    scenario: &'static Scenario,
    programs: Vec<Binary>,
    random: Random,
    /// Whom the last step was done to.
    same: Place,
    steps: usize,
    stalled: Vec<Place>,
    full: Vec<Place>,
    healed: Option<Healed>,
}

impl Run {
    /// One round at least, and then more until the time is up.
    fn faults(&mut self, time: Duration) -> Outcome {
        let deadline = Instant::now() + time;
        for round in 0_u64.. {
            for step in self.scenario.steps {
                if round > 0 && Instant::now() > deadline {
                    return Ok(());
                }
                self.step(*step)
                    .map_err(|failure| failure.during(&format!("{step:?}")))?;
                self.steps += 1;
                self.look_after_members()?;
            }
        }
        Ok(())
    }

    /// Members end by themselves only where a scenario says so.
    fn look_after_members(&mut self) -> Outcome {
        for place in self.cluster.places() {
            if self.cluster.has_ended(place)? && !self.scenario.may_end {
                return Err(Failure::new(format!(
                    "{} ended by itself",
                    self.cluster.member(place).name()
                )));
            }
        }
        Ok(())
    }

    fn choose(&mut self, who: Who) -> Place {
        let running = self.cluster.running();
        let leader = match who {
            Who::Leader | Who::Follower => self.cluster.leader(),
            _ => None,
        };
        let candidates: Vec<Place> = match who {
            Who::Same => vec![self.same],
            Who::At(place) => vec![place],
            Who::Leader => leader.map_or(running, |leader| vec![leader]),
            Who::Follower => running.into_iter().filter(|p| Some(*p) != leader).collect(),
            Who::Any => running,
            Who::Runs(program) => {
                let wanted = self.program(program).path().to_path_buf();
                let runs = |place: &Place| self.cluster.member(*place).binary.path() == wanted;
                running.into_iter().filter(runs).collect()
            }
        };
        if !candidates.is_empty() {
            let count = u64::try_from(candidates.len()).unwrap_or(1);
            let pick = usize::try_from(self.random.below(count)).unwrap_or_default();
            self.same = candidates[pick];
        }
        self.same
    }

    fn program(&self, program: Program) -> Binary {
        let found = match program {
            Program::First => self.programs.first(),
            Program::Last => self.programs.last(),
        };
        found.expect("a run has a program").clone()
    }

    fn step(&mut self, step: Step) -> Outcome {
        match step {
            Step::Wait(from, to) => {
                let time = self
                    .random
                    .between(Duration::from_millis(from), Duration::from_millis(to));
                thread::sleep(time);
                Ok(())
            }
            Step::Writes(count) => self.wait_writes(count),
            Step::Heal => self.heal(),
            Step::KillAll => {
                let places = self.cluster.running();
                places
                    .into_iter()
                    .try_for_each(|place| self.cluster.kill(place))
            }
            Step::StartAll => self.start_all(),
            Step::AddLearner => {
                let spare = self.cluster.spare();
                let spare = spare.ok_or_else(|| Failure::new("there is no place for a learner"))?;
                self.same = spare;
                self.cluster.add(spare, None, true)
            }
            Step::Promote => self.cluster.promote(self.same),
            Step::RemoveAdded => {
                let last = self.cluster.places().last().copied();
                last.map_or(Ok(()), |place| self.cluster.remove(place))
            }
            Step::Kill(who)
            | Step::Stop(who)
            | Step::Start(who)
            | Step::BeginStart(who)
            | Step::Pause(who)
            | Step::Resume(who)
            | Step::Set(who, ..)
            | Step::Reset(who)
            | Step::FillDisk(who)
            | Step::FreeDisk(who)
            | Step::Stall(who, _)
            | Step::Replace(who)
            | Step::ReplaceBy(who, _)
            | Step::Defragment(who)
            | Step::Backup(who)
            | Step::Lose(who)
            | Step::Lead(who) => {
                let place = self.choose(who);
                self.do_to(place, step)
            }
        }
    }

    fn do_to(&mut self, place: Place, step: Step) -> Outcome {
        let is_running = self.cluster.member(place).is_running();
        match step {
            Step::Kill(_) if is_running => self.cluster.kill(place),
            Step::Stop(_) => {
                self.cluster.begin_stop(place)?;
                self.cluster.end_stop(place).map(drop)
            }
            Step::Start(_) => {
                if !is_running {
                    self.cluster.begin_start(place)?;
                }
                self.cluster.end_start(place)
            }
            Step::BeginStart(_) if !is_running => self.cluster.begin_start(place),
            Step::Pause(_) => self.cluster.pause(place, true),
            Step::Resume(_) => self.cluster.pause(place, false),
            Step::Set(_, wires, rules) => {
                self.set_wires(place, wires, |run, from, to| {
                    run.cluster.network().set(from, to, rules)
                });
                Ok(())
            }
            Step::Reset(_) => {
                self.set_wires(place, Wires::All, |run, one, other| {
                    run.cluster.network().reset(one, other)
                });
                Ok(())
            }
            Step::FillDisk(_) => {
                self.full.push(place);
                self.cluster.fill_disk(place, true)
            }
            Step::FreeDisk(_) => {
                self.full.retain(|full| *full != place);
                self.cluster.fill_disk(place, false)
            }
            Step::Stall(_, stall) => {
                self.stalled.push(place);
                self.cluster.stall_disk(place, stall)
            }
            Step::Replace(_) => self.replace(place, None),
            Step::ReplaceBy(_, program) => {
                let binary = self.program(program);
                self.replace(place, Some(&binary))
            }
            Step::Lose(_) => {
                self.cluster.kill(place)?;
                self.replace(place, None)
            }
            Step::Lead(_) => self.lead(place),
            // One that fails does not matter as long as it does no harm and some are done.
            Step::Defragment(_) => {
                drop(self.cluster.begin_defragment(place));
                Ok(())
            }
            Step::Backup(_) => {
                drop(self.cluster.begin_backup(place));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts the wires in order and sees how soon the cluster serves.
    fn heal(&mut self) -> Outcome {
        self.cluster.network().heal();
        let healed = self.cluster.time_to_serve(RECOVER_TIMEOUT)?;
        if healed.first > SERVE_TIMEOUT {
            return Err(Failure::new(format!(
                "the cluster served {} s after its wires were in order again, and not before",
                healed.first.as_secs_f64()
            )));
        }
        let longest = self.healed.unwrap_or_default();
        self.healed = Some(Healed {
            first: longest.first.max(healed.first),
            all: longest.all.max(healed.all),
        });
        Ok(())
    }

    fn replace(&mut self, place: Place, binary: Option<&Binary>) -> Outcome {
        self.cluster.remove(place)?;
        self.cluster.add(place, binary, false)
    }

    /// Changes of leaders may get in the way, and a cluster without a leader has none to ask; whoever leads in the end, it goes on.
    fn lead(&mut self, place: Place) -> Outcome {
        for _ in 0..LEAD_TRIES {
            let leader = self.cluster.wait_leader()?;
            if leader == place || self.cluster.move_leader(leader, place).is_ok() {
                break;
            }
            thread::sleep(LOOK * 10);
        }
        Ok(())
    }

    fn set_wires(&mut self, place: Place, wires: Wires, set: impl Fn(&Run, Place, Place)) {
        let others: Vec<Place> = self
            .cluster
            .places()
            .into_iter()
            .filter(|p| *p != place)
            .collect();
        let Ok(count @ 1..) = u64::try_from(others.len()) else {
            return;
        };
        let one = usize::try_from(self.random.below(count)).unwrap_or_default();
        let picked = match wires {
            Wires::One | Wires::OneOut => &others[one..=one],
            Wires::All | Wires::Out | Wires::In => &others[..],
        };
        for other in picked {
            if wires != Wires::In {
                set(self, place, *other);
            }
            if matches!(wires, Wires::All | Wires::In | Wires::One) {
                set(self, *other, place);
            }
        }
    }

    fn start_all(&mut self) -> Outcome {
        let down: Vec<Place> = self
            .cluster
            .places()
            .into_iter()
            .filter(|place| !self.cluster.member(*place).is_running())
            .collect();
        for place in &down {
            self.cluster.begin_start(*place)?;
        }
        down.into_iter()
            .try_for_each(|place| self.cluster.end_start(place))
    }

    fn wait_writes(&mut self, count: u64) -> Outcome {
        let goal = self.load.writes() + count;
        let mut best = (self.load.writes(), Instant::now());
        while self.load.writes() < goal {
            let writes = self.load.writes();
            if writes > best.0 {
                best = (writes, Instant::now());
            }
            if best.1.elapsed() > RECOVER_TIMEOUT {
                return Err(Failure::new(format!(
                    "no write was acknowledged for {} s although a quorum is whole",
                    RECOVER_TIMEOUT.as_secs()
                )));
            }
            thread::sleep(LOOK);
            self.look_after_members()?;
        }
        Ok(())
    }

    /// Ends all faults and waits until the cluster serves; gives how long that took.
    fn mend(&mut self) -> Outcome<Duration> {
        self.cluster.network().heal();
        for place in std::mem::take(&mut self.full) {
            self.cluster.fill_disk(place, false)?;
        }
        for place in std::mem::take(&mut self.stalled) {
            self.cluster.stall_disk(place, Stall::default())?;
        }
        for place in self.cluster.places() {
            if self.cluster.member(place).is_paused() {
                self.cluster.pause(place, false)?;
            }
        }
        self.look_after_members()?;
        let begun = Instant::now();
        let down: Vec<Place> = self.cluster.places();
        for place in down {
            if !self.cluster.member(place).is_running() {
                self.cluster.begin_start(place)?;
            }
        }
        self.wait_writes(1)?;
        let recovered = begun.elapsed();
        for place in self.cluster.places() {
            self.cluster.end_start(place)?;
            // A learner serves no watches, and the round may have ended before its promotion.
            self.cluster.promote(place)?;
        }
        self.wait_writes(20)?;
        Ok(recovered)
    }

    /// Lets the load come to its end and collects everything.
    fn end(self) -> Outcome<(Recording, String)> {
        let Run {
            cluster,
            load,
            scenario,
            ..
        } = self;
        load.rest();
        let collected = wait_leases(&cluster).and_then(|()| {
            let revision = cluster.converge()?;
            thread::sleep(COMPARED);
            let mut recording = load.finish(revision)?;
            recording.hashes = cluster.hashes()?;
            Ok(recording)
        });
        let recording = collected.map_err(|failure| cluster.failure(&failure.to_string()))?;
        let is_logged = |text: &str| {
            cluster.places().into_iter().any(|place| {
                fs::read(cluster.member(place).log_path())
                    .is_ok_and(|log| String::from_utf8_lossy(&log).contains(text))
            })
        };
        if let Some(text) = scenario.logged.filter(|text| !is_logged(text)) {
            return Err(cluster.failure(&format!("no member has logged {text:?}")));
        }
        if let Some(text) = DIFFERENT.into_iter().find(|text| is_logged(text)) {
            return Err(cluster.failure(&format!("a member has logged {text:?}")));
        }
        let logs = cluster.failure("the cluster:").to_string();
        Ok((recording, logs))
    }
}

/// Waits until leases that nobody keeps have taken their keys with them.
fn wait_leases(cluster: &Cluster) -> Outcome {
    let deadline = Instant::now() + LEASES_TIMEOUT;
    loop {
        let request = RangeRequest {
            key: "l/".into(),
            range_end: "l0".into(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let leader = cluster.wait_leader()?;
        let answer: Result<RangeResponse, _> = cluster.ask(leader, "KV/Range", request);
        if answer.as_ref().is_ok_and(|answer| answer.kvs.is_empty()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("leases do not end: {answer:?}")));
        }
        thread::sleep(LOOK * 10);
    }
}

fn longest_gap(recording: &Recording) -> Duration {
    let is_write = |reply: &Reply| {
        reply.answer().is_some_and(|answer| {
            let put = |result: &_| matches!(result, crate::checker::OpResult::Put(_));
            answer.results.iter().any(put)
        })
    };
    let writes = recording.calls.iter().filter(|call| is_write(&call.reply));
    let mut ends: Vec<u64> = writes.map(|call| call.ended_us).collect();
    ends.sort_unstable();
    let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_micros(gaps.max().unwrap_or_default())
}

/// A failure with the violations; the recording and the logs are kept in a file.
fn refuse(verdict: &Verdict, recording: &Recording, logs: &str) -> Failure {
    let shown: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    let kept = keep(recording, logs).map_or_else(
        |failure| format!("the recording could not be kept: {failure}"),
        |path| format!("the recording is kept in {path}"),
    );
    Failure::new(format!(
        "{} promises broken:\n{}\n{kept}",
        verdict.violation_count,
        shown.join("\n")
    ))
}

fn keep(recording: &Recording, logs: &str) -> Outcome<String> {
    let dir = tempfile::Builder::new()
        .prefix("quorate-chaos-")
        .disable_cleanup(true)
        .tempdir()?;
    let mut file = fs::File::create(dir.path().join("recording"))?;
    for call in &recording.calls {
        writeln!(file, "{call:?}")?;
    }
    for watch in &recording.watches {
        let (client, member, range, from) = (watch.client, watch.member, &watch.range, watch.from);
        writeln!(file, "watch of {client} on {member}, {range:?} from {from}")?;
        for message in &watch.messages {
            writeln!(file, "  {message:?}")?;
        }
    }
    writeln!(file, "{:?}", recording.hashes)?;
    fs::write(dir.path().join("logs"), logs)?;
    Ok(dir.path().display().to_string())
}
