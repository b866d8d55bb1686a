//! Runs seeds: see `simulator --help`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool for the terminal, which measures itself and runs seeds on threads"
)]
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_simulator::check::Violation;
use quorate_simulator::coverage::Coverage;
use quorate_simulator::plan::{FaultKind, Narrow};
use quorate_simulator::{EVERYTHING_FROM, Ended, Lie, Report, Trace, run_lie, run_seed, shrink};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
simulator [--seeds N] [--jobs J]               many seeds, of both kinds of clients in turn; stops at the first that fails
simulator --first S [--seeds N] [--jobs J]     seeds from S on
simulator --minutes M [--jobs J]               random seeds for so long
simulator --seed N                             one seed with its whole trace
simulator shrink --seed N                      the smallest run that fails in the same way
simulator canary                               lies that the checks must see through
  --without KIND[,KIND]    kinds of faults left out
  --faults N               faults that happen at most
  --operations N           operations that clients begin at most
  --members N              members that found the cluster
  --length-ms N            length of the first phase
  --all                    a trace with every tick, to see where two runs part
  --quiet                  no trace, no coverage
  --keep-going             do not stop at the first that fails
  --covered                fail when something never happened that should happen sometimes";

/// What was asked for.
#[derive(Default)]
struct Asked {
    shrink: bool,
    canary: bool,
    seed: Option<u64>,
    seeds: Option<u64>,
    first: Option<u64>,
    jobs: usize,
    minutes: Option<u64>,
    quiet: bool,
    all: bool,
    keep_going: bool,
    covered: bool,
    narrow: Narrow,
}

fn parse(args: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        jobs: 1,
        ..Asked::default()
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: &String| {
            let parsed = text.replace('_', "").parse::<u64>();
            parsed.map_err(|e| format!("{arg} {text}: {e}"))
        };
        match arg.as_str() {
            "shrink" => asked.shrink = true,
            "canary" => asked.canary = true,
            "--quiet" => asked.quiet = true,
            "--all" => asked.all = true,
            "--keep-going" => asked.keep_going = true,
            "--covered" => asked.covered = true,
            "--seed" => asked.seed = Some(number(value()?)?),
            "--seeds" => asked.seeds = Some(number(value()?)?),
            "--first" => asked.first = Some(number(value()?)?),
            "--jobs" => asked.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--minutes" => asked.minutes = Some(number(value()?)?),
            "--faults" => asked.narrow.faults = Some(number(value()?)?),
            "--operations" => asked.narrow.operations = Some(number(value()?)?),
            "--members" => asked.narrow.members = Some(number(value()?)?),
            "--length-ms" => asked.narrow.length_ms = Some(number(value()?)?),
            "--without" => {
                for name in value()?.split(',') {
                    let kind = FaultKind::named(name);
                    let kind =
                        kind.ok_or_else(|| format!("no kind of fault is called {name:?}"))?;
                    asked.narrow.without.insert(kind);
                }
            }
            _ => return Err(format!("unknown argument {arg:?}\n{HELP}")),
        }
    }
    if asked.shrink && asked.seed.is_none() {
        return Err("shrink needs a --seed that fails".to_owned());
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let asked = match parse(&args) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let is_fine = match asked.seed {
        _ if asked.canary => Lie::ALL.iter().filter(|lie| !sing(**lie)).count() == 0,
        Some(seed) if asked.shrink => shrink_one(seed, &asked.narrow),
        Some(seed) => trace_one(seed, &asked),
        None => many(&asked),
    };
    if is_fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

/// Runs a seed; a panic of what it runs is a violation.
fn caught(seed: u64, narrow: &Narrow, trace: Trace) -> Report {
    watched(seed, || run_seed(seed, narrow, trace))
}

fn watched(seed: u64, run: impl FnOnce() -> Report) -> Report {
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    result.unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Report::of(seed, Violation::new("panic", text))
    })
}

fn trace_one(seed: u64, asked: &Asked) -> bool {
    let trace = match (asked.quiet, asked.all) {
        (true, _) => Trace::Off,
        (false, true) => Trace::PrintAll,
        (false, false) => Trace::Print,
    };
    println!(
        "{}",
        quorate_simulator::plan::Plan::draw(seed, &asked.narrow).describe()
    );
    let report = caught(seed, &asked.narrow, trace);
    println!(
        "seed {seed}: {} events, {} entries, {} faults, {}.{:03} simulated s, digest {:016x}",
        report.events,
        report.committed,
        report.faults,
        report.simulated_ms / 1_000,
        report.simulated_ms % 1_000,
        report.digest
    );
    tell(&report, &asked.narrow)
}

/// Says how a run ended, and how to see it again.
fn tell(report: &Report, narrow: &Narrow) -> bool {
    let Ended::Violated(violation) = &report.ended else {
        return true;
    };
    println!("seed {} FAILED: {violation}", report.seed);
    println!(
        "see it again: cargo xtask sim --seed {}{}",
        report.seed,
        flags(narrow)
    );
    false
}

fn flags(narrow: &Narrow) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            text.push_str(&format!(" --{name} {value}"));
        }
    };
    add("faults", narrow.faults);
    add("operations", narrow.operations);
    add("members", narrow.members);
    add("length-ms", narrow.length_ms);
    if !narrow.without.is_empty() {
        let names: BTreeSet<_> = narrow.without.iter().map(|k| k.name()).collect();
        let names: Vec<_> = names.into_iter().collect();
        text.push_str(&format!(" --without {}", names.join(",")));
    }
    text
}

fn shrink_one(seed: u64, narrow: &Narrow) -> bool {
    let run = |narrow: &Narrow| match caught(seed, narrow, Trace::Off).ended {
        Ended::Clean => None,
        Ended::Violated(violation) => Some(violation.check),
    };
    panic::set_hook(Box::new(|_| {}));
    let Some(smallest) = shrink(narrow, run) else {
        println!("seed {seed} does not fail");
        return true;
    };
    println!("the smallest run that fails in the same way:");
    println!("cargo xtask sim --seed {seed}{}", flags(&smallest));
    false
}

/// Seeds within which each lie must be found out.
const CANARY_SEEDS: u64 = 20;

/// Says whether a lie is found out within a few seeds, each of which is clean without it.
fn sing(lie: Lie) -> bool {
    panic::set_hook(Box::new(|_| {}));
    let first = lie.first_seed();
    for seed in first..first + CANARY_SEEDS {
        let truth = watched(seed, || run_lie(seed, None, &Narrow::default()));
        if let Ended::Violated(violation) = truth.ended {
            println!("canary: seed {seed} fails without a lie: {violation}");
            return false;
        }
        let lied = watched(seed, || run_lie(seed, Some(lie), &Narrow::default()));
        if let Ended::Violated(violation) = lied.ended {
            println!("canary: {lie}: found at seed {seed}: {violation}");
            let is_meant = lie.check().is_none_or(|check| check == violation.check);
            if !is_meant {
                println!("canary: {lie}: another check found it than should");
            }
            return is_meant;
        }
    }
    println!("canary: {lie}: not found in {CANARY_SEEDS} seeds: the checks see nothing");
    false
}

/// Which seeds are run, in order.
#[derive(Clone, Copy)]
enum Order {
    /// From this one on.
    From(u64),
    /// Of both kinds of clients in turn, the first after this one of each.
    BothAfter(u64),
}

impl Order {
    /// Returns the seed that is run after so many others.
    fn seed(self, done: u64) -> u64 {
        match self {
            Self::From(first) => first.saturating_add(done),
            Self::BothAfter(last) => {
                let number = last + done / 2;
                match done % 2 {
                    0 => 1 + number % (EVERYTHING_FROM - 1),
                    _ => EVERYTHING_FROM + 1 + number,
                }
            }
        }
    }
}

/// What threads that run seeds share.
struct Shared {
    order: Order,
    done: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    failed: u64,
    simulated_ms: u64,
    events: u64,
    committed: u64,
    busy: Duration,
    coverage: Coverage,
}

fn many(asked: &Asked) -> bool {
    let begun = Instant::now();
    let ends = asked.minutes.map(|m| begun + Duration::from_secs(60 * m));
    let seeds = match ends {
        Some(_) => u64::MAX,
        None => asked.seeds.unwrap_or(1_000),
    };
    let order = match asked.first {
        Some(first) => Order::From(first),
        None if ends.is_some() => Order::BothAfter(by_the_clock()),
        None => Order::BothAfter(0),
    };
    let shared = Shared {
        order,
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        sum: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs {
            scope.spawn(|| work(asked, &shared, seeds, ends));
        }
    });
    let sum = shared
        .sum
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    report(&sum, begun.elapsed(), asked.quiet);
    let is_covered = !asked.covered || is_covered(&sum.coverage);
    sum.failed == 0 && is_covered
}

/// Draws a number that is another in every run.
fn by_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since.unwrap_or_default().as_nanos() & 0xffff_ffff_ffff;
    u64::try_from(ns).unwrap_or(1)
}

/// Says what never happened, and whether everything did.
fn is_covered(coverage: &Coverage) -> bool {
    let missing = coverage.missing();
    for name in &missing {
        println!("FAILED: never {name}");
    }
    missing.is_empty()
}

fn work(asked: &Asked, shared: &Shared, seeds: u64, ends: Option<Instant>) {
    while !shared.stop.load(Ordering::Relaxed) && ends.is_none_or(|ends| Instant::now() < ends) {
        let done = shared.done.fetch_add(1, Ordering::Relaxed);
        if done >= seeds {
            return;
        }
        let seed = shared.order.seed(done);
        let begun = cpu_time();
        let report = caught(seed, &asked.narrow, Trace::Off);
        let Ok(mut sum) = shared.sum.lock() else {
            return;
        };
        sum.busy += cpu_time().saturating_sub(begun);
        sum.seeds += 1;
        sum.simulated_ms += report.simulated_ms;
        sum.events += report.events;
        sum.committed += report.committed;
        sum.coverage.add(&report.coverage);
        if !tell(&report, &asked.narrow) {
            sum.failed += 1;
            if !asked.keep_going {
                shared.stop.store(true, Ordering::Relaxed);
            }
        }
        if sum.seeds.is_multiple_of(500) {
            println!("{} seeds, {} failed", sum.seeds, sum.failed);
        }
    }
}

/// Returns how long this thread has had a processor.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

fn report(sum: &Sum, took: Duration, quiet: bool) {
    if !quiet {
        for (name, count) in sum.coverage.sorted() {
            println!("{count:>10} {name}");
        }
        for name in sum.coverage.missing() {
            println!("     never {name}");
        }
    }
    let busy_ms = sum.busy.as_millis().max(1);
    println!(
        "{} seeds, {} failed, {} s simulated, {} events, {} entries in {:.1} s: {} simulated seconds per CPU second",
        sum.seeds,
        sum.failed,
        sum.simulated_ms / 1_000,
        sum.events,
        sum.committed,
        took.as_secs_f64(),
        u128::from(sum.simulated_ms) / busy_ms,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&args)
    }

    #[test]
    fn seeds_are_of_both_kinds_in_turn_or_from_one_on() {
        let seeds = |order: Order| [0, 1, 2, 3].map(|done| order.seed(done));
        assert_eq!(seeds(Order::BothAfter(0)), [1, 1_000_001, 2, 1_000_002]);
        assert_eq!(seeds(Order::From(7)), [7, 8, 9, 10]);
        let late = seeds(Order::BothAfter(EVERYTHING_FROM - 2));
        assert_eq!(late, [999_999, 1_999_999, 1, 2_000_000]);
    }

    #[test]
    fn shrink_needs_a_seed() {
        assert!(asked("shrink").is_err());
        assert!(asked("shrink --faults 3").is_err());
        assert!(asked("shrink --seed 3").is_ok_and(|asked| asked.shrink));
    }

    #[test]
    fn what_never_happened_is_told() {
        let mut coverage = Coverage::default();
        assert!(!is_covered(&coverage));
        for name in quorate_simulator::coverage::NAMES {
            coverage.hit(name);
        }
        assert!(is_covered(&coverage));
    }
}
