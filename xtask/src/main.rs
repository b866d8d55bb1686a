//! The checks of this repository as code: `cargo xtask ci` and its parts.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal"
)]

mod ci;
mod fuzz;
mod layers;
mod tidy;
mod workspace;

use std::error::Error;
use std::process::ExitCode;

use workspace::{cargo, check};

/// What a command comes to; errors are texts for the terminal.
type Outcome = Result<(), Box<dyn Error>>;

struct Command {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "ci",
        usage: "ci                   everything that continuous integration runs",
        run: ci::run,
    },
    Command {
        name: "tidy",
        usage: "tidy                 rules of the sources that no lint knows",
        run: tidy::run,
    },
    Command {
        name: "layers",
        usage: "layers               which crate may depend on which",
        run: layers::run,
    },
    Command {
        name: "crash",
        usage: "crash [--loops N] [--seed N]   load, SIGKILL and restart of the real binary; 1,000 loops unless said",
        run: crash,
    },
    Command {
        name: "bench",
        usage: "bench --etcd PATH --tool PATH [--rounds N] [--only NAME] [--scale X]   compare with a real etcd",
        run: bench,
    },
    Command {
        name: "fuzz",
        usage: "fuzz TARGET [SEED] | smoke | canary | list",
        run: fuzz::run,
    },
];

/// Runs the crash loop on a release build.
fn crash(args: &[String]) -> Outcome {
    check(cargo().args(["build", "--release", "--bin", "quorate"]))?;
    let package = ["run", "--release", "--package", "quorate-integration-tests"];
    check(
        cargo()
            .args(package)
            .args(["--bin", "crash", "--"])
            .args(args),
    )
}

/// Compares a release build with a real etcd, under etcd's own benchmark tool.
fn bench(args: &[String]) -> Outcome {
    check(cargo().args(["build", "--release", "--bin", "quorate"]))?;
    let package = [
        "run",
        "--release",
        "--package",
        "quorate-benches",
        "--bin",
        "compare",
    ];
    let ours = ["--", "--quorate", "target/release/quorate"];
    check(cargo().args(package).args(ours).args(args))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(command) = COMMANDS
        .iter()
        .find(|command| args.first().is_some_and(|name| name == command.name))
    else {
        eprintln!("usage: cargo xtask COMMAND");
        COMMANDS
            .iter()
            .for_each(|command| eprintln!("  {}", command.usage));
        return ExitCode::from(2);
    };
    match (command.run)(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", command.name);
            ExitCode::FAILURE
        }
    }
}
