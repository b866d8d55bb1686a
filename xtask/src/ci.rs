//! Everything that continuous integration runs, in order, up to the first failure.

use std::time::{Duration, Instant};

use crate::workspace::{cargo, check, root};
use crate::{Outcome, fuzz, layers, sim, tidy};

/// Crates that strangers may use alone, and those that they need.
const PACKAGES: &[&str] = &[
    "quorate-proto",
    "quorate-disk",
    "quorate-wal",
    "quorate-snap",
    "quorate-backend",
    "quorate-mvcc",
    "quorate-lease",
    "quorate-auth",
];

/// Builds the program of the fuzz targets too, which is left out otherwise.
const FUZZ: &str = "xtask/fuzz";

/// The tool that generates code; it stands outside of the workspace.
const PROTOGEN: &str = "tools/protogen/Cargo.toml";

/// Tests with clients from outside; they stand outside of the workspace too.
const CLIENTS: &str = "integration-tests/third-party";

/// A step: what it is called and how it is done.
struct Step {
    name: &'static str,
    run: fn() -> Outcome,
}

/// Cheap steps first.
const STEPS: &[Step] = &[
    Step {
        name: "tidy",
        run: || tidy::run(&[]),
    },
    Step {
        name: "layers",
        run: || layers::run(&[]),
    },
    Step {
        name: "fmt",
        run: fmt,
    },
    Step {
        name: "clippy",
        run: clippy,
    },
    Step {
        name: "package",
        run: package,
    },
    Step {
        name: "doc",
        run: doc,
    },
    Step {
        name: "test",
        run: test,
    },
    Step {
        name: "protogen",
        run: protogen,
    },
    Step {
        name: "clients",
        run: clients,
    },
    Step {
        name: "fuzz smoke",
        run: fuzz::smoke,
    },
    Step {
        name: "sim",
        run: sim::smoke,
    },
];

/// Runs all steps.
pub(crate) fn run(_: &[String]) -> Outcome {
    run_steps(STEPS)
}

fn run_steps(steps: &[Step]) -> Outcome {
    let begun = Instant::now();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        println!("ci: {}/{} {}", i + 1, steps.len(), step.name);
        let step_begun = Instant::now();
        let outcome = (step.run)();
        let time = step_begun.elapsed();
        if let Err(error) = outcome {
            return Err(format!(
                "FAILED in {} after {:.1} s: {error}",
                step.name,
                time.as_secs_f64()
            )
            .into());
        }
        println!("ci: {} passed in {:.1} s", step.name, time.as_secs_f64());
        times.push((step.name, time));
    }
    let parts: Vec<String> = times
        .iter()
        .map(|(name, time)| format!("{name} {:.1}", time.as_secs_f64()))
        .collect();
    println!(
        "ci: passed, {} steps in {:.1} s ({})",
        steps.len(),
        begun.elapsed().as_secs_f64(),
        parts.join(", ")
    );
    Ok(())
}

fn fmt() -> Outcome {
    check(cargo().args(["fmt", "--all", "--check"]))?;
    check(cargo().args(["fmt", "--manifest-path", PROTOGEN, "--check"]))?;
    let clients = format!("{CLIENTS}/Cargo.toml");
    check(cargo().args(["fmt", "--manifest-path", &clients, "--check"]))
}

fn clippy() -> Outcome {
    check(cargo().args([
        "clippy",
        "--workspace",
        "--features",
        FUZZ,
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Runs unit tests, integration tests and the examples in the documentation. Some start the programs, which are built
/// first.
fn test() -> Outcome {
    check(cargo().args([
        "build",
        "--bins",
        "-p",
        "quorate-server",
        "-p",
        "quorate-ctl",
    ]))?;
    check(cargo().args(["test", "--workspace", "--features", FUZZ]))
}

fn doc() -> Outcome {
    check(
        cargo()
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Checks that the generated code is what its sources give.
fn protogen() -> Outcome {
    let args = [
        "run",
        "--quiet",
        "--manifest-path",
        PROTOGEN,
        "--target-dir",
        "target/protogen",
    ];
    check(cargo().args(args).args(["--", "check"]))
}

/// Runs the tests with clients that nobody here wrote, in their own workspace. The generator stands in for `protoc`.
fn clients() -> Outcome {
    let root = root();
    let mut command = cargo();
    command.current_dir(root.join(CLIENTS)).arg("test");
    command.env("PROTOC", root.join("target/protogen/debug/protogen"));
    command.env("QUORATE_BIN", root.join("target/debug/quorate"));
    check(&mut command)
}

/// Packages the crates for strangers together, as they would be published: none needs one that is not among them.
fn package() -> Outcome {
    let package = |offline: bool| {
        let mut command = cargo();
        command.args(["package", "--quiet", "--no-verify", "--allow-dirty"]);
        command.args(PACKAGES.iter().flat_map(|name| ["--package", name]));
        command.args(offline.then_some("--offline"));
        check(&mut command)
    };
    // What is needed of the registry is mostly here already; a machine that has never packaged asks for it.
    package(true).or_else(|_| package(false))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn the_first_failure_ends_the_run_and_is_named() {
        static RAN: AtomicUsize = AtomicUsize::new(0);
        fn good() -> Outcome {
            RAN.fetch_add(1, Relaxed);
            Ok(())
        }
        let steps = [
            Step {
                name: "one",
                run: good,
            },
            Step {
                name: "two",
                run: || Err("broken".into()),
            },
            Step {
                name: "three",
                run: good,
            },
        ];
        let error = run_steps(&steps).unwrap_err().to_string();
        assert!(
            error.starts_with("FAILED in two after ") && error.ends_with(": broken"),
            "{error}"
        );
        assert_eq!(RAN.load(Relaxed), 1);
    }
}
