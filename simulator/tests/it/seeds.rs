//! Runs of whole clusters; `cargo xtask sim` runs many more.
use quorate_simulator::plan::Narrow;
use quorate_simulator::{Ended, Report, Trace, run_seed};

/// Shorter than the program's, since tests are built without optimization.
fn short() -> Narrow {
    Narrow {
        length_ms: Some(4_000),
        ..Narrow::default()
    }
}

fn run(seed: u64) -> Report {
    run_seed(seed, &short(), Trace::Off)
}

#[test]
fn a_seed_run_twice_does_exactly_the_same() {
    // 231: within one term and role raft drew election timeouts that no seed repeats.
    for seed in [2, 3, 5, 8, 13, 21, 34, 231] {
        let (a, b) = (run(seed), run(seed));
        assert_eq!(
            (a.digest, a.events, a.simulated_ms, a.committed),
            (b.digest, b.events, b.simulated_ms, b.committed),
            "seed {seed}"
        );
        assert!(a.events > 200, "seed {seed} does something");
    }
}

#[test]
fn different_seeds_do_different_things() {
    assert_ne!(run(100).digest, run(101).digest);
}

#[test]
fn seeds_are_clean_and_do_what_they_should() {
    let mut coverage = quorate_simulator::coverage::Coverage::default();
    let mut committed = 0;
    for seed in 1_000..1_016 {
        let report = run(seed);
        assert_eq!(
            report.ended,
            Ended::Clean,
            "seed {seed}: cargo xtask sim --seed {seed} --length-ms 4000"
        );
        coverage.add(&report.coverage);
        committed += report.committed;
    }
    assert!(committed > 1_000, "{committed} entries");
    for name in [
        "power lost",
        "snapshot installed",
        "message lost",
        "put acknowledged",
    ] {
        assert!(coverage.count(name) > 0, "{name:?} never happened");
    }
}
