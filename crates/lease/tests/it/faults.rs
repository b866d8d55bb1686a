//! Mistakes that etcd once made, by issue number.
use bytes::Bytes;
use quorate_lease::{Error, Options};
use quorate_proto::LeaseId;

use crate::Store;

const A: LeaseId = LeaseId(1);

/// etcd issues 15247 and 12528: a leader stalled in a disk sync was deposed and still revoked leases when it woke up.
#[test]
fn deposed_leader_hands_out_nothing_after_a_stall() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 1_000);
    store.apply(|txn| lessor.grant(txn, A, 5, 0)).unwrap();
    // The stall; the first thing that it learns is that another leads.
    lessor.demote();
    assert!(lessor.expired(60_000, 10).is_empty());
    // Leader again, it gives everybody the full time.
    lessor.promote(60_000, 1_000);
    assert!(lessor.expired(65_999, 10).is_empty());
    assert_eq!(lessor.expired(66_000, 10), [A]);
}

/// etcd issue 13508: remaining time was not stored, so a lease lived on by its full time with each change of leader.
#[test]
fn checkpointed_time_survives_restart_and_change_of_leader() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 1_000, 0)).unwrap();
    store.apply(|txn| lessor.checkpoint(txn, A, 400, true));
    store.apply(|txn| lessor.checkpoint(txn, LeaseId(99), 400, true));
    store.reopen();
    let mut lessor = store.lessor(Options::default());
    assert_eq!(lessor.lease_count(), 1);
    lessor.promote(0, 0);
    assert!(lessor.expired(399_999, 10).is_empty());
    assert_eq!(lessor.expired(400_000, 10), [A]);
    assert_eq!(lessor.time_to_live(A, 0).unwrap().granted_s, 1_000);
}

/// The other side of it: a renewed lease must not fall back to its checkpoint.
#[test]
fn renewal_needs_the_checkpoint_cleared_first() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 1_000, 0)).unwrap();
    store.apply(|txn| lessor.checkpoint(txn, A, 400, true));
    lessor.promote(0, 0);
    assert!(matches!(
        lessor.renew(A, 100_000),
        Err(Error::CheckpointStored)
    ));
    store.apply(|txn| lessor.checkpoint(txn, A, 0, true));
    assert_eq!(lessor.renew(A, 100_000).unwrap(), 1_000);
    let mut next = store.lessor(Options::default());
    next.promote(0, 0);
    assert!(next.expired(999_999, 10).is_empty());
}

/// etcd pull request 20615: a renewal succeeded on a lease already revoked.
#[test]
fn lease_past_its_end_is_never_renewed() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 0);
    store.apply(|txn| lessor.grant(txn, A, 5, 0)).unwrap();
    assert_eq!(lessor.renew(A, 4_999).unwrap(), 5);
    assert!(
        matches!(lessor.renew(A, 9_999), Err(Error::Expired)),
        "even before it was handed out"
    );
    assert_eq!(lessor.expired(9_999, 10), [A]);
    assert!(matches!(lessor.renew(A, 9_999), Err(Error::Expired)));
    store.apply(|txn| lessor.revoke(txn, A)).unwrap();
    assert!(matches!(lessor.renew(A, 9_999), Err(Error::NotFound)));
    assert!(matches!(
        store.apply(|txn| lessor.revoke(txn, A)),
        Err(Error::NotFound)
    ));
}

/// etcd pull request 14239: negative ids were lost or ordered differently after a restart, so that members differed.
#[test]
fn negative_ids_are_the_same_after_restart() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    let ids = [5, -5, 1, -1, i64::MAX, i64::MIN].map(LeaseId);
    for id in ids {
        store.apply(|txn| lessor.grant(txn, id, 10, 0)).unwrap();
        lessor.attach(Bytes::from(format!("k{}", id.0)), id);
    }
    let order = [1, 5, i64::MAX, i64::MIN, -5, -1].map(LeaseId);
    assert_eq!(lessor.leases(), order);
    store.reopen();
    let mut again = store.lessor(Options::default());
    let pairs = ids
        .iter()
        .map(|&id| (Bytes::from(format!("k{}", id.0)), id))
        .collect();
    assert_eq!(again.attach_restored(pairs), 0);
    assert_eq!(again.leases(), order);
    again.promote(0, 0);
    assert_eq!(again.leases(), order);
    for id in ids {
        assert_eq!(again.keys(id), lessor.keys(id));
    }
    store.apply(|txn| again.revoke(txn, LeaseId(-5))).unwrap();
    store.reopen();
    assert!(!store.lessor(Options::default()).exists(LeaseId(-5)));
}

/// etcd issue 13205: attachments leaked after a restore.
#[test]
fn no_attachment_outlives_its_key_or_lease() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 10, 0)).unwrap();
    let mut lessor = store.lessor(Options::default());
    let key = |n: i64| Bytes::from(format!("key{n}"));
    let unknown = lessor.attach_restored((0..100).map(|n| (key(n), LeaseId(1 + n % 4))).collect());
    assert_eq!(
        (unknown, lessor.key_count()),
        (75, 25),
        "a key of a lease that is gone is an ordinary key"
    );
    for n in 0..40 {
        lessor.detach(&key(n));
    }
    assert_eq!(
        (lessor.keys(A).unwrap().len(), lessor.key_count()),
        (15, 15)
    );
    store.apply(|txn| lessor.revoke(txn, A)).unwrap();
    assert_eq!(lessor.key_count(), 0);
    assert_eq!(lessor.lease_of(&key(40)), LeaseId(0));
}

/// A pause of the whole process: what ended meanwhile ends once, and what was renewed before lives as long as promised.
#[test]
fn pause_ends_what_ended_and_nothing_else() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 0);
    for id in 1..=60 {
        store
            .apply(|txn| lessor.grant(txn, LeaseId(id), id, 0))
            .unwrap();
    }
    let mut ended = lessor.expired(30_500, 1_000);
    ended.sort_unstable();
    assert_eq!(ended, (1..=30).map(LeaseId).collect::<Vec<_>>());
    assert!(lessor.expired(30_999, 1_000).is_empty());
}

/// A member that restarts again and again, or changes leader again and again, ends nothing early.
#[test]
fn churn_of_leaders_only_extends() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 10, 0)).unwrap();
    for now in (0..100_000).step_by(9_000) {
        lessor = store.lessor(Options::default());
        lessor.promote(now, 1_000);
        assert!(lessor.expired(now + 8_999, 10).is_empty());
    }
    assert_eq!(lessor.expired(99_000 + 11_000, 10), [A]);
}
