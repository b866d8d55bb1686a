//! L1: clients that want far more than there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use quorate_integration_tests::cluster::{Cluster, DiskKind, Place, Setup};
use quorate_integration_tests::{Binary, Client};
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster::one_at_a_time;
use crate::pauses::background;

/// Requests under way at once that keep the cluster busy, and those that are far too many.
const BUSY: usize = 100;
const TOO_MANY: usize = 10 * BUSY;
/// Requests of one connection.
const PER_CONNECTION: usize = 50;
const BUSY_TIME: Duration = Duration::from_secs(4);
const OVERLOAD_TIME: Duration = Duration::from_secs(15);
/// Leases that are held through all of it.
const LEASES: i64 = 60;
const TTL_S: i64 = 10;
const RENEWAL: Duration = Duration::from_millis(1_500);
/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// MiB that a member may use.
const MEMORY_MIB_MAX: u64 = 1_024;
/// A fifth of what is done at best must still be done: it does not collapse. The true figures are printed.
const COLLAPSE: u64 = 5;
/// Long elections: the machine that runs the clients and the members is to be busy, not the reason of a change of leaders.
const ARGS: [&str; 2] = ["--heartbeat-interval=200", "--election-timeout=4000"];

fn client(runtime: &Runtime, cluster: &Cluster, place: Place) -> Client {
    let endpoint = cluster.member(place).endpoint();
    let _inside = runtime.enter();
    Client::lazy(&endpoint).unwrap()
}

/// Puts as fast as they are answered, with so many under way; gives how many were acknowledged and how many refused.
fn load(runtime: &Runtime, cluster: &Cluster, under_way: usize, time: Duration) -> (u64, u64) {
    let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let end = Instant::now() + time;
    let places = cluster.places();
    let mut workers = JoinSet::new();
    let connections = under_way.div_ceil(PER_CONNECTION);
    for connection in 0..connections {
        let client = client(runtime, cluster, places[connection % places.len()]);
        for number in 0..under_way / connections {
            let (client, counts) = (client.clone(), Arc::clone(&counts));
            let work = async move {
                let key = format!("load/{connection}/{number}");
                while Instant::now() < end {
                    let request = PutRequest {
                        key: key.clone().into(),
                        value: vec![b'x'; 1_000].into(),
                        ..PutRequest::default()
                    };
                    let put = client.call::<_, PutResponse>("KV/Put", request);
                    match timeout(ANSWER_TIMEOUT, put).await {
                        Ok(Ok(_)) => counts.0.fetch_add(1, Relaxed),
                        _ => counts.1.fetch_add(1, Relaxed),
                    };
                }
            };
            workers.spawn_on(work, runtime.handle());
        }
    }
    runtime.block_on(workers.join_all());
    (counts.0.load(Relaxed), counts.1.load(Relaxed))
}

/// Holds a lease as clients do, on one stream. Gives the first time to live that was none.
async fn hold(client: Client, lease: i64, end: Arc<AtomicBool>) -> Result<(), String> {
    while !end.load(Relaxed) {
        let request = LeaseKeepAliveRequest { id: lease };
        let renewal = async {
            let opened =
                client.stream::<_, LeaseKeepAliveResponse>("Lease/LeaseKeepAlive", request);
            let (_requests, mut answers) = opened.await?;
            answers.message().await
        };
        match timeout(ANSWER_TIMEOUT, renewal).await {
            Ok(Ok(Some(answer))) if answer.ttl <= 0 => {
                return Err(format!("lease {lease} is gone"));
            }
            // What is refused or late is asked again.
            _ => sleep(RENEWAL).await,
        }
    }
    Ok(())
}

fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap() / 1_024
}

/// L1: ten times more than the cluster can do is asked of it: no leader changes, no lease ends, memory stays bounded, and as much
/// is done as before.
#[test]
fn overload_changes_no_leader_and_ends_no_lease() {
    let _turn = one_at_a_time();
    let setup = Setup {
        binaries: vec![Binary::quorate().unwrap()],
        members: 3,
        disk: DiskKind::Plain,
        args: ARGS.iter().map(|&arg| arg.to_owned()).collect(),
        seed: 1,
        is_direct: false,
    };
    let cluster = Cluster::start(&setup).unwrap();
    let runtime = background();
    let leader = cluster.wait_leader().unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let mut holders = JoinSet::new();
    for lease in 1..=LEASES {
        let request = LeaseGrantRequest {
            id: lease,
            ttl: TTL_S,
        };
        let _: LeaseGrantResponse = cluster.ask(leader, "Lease/LeaseGrant", request).unwrap();
        let places = cluster.places();
        let place = places[usize::try_from(lease).unwrap() % places.len()];
        let client = client(&runtime, &cluster, place);
        holders.spawn_on(hold(client, lease, Arc::clone(&end)), runtime.handle());
    }
    let before = cluster.status(leader).unwrap();
    let (busy, busy_refused) = load(&runtime, &cluster, BUSY, BUSY_TIME);
    let (done, refused) = load(&runtime, &cluster, TOO_MANY, OVERLOAD_TIME);
    let after = cluster.status(leader).unwrap();
    let (busy, done) = (busy / BUSY_TIME.as_secs(), done / OVERLOAD_TIME.as_secs());
    let memory: Vec<u64> = cluster
        .places()
        .into_iter()
        .map(|place| memory_mib(cluster.member(place).pid()))
        .collect();
    println!(
        "{busy} writes a second with {BUSY} under way ({busy_refused} refused), {done} with {TOO_MANY} ({refused} refused), \
         MiB of members: {memory:?}"
    );
    assert_eq!(
        (before.raft_term, before.leader),
        (after.raft_term, after.leader),
        "the leader changed"
    );
    end.store(true, Relaxed);
    for held in runtime.block_on(holders.join_all()) {
        held.unwrap();
    }
    for lease in 1..=LEASES {
        let request = LeaseTimeToLiveRequest {
            id: lease,
            keys: false,
        };
        let told: LeaseTimeToLiveResponse = cluster
            .ask(leader, "Lease/LeaseTimeToLive", request)
            .unwrap();
        assert!(told.ttl > 0, "lease {lease} ended");
    }
    assert!(memory.iter().all(|mib| *mib < MEMORY_MIB_MAX), "{memory:?}");
    assert!(done >= busy / COLLAPSE, "overload made it collapse");
}
