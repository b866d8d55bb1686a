//! T1: the wall clock jumps, there and back, on every member differently.
#![expect(clippy::print_stdout, reason = "figures and what is skipped are shown")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quorate_integration_tests::Binary;
use quorate_integration_tests::cluster::{Cluster, DiskKind, Place, Setup};
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse,
};

use crate::cluster::one_at_a_time;

const SOURCE: &str = include_str!("wall_clock.c");
const HOUR_S: i64 = 3_600;
const YEAR_S: i64 = 365 * 24 * HOUR_S + 6 * HOUR_S;
const DECADE_S: i64 = 10 * YEAR_S;
/// How long a lease may take to end that nobody keeps. Machines that run tests are slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long elections: no leader changes because the machine has other things to do.
const ARGS: [&str; 2] = ["--heartbeat-interval=100", "--election-timeout=3000"];
/// Seconds of a lease that is to end meanwhile, and of one that is not.
const SHORT_S: i64 = 12;
const LONG_S: i64 = 600;

/// A program that runs the server with a wall clock of its own, in the file `wall-clock` of the directory it is started in.
fn with_own_clock(dir: &Path) -> Option<Binary> {
    let (source, library) = (dir.join("wall_clock.c"), dir.join("wall_clock.so"));
    fs::write(&source, SOURCE).unwrap();
    let built = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: it needs a C compiler");
        return None;
    }
    let program = dir.join("quorate");
    let script = format!(
        "#!/bin/sh\n[ -e wall-clock ] || head -c 8 /dev/zero > wall-clock\nWALL_CLOCK=wall-clock LD_PRELOAD={} exec {} \"$@\"\n",
        library.display(),
        Binary::quorate().unwrap().path().display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    Some(Binary::at(&program).unwrap())
}

fn clock_file(cluster: &Cluster, place: Place) -> PathBuf {
    let log = cluster.member(place).log_path();
    log.parent().unwrap().join("wall-clock")
}

/// Shifts the clock of a member, in one write that it sees whole.
#[expect(
    clippy::host_endian_bytes,
    reason = "the library is of this machine, which maps the file"
)]
fn shift(cluster: &Cluster, place: Place, seconds: i64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(clock_file(cluster, place));
    file.unwrap()
        .write_all_at(&seconds.to_ne_bytes(), 0)
        .unwrap();
}

fn grant(cluster: &Cluster, place: Place, id: i64, ttl: i64) {
    let request = LeaseGrantRequest { id, ttl };
    let _: LeaseGrantResponse = cluster.ask(place, "Lease/LeaseGrant", request).unwrap();
}

fn ttl(cluster: &Cluster, place: Place, id: i64) -> i64 {
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let told: LeaseTimeToLiveResponse = cluster
        .ask(place, "Lease/LeaseTimeToLive", request)
        .unwrap();
    told.ttl
}

fn put(cluster: &Cluster, place: Place) {
    let request = PutRequest {
        key: "key".into(),
        ..PutRequest::default()
    };
    let _: PutResponse = cluster.ask(place, "KV/Put", request).unwrap();
}

/// Has every member say something soon.
fn compact(cluster: &Cluster, place: Place) {
    let header = cluster.status(place).unwrap().header.unwrap_or_default();
    let request = CompactionRequest {
        revision: header.revision,
        physical: false,
    };
    let _: CompactionResponse = cluster.ask(place, "KV/Compact", request).unwrap();
}

/// The years in a member's lines.
fn has_year(cluster: &Cluster, place: Place, year: i64) -> bool {
    let log = fs::read_to_string(cluster.member(place).log_path()).unwrap();
    log.contains(&format!("\"ts\":\"{year}-"))
}

/// T1: jumps of an hour and of ten years, forth and back, steps and strobing.
#[test]
fn jumps_of_the_wall_clock_change_no_leader_and_no_lease() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let Some(binary) = with_own_clock(dir.path()) else {
        return;
    };
    let setup = Setup {
        binaries: vec![binary],
        members: 3,
        disk: DiskKind::Plain,
        args: ARGS.iter().map(|&arg| arg.to_owned()).collect(),
        seed: 1,
        is_direct: false,
    };
    let cluster = Cluster::start(&setup).unwrap();
    let leader = cluster.wait_leader().unwrap();
    let before = cluster.status(leader).unwrap();
    grant(&cluster, leader, 1, LONG_S);
    let granted = Instant::now();
    grant(&cluster, leader, 2, SHORT_S);
    let jumps = [HOUR_S, -HOUR_S, DECADE_S, -DECADE_S, 0];
    for (round, jump) in jumps.into_iter().enumerate() {
        for place in cluster.places() {
            // Each member is told another time.
            shift(&cluster, place, jumps[(round + place) % jumps.len()]);
        }
        shift(&cluster, leader, jump);
        for place in cluster.places() {
            put(&cluster, place);
        }
        compact(&cluster, leader);
        for number in 0..10 {
            let strobing = if number % 2 == 0 { jump } else { -jump };
            shift(&cluster, leader, strobing);
            thread::sleep(Duration::from_millis(50));
        }
        assert!(ttl(&cluster, leader, 1) > 0, "a lease ended early");
    }
    let left = ttl(&cluster, leader, 2);
    let is_over = granted.elapsed() >= Duration::from_secs(SHORT_S.unsigned_abs());
    assert!(left > 0 || is_over, "a lease ended early");
    while ttl(&cluster, leader, 2) > 0 {
        assert!(granted.elapsed() < PATIENCE, "a lease does not end");
        thread::sleep(Duration::from_millis(200));
    }
    let after = cluster.status(leader).unwrap();
    assert_eq!(
        (before.raft_term, before.leader),
        (after.raft_term, after.leader),
        "the leader changed"
    );
    assert_jumped(&cluster);
}

/// The clocks did jump: each member's lines say so.
fn assert_jumped(cluster: &Cluster) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let years = i64::try_from(now.unwrap().as_secs()).unwrap() / YEAR_S;
    for place in cluster.places() {
        // Ten years forth or back, give or take the days of leap years.
        let jumped = [9, 10, 11]
            .into_iter()
            .flat_map(|by| [years + by, years - by]);
        let shown = jumped
            .into_iter()
            .any(|since| has_year(cluster, place, 1_970 + since));
        assert!(shown, "the clock of {place} never jumped");
    }
}
