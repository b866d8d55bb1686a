//! Runs the crash loop: `crash [--loops N] [--seed N]`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_integration_tests::{Binary, CrashOptions, CrashReport, Failure, Outcome, crash_loop};

/// The loops when the command line names no number.
const LOOPS: u32 = 1_000;

fn main() -> ExitCode {
    let outcome = options().and_then(|options| {
        let seed = options.seed;
        crash_loop(&options).map(|report| (seed, report))
    });
    let (text, code) = match outcome {
        Ok((seed, report)) => (summary(seed, &report), ExitCode::SUCCESS),
        Err(failure) => (format!("failed: {failure}"), ExitCode::FAILURE),
    };
    // Nobody is left to tell when standard output is gone.
    let _ = writeln!(std::io::stdout(), "{text}");
    code
}

fn options() -> Outcome<CrashOptions> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (mut loops, mut seed) = (LOOPS, u64::from(since.subsec_nanos()));
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        let bad = |_| Failure::new(format!("bad value {value:?} of {arg}"));
        match arg.as_str() {
            "--loops" => loops = value.parse().map_err(bad)?,
            "--seed" => seed = value.parse().map_err(bad)?,
            _ => return Err(Failure::new("usage: crash [--loops N] [--seed N]")),
        }
    }
    Ok(CrashOptions::new(Binary::quorate()?, loops, seed))
}

fn summary(seed: u64, report: &CrashReport) -> String {
    format!(
        "{} loops of seed {seed}: {} acknowledged writes, all found; of those without an answer {} had happened and {} had not; \
         {} kills during a start",
        report.loops,
        report.acknowledged,
        report.unanswered_kept,
        report.unanswered_lost,
        report.killed_in_start
    )
}
