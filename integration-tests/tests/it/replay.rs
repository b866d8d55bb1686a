//! The recorded answers of etcd 3.7.1.

use quorate_integration_tests::{Binary, replay_group};

fn play(group: &str) {
    let checked = replay_group(&Binary::quorate().unwrap(), group).unwrap();
    assert!(checked > 0, "nothing was compared");
}

#[test]
fn kv_answers_are_as_recorded() {
    play("kv");
}

#[test]
fn txn_answers_are_as_recorded() {
    play("txn");
}

#[test]
fn watch_answers_are_as_recorded() {
    play("watch");
}

#[test]
fn lease_answers_are_as_recorded() {
    play("lease");
}

#[test]
fn auth_answers_are_as_recorded() {
    play("auth");
}

#[test]
fn mixed_answers_are_as_recorded() {
    play("mixed");
}

/// Checks the player itself, where a real etcd is at hand.
#[test]
fn the_reference_gives_its_own_answers() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    for group in ["kv", "txn", "watch", "lease", "auth", "mixed"] {
        let checked = replay_group(&etcd, group).unwrap();
        println!("{group}: {checked} answers as recorded");
    }
}
