//! Runs the simulator, in a profile of its own: fast, quick to build, and a panic is a finding.

use crate::Outcome;
use crate::workspace::{cargo, check};

const PROGRAM: [&str; 8] = [
    "run",
    "--quiet",
    "--profile",
    "sim",
    "--package",
    "quorate-simulator",
    "--bin",
    "simulator",
];

/// Seeds that continuous integration runs.
const CI_SEEDS: &str = "300";

/// Runs it with what was asked for.
pub(crate) fn run(args: &[String]) -> Outcome {
    check(cargo().args(PROGRAM).arg("--").args(args))
}

/// Runs the seeds of continuous integration: always the same.
pub(crate) fn ci() -> Outcome {
    let args = ["--seeds", CI_SEEDS, "--jobs", "2", "--quiet"];
    run(&args.map(str::to_owned))
}
