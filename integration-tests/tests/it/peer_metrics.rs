//! What scrapes of a cluster's members show, beside what those of members of etcd 3.7.1 show.
//!
//! `peer_metrics.txt` has what a member shows besides `metrics.txt` once there are others, in the same **Shape**.
use std::thread;
use std::time::{Duration, Instant};

use quorate_integration_tests::cluster::{Cluster, Place, Setup};
use quorate_integration_tests::{Binary, Client};
use quorate_proto::etcdserverpb::{MemberPromoteRequest, MemberPromoteResponse};
use tonic::Status;

use crate::cluster::one_at_a_time;
use crate::membership::follower;
use crate::metrics::{Families, GOLDEN, differences, get, merged, scrape, work};
use crate::operators::{SMALL_LOG, fill};

const PEERS: &str = include_str!("peer_metrics.txt");
/// How long numbers may take; etcd takes those of its probes over every 30 s.
const SETTLE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(200);
/// Entries that a member misses, and more than are kept.
const MISSED: usize = 300;
/// An id that no member has.
const NOBODY: u64 = 1;

/// What etcd shows at times: failures once there were some, and its store of version 2, which has no part in anything any more.
const AT_TIMES: &[&str] = &[
    "etcd_debugging_store_reads_total",
    "etcd_debugging_store_writes_total",
    "etcd_network_peer_received_failures_total",
    "etcd_network_peer_sent_failures_total",
    "etcd_network_snapshot_receive_failures",
    "etcd_network_snapshot_send_failures",
];

/// Series that must have moved on every member.
const EVERYWHERE: &[&str] = &[
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_round_trip_time_seconds_count",
];
/// Series that must have moved on a member that was caught up by snapshot.
const BEHIND: &[&str] = &[
    "etcd_network_snapshot_receive_success",
    "etcd_network_snapshot_receive_total_duration_seconds_count",
    "etcd_snap_db_fsync_duration_seconds_count",
    "etcd_snap_db_save_total_duration_seconds_count",
];
/// Series that must have moved on some member.
const SOMEWHERE: &[&str] = &[
    "etcd_network_disconnected_peers_total",
    "etcd_network_snapshot_send_success",
    "etcd_network_snapshot_send_total_duration_seconds_count",
];
/// Gauges of what must be over on every member.
const OVER: &[&str] = &[
    "etcd_network_snapshot_receive_inflights_total",
    "etcd_network_snapshot_send_inflights_total",
    "etcd_server_snapshot_apply_in_progress_total",
];
/// Sums over all members.
const SUMS: &[(&str, f64)] = &[
    ("etcd_server_learner_promote_successes", 1.0),
    (
        "etcd_server_learner_promote_failures{Reason=\"membership: ID not found\"}",
        1.0,
    ),
];
/// Links of each of four with each other; etcd forgets to take off those that it makes anew after a snapshot.
const LINKS: f64 = 12.0;

/// Sums the samples of a name, or of a name with labels.
fn sum(families: &Families, series: &str) -> f64 {
    let samples = families.values().flat_map(|family| &family.samples);
    let is_it = |name: &str| name == series || name.split('{').next() == Some(series);
    let found = samples.filter(|(name, _)| is_it(name));
    found.map(|(_, value)| value).sum()
}

/// Says what the members do not show yet; those behind were caught up by snapshot.
fn missing(scrapes: &[Families], behind: &[usize]) -> Vec<String> {
    let mut missing = Vec::new();
    for (at, families) in scrapes.iter().enumerate() {
        let of_behind = BEHIND.iter().filter(|_| behind.contains(&at));
        let still = EVERYWHERE.iter().chain(of_behind);
        let still = still.filter(|series| sum(families, series) <= 0.0);
        missing.extend(still.map(|series| format!("{series} stands still on {at}")));
        let going_on = OVER.iter().filter(|series| sum(families, series) != 0.0);
        missing.extend(going_on.map(|series| format!("{series} does not end on {at}")));
    }
    let total = |series: &str| -> f64 { scrapes.iter().map(|one| sum(one, series)).sum() };
    let still = SOMEWHERE.iter().filter(|series| total(series) <= 0.0);
    missing.extend(still.map(|series| format!("{series} stands still")));
    let links = total("etcd_network_active_peers");
    missing.extend((links < LINKS).then(|| format!("only {links} links")));
    let other = SUMS.iter().filter(|(series, sum)| total(series) != *sum);
    missing.extend(other.map(|(series, sum)| format!("{series}: {} and not {sum}", total(series))));
    missing
}

/// Has a member miss more than the log keeps.
fn leave_behind(cluster: &mut Cluster) -> Place {
    let (leader, behind) = follower(cluster);
    cluster.kill(behind).unwrap();
    fill(cluster, leader, MISSED);
    cluster.begin_start(behind).unwrap();
    cluster.end_start(behind).unwrap();
    behind
}

/// Promotes nobody, then a learner, which is caught up by snapshot too.
fn promote(cluster: &mut Cluster) -> Place {
    let leader = cluster.wait_leader().unwrap();
    let request = MemberPromoteRequest { id: NOBODY };
    let refused: Result<MemberPromoteResponse, Status> =
        cluster.ask(leader, "Cluster/MemberPromote", request);
    let refused = refused.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: member not found");
    let learner = cluster.spare().unwrap();
    cluster.add(learner, None, true).unwrap();
    cluster.promote(learner).unwrap();
    learner
}

fn shows_what_etcd_shows(binary: Binary, at_times: &[&str]) {
    let _turn = one_at_a_time();
    let args = [SMALL_LOG[0], SMALL_LOG[1], "--metrics=extensive"];
    let mut cluster = Cluster::start(&Setup::three(vec![binary], &args)).unwrap();
    let behind = [leave_behind(&mut cluster), promote(&mut cluster)];
    let sites = cluster.sites();
    let endpoint = &sites[cluster.wait_leader().unwrap()].endpoint;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { work(&Client::connect(endpoint).await.unwrap()).await });
    for page in ["/health", "/livez", "/readyz"] {
        assert!(get(endpoint, page).contains(" 200 OK\r\n"), "{page}");
    }
    let deadline = Instant::now() + SETTLE;
    let scrapes = loop {
        let scrapes: Vec<Families> = sites.iter().map(|site| scrape(&site.endpoint)).collect();
        let missing = missing(&scrapes, &behind);
        if missing.is_empty() {
            break scrapes;
        }
        assert!(Instant::now() < deadline, "{}", missing.join("\n"));
        thread::sleep(LOOK);
    };
    let mut differences = differences(&merged(scrapes), &[GOLDEN, PEERS]);
    let is_at_times = |difference: &String| {
        let mut names = at_times.iter().map(|name| format!("{name} is "));
        names.any(|is| difference.starts_with(&is))
    };
    differences.retain(|difference| !is_at_times(difference));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn scrapes_of_a_cluster_show_what_those_of_etcd_show() {
    shows_what_etcd_shows(Binary::quorate().unwrap(), &[]);
}

#[test]
fn the_list_of_a_cluster_is_that_of_etcd() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    shows_what_etcd_shows(etcd, AT_TIMES);
}
