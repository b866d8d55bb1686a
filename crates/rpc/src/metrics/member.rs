//! What a member shows of itself: raft, the store, the backend.
use quorate_core::Handles;

use super::{MetricKind, Text};

/// Makes a source for [`Registry::add_source`](super::Registry::add_source) from a member's handles.
///
/// `server_version` is the version shown, as `X.Y.Z`.
pub fn member_source(handles: Handles, server_version: String) -> impl Fn(&mut Text) + Send + Sync {
    move |text| {
        write_raft(&handles, text);
        write_identity(&handles, &server_version, text);
        write_store(&handles, text);
    }
}

fn write_raft(handles: &Handles, text: &mut Text) {
    let view = &handles.view;
    let leader = view.leader();
    let is_leader = leader == view.member_id();
    let gauges = [
        (
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            u64::from(leader.0 != 0),
        ),
        (
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            u64::from(is_leader),
        ),
        (
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            u64::from(view.is_learner()),
        ),
        (
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            view.applied(),
        ),
        (
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            view.committed(),
        ),
        (
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            view.proposals_pending(),
        ),
    ];
    for (name, help, value) in gauges {
        text.simple(name, MetricKind::Gauge, help, value);
    }
    let counters = [
        (
            "etcd_server_leader_changes_seen_total",
            "The number of leader changes seen.",
            view.leader_changes(),
        ),
        (
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            view.proposals_failed(),
        ),
    ];
    for (name, help, value) in counters {
        text.simple(name, MetricKind::Counter, help, value);
    }
}

fn write_identity(handles: &Handles, server_version: &str, text: &mut Text) {
    let view = &handles.view;
    text.metric(
        "etcd_server_id",
        MetricKind::Gauge,
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
    )
    .sample(&[("server_id", &view.member_id().to_string())], 1);
    text.metric(
        "etcd_server_version",
        MetricKind::Gauge,
        "Which version is running. 1 for 'server_version' label with current version.",
    )
    .sample(&[("server_version", server_version)], 1);
    let version = view.cluster_version();
    if let Some((minor, _)) = version.rsplit_once('.') {
        text.metric(
            "etcd_cluster_version",
            MetricKind::Gauge,
            "Which version is running. 1 for 'cluster_version' label with current cluster version",
        )
        .sample(&[("cluster_version", minor)], 1);
    }
    let member_id = |id: u64| format!("{id:x}");
    text.metric("etcd_debugging_server_alarms", MetricKind::Gauge, "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm");
    for alarm in &*view.alarms() {
        let kind = quorate_proto::etcdserverpb::AlarmType::try_from(alarm.alarm)
            .map_or("", |kind| kind.as_str_name());
        text.sample(
            &[
                ("alarm_type", kind),
                ("server_id", &member_id(alarm.member_id)),
            ],
            1,
        );
    }
}

fn write_store(handles: &Handles, text: &mut Text) {
    let sizes = handles.backend.sizes();
    let gauges = [
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes.",
            i64::try_from(sizes.total_bytes).unwrap_or(i64::MAX),
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of the underlying database logically in use in bytes.",
            i64::try_from(sizes.in_use_bytes).unwrap_or(i64::MAX),
        ),
        (
            "etcd_server_quota_backend_bytes",
            "Current backend storage quota size in bytes.",
            handles.quota.limit_bytes().unwrap_or(-1),
        ),
        (
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store.",
            handles.reader.current_revision(),
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction in store.",
            handles.reader.compact_revision(),
        ),
        (
            "etcd_debugging_mvcc_keys_total",
            "Total number of keys.",
            i64::try_from(handles.reader.keys_total()).unwrap_or(i64::MAX),
        ),
        (
            "etcd_debugging_auth_revision",
            "The current revision of auth store.",
            i64::try_from(handles.auth.revision()).unwrap_or(i64::MAX),
        ),
    ];
    for (name, help, value) in gauges {
        text.metric(name, MetricKind::Gauge, help)
            .signed_sample(&[], value);
    }
}
