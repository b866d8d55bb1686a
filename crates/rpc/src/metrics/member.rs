//! What a member shows of itself: raft, the store, the backend, leases.
use quorate_core::{APPLY_BOUNDS, Doubling, FIRST_APPLY_BOUND_NS, Handles, Request, TTL_BOUNDS};

use super::histogram::seconds;
use super::text::wide;
use super::{HistogramSnapshot, Text};

/// Makes a source for [`Registry::add_source`](super::Registry::add_source) from a member's handles.
///
/// `server_version` is the version shown, as `X.Y.Z`.
pub fn member_source(handles: Handles, server_version: String) -> impl Fn(&mut Text) + Send + Sync {
    move |text| {
        write_raft(&handles, text);
        write_identity(&handles, &server_version, text);
        write_store(&handles, text);
        write_applies(&handles, text);
        write_leases(&handles, text);
    }
}

fn write_raft(handles: &Handles, text: &mut Text) {
    let view = &handles.view;
    let tally = view.tally();
    let leader = view.leader();
    for (name, value) in [
        ("etcd_server_has_leader", u64::from(leader.0 != 0)),
        (
            "etcd_server_is_leader",
            u64::from(leader == view.member_id()),
        ),
        ("etcd_server_is_learner", u64::from(view.is_learner())),
        ("etcd_server_proposals_applied_total", view.applied()),
        ("etcd_server_proposals_committed_total", view.committed()),
        ("etcd_server_proposals_pending", view.proposals_pending()),
        (
            "etcd_server_leader_changes_seen_total",
            view.leader_changes(),
        ),
        (
            "etcd_server_proposals_failed_total",
            view.proposals_failed(),
        ),
        (
            "etcd_server_read_indexes_failed_total",
            tally.read_indexes_failed.get(),
        ),
        (
            "etcd_server_heartbeat_send_failures_total",
            tally.late_heartbeats.get(),
        ),
        (
            "etcd_server_slow_read_indexes_total",
            tally.read_indexes_slow.get(),
        ),
        (
            "etcd_server_learner_promote_successes",
            view.promotions().succeeded(),
        ),
    ] {
        text.known(name).sample(&[], value);
    }
    text.known("etcd_server_learner_promote_failures");
    for (reason, count) in view.promotions().failed() {
        text.sample(&[("Reason", &reason)], count);
    }
}

fn write_identity(handles: &Handles, server_version: &str, text: &mut Text) {
    let view = &handles.view;
    let own = view.member_id().to_string();
    text.known("etcd_server_id")
        .sample(&[("server_id", &own)], 1);
    text.known("etcd_server_version")
        .sample(&[("server_version", server_version)], 1);
    let version = view.cluster_version();
    if let Some((minor, _)) = version.rsplit_once('.') {
        text.known("etcd_cluster_version")
            .sample(&[("cluster_version", minor)], 1);
    }
    let hex = |id: u64| format!("{id:x}");
    text.known("etcd_network_known_peers");
    for member in &*view.members() {
        text.sample(&[("Local", &own), ("Remote", &hex(member.id))], 1);
    }
    text.known("etcd_debugging_server_alarms");
    for alarm in &*view.alarms() {
        let kind = quorate_proto::etcdserverpb::AlarmType::try_from(alarm.alarm)
            .map_or("", |kind| kind.as_str_name());
        text.sample(
            &[("alarm_type", kind), ("server_id", &hex(alarm.member_id))],
            1,
        );
    }
}

fn write_store(handles: &Handles, text: &mut Text) {
    let current = handles.live.current();
    let sizes = current.backend.sizes();
    let tally = handles.view.tally();
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for (name, value) in [
        (
            "etcd_mvcc_db_total_size_in_bytes",
            signed(sizes.total_bytes),
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            signed(sizes.in_use_bytes),
        ),
        (
            "etcd_server_quota_backend_bytes",
            current.quota.limit_bytes().unwrap_or(-1),
        ),
        (
            "etcd_debugging_mvcc_current_revision",
            current.reader.current_revision(),
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            current.reader.compact_revision(),
        ),
        (
            "etcd_debugging_mvcc_keys_total",
            i64::try_from(current.reader.keys_total()).unwrap_or(i64::MAX),
        ),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            signed(tally.put_bytes.get()),
        ),
        (
            "etcd_debugging_auth_revision",
            signed(handles.auth.revision()),
        ),
    ] {
        text.known(name).signed_sample(&[], value);
    }
    text.add("etcd_mvcc_range_total", tally.ranges.get());
    text.add("etcd_mvcc_txn_total", tally.txns.get());
    text.add("etcd_mvcc_put_total", tally.puts.get());
    text.add("etcd_mvcc_delete_total", tally.deletes.get());
    text.add("etcd_server_slow_apply_total", tally.slow_applies.get());
}

/// Writes the times of applying; kinds that never came are left out, as in etcd.
fn write_applies(handles: &Handles, text: &mut Text) {
    text.known("etcd_server_apply_duration_seconds");
    for op in 0..Request::OPS {
        for (succeeded, success) in [(false, "false"), (true, "true")] {
            let times = handles.view.tally().applies(op, succeeded);
            if times.count() > 0 {
                let labels = [
                    ("op", Request::op_name(op)),
                    ("success", success),
                    ("version", "v3"),
                ];
                text.histogram(&labels, &apply_times(times));
            }
        }
    }
}

fn apply_times(times: &Doubling<APPLY_BOUNDS>) -> HistogramSnapshot {
    let bound = |at| seconds(FIRST_APPLY_BOUND_NS << at);
    snapshot(times, bound, seconds(times.sum()))
}

fn snapshot<const N: usize>(
    values: &Doubling<N>,
    bound: impl Fn(usize) -> f64,
    sum: f64,
) -> HistogramSnapshot {
    let counts = values.buckets();
    HistogramSnapshot {
        bounds: (0..N).map(bound).collect(),
        // Never below the buckets' own sum, even while others observe.
        count: values.count().max(counts.iter().sum()),
        counts: counts.to_vec(),
        sum,
    }
}

fn write_leases(handles: &Handles, text: &mut Text) {
    let tally = handles.view.tally();
    for (name, count) in [
        ("etcd_debugging_lease_granted_total", &tally.leases_granted),
        ("etcd_debugging_lease_revoked_total", &tally.leases_revoked),
        ("etcd_debugging_lease_renewed_total", &tally.leases_renewed),
        (
            "etcd_debugging_server_lease_expired_total",
            &tally.leases_expired,
        ),
    ] {
        text.known(name).sample(&[], count.get());
    }
    let ttls: &Doubling<TTL_BOUNDS> = &tally.lease_ttls;
    let bound = |at| wide(1u64 << at);
    text.known("etcd_debugging_lease_ttl_total")
        .histogram(&[], &snapshot(ttls, bound, wide(ttls.sum())));
}
