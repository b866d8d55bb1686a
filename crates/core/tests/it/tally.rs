use std::sync::atomic::{AtomicU64, Ordering};

use quorate_core::{Notice, Outcome, Request, Stopwatch};
use quorate_proto::etcdserverpb as pb;

use crate::harness::{Harness, put};

/// Moves on by a millisecond each time it is read.
fn ticking() -> u64 {
    static NOW_MS: AtomicU64 = AtomicU64::new(0);
    NOW_MS.fetch_add(1, Ordering::Relaxed) * 1_000_000
}

fn started() -> Harness {
    let mut harness = Harness::new();
    harness.sync();
    harness.run_ms(300);
    harness
}

fn op(name: &str) -> usize {
    (0..Request::OPS)
        .find(|op| Request::op_name(*op) == name)
        .unwrap()
}

#[test]
fn what_is_applied_is_counted_by_kind_and_by_what_it_did() {
    let mut harness = started();
    harness.member.set_stopwatch(Stopwatch {
        now_ns: ticking,
        slow_apply_ns: u64::MAX,
    });
    harness.put("a", "123");
    harness.put("b", "4");
    harness.call(Request::DeleteRange(pb::DeleteRangeRequest {
        key: "a".into(),
        prev_kv: true,
        ..Default::default()
    }));
    let grant = |id, ttl| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl });
    harness.call(grant(7, 60));
    assert!(matches!(harness.call(grant(7, 60)), Outcome::Failed(_)));
    harness.call(Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 }));
    let view = harness.member.view();
    let tally = view.tally();
    assert_eq!(
        (tally.puts.get(), tally.deletes.get(), tally.ranges.get()),
        (2, 1, 1)
    );
    assert_eq!((tally.put_bytes.get(), tally.txns.get()), (6, 1));
    assert_eq!(
        (tally.leases_granted.get(), tally.leases_revoked.get()),
        (1, 1)
    );
    assert_eq!((tally.lease_ttls.count(), tally.lease_ttls.sum()), (1, 60));
    let puts = tally.applies(op("Put"), true);
    assert_eq!(puts.count(), 2);
    assert!(puts.sum() >= 2_000_000, "a clock was read around each");
    assert_eq!(tally.applies(op("LeaseGrant"), true).count(), 1);
    assert_eq!(tally.applies(op("LeaseGrant"), false).count(), 1);
    assert_eq!(tally.slow_applies.get(), 0);
}

#[test]
fn slow_and_failed_requests_are_told_of_without_their_values() {
    let mut harness = started();
    harness.member.set_stopwatch(Stopwatch {
        now_ns: ticking,
        slow_apply_ns: 1,
    });
    harness.submit(put("a", "secret", 0));
    let batches = std::mem::take(&mut harness.unsynced);
    let synced = harness.append(&batches);
    harness.member.handle_synced(&synced);
    let notices = harness.member.take_actions().notices;
    let text = format!("{notices:?}");
    assert!(matches!(notices[..], [Notice::SlowApply { .. }]), "{text}");
    assert!(
        text.contains("value_size:6") && !text.contains("secret"),
        "{text}"
    );
    assert_eq!(harness.member.view().tally().slow_applies.get(), 1);

    harness.member.set_stopwatch(Stopwatch::default());
    harness.submit(Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 9 }));
    let batches = std::mem::take(&mut harness.unsynced);
    let synced = harness.append(&batches);
    harness.member.handle_synced(&synced);
    let notices = harness.member.take_actions().notices;
    assert!(
        matches!(&notices[..], [Notice::FailedApply { error, .. }] if error.contains("lease not found")),
        "{notices:?}"
    );
}
