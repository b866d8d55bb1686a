//! What a scrape shows, beside what one of etcd 3.7.1 shows.
//!
//! `metrics.txt` was made from a scrape of etcd 3.7.1 with `--metrics=extensive` after a workload like the one below.
//! **Shape**: one metric a line, fields between tabs: name, type, names of labels, bounds of buckets, help text.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use quorate_integration_tests::{Binary, Client, Site};
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, TxnRequest, TxnResponse,
};

pub(crate) const GOLDEN: &str = include_str!("metrics.txt");
/// How long numbers that are shown once a second may take.
const SETTLE: Duration = Duration::from_secs(30);

/// One metric of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    bounds: Vec<String>,
    /// Samples: what stands before the value, and the value.
    pub(crate) samples: Vec<(String, f64)>,
}

/// Gets a page of the server by HTTP/1.0, which has no chunks.
pub(crate) fn get(endpoint: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(endpoint).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Reads the text format.
fn parse(text: &str) -> Families {
    let mut families: Families = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let before = families.insert(
                name.to_owned(),
                Family {
                    help: help.to_owned(),
                    ..Family::default()
                },
            );
            assert!(before.is_none(), "{name} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else if !line.starts_with('#') && line.contains(' ') {
            add_sample(&mut families, line);
        }
    }
    families
}

fn add_sample(families: &mut Families, line: &str) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let name = series.split('{').next().unwrap();
    let ends = ["", "_bucket", "_sum", "_count"];
    let Some(family) = ends
        .iter()
        .filter_map(|end| name.strip_suffix(end))
        .find(|name| families.contains_key(*name))
    else {
        // A chunk's length, or the header of the answer.
        return;
    };
    let family = families.get_mut(family).unwrap();
    let labels = series.split_once('{').map_or("", |(_, labels)| labels);
    for label in labels.trim_end_matches('}').split("\",") {
        let Some((label, value)) = label.split_once("=\"") else {
            continue;
        };
        let bound = value.trim_end_matches('"').to_owned();
        if label != "le" {
            family.labels.insert(label.to_owned());
        } else if !family.bounds.contains(&bound) {
            family.bounds.push(bound);
        }
    }
    family
        .samples
        .push((series.to_owned(), value.parse().unwrap()));
}

pub(crate) type Families = BTreeMap<String, Family>;

pub(crate) fn scrape(endpoint: &str) -> Families {
    parse(&get(endpoint, "/metrics"))
}

/// Puts what several members show together, as one of them would show it.
pub(crate) fn merged(scrapes: Vec<Families>) -> Families {
    let mut all = Families::new();
    for (name, more) in scrapes.into_iter().flatten() {
        let family = all.entry(name).or_default();
        family.kind = more.kind;
        family.help = more.help;
        family.labels.extend(more.labels);
        if family.bounds.is_empty() {
            family.bounds = more.bounds;
        }
        family.samples.extend(more.samples);
    }
    all
}

/// Does a little of everything.
pub(crate) async fn work(client: &Client) {
    let put = |key: &'static str| PutRequest {
        key: key.into(),
        value: "v".into(),
        ..PutRequest::default()
    };
    for key in ["a", "b", "c"] {
        let _: PutResponse = client.call("KV/Put", put(key)).await.unwrap();
    }
    let range = RangeRequest {
        key: "a".into(),
        ..RangeRequest::default()
    };
    let _: RangeResponse = client.call("KV/Range", range.clone()).await.unwrap();
    let delete = DeleteRangeRequest {
        key: "a".into(),
        ..DeleteRangeRequest::default()
    };
    let _: DeleteRangeResponse = client.call("KV/DeleteRange", delete).await.unwrap();
    let op = |request| RequestOp {
        request: Some(request),
    };
    let txn = TxnRequest {
        success: vec![
            op(Op::RequestPut(put("d"))),
            op(Op::RequestRange(range.clone())),
        ],
        ..TxnRequest::default()
    };
    let _: TxnResponse = client.call("KV/Txn", txn).await.unwrap();
    let read_only = TxnRequest {
        success: vec![op(Op::RequestRange(range))],
        ..TxnRequest::default()
    };
    let _: TxnResponse = client.call("KV/Txn", read_only).await.unwrap();
    let grant = LeaseGrantRequest { id: 7, ttl: 60 };
    let _: LeaseGrantResponse = client.call("Lease/LeaseGrant", grant).await.unwrap();
    let revoke = LeaseRevokeRequest { id: 7 };
    let _: LeaseRevokeResponse = client.call("Lease/LeaseRevoke", revoke).await.unwrap();
    let compact = CompactionRequest {
        revision: 3,
        physical: true,
    };
    let _: CompactionResponse = client.call("KV/Compact", compact).await.unwrap();
    let hash = HashKvRequest { revision: 0 };
    let _: HashKvResponse = client.call("Maintenance/HashKV", hash).await.unwrap();
    let list = AlarmRequest::default();
    let _: AlarmResponse = client.call("Maintenance/Alarm", list).await.unwrap();
}

/// Compares with the lists; gives what differs.
pub(crate) fn differences(ours: &Families, lists: &[&str]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut known = BTreeSet::new();
    for line in lists.iter().flat_map(|list| list.lines()) {
        let [name, kind, labels, bounds, help] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        known.insert(name);
        let Some(family) = ours.get(name) else {
            differences.push(format!("{name} is missing"));
            continue;
        };
        let our_labels = family.labels.iter().cloned().collect::<Vec<_>>().join(",");
        let our_bounds = family.bounds.join(" ");
        for (what, theirs, ours) in [
            ("type", kind, &*family.kind),
            ("labels", labels, &*our_labels),
            ("bounds", bounds, &*our_bounds),
            ("help", help, &*family.help),
        ] {
            if theirs != ours {
                differences.push(format!("{name}: {what}: {theirs:?} there, {ours:?} here"));
            }
        }
    }
    let unknown = ours.keys().filter(|name| !known.contains(name.as_str()));
    differences.extend(unknown.map(|name| format!("{name} is ours alone")));
    differences
}

/// Queries of the official dashboards and alerts (etcd v3.7.1 contrib/mixin) that a single member answers: a metric, and
/// labels that select series of it. Those about `etcd_network_peer_*` need other members: see `peer_metrics.rs`.
const QUERIES: &[(&str, &[&str])] = &[
    ("etcd_server_has_leader", &[]),
    ("etcd_server_leader_changes_seen_total", &[]),
    ("etcd_server_proposals_failed_total", &[]),
    ("etcd_server_proposals_pending", &[]),
    ("etcd_server_proposals_committed_total", &[]),
    ("etcd_server_proposals_applied_total", &[]),
    ("etcd_server_quota_backend_bytes", &[]),
    ("grpc_server_started_total", &["grpc_type=\"unary\""]),
    (
        "grpc_server_started_total",
        &[
            "grpc_service=\"etcdserverpb.Watch\"",
            "grpc_type=\"bidi_stream\"",
        ],
    ),
    (
        "grpc_server_handled_total",
        &[
            "grpc_service=\"etcdserverpb.Lease\"",
            "grpc_type=\"bidi_stream\"",
        ],
    ),
    (
        "grpc_server_handled_total",
        &["grpc_type=\"unary\"", "grpc_code=\"Unavailable\""],
    ),
    (
        "grpc_server_handling_seconds",
        &["grpc_method=\"Put\"", "le=\"0.25\""],
    ),
    ("etcd_mvcc_db_total_size_in_bytes", &[]),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", &[]),
    ("etcd_disk_wal_fsync_duration_seconds", &["le=\"0.512\""]),
    (
        "etcd_disk_backend_commit_duration_seconds",
        &["le=\"0.256\""],
    ),
    ("process_resident_memory_bytes", &[]),
    ("etcd_network_client_grpc_received_bytes_total", &[]),
    ("etcd_network_client_grpc_sent_bytes_total", &[]),
];

/// Series that the workload must have moved.
const MOVED: &[&str] = &[
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_mvcc_hash_rev_duration_seconds_count",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_wal_write_duration_seconds_count",
    "etcd_disk_wal_write_bytes_total",
    "etcd_disk_backend_commit_duration_seconds_count",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
    "etcd_debugging_mvcc_db_compaction_last",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total_sum",
    "etcd_server_proposals_applied_total",
    "etcd_network_client_grpc_received_bytes_total",
    "process_cpu_seconds_total",
    "go_goroutines",
    "go_threads",
    "os_fd_used",
];

fn value(families: &Families, series: &str) -> f64 {
    let mut samples = families.values().flat_map(|family| &family.samples);
    let found = samples.find(|(name, _)| name == series);
    found.unwrap_or_else(|| panic!("{series} is missing")).1
}

async fn shows_what_etcd_shows(binary: &Binary) {
    let site = Site::new(binary)
        .unwrap()
        .with_args(&["--metrics=extensive"]);
    let mut server = site.start().unwrap();
    let endpoint = site.endpoint();
    work(&Client::connect(&endpoint).await.unwrap()).await;
    for page in ["/health", "/livez", "/readyz"] {
        assert!(get(&endpoint, page).contains(" 200 OK\r\n"), "{page}");
    }
    // Some numbers are shown once a second, and the database is written behind the answers.
    let deadline = Instant::now() + SETTLE;
    let families = loop {
        let families = scrape(&endpoint);
        let still = MOVED.iter().find(|series| value(&families, series) <= 0.0);
        match still {
            None => break families,
            Some(series) if Instant::now() > deadline => panic!("{series} stands still"),
            Some(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let differences = differences(&families, &[GOLDEN]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for (metric, labels) in QUERIES {
        let samples = &families[*metric].samples;
        let is_selected = |series: &str| labels.iter().all(|label| series.contains(label));
        let found = samples.iter().any(|(series, _)| is_selected(series));
        assert!(found, "{metric} has no series with {labels:?}");
    }
    for series in [
        r#"etcd_server_request_duration_seconds_count{success="true",type="Put"}"#,
        r#"etcd_server_request_duration_seconds_count{success="true",type="ReadonlyTxn"}"#,
        r#"etcd_server_apply_duration_seconds_count{op="Txn",success="true",version="v3"}"#,
        r#"etcd_server_range_duration_seconds_count{success="true"}"#,
    ] {
        assert!(value(&families, series) >= 1.0, "{series}");
    }
    server.terminate().unwrap();
}

#[tokio::test]
async fn a_scrape_shows_what_one_of_etcd_shows() {
    shows_what_etcd_shows(&Binary::quorate().unwrap()).await;
}

#[tokio::test]
async fn the_list_is_that_of_etcd() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    shows_what_etcd_shows(&etcd).await;
}
