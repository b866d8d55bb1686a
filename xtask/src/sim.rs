//! Runs the simulator, in a profile of its own: fast, quick to build, and a panic is a finding.

use crate::workspace::{cargo, check};
use crate::{Outcome, mutants};

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

/// Runs it with what was asked for.
pub(crate) fn run(args: &[String]) -> Outcome {
    if args.first().is_some_and(|first| first == "mutants") {
        return mutants::run(&args[1..]);
    }
    check(cargo().args(PROGRAM).arg("--").args(args))
}
