//! The registry of fuzz targets: plain functions of a seed that panic when they find a fault.
//!
//! A program of its own, so that the other checks need not build the crates that are fuzzed. `cargo xtask fuzz` calls it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal"
)]

mod proto;
mod random;
mod stored;

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::process::ExitCode;
use std::time::Instant;

/// A target.
struct Target {
    name: &'static str,
    run: fn(u64),
    /// Seeds that a short run takes: a second or so of a debug build.
    smoke_seeds: u64,
}

const fn target(name: &'static str, run: fn(u64), smoke_seeds: u64) -> Target {
    Target {
        name,
        run,
        smoke_seeds,
    }
}

/// Seeds that a short run of each of the front door's targets takes.
const RPC_SMOKE_SEEDS: u64 = 50_000;

/// Seeds that a short run of each target of the links between members takes.
const TRANSPORT_SMOKE_SEEDS: u64 = 10_000;

/// Returns all targets.
fn targets() -> Vec<Target> {
    let mut targets = vec![
        target("wal_open", quorate_wal::fuzz::fuzz_open, 10_000),
        target("wal_flip", quorate_wal::fuzz::fuzz_flip, 2_000),
        // Every bit of a log once in 524,288 seeds, spread over all of it in any run of them.
        target("wal_flip_every", quorate_wal::fuzz::fuzz_flip_every, 10_000),
        target("core_entry", quorate_core::fuzz::fuzz_entry, 50_000),
        target("core_state", quorate_core::fuzz::fuzz_state, 300),
        target("snap_decode", quorate_snap::fuzz::fuzz_decode, 100_000),
        target("snap_image", quorate_snap::fuzz::fuzz_image, 1_000),
        target("backend_open", quorate_backend::fuzz::damaged_file, 300),
        target("mvcc_restore", stored::mvcc, 2_000),
        target("lease_restore", stored::lease, 2_000),
        target("auth_restore", stored::auth, 2_000),
        target("proto_decode", proto::decode, 100_000),
    ];
    targets.extend(
        quorate_rpc::fuzz::TARGETS
            .iter()
            .map(|(name, run)| target(name, *run, RPC_SMOKE_SEEDS)),
    );
    targets.extend(
        quorate_transport::fuzz::TARGETS
            .iter()
            .map(|(name, run)| target(name, *run, TRANSPORT_SMOKE_SEEDS)),
    );
    targets
}

/// Fails for one seed of a hundred, so that a run which finds nothing is known to look at nothing.
const CANARY: Target = target("canary", canary, 1_000);

fn canary(seed: u64) {
    assert!(seed % 100 != 77, "the canary sings at seed {seed}");
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<(), String> {
    match args {
        ["smoke"] => targets().iter().try_for_each(smoke),
        ["canary"] => sing(),
        ["list"] => {
            targets()
                .iter()
                .for_each(|target| println!("{}", target.name));
            Ok(())
        }
        [name] => endless(&find(name)?),
        [name, seed] => {
            let target = find(name)?;
            let seed = seed
                .parse()
                .map_err(|error| format!("seed {seed:?}: {error}"))?;
            // Nothing is caught here, so that a debugger or a backtrace shows the place.
            (target.run)(seed);
            println!("fuzz: {name} passed seed {seed}");
            Ok(())
        }
        _ => Err("usage: cargo xtask fuzz TARGET [SEED] | smoke | canary | list".to_owned()),
    }
}

/// Runs the canary, without the noise of its panic.
fn sing() -> Result<(), String> {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let sung = smoke(&CANARY);
    set_hook(hook);
    match sung {
        Err(found) => {
            println!("fuzz: as it must, {found}");
            Ok(())
        }
        Ok(()) => Err("the canary did not fail: faults are not noticed".to_owned()),
    }
}

fn find(name: &str) -> Result<Target, String> {
    let mut targets = targets();
    match targets.iter().position(|target| target.name == name) {
        Some(at) => Ok(targets.swap_remove(at)),
        None => {
            let known: Vec<&str> = targets.iter().map(|target| target.name).collect();
            Err(format!(
                "no target {name:?}; there are {}",
                known.join(", ")
            ))
        }
    }
}

fn smoke(target: &Target) -> Result<(), String> {
    let begun = Instant::now();
    (0..target.smoke_seeds).try_for_each(|seed| run_seed(target, seed))?;
    println!(
        "fuzz: {} passed {} seeds in {:.1} s",
        target.name,
        target.smoke_seeds,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Runs seeds until one fails.
fn endless(target: &Target) -> Result<(), String> {
    const REPORT_SEEDS: u64 = 10_000;
    for seed in 0.. {
        run_seed(target, seed)?;
        if seed > 0 && seed % REPORT_SEEDS == 0 {
            println!("fuzz: {} passed {seed} seeds", target.name);
        }
    }
    Ok(())
}

fn run_seed(target: &Target, seed: u64) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(seed)));
    result.map_err(|_| {
        format!(
            "{} fails; again with: cargo xtask fuzz {} {seed}",
            target.name, target.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_seed_is_found_and_named() {
        let error = smoke(&CANARY).unwrap_err();
        assert_eq!(
            error,
            "canary fails; again with: cargo xtask fuzz canary 77"
        );
        assert!(run(&["canary"]).is_ok());
        assert!(run(&["nothing"]).unwrap_err().contains("wal_open"));
    }

    #[test]
    fn every_target_has_a_name_of_its_own_and_passes_its_first_seeds() {
        let targets = targets();
        for (i, target) in targets.iter().enumerate() {
            assert!(
                targets[..i].iter().all(|other| other.name != target.name),
                "{}",
                target.name
            );
            (0..20).try_for_each(|seed| run_seed(target, seed)).unwrap();
        }
    }

    #[test]
    #[ignore = "a step of its own of cargo xtask ci, which runs it from the build of the tests"]
    fn short_run_of_all_targets() {
        run(&["smoke"]).unwrap();
        run(&["canary"]).unwrap();
    }
}
