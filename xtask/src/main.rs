//! The checks of this repository as code: `cargo xtask ci` and its parts.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal"
)]

mod ci;
mod fuzz;
mod layers;
mod mutants;
mod sim;
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
        run: |args| with_release("quorate-integration-tests", "crash", args),
    },
    Command {
        name: "chaos",
        usage: "chaos [--minutes N] [--seed S] [--members N] [--binaries PATH,..] [--scenario NAME]   clusters under load and fault",
        run: |args| with_release("quorate-integration-tests", "chaos", args),
    },
    Command {
        name: "cluster",
        usage: "cluster [--dir DIR] [--fresh true]   three members on this machine, at 2379, 22379 and 32379, until Ctrl-C",
        run: |args| with_release("quorate-integration-tests", "cluster", args),
    },
    Command {
        name: "sim",
        usage: "sim [--seeds N] [--first S] [--jobs J] [--covered] | --minutes M | --seed N | shrink --seed N | canary | mutants [--name X]   whole clusters, simulated",
        run: sim::run,
    },
    Command {
        name: "bench",
        usage: "bench --etcd PATH --tool PATH [--rounds N] [--only NAME] [--scale X]   compare with a real etcd",
        run: |args| bench("compare", args),
    },
    Command {
        name: "bench-cluster",
        usage: "bench-cluster --etcd PATH [--tool PATH] [--rounds N] [--only NAME] [--scale X]   clusters of three, the same",
        run: |args| bench("compare_cluster", args),
    },
    Command {
        name: "fuzz",
        usage: "fuzz TARGET [SEED] | smoke | canary | list",
        run: fuzz::run,
    },
];

/// Runs a program of a package on a release build.
fn with_release(package: &str, program: &str, args: &[String]) -> Outcome {
    check(cargo().args(["build", "--release", "--bin", "quorate"]))?;
    let run = ["run", "--release", "--package", package, "--bin", program];
    check(cargo().args(run).arg("--").args(args))
}

/// Compares a release build with a real etcd, under etcd's own benchmark tool.
fn bench(program: &str, args: &[String]) -> Outcome {
    let ours = ["--quorate", "target/release/quorate"].map(str::to_owned);
    with_release("quorate-benches", program, &[&ours[..], args].concat())
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
