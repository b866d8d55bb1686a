//! Many leases.
use std::collections::BTreeSet;

use quorate_lease::{Lessor, Options};
use quorate_proto::LeaseId;

use crate::Store;

fn grant(
    store: &mut Store,
    lessor: &mut Lessor,
    ids: std::ops::Range<i64>,
    ttl_s: i64,
    now_ms: u64,
) {
    store.apply(|txn| {
        for id in ids {
            lessor.grant(txn, LeaseId(id), ttl_s, now_ms).unwrap();
        }
    });
}

#[test]
fn a_hundred_thousand_that_end_at_once_are_handed_out_at_once() {
    const BATCH: usize = 5_000;
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    lessor.promote(0, 0);
    grant(&mut store, &mut lessor, 1..100_001, 60, 0);
    grant(&mut store, &mut lessor, 100_001..150_001, 3_600, 0);
    let mut seen = BTreeSet::<LeaseId>::new();
    // Ten calls a second, as an engine makes them; the moves down the wheel are bounded for each.
    let mut calls = 0;
    while seen.len() < 100_000 {
        let batch = lessor.expired(60_000 + calls * 100, BATCH);
        seen.extend(&batch);
        calls += 1;
        assert!(calls <= 30, "{} after {calls} calls", seen.len());
    }
    assert!(seen.iter().all(|id| id.0 <= 100_000));
    store.apply(|txn| {
        for &id in &seen {
            lessor.revoke(txn, id).unwrap();
        }
    });
    assert_eq!(lessor.lease_count(), 50_000);
    assert!(lessor.expired(3_599_999, BATCH).is_empty());
}

#[test]
fn a_million_leases_are_renewed_and_promoted() {
    const COUNT: i64 = 1_000_000;
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    for from in (1..COUNT).step_by(10_000) {
        grant(&mut store, &mut lessor, from..from + 10_000, 3_600, 0);
    }
    let mut lessor = store.lessor(Options::default());
    assert_eq!(lessor.lease_count(), 1_000_000);
    lessor.promote(0, 1_000);
    for id in 1..=COUNT {
        assert_eq!(lessor.renew(LeaseId(id), 3_000_000).unwrap(), 3_600);
    }
    // The timers that were set by the promotion fire, find their leases renewed, and are set again.
    for now_ms in (3_000_000..6_599_000).step_by(100_000) {
        assert!(lessor.expired(now_ms, 1_000).is_empty());
    }
    assert_eq!(lessor.expired(6_700_000, 1_000).len(), 1_000);
}

#[test]
fn promotion_spreads_the_ends_of_many() {
    let mut store = Store::new();
    let mut lessor = store.lessor(Options::default());
    grant(&mut store, &mut lessor, 1..10_001, 10, 0);
    lessor.promote(0, 1_000);
    assert!(lessor.expired(10_999, 100_000).is_empty(), "never early");
    let mut gone = 0;
    for second in 11..25 {
        let now_ms = second * 1_000 + 999;
        let ended = lessor.expired(now_ms, 100_000);
        assert!(ended.len() <= 1_501, "{} in second {second}", ended.len());
        store
            .apply(|txn| ended.iter().try_for_each(|&id| lessor.revoke(txn, id)))
            .unwrap();
        gone += ended.len();
    }
    assert_eq!(gone, 10_000, "750 to the second are gone in 14");
}
