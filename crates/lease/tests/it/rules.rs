//! What etcd does, one rule at a time.
use bytes::Bytes;
use quorate_lease::{Error, Granted, Options, REMAINING_FOREVER_S, TTL_MAX_S, TimeToLive};
use quorate_proto::LeaseId;

use crate::Store;

const A: LeaseId = LeaseId(1);
const B: LeaseId = LeaseId(2);

#[test]
fn grants_are_checked_and_short_ones_raised() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options {
        min_ttl_s: 5,
        ..Options::default()
    });
    let mut grant = |id, ttl| store.apply(|txn| lessor.grant(txn, LeaseId(id), ttl, 0));
    assert!(matches!(grant(0, 10), Err(Error::NotFound)));
    assert!(matches!(grant(1, TTL_MAX_S + 1), Err(Error::TtlTooLarge)));
    assert_eq!(
        grant(1, TTL_MAX_S).unwrap(),
        Granted {
            id: A,
            ttl_s: TTL_MAX_S
        }
    );
    assert!(matches!(grant(1, TTL_MAX_S), Err(Error::Exists)));
    for (id, ttl) in [(2, 4), (3, 0), (4, -1), (5, i64::MIN), (i64::MIN, 5)] {
        assert_eq!(
            grant(id, ttl).unwrap(),
            Granted {
                id: LeaseId(id),
                ttl_s: 5
            }
        );
    }
    assert_eq!(lessor.lease_count(), 6);
}

#[test]
fn minimum_applies_to_restored_leases() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 3, 0)).unwrap();
    let mut lessor = store.lessor(Options {
        min_ttl_s: 7,
        ..Options::default()
    });
    assert_eq!(lessor.time_to_live(A, 0).unwrap().granted_s, 7);
    lessor.promote(0, 0);
    assert!(lessor.expired(6_999, 10).is_empty());
    assert_eq!(lessor.expired(7_000, 10), [A]);
}

#[test]
fn lessor_that_is_not_primary_never_ends_or_renews() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 3, 0)).unwrap();
    assert!(lessor.expired(u64::MAX, 10).is_empty());
    assert!(matches!(lessor.renew(A, 0), Err(Error::NotPrimary)));
    assert_eq!(
        lessor.time_to_live(A, 1_000_000).unwrap(),
        TimeToLive {
            granted_s: 3,
            remaining_s: REMAINING_FOREVER_S
        }
    );
    assert_eq!(REMAINING_FOREVER_S, 9_223_372_036);
}

#[test]
fn remaining_time_is_truncated_towards_zero() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 0);
    store.apply(|txn| lessor.grant(txn, A, 10, 500)).unwrap();
    let at = |now| lessor.time_to_live(A, now).unwrap().remaining_s;
    assert_eq!(
        [at(500), at(501), at(9_500), at(9_501), at(10_500)],
        [10, 9, 1, 0, 0]
    );
    assert_eq!([at(11_499), at(11_500), at(12_600)], [0, -1, -2]);
    assert_eq!(lessor.time_to_live(B, 0), None);
}

#[test]
fn expired_lease_is_handed_out_again_after_the_retry_time() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options {
        revoke_retry_ms: 7_000,
        ..Options::default()
    });
    lessor.promote(0, 0);
    store.apply(|txn| lessor.grant(txn, A, 5, 0)).unwrap();
    assert_eq!(lessor.expired(5_200, 10), [A]);
    assert!(lessor.expired(5_200, 10).is_empty());
    assert!(lessor.expired(12_199, 10).is_empty());
    assert_eq!(lessor.expired(12_200, 10), [A]);
    store.apply(|txn| lessor.revoke(txn, A)).unwrap();
    assert!(lessor.expired(100_000, 10).is_empty());
}

#[test]
fn batches_are_limited() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 0);
    for id in 1..=10 {
        store
            .apply(|txn| lessor.grant(txn, LeaseId(id), 2 + id, 0))
            .unwrap();
    }
    let ids = |from: i64, to: i64| (from..=to).map(LeaseId).collect::<Vec<_>>();
    assert!(lessor.expired(60_000, 0).is_empty());
    assert_eq!(
        lessor.expired(60_000, 4),
        ids(1, 4),
        "those that ended first come first"
    );
    assert_eq!(lessor.expired(60_000, 4), ids(5, 8));
    assert_eq!(lessor.expired(60_000, 4), ids(9, 10));
    assert!(lessor.expired(60_000, 4).is_empty());
}

#[test]
fn renewal_right_after_promotion_takes_the_extension_back() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    store.apply(|txn| lessor.grant(txn, A, 10, 0)).unwrap();
    lessor.promote(0, 60_000);
    assert!(lessor.expired(10_000, 10).is_empty());
    assert_eq!(lessor.renew(A, 10_000).unwrap(), 10);
    assert!(lessor.expired(19_999, 10).is_empty());
    assert_eq!(
        lessor.expired(20_000, 10),
        [A],
        "its timer must not wait for the extension"
    );
}

#[test]
fn key_hangs_on_one_lease_at_most() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    for id in [A, B] {
        store.apply(|txn| lessor.grant(txn, id, 10, 0)).unwrap();
    }
    let key = |k: &'static str| Bytes::from_static(k.as_bytes());
    assert!(
        lessor.attach(key("b"), A) && lessor.attach(key("a"), A) && lessor.attach(key("\0"), A)
    );
    assert_eq!(lessor.keys(A).unwrap(), ["\0", "a", "b"], "in byte order");
    assert!(lessor.attach(key("a"), B));
    assert_eq!(
        (lessor.lease_of(b"a"), lessor.keys(A).unwrap().len()),
        (B, 2)
    );
    assert!(lessor.attach(key("a"), LeaseId(0)));
    assert_eq!(
        (lessor.lease_of(b"a"), lessor.keys(B).unwrap().len()),
        (LeaseId(0), 0)
    );
    assert!(
        !lessor.attach(key("b"), LeaseId(99)),
        "a put that keeps a lease that is gone"
    );
    assert_eq!(
        (lessor.lease_of(b"b"), lessor.keys(LeaseId(99))),
        (LeaseId(0), None)
    );
    lessor.detach(b"\0");
    lessor.detach(b"never there");
    assert_eq!(lessor.key_count(), 0);
}

#[test]
fn leases_are_listed_soonest_end_first() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    for (id, ttl) in [(1, 30), (-1, 20), (2, 10), (-2, 10)] {
        store
            .apply(|txn| lessor.grant(txn, LeaseId(id), ttl, 0))
            .unwrap();
    }
    let ids = |list: [i64; 4]| list.map(LeaseId).to_vec();
    assert_eq!(lessor.leases(), ids([1, 2, -2, -1]), "in table order");
    lessor.promote(0, 0);
    assert_eq!(lessor.leases(), ids([2, -2, -1, 1]));
    lessor.renew(LeaseId(2), 5_000).unwrap();
    lessor.renew(LeaseId(-2), 9_999).unwrap();
    assert_eq!(lessor.leases(), ids([2, -2, -1, 1]));
    lessor.renew(LeaseId(2), 9_999).unwrap();
    assert_eq!(
        lessor.leases(),
        ids([-2, 2, -1, 1]),
        "together, -2 renewed first"
    );
    lessor.renew(LeaseId(-1), 9_000).unwrap();
    assert_eq!(lessor.leases(), ids([-2, 2, -1, 1]));
    lessor.demote();
    assert_eq!(lessor.leases(), ids([1, 2, -2, -1]));
}

#[test]
fn long_leases_are_checkpointed_every_interval() {
    let mut store = Store::new();
    let options = Options {
        checkpoint_interval_ms: Some(300_000),
        ..Options::default()
    };
    let mut lessor = store.lessor(options);
    lessor.promote(0, 0);
    store.apply(|txn| lessor.grant(txn, A, 900, 0)).unwrap();
    store.apply(|txn| lessor.grant(txn, B, 300, 0)).unwrap();
    assert!(lessor.checkpoints_due(299_999, 10).is_empty());
    assert_eq!(
        lessor.checkpoints_due(300_500, 10),
        [(A, 600)],
        "rounded up; the short one has none"
    );
    store.apply(|txn| lessor.checkpoint(txn, A, 600, true));
    assert!(lessor.checkpoints_due(600_499, 10).is_empty());
    assert_eq!(lessor.checkpoints_due(600_500, 10), [(A, 300)]);
    store.apply(|txn| lessor.checkpoint(txn, A, 300, true));
    assert!(
        lessor.checkpoints_due(899_999, 10).is_empty(),
        "300 s or less are not worth another"
    );
    assert!(lessor.checkpoints_due(u64::MAX, 10).is_empty());
}

#[test]
fn checkpoint_that_is_not_applied_comes_again() {
    let mut store = Store::new();
    let options = Options {
        checkpoint_interval_ms: Some(300_000),
        ..Options::default()
    };
    let mut lessor = store.lessor(options);
    lessor.promote(0, 0);
    store.apply(|txn| lessor.grant(txn, A, 2_000, 0)).unwrap();
    assert_eq!(lessor.checkpoints_due(300_000, 10), [(A, 1_700)]);
    assert_eq!(lessor.checkpoints_due(600_000, 10), [(A, 1_400)]);
    // Renewed at the very moment: nothing to say now, but later again.
    lessor.renew(A, 900_000).unwrap();
    assert!(lessor.checkpoints_due(900_000, 10).is_empty());
    assert_eq!(lessor.checkpoints_due(1_200_000, 10), [(A, 1_700)]);
    lessor.demote();
    assert!(lessor.checkpoints_due(u64::MAX, 10).is_empty());
}

#[test]
fn checkpoints_are_off_unless_asked_for() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 0);
    store.apply(|txn| lessor.grant(txn, A, 100_000, 0)).unwrap();
    assert!(lessor.checkpoints_due(1_000_000, 10).is_empty());
}

#[test]
fn damaged_row_is_reported() {
    let mut store = Store::new();
    store.apply(|txn| {
        txn.put(
            quorate_backend::Table::Lease,
            &1i64.to_be_bytes(),
            "\x7f".into(),
        )
    });
    let error = quorate_lease::Lessor::restore(store.backend(), Options::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "lease 0000000000000001 is corrupt: value is not a lease"
    );
}
