//! Calls the program that holds the fuzz targets; see `src/bin/fuzz`.

use crate::Outcome;
use crate::workspace::{cargo, check};

/// Runs it with the arguments given.
pub(crate) fn run(args: &[String]) -> Outcome {
    let mut command = cargo();
    command.args([
        "run",
        "--quiet",
        "--package",
        "xtask",
        "--features",
        "fuzz",
        "--bin",
        "fuzz",
        "--",
    ]);
    check(command.args(args))
}

/// Runs every target for a short time, and the one that must fail, from the build that the tests are run from.
pub(crate) fn smoke() -> Outcome {
    let mut command = cargo();
    command.args([
        "test",
        "--quiet",
        "--workspace",
        "--features",
        "xtask/fuzz",
        "--bin",
        "fuzz",
    ]);
    check(command.args([
        "--",
        "--ignored",
        "--exact",
        "--nocapture",
        "tests::short_run_of_all_targets",
    ]))
}
