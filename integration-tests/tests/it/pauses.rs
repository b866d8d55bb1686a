//! T3: members whose process stands still for a while and then goes on as if nothing had been.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quorate_integration_tests::cluster::{Cluster, Place, Setup};
use quorate_integration_tests::{Binary, Client, Failure};
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tonic::Status;

use crate::cluster::one_at_a_time;
use crate::membership::follower;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// Seconds of the lease, and how often it is renewed.
const TTL_S: u32 = 4;
const RENEWAL: Duration = Duration::from_millis(400);
/// How long a member stands still: longer than elections, requests and leases take.
const PAUSE: Duration = Duration::from_secs(6);
/// Reads that wait at the member that stands still.
const READS: usize = 40;

fn eventually<T>(what: &str, mut step: impl FnMut() -> Result<T, Failure>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match step() {
            Ok(done) => return done,
            Err(failure) if Instant::now() > deadline => panic!("{what}: {failure}"),
            Err(_) => thread::sleep(LOOK),
        }
    }
}

fn put(cluster: &Cluster, place: Place, value: &str, lease: i64) -> Result<PutResponse, Status> {
    let key = if lease == 0 { "key" } else { "leased" };
    let request = PutRequest {
        key: key.into(),
        value: value.as_bytes().to_vec().into(),
        lease,
        ..PutRequest::default()
    };
    cluster.ask(place, "KV/Put", request)
}

async fn read(client: &Client, key: &'static str) -> Result<Option<String>, Status> {
    let request = RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = client.call("KV/Range", request).await?;
    let value = answer.kvs.first().map(|kv| kv.value.to_vec());
    Ok(value.map(|value| String::from_utf8(value).unwrap()))
}

/// Renews a lease wherever that works, until the time is up; gives the time until which it was promised last.
async fn keep(clients: Vec<Client>, lease: i64, until: Instant) -> Instant {
    let mut promised = Instant::now();
    let mut turn = 0;
    while Instant::now() < until {
        let client = &clients[turn % clients.len()];
        let begun = Instant::now();
        let request = LeaseKeepAliveRequest { id: lease };
        let renewed = timeout(RENEWAL, async {
            let opened =
                client.stream::<_, LeaseKeepAliveResponse>("Lease/LeaseKeepAlive", request);
            let (_requests, mut answers) = opened.await.ok()?;
            answers.message().await.ok()?
        });
        match renewed.await {
            Ok(Some(answer)) if answer.ttl > 0 => {
                promised = begun + Duration::from_secs(answer.ttl.unsigned_abs());
                tokio::time::sleep(RENEWAL).await;
            }
            // Another member may know better: the next is asked at once.
            Ok(Some(_) | None) | Err(_) => turn += 1,
        }
        tokio::time::sleep(LOOK).await;
    }
    promised
}

/// A runtime whose tasks go on by themselves, on a thread that ends with the process.
pub(crate) fn background() -> Arc<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = Arc::new(runtime.unwrap());
    let of_thread = Arc::clone(&runtime);
    thread::spawn(move || of_thread.block_on(std::future::pending::<()>()));
    runtime
}

struct Under {
    cluster: Cluster,
    runtime: Arc<Runtime>,
    lease: i64,
}

impl Under {
    fn client(&self, place: Place) -> Client {
        let endpoint = self.cluster.member(place).endpoint();
        let _inside = self.runtime.enter();
        Client::lazy(&endpoint).unwrap()
    }

    /// A lease with a key, made at a member.
    fn lease_at(&mut self, place: Place) {
        self.lease += 1;
        let lease = self.lease;
        eventually("a lease", || {
            let request = LeaseGrantRequest {
                id: lease,
                ttl: i64::from(TTL_S),
            };
            let _: LeaseGrantResponse = self.cluster.ask(place, "Lease/LeaseGrant", request)?;
            Ok(put(&self.cluster, place, "leased", lease)?)
        });
    }

    fn keep_by(&self, places: &[Place], time: Duration) -> JoinHandle<Instant> {
        let clients = places.iter().map(|place| self.client(*place)).collect();
        let until = Instant::now() + time;
        self.runtime.spawn(keep(clients, self.lease, until))
    }

    /// Pauses a member, changes a value meanwhile, asks the paused member for it, and lets it go on.
    fn pause(&mut self, paused: Place, round: usize) -> (usize, usize) {
        let (old, new) = (format!("old-{round}"), format!("new-{round}"));
        eventually("a put", || Ok(put(&self.cluster, paused, &old, 0)?));
        self.lease_at(paused);
        let others: Vec<Place> = self.cluster.places();
        let others: Vec<Place> = others.into_iter().filter(|p| *p != paused).collect();
        let keeper = self.keep_by(&others, PAUSE + PAUSE / 2);
        let begun = Instant::now();
        self.cluster.pause(paused, true).unwrap();
        eventually("a put", || Ok(put(&self.cluster, others[0], &new, 0)?));
        // Reads that begin now must not see what was before, whoever answers them and whenever.
        let mut reads = JoinSet::new();
        for _ in 0..READS {
            let client = self.client(paused);
            let read = async move { timeout(PATIENCE, read(&client, "key")).await };
            reads.spawn_on(read, self.runtime.handle());
        }
        thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        self.cluster.pause(paused, false).unwrap();
        let (mut answered, mut refused) = (0, 0);
        for outcome in self.runtime.block_on(reads.join_all()) {
            match outcome {
                Ok(Ok(value)) => {
                    assert_eq!(value.as_ref(), Some(&new), "a stale read after a pause");
                    answered += 1;
                }
                Ok(Err(_)) | Err(_) => refused += 1,
            }
        }
        let promised = self.runtime.block_on(keeper).unwrap();
        self.assert_leased(&others, promised);
        (answered, refused)
    }

    /// What was renewed has not ended before its time, and does end after it.
    fn assert_leased(&self, others: &[Place], promised: Instant) {
        let client = self.client(others[0]);
        let look = || {
            let read = async { timeout(PATIENCE, read(&client, "leased")).await };
            self.runtime.block_on(read)
        };
        let there = look();
        if let Ok(Ok(None)) = there {
            let at = Instant::now();
            assert!(at > promised, "a lease ended {:?} early", promised - at);
        }
        eventually("the end of a lease", || match look() {
            Ok(Ok(None)) => Ok(()),
            other => Err(Failure::new(format!("{other:?}"))),
        });
    }
}

/// T3, 2.29, 2.31: a leader, and a follower, that was paused answers no stale read and ends no lease.
#[test]
fn a_member_that_was_paused_answers_no_stale_read_and_ends_no_lease() {
    let _turn = one_at_a_time();
    let setup = Setup::three(vec![Binary::quorate().unwrap()], &[]);
    let mut under = Under {
        cluster: Cluster::start(&setup).unwrap(),
        runtime: background(),
        lease: 0,
    };
    let mut all = 0;
    for round in 0..4 {
        let (leader, follower) = follower(&under.cluster);
        let paused = if round % 2 == 0 { leader } else { follower };
        let (answered, refused) = under.pause(paused, round);
        println!("pause {round}: {answered} reads answered, {refused} refused");
        all += answered;
    }
    assert!(all > 0, "nobody who was paused has ever answered");
}
