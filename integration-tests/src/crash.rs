//! The crash loop: load, a kill at any moment, restart, and a look at whether everything acknowledged is there.
//!
//! Writers own their keys, so each knows what its keys hold. What a server was asked when it died may have happened or not, but
//! wholly or not at all. After every restart it must hold:
//!
//! - each acknowledged write stands at the revision that the answer named, whole;
//! - every revision since the last look is one of those or one whose answer never came: none is missing, none is anybody else's;
//! - the keys, values and leases are what these revisions add up to;
//! - a watch that goes on after the last event it saw has shown each revision once, in order;
//! - leases are there with their keys, and the hash of the history up to the last look has not changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse,
    RequestOp, TxnRequest, TxnResponse, WatchResponse, request_op,
};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::binary::Binary;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::history::{Changes, Held, Log, State, apply, describe, read_log, read_state, watch_all};
use crate::ledger::{Claims, Ledger};
use crate::random::Random;
use crate::server::{Server, Site};

/// The life of leases in seconds: none ends by itself during a run.
const LEASE_TTL_S: i64 = 1_000_000;
/// The keys of one writer.
const KEYS: u64 = 24;
/// The leases of one writer.
const LEASES_MAX: usize = 4;
/// Sizes of values in bytes: most are small, some span blocks, a few go on and on.
const SMALL_BYTES: u64 = 2_000;
const LARGE_BYTES: u64 = 200_000;

/// How to run a crash loop.
#[derive(Debug, Clone)]
pub struct CrashOptions {
    /// The server.
    pub binary: Binary,
    /// How often it is killed.
    pub loops: u32,
    /// What the run is made of; the same seed asks for the same, though not at the same moments.
    pub seed: u64,
    /// Writers at the same time.
    pub writers: u64,
    /// The shortest and the longest time under load.
    pub load: (Duration, Duration),
    /// Arguments added to every start.
    pub args: Vec<String>,
}

impl CrashOptions {
    /// The usual run: eight writers, up to 600 ms under load.
    #[must_use]
    pub fn new(binary: Binary, loops: u32, seed: u64) -> CrashOptions {
        CrashOptions {
            binary,
            loops,
            seed,
            writers: 8,
            load: (Duration::from_millis(5), Duration::from_millis(600)),
            args: Vec::new(),
        }
    }
}

/// What a crash loop saw.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CrashReport {
    /// Kills and restarts.
    pub loops: u32,
    /// Writes that were acknowledged, all of them found again.
    pub acknowledged: u64,
    /// Writes without an answer that had happened.
    pub unanswered_kept: u64,
    /// Writes without an answer that had not.
    pub unanswered_lost: u64,
    /// Times it was killed while it was starting.
    pub killed_in_start: u64,
}

/// Runs a crash loop on a fresh server.
///
/// # Errors
/// The server broke a promise, or died by itself; the text says which, in which loop and with which seed.
pub fn crash_loop(options: &CrashOptions) -> Outcome<CrashReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let args: Vec<&str> = options.args.iter().map(String::as_str).collect();
    let site = Site::new(&options.binary)?.with_args(&args);
    let mut random = Random::new(options.seed);
    let writers = (0..options.writers)
        .map(|n| Writer::new(n, random.number()))
        .collect();
    let mut run = Run {
        site,
        random,
        writers,
        ledger: Ledger::new(),
        killed_in_start: 0,
        hash: None,
        watched: Log::default(),
    };
    runtime.block_on(async {
        let mut server = run.site.start()?;
        for number in 0..options.loops {
            let at = format!("loop {number} of seed {}", options.seed);
            let loaded = run
                .load(&mut server, options.load)
                .await
                .map_err(|e| e.during(&at))?;
            server = run.restart().map_err(|e| e.during(&at))?;
            run.check(loaded).await.map_err(|e| e.during(&at))?;
        }
        server.kill()
    })?;
    Ok(CrashReport {
        loops: options.loops,
        acknowledged: run.ledger.acknowledged,
        unanswered_kept: run.ledger.unanswered_kept,
        unanswered_lost: run.ledger.unanswered_lost,
        killed_in_start: run.killed_in_start,
    })
}

/// A write: what it asks and what it does if it is carried out.
#[derive(Debug, Clone)]
struct Write {
    request: Ask,
    changes: Changes,
    /// The lease that is gone afterwards.
    revokes: Option<i64>,
}

#[derive(Debug, Clone)]
enum Ask {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Revoke(LeaseRevokeRequest),
}

/// One client that writes to keys of its own.
#[derive(Debug)]
struct Writer {
    number: u64,
    random: Random,
    state: State,
    leases: Vec<i64>,
    /// Written by every transaction, which checks that it is the one written before.
    counter: u64,
}

/// What one writer leaves when the server is gone.
struct Left {
    writer: Writer,
    acknowledged: Vec<(i64, Changes)>,
    unanswered: Option<Write>,
    failure: Option<Failure>,
}

/// What one time under load leaves.
struct Loaded {
    claims: Claims,
    /// The unanswered writes, by the place of their writer.
    writes: Vec<(usize, Write)>,
    compacted: bool,
}

struct Run {
    site: Site,
    random: Random,
    writers: Vec<Writer>,
    ledger: Ledger,
    killed_in_start: u64,
    /// The hash of the history up to there.
    hash: Option<u32>,
    /// What the watch saw since the last look.
    watched: Log,
}

impl Run {
    /// Lets the writers write and a watch watch, then ends the server.
    async fn load(
        &mut self,
        server: &mut Server,
        between: (Duration, Duration),
    ) -> Outcome<Loaded> {
        let client = Client::connect(&self.site.endpoint()).await?;
        let down = Arc::new(AtomicBool::new(false));
        let watch = watch(
            client.clone(),
            std::mem::take(&mut self.watched),
            self.ledger.revision + 1,
            Arc::clone(&down),
        );
        let mut tasks = Vec::new();
        for writer in std::mem::take(&mut self.writers) {
            // A connection each, so that a kill finds requests in every state.
            let client = Client::connect(&self.site.endpoint()).await?;
            tasks.push(tokio::spawn(writer.run(client, Arc::clone(&down))));
        }
        let compacted = self.random.one_in(4) && self.ledger.revision > 1;
        let compaction = compacted.then(|| compact(client.clone(), self.ledger.revision));
        tokio::time::sleep(self.random.between(between.0, between.1)).await;
        down.store(true, Ordering::SeqCst);
        if self.random.one_in(8) {
            server.terminate()?;
        } else {
            server.kill()?;
        }
        if let Some(compaction) = compaction {
            compaction.abort();
        }
        let mut loaded = Loaded {
            claims: Claims::default(),
            writes: Vec::new(),
            compacted,
        };
        for task in tasks {
            self.collect(
                task.await.map_err(|e| Failure::new(e.to_string()))?,
                &mut loaded,
            )?;
        }
        self.watched = watch.await.map_err(|e| Failure::new(e.to_string()))??;
        Ok(loaded)
    }

    fn collect(&mut self, left: Left, loaded: &mut Loaded) -> Outcome {
        if let Some(failure) = left.failure {
            return Err(failure);
        }
        for (revision, changes) in left.acknowledged {
            let text = describe(&changes);
            if loaded
                .claims
                .acknowledged
                .insert(revision, changes)
                .is_some()
            {
                return Err(Failure::new(format!(
                    "two writes were acknowledged at revision {revision}: {text}"
                )));
            }
        }
        if let Some(write) = left.unanswered {
            let writer = self.writers.len();
            loaded
                .claims
                .unanswered
                .insert(writer, write.changes.clone());
            loaded.writes.push((writer, write));
        }
        self.writers.push(left.writer);
        Ok(())
    }

    /// Starts the server again, now and then after it was killed while it started.
    fn restart(&mut self) -> Outcome<Server> {
        while self.random.one_in(4) {
            let mut server = self.site.spawn()?;
            std::thread::sleep(
                self.random
                    .between(Duration::ZERO, Duration::from_millis(200)),
            );
            server.kill()?;
            self.killed_in_start += 1;
        }
        self.site.start()
    }

    /// Holds what the server says against what was written.
    async fn check(&mut self, loaded: Loaded) -> Outcome {
        let client = Client::connect(&self.site.endpoint()).await?;
        self.check_hash(&client, loaded.compacted).await?;
        let (revision, found) = read_state(&client).await?;
        let from = self.ledger.revision + 1;
        let mut log = Log::default();
        read_log(&client, &mut log, from, revision).await?;
        for writer in self.ledger.settle(&log, revision, loaded.claims)? {
            let happened = loaded.writes.iter().find(|(number, _)| *number == writer);
            let (_, write) = happened.expect("the ledger names writers of unanswered writes");
            self.writers[writer].done(write);
        }
        if found != self.ledger.state {
            return Err(Failure::new(difference(&found, &self.ledger.state)));
        }
        self.check_watch(&client, &log, from, revision).await?;
        self.check_leases(&client).await?;
        self.hash = Some(hash(&client, revision).await?);
        Ok(())
    }

    /// The history up to the last look hashes as it did then, where no compaction changed it.
    async fn check_hash(&self, client: &Client, compacted: bool) -> Outcome {
        let Some(before) = self.hash.filter(|_| !compacted) else {
            return Ok(());
        };
        let now = hash(client, self.ledger.revision).await?;
        if now != before {
            let text = format!(
                "the hash up to revision {} was {before} and is {now}",
                self.ledger.revision
            );
            return Err(Failure::new(text));
        }
        Ok(())
    }

    /// The watch, going on after its last event, has seen the same revisions.
    async fn check_watch(
        &mut self,
        client: &Client,
        log: &Log,
        from: i64,
        revision: i64,
    ) -> Outcome {
        let mut watched = std::mem::take(&mut self.watched);
        read_log(client, &mut watched, from, revision)
            .await
            .map_err(|e| e.during("resuming the watch"))?;
        let differs = watched.iter().zip(log.iter()).find(|(seen, is)| seen != is);
        if let Some(((seen, _), (is, _))) = differs {
            return Err(Failure::new(format!(
                "the watch saw revision {seen} where the history has {is}, or saw it differently"
            )));
        }
        let (seen, is) = (watched.iter().count(), log.iter().count());
        if seen != is {
            return Err(Failure::new(format!(
                "the watch saw {seen} revisions of {is}"
            )));
        }
        Ok(())
    }

    /// Every lease is there, with its keys and its time.
    async fn check_leases(&mut self, client: &Client) -> Outcome {
        for writer in &mut self.writers {
            let mut there = Vec::new();
            for &id in &writer.leases {
                let request = LeaseTimeToLiveRequest { id, keys: true };
                let answer: LeaseTimeToLiveResponse =
                    client.call("Lease/LeaseTimeToLive", request).await?;
                let attached: Vec<&Bytes> = writer
                    .state
                    .iter()
                    .filter(|(_, held)| held.lease == id)
                    .map(|(key, _)| key)
                    .collect();
                let mut found: Vec<&Bytes> = answer.keys.iter().collect();
                found.sort();
                if found != attached
                    || answer.granted_ttl != LEASE_TTL_S
                    || answer.ttl <= 0
                    || answer.ttl > LEASE_TTL_S
                {
                    let text =
                        format!("lease {id} has keys {attached:?} and is shown as {answer:?}");
                    return Err(Failure::new(text));
                }
                there.push(id);
            }
            writer.leases = there;
        }
        Ok(())
    }
}

async fn hash(client: &Client, revision: i64) -> Outcome<u32> {
    let answer: HashKvResponse = client
        .call("Maintenance/HashKV", HashKvRequest { revision })
        .await?;
    Ok(answer.hash)
}

/// What two states differ in.
fn difference(found: &State, expected: &State) -> String {
    let missing = expected
        .iter()
        .find(|(key, held)| found.get(*key) != Some(held));
    let other = found
        .iter()
        .find(|(key, held)| expected.get(*key) != Some(held));
    format!("the keys do not add up: expected for example {missing:?}, found {other:?}")
}

/// Compacts the history of which everything was seen; the server may be gone before it answers.
fn compact(client: Client, revision: i64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        // Whether it happened shows in nothing that is checked.
        let _: Result<CompactionResponse, Status> = client.call("KV/Compact", request).await;
    })
}

/// Watches everything until the server is gone.
fn watch(
    client: Client,
    mut log: Log,
    from: i64,
    down: Arc<AtomicBool>,
) -> JoinHandle<Outcome<Log>> {
    tokio::spawn(async move {
        let start = from.max(log.last() + 1);
        let lost = |status: Status| {
            if down.load(Ordering::SeqCst) {
                return Ok(());
            }
            Err(Failure::from(status).during("watching while the server runs"))
        };
        let (_requests, mut answers) = match client.stream("Watch/Watch", watch_all(start)).await {
            Ok(open) => open,
            Err(status) => return lost(status).map(|()| log),
        };
        loop {
            let answer: WatchResponse = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return lost(Status::unavailable("the watch ended")).map(|()| log),
                Err(status) => return lost(status).map(|()| log),
            };
            if answer.canceled && !down.load(Ordering::SeqCst) {
                return Err(Failure::new(format!("the watch was cancelled: {answer:?}")));
            }
            log.add(answer.events)?;
        }
    })
}

impl Writer {
    fn new(number: u64, seed: u64) -> Writer {
        Writer {
            number,
            random: Random::new(seed),
            state: State::new(),
            leases: Vec::new(),
            counter: 0,
        }
    }

    /// Writes until the server is gone.
    async fn run(mut self, client: Client, down: Arc<AtomicBool>) -> Left {
        let mut acknowledged = Vec::new();
        loop {
            let lost = |status: Status| {
                let failure = Failure::from(status).during("writing while the server runs");
                (!down.load(Ordering::SeqCst)).then_some(failure)
            };
            if self.leases.len() < LEASES_MAX && self.random.one_in(10) {
                if let Err(status) = self.grant(&client).await {
                    let failure = lost(status);
                    return self.left(acknowledged, None, failure);
                }
                continue;
            }
            let write = self.next_write();
            match send(&client, write.request.clone()).await {
                Ok(revision) => {
                    self.done(&write);
                    acknowledged.push((revision, write.changes));
                }
                Err(status) => {
                    let failure = lost(status);
                    return self.left(acknowledged, Some(write), failure);
                }
            }
        }
    }

    fn left(
        self,
        acknowledged: Vec<(i64, Changes)>,
        unanswered: Option<Write>,
        failure: Option<Failure>,
    ) -> Left {
        Left {
            writer: self,
            acknowledged,
            unanswered,
            failure,
        }
    }

    /// Takes in that a write has happened.
    fn done(&mut self, write: &Write) {
        apply(&mut self.state, &write.changes);
        self.leases.retain(|id| Some(*id) != write.revokes);
        if let Ask::Txn(_) = write.request {
            self.counter += 1;
        }
    }

    async fn grant(&mut self, client: &Client) -> Result<(), Status> {
        let request = LeaseGrantRequest {
            ttl: LEASE_TTL_S,
            id: 0,
        };
        let answer: LeaseGrantResponse = client.call("Lease/LeaseGrant", request).await?;
        self.leases.push(answer.id);
        Ok(())
    }

    fn next_write(&mut self) -> Write {
        match self.random.below(10) {
            0 | 1 => self.delete(),
            2..=4 => self.txn(),
            5 => self.revoke(),
            _ => self.put(),
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!(
            "w{:02}/k{:02}",
            self.number,
            self.random.below(KEYS)
        ))
    }

    /// A value that no other write has.
    fn value(&mut self) -> Bytes {
        let max = if self.random.one_in(40) {
            LARGE_BYTES
        } else {
            SMALL_BYTES
        };
        let len = usize::try_from(self.random.below(max)).expect("sizes are small");
        let mut value = format!("{:02}-{:016x}-", self.number, self.random.number()).into_bytes();
        let fill = self.random.number().to_le_bytes()[0];
        value.resize(value.len() + len, fill);
        Bytes::from(value)
    }

    fn put(&mut self) -> Write {
        let (key, value) = (self.key(), self.value());
        let lease = match self.random.below(3) {
            0 => self.leases.first().copied().unwrap_or_default(),
            _ => 0,
        };
        let request = PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease,
            ..PutRequest::default()
        };
        Write {
            request: Ask::Put(request),
            changes: Changes::from([(key, Some(Held { value, lease }))]),
            revokes: None,
        }
    }

    /// Deletes keys, at least one, or puts one where there is none.
    fn delete(&mut self) -> Write {
        let from = self.key();
        let Some(first) = self
            .state
            .range(from.clone()..)
            .next()
            .map(|(key, _)| key.clone())
        else {
            return self.put();
        };
        let range_end = if self.random.one_in(3) {
            self.key()
        } else {
            Bytes::new()
        };
        let range_end = if range_end > first {
            range_end
        } else {
            Bytes::new()
        };
        let end = if range_end.is_empty() {
            successor(&first)
        } else {
            range_end.clone()
        };
        let gone = self
            .state
            .range(first.clone()..end)
            .map(|(key, _)| (key.clone(), None));
        let changes = gone.collect();
        let request = DeleteRangeRequest {
            key: first,
            range_end,
            prev_kv: false,
        };
        Write {
            request: Ask::Delete(request),
            changes,
            revokes: None,
        }
    }

    /// Puts several keys at once, provided that the counter is as this writer left it.
    fn txn(&mut self) -> Write {
        let counter_key = Bytes::from(format!("w{:02}/counter", self.number));
        let written = self.state.get(&counter_key).map(|held| held.value.clone());
        let next = Bytes::from((self.counter + 1).to_string());
        let condition = match written {
            Some(value) => (CompareTarget::Value, TargetUnion::Value(value)),
            None => (CompareTarget::Version, TargetUnion::Version(0)),
        };
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: condition.0.into(),
            key: counter_key.clone(),
            range_end: Bytes::new(),
            target_union: Some(condition.1),
        };
        let mut changes = Changes::from([(
            counter_key,
            Some(Held {
                value: next,
                lease: 0,
            }),
        )]);
        for _ in 0..self.random.below(4) {
            let held = Held {
                value: self.value(),
                lease: 0,
            };
            changes.insert(self.key(), Some(held));
        }
        let put = |(key, held): (&Bytes, &Option<Held>)| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: key.clone(),
                value: held
                    .as_ref()
                    .map(|held| held.value.clone())
                    .unwrap_or_default(),
                ..PutRequest::default()
            })),
        };
        let request = TxnRequest {
            compare: vec![compare],
            success: changes.iter().map(put).collect(),
            failure: Vec::new(),
        };
        Write {
            request: Ask::Txn(request),
            changes,
            revokes: None,
        }
    }

    /// Revokes a lease that has keys, or puts a key where there is none.
    fn revoke(&mut self) -> Write {
        let attached = |id: i64| self.state.iter().filter(move |(_, held)| held.lease == id);
        let Some(&id) = self
            .leases
            .iter()
            .find(|id| attached(**id).next().is_some())
        else {
            return self.put();
        };
        Write {
            request: Ask::Revoke(LeaseRevokeRequest { id }),
            changes: attached(id).map(|(key, _)| (key.clone(), None)).collect(),
            revokes: Some(id),
        }
    }
}

/// The least key after `key`.
fn successor(key: &Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    Bytes::from(next)
}

/// Sends a write; gives the revision of the answer.
async fn send(client: &Client, request: Ask) -> Result<i64, Status> {
    let header = match request {
        Ask::Put(request) => {
            client
                .call::<_, PutResponse>("KV/Put", request)
                .await?
                .header
        }
        Ask::Delete(request) => {
            client
                .call::<_, DeleteRangeResponse>("KV/DeleteRange", request)
                .await?
                .header
        }
        Ask::Revoke(request) => {
            client
                .call::<_, LeaseRevokeResponse>("Lease/LeaseRevoke", request)
                .await?
                .header
        }
        Ask::Txn(request) => {
            let answer: TxnResponse = client.call("KV/Txn", request).await?;
            if !answer.succeeded {
                return Err(Status::data_loss("the counter is not as it was left"));
            }
            answer.header
        }
    };
    Ok(header.unwrap_or_default().revision)
}
