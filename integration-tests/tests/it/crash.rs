//! Kills at any moment.

use quorate_integration_tests::{Binary, CrashOptions, crash_loop};

#[test]
fn what_was_acknowledged_survives_thirty_kills() {
    let options = CrashOptions::new(Binary::quorate().unwrap(), 30, 1);
    let report = crash_loop(&options).unwrap();
    assert_eq!(report.loops, 30);
    assert!(
        report.acknowledged > 30,
        "hardly anything was written: {report:?}"
    );
}

/// Checks the loop itself, where a real etcd is at hand.
#[test]
fn the_reference_survives_its_kills() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    let report = crash_loop(&CrashOptions::new(etcd, 8, 2)).unwrap();
    println!("{report:?}");
    assert!(report.acknowledged > 8);
}
