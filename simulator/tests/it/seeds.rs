//! Runs of whole clusters; `cargo xtask sim` runs many more.
use quorate_simulator::plan::Narrow;
use quorate_simulator::{Ended, Lie, Report, Trace, run_lie, run_seed, shrink};

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
    let twice = |seed| {
        let (a, b) = (run(seed), run(seed));
        assert_eq!(
            (a.digest, a.events, a.simulated_ms, a.committed, a.ended),
            (b.digest, b.events, b.simulated_ms, b.committed, b.ended),
            "seed {seed}"
        );
        a.events
    };
    for first in [1, 231, 1_000_001] {
        let events: u64 = (first..first + 20).map(twice).sum();
        assert!(events > 20_000, "{events} events from seed {first} on");
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
    for seed in (1_000..1_010).chain(1_000_500..1_000_510) {
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

#[test]
fn a_lie_is_found_out_within_a_few_seeds() {
    for lie in Lie::ALL {
        let first = lie.first_seed();
        let narrow = Narrow::default();
        let run = |seed, lie| run_lie(seed, lie, &narrow).ended;
        let is_found = |seed| match run(seed, Some(*lie)) {
            Ended::Clean => false,
            Ended::Violated(violation) => {
                assert_eq!(lie.check().unwrap_or(violation.check), violation.check);
                true
            }
        };
        assert!((first..first + 20).any(is_found), "{lie}");
        assert_eq!(run(first, None), Ended::Clean);
    }
}

#[test]
fn a_run_that_fails_is_shrunk_to_a_smaller_one_that_fails_in_the_same_way() {
    let seed = Lie::Revision.first_seed();
    let check = |narrow: &Narrow| match run_lie(seed, Some(Lie::Revision), narrow).ended {
        Ended::Clean => None,
        Ended::Violated(violation) => Some(violation.check),
    };
    let whole = Narrow::default();
    let smallest = shrink(&whole, check).unwrap();
    assert_eq!(check(&smallest), check(&whole));
    assert_eq!(smallest.members, Some(1));
    assert!(smallest.operations.is_some_and(|n| n < 256), "{smallest:?}");
    assert!(
        smallest.length_ms.is_some_and(|ms| ms < 5_000),
        "{smallest:?}"
    );
}
