//! Runs clusters under load and fault and checks what clients saw: see the usage below.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_integration_tests::checker::Lie;
use quorate_integration_tests::cluster::{ChaosOptions, SCENARIOS, Scenario, chaos};
use quorate_integration_tests::{Binary, Failure, Outcome};

const USAGE: &str = "usage: chaos [--minutes N] [--seed S] [--members N] [--binaries PATH,PATH,..] [--scenario NAME] [--seconds N] [--lie NAME]

  --minutes   how long, ten unless said; with less than it takes the last scenarios are left out
  --seed      what the run is made of
  --members   members of a cluster, three unless said
  --binaries  programs of the members, in turn: Quorate's unless said, or any that take etcd's flags
  --scenario  only this one
  --seconds   how long the faults of one scenario go on, fifteen unless said
  --lie       makes the recording wrong, to see that the checker notices";

struct Arguments {
    options: ChaosOptions,
    only: Option<&'static Scenario>,
    minutes: f64,
    /// What reproduces the run, but for seed and scenario.
    rest: String,
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|arguments| run(&arguments));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // Nobody is left to tell when standard output is gone.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn run(arguments: &Arguments) -> Outcome {
    let options = &arguments.options;
    say(&format!(
        "{} members, seed {}, {} minutes",
        options.members, options.seed, arguments.minutes
    ));
    let (mut runs, mut writes) = (0, 0);
    let total = Duration::from_secs_f64(arguments.minutes * 60.0);
    let outcome = chaos(options, arguments.only, total, |told| match told {
        Ok(report) => {
            runs += 1;
            writes += report.verdict.acknowledged;
            say(&report.to_string());
        }
        Err(skipped) => say(&skipped),
    });
    match outcome {
        Ok(()) => {
            say(&format!(
                "clean: {runs} clusters, {writes} acknowledged writes, all found"
            ));
            Ok(())
        }
        Err(broken) => Err(broken.failure.during(&format!(
            "FAILED, again with:\n  cargo xtask chaos --scenario {} --seed {} {}\n",
            broken.scenario, broken.seed, arguments.rest
        ))),
    }
}

fn arguments() -> Outcome<Arguments> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut options = ChaosOptions {
        binaries: Vec::new(),
        members: 3,
        seed: u64::from(since.subsec_nanos()),
        time: Duration::from_secs(15),
        lie: None,
    };
    let (mut only, mut minutes, mut rest) = (None, 10.0, String::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| Failure::new(USAGE))?;
        let bad = || Failure::new(format!("bad value {value:?} of {arg}\n{USAGE}"));
        match arg.as_str() {
            "--minutes" => minutes = value.parse().map_err(|_| bad())?,
            "--seed" => options.seed = value.parse().map_err(|_| bad())?,
            "--members" => options.members = value.parse().map_err(|_| bad())?,
            "--seconds" => options.time = Duration::from_secs(value.parse().map_err(|_| bad())?),
            "--binaries" => {
                let paths = value.split(',').map(|path| Binary::at(Path::new(path)));
                options.binaries = paths.collect::<Outcome<_>>()?;
            }
            "--scenario" => only = Some(Scenario::named(&value).ok_or_else(|| unknown(&value))?),
            "--lie" => {
                let named = Lie::ALL.into_iter().find(|lie| format!("{lie:?}") == value);
                options.lie = Some(named.ok_or_else(bad)?);
            }
            _ => return Err(Failure::new(USAGE)),
        }
        if !["--seed", "--scenario", "--minutes"].contains(&arg.as_str()) {
            rest.push_str(&format!("{arg} {value} "));
        }
    }
    if options.binaries.is_empty() {
        options.binaries.push(Binary::quorate()?);
    }
    Ok(Arguments {
        options,
        only,
        minutes,
        rest: format!("{rest}--minutes 1"),
    })
}

fn unknown(name: &str) -> Failure {
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    Failure::new(format!(
        "no scenario {name:?}; there are {}",
        names.join(", ")
    ))
}
