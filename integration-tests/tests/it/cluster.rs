//! Clusters under load and fault; the rows of the fault catalogue that each scenario is about stand in its definition.
//!
//! Continuous integration runs some of the scenarios for a short time; `cargo xtask chaos` runs all of them for as long as one
//! likes. With a real etcd the same runs check the harness and the checker themselves, and mixed clusters are tested too.
#![expect(clippy::print_stdout, reason = "figures and what is skipped are shown")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_integration_tests::Binary;
use quorate_integration_tests::checker::{Lie, check};
use quorate_integration_tests::cluster::{
    ChaosOptions, DiskKind, Recorded, Report, Scenario, record, run,
};

/// Faults of one scenario go on for so long.
const SHORT: Duration = Duration::from_secs(8);
/// Scenarios for clusters of three, and of five.
const OF_THREE: &[&str] = &[
    "calm",
    "kill",
    "kill-all",
    "kill-leader",
    "pause",
    "rolling-restart",
    "cut-one-link",
    "isolate",
    "one-way",
    "swallow",
    "reset",
    "flip",
    "flip-snapshot",
    "delay",
    "loss",
    "slow-disk",
    "disk-full",
    "snapshot",
    "snapshot-storm",
    "transfer",
    "learner",
    "replace",
    "lose",
];
const OF_FIVE: &[&str] = &["kill", "isolate", "one-way", "snapshot"];
/// Faults in continuous integration go on for three minutes at least, even where two kinds of disk cannot be had.
const FAULTS: Duration = Duration::from_secs(180);

fn options(binaries: Vec<Binary>, members: usize, time: Duration) -> ChaosOptions {
    ChaosOptions {
        binaries,
        members,
        seed: 2_026,
        time,
        lie: None,
    }
}

/// Clusters take a machine for themselves: one test at a time has some.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs scenarios one after the other and prints what they came to.
fn run_each(options: &ChaosOptions, scenarios: impl Iterator<Item = &'static Scenario>) {
    let _turn = one_at_a_time();
    for scenario in scenarios {
        if let Some(obstacle) = scenario.disk.obstacle() {
            println!("{}: skipped: {obstacle}", scenario.name);
            continue;
        }
        let report: Report = run(options, scenario).unwrap_or_else(|failure| {
            panic!("{} with seed {}: {failure}", scenario.name, options.seed)
        });
        println!("{report}");
        assert!(
            report.verdict.acknowledged > 20,
            "hardly anything was written"
        );
    }
}

fn named(names: &[&str]) -> impl Iterator<Item = &'static Scenario> {
    names.iter().map(|name| Scenario::named(name).unwrap())
}

fn quorate() -> Binary {
    Binary::quorate().unwrap()
}

/// A real etcd, if one is at hand.
fn etcd() -> Option<Binary> {
    let etcd = Binary::reference().unwrap();
    if etcd.is_none() {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
    }
    etcd
}

#[test]
fn three_members_keep_their_promises_whatever_happens() {
    run_each(&options(vec![quorate()], 3, SHORT), named(OF_THREE));
}

#[test]
fn five_members_keep_their_promises_whatever_happens() {
    run_each(&options(vec![quorate()], 5, SHORT), named(OF_FIVE));
}

#[test]
fn faults_go_on_for_long_enough() {
    let is_everywhere = |scenario: &&Scenario| scenario.disk == DiskKind::Plain;
    let count = named(OF_THREE)
        .chain(named(OF_FIVE))
        .filter(is_everywhere)
        .count();
    assert!(SHORT * u32::try_from(count).unwrap() >= FAULTS);
}

#[test]
fn two_members_of_etcd_and_one_of_quorate_agree() {
    if let Some(etcd) = etcd() {
        let binaries = vec![etcd.clone(), etcd, quorate()];
        run_each(&options(binaries, 3, SHORT), named(MIXED));
    }
}

#[test]
fn one_member_of_etcd_and_two_of_quorate_agree() {
    if let Some(etcd) = etcd() {
        let binaries = vec![etcd, quorate(), quorate()];
        run_each(&options(binaries, 3, SHORT), named(MIXED));
    }
}

const MIXED: &[&str] = &[
    "calm",
    "kill",
    "sides",
    "isolate",
    "snapshot",
    "snapshot-storm",
    "transfer",
    "learner",
    "replace",
    "rolling-restart",
    "swallow",
    "change-in-storm",
];

#[test]
fn a_cluster_of_etcd_becomes_one_of_quorate_and_goes_back_under_load() {
    if let Some(etcd) = etcd() {
        run_each(
            &options(vec![etcd, quorate()], 3, SHORT),
            named(&["migrate"]),
        );
    }
}

#[test]
fn the_reference_keeps_its_promises_and_every_lie_about_it_is_noticed() {
    let Some(etcd) = etcd() else {
        return;
    };
    let options = options(vec![etcd], 3, SHORT);
    run_each(&options, named(&["isolate", "snapshot", "learner"]));
    let recorded: Recorded = record(&options, Scenario::named("kill-leader").unwrap()).unwrap();
    println!("{}", recorded.judge().unwrap());
    for lie in Lie::ALL {
        let mut recording = recorded.recording.clone();
        if lie.tell(&mut recording) {
            assert!(check(&recording).violation_count > 0, "{lie:?} is believed");
        } else {
            // Which leases end by themselves within a run is a matter of chance.
            assert_eq!(lie, Lie::EarlyEnd, "there is nothing to lie about");
        }
    }
}
