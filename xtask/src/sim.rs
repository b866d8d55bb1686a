//! Runs the simulator, in a profile of its own: fast, quick to build, and a panic is a finding.

use std::process::Command;

use crate::workspace::{cargo, check, root};
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

/// Runs a few seeds of both kinds of clients, and lies that the checks must find: proof that they can. The program is that of
/// the build that the tests are run from, which is nearly as fast, and there already.
pub(crate) fn smoke() -> Outcome {
    check(cargo().args([
        "build",
        "--quiet",
        "--workspace",
        "--features",
        "xtask/fuzz",
        "--bin",
        "simulator",
    ]))?;
    let program = root().join("target/debug/simulator");
    let runs: [&[&str]; 2] = [&["canary"], &["--quiet", "--jobs", "2", "--seeds", "300"]];
    for args in runs {
        check(Command::new(&program).args(args))?;
    }
    Ok(())
}
