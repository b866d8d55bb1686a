//! Clients that do everything at once and write down what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::Site;
use super::leases::tend_leases;
use super::translate::{reply, send, shortened, unique_value};
use super::watchers::{Watched, collect, follow};
use crate::checker::{
    Answer, Call, Comparison, KeyRange, Op, Reading, Recording, Relation, Reply, Request, Txn,
};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::random::Random;

/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a client leaves a cluster alone after an error.
const AFTER_ERROR: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Bytes of values: most are short, some fill a page or two.
const SHORT_BYTES: u64 = 120;
const LONG_BYTES: u64 = 8_000;
/// One value in so many is long.
const SHORT_PER_LONG: u64 = 20;
/// Keys that all clients share.
const SHARED_KEYS: u64 = 24;
/// How far behind what watchers have seen is compacted, and how often.
const COMPACTED_BEHIND: i64 = 100;
const COMPACTION_PAUSE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(3));
/// A watcher that has seen nothing for so long does not hold up compaction.
const STALE_US: u64 = 3_000_000;
/// How long watches may take to show everything when all faults are over.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Reads of every member at the end, each at another revision.
const AUDIT_READS: i64 = 12;

/// Who works on a cluster.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Clients that read and write.
    pub clients: usize,
    /// Clients that keep leases.
    pub lease_clients: usize,
    /// Clients that watch, besides one on every member that sees everything.
    pub watchers: usize,
    /// The longest pause of a client between two requests.
    pub pause: Duration,
    /// Whether old revisions are compacted.
    pub compacts: bool,
    /// What the run is made of.
    pub seed: u64,
}

impl LoadOptions {
    /// The usual load.
    #[must_use]
    pub fn new(seed: u64) -> LoadOptions {
        LoadOptions {
            clients: 8,
            lease_clients: 3,
            watchers: 4,
            pause: Duration::from_millis(25),
            compacts: true,
            seed,
        }
    }
}

/// What everybody is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Work.
    Work,
    /// Nothing new; watches go on.
    Rest,
    /// Show everything up to a revision, then end.
    CatchUp(i64),
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) sites: Arc<Vec<Site>>,
    pub(super) begin: Instant,
    pub(super) stage: watch::Receiver<Stage>,
    /// The revision up to which the watcher of each place has seen everything, and when it last saw something.
    pub(super) seen: Vec<(AtomicI64, AtomicU64)>,
    /// The last acknowledged write, in microseconds since the beginning.
    last_write_us: AtomicU64,
    writes: AtomicU64,
}

impl Shared {
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn works(&self) -> bool {
        *self.stage.borrow() == Stage::Work
    }

    /// A place with a member, at random.
    pub(super) fn any_place(&self, random: &mut Random) -> usize {
        let used = (0..self.sites.len()).filter(|place| self.sites[*place].is_in_use());
        let used: Vec<usize> = used.collect();
        let pick = random.below(u64::try_from(used.len()).unwrap_or(1).max(1));
        let pick = usize::try_from(pick).unwrap_or_default();
        used.get(pick).copied().unwrap_or_default()
    }

    /// Waits, at most until the work is over.
    pub(super) async fn pause(&self, time: Duration) {
        let mut stage = self.stage.clone();
        let over = stage.wait_for(|stage| *stage != Stage::Work);
        // Either way the time is up.
        let _ = timeout(time, over).await;
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) random: Random,
    pub(super) place: usize,
    connections: BTreeMap<usize, Client>,
    pub(super) calls: Vec<Call>,
    pub(super) values: u64,
    /// Revision and version of keys as last seen.
    known: BTreeMap<Bytes, (i64, i64)>,
    last_revision: i64,
}

impl Worker {
    pub(super) fn new(number: usize, shared: &Arc<Shared>, seed: u64) -> Worker {
        let mut random = Random::new(seed);
        Worker {
            number,
            place: shared.any_place(&mut random),
            shared: Arc::clone(shared),
            random,
            connections: BTreeMap::new(),
            calls: Vec::new(),
            values: 0,
            known: BTreeMap::new(),
            last_revision: 0,
        }
    }

    pub(super) fn value(&mut self) -> Bytes {
        self.values += 1;
        let len = if self.random.one_in(SHORT_PER_LONG) {
            self.random.below(LONG_BYTES)
        } else {
            self.random.below(SHORT_BYTES)
        };
        unique_value(
            self.number,
            self.values,
            usize::try_from(len).unwrap_or_default(),
        )
    }

    pub(super) fn connection(&mut self) -> Outcome<Client> {
        if let Some(client) = self.connections.get(&self.place) {
            return Ok(client.clone());
        }
        let client = Client::lazy(&self.shared.sites[self.place].endpoint)?;
        self.connections.insert(self.place, client.clone());
        Ok(client)
    }

    /// Asks the member at hand and writes down what came of it.
    pub(super) async fn ask(&mut self, request: Request) -> Reply {
        let life = self.shared.sites[self.place].life();
        let begun_us = self.shared.now_us();
        let answer = match self.connection() {
            Ok(client) => timeout(ANSWER_TIMEOUT, send(&client, &request)).await,
            Err(failure) => Ok(Err(tonic::Status::unavailable(failure.to_string()))),
        };
        let ended_us = self.shared.now_us();
        let is_same_life = self.shared.sites[self.place].life() == life;
        let reply = match answer {
            Ok(Ok(answer)) => Reply::Done(answer),
            Ok(Err(status)) => reply(&status),
            Err(_) => Reply::Unknown("no answer in time".to_owned()),
        };
        if let Reply::Done(answer) = &reply {
            self.learn(&request, answer, ended_us);
        }
        self.calls.push(Call {
            client: self.number,
            member: self.place,
            life: life.filter(|_| is_same_life),
            begun_us,
            ended_us,
            request: shortened(request),
            reply: reply.clone(),
        });
        if matches!(reply, Reply::Unknown(_)) {
            self.turn_away().await;
        }
        reply
    }

    /// After an error: maybe another member, and a moment later.
    async fn turn_away(&mut self) {
        if self.random.one_in(2) {
            self.place = self.shared.any_place(&mut self.random);
        }
        let time = self.random.between(AFTER_ERROR.0, AFTER_ERROR.1);
        self.shared.pause(time).await;
    }

    /// Keeps what later requests can use.
    fn learn(&mut self, request: &Request, answer: &Answer, at_us: u64) {
        self.last_revision = self.last_revision.max(answer.revision);
        for result in &answer.results {
            if let crate::checker::OpResult::Range(kvs) = result {
                for kv in kvs {
                    let held = (kv.modified, kv.version);
                    self.known.insert(kv.key.clone(), held);
                }
            }
        }
        let Request::Keys(txn) = request else {
            return;
        };
        let branch = if answer.succeeded {
            &txn.then
        } else {
            &txn.otherwise
        };
        for op in branch {
            if let Op::Put { key, .. } = op {
                self.known.insert(key.clone(), (answer.revision, -1));
                self.shared.writes.fetch_add(1, Ordering::Relaxed);
                self.shared
                    .last_write_us
                    .fetch_max(at_us, Ordering::Relaxed);
            }
        }
    }

    fn shared_key(&mut self) -> Bytes {
        format!("k/{:02}", self.random.below(SHARED_KEYS)).into()
    }

    fn own_key(&mut self) -> Bytes {
        format!("o/{}/{}", self.number, self.random.below(6)).into()
    }

    fn put_op(&mut self, key: Bytes) -> Op {
        Op::Put {
            key,
            value: self.value(),
            lease: 0,
            previous: self.random.one_in(8),
        }
    }

    /// The next request.
    fn request(&mut self) -> Request {
        let reading = if self.random.one_in(2) {
            Reading::Serializable
        } else {
            Reading::Linearizable
        };
        match self.random.below(100) {
            0..=29 => {
                let key = if self.random.one_in(3) {
                    self.own_key()
                } else {
                    self.shared_key()
                };
                Request::one(self.put_op(key), Reading::Linearizable, 0)
            }
            30..=44 => self.replacement(),
            45..=52 => self.transaction(),
            53..=58 => {
                let op = Op::Delete {
                    range: KeyRange::single(&self.shared_key()),
                    previous: self.random.one_in(4),
                };
                Request::one(op, Reading::Linearizable, 0)
            }
            59..=78 => {
                let key = self.shared_key();
                Request::one(Op::Range(KeyRange::single(&key)), reading, 0)
            }
            79..=87 => {
                let prefix: &[u8] = if self.random.one_in(2) { b"k/" } else { b"k/1" };
                Request::one(Op::Range(KeyRange::prefix(prefix)), reading, 0)
            }
            88..=93 => {
                let back = i64::try_from(self.random.below(150)).unwrap_or_default();
                let at = (self.last_revision - back).max(1);
                Request::one(Op::Range(KeyRange::prefix(b"k/")), reading, at)
            }
            _ => Request::Keys(Txn {
                conditions: vec![Comparison::Version(self.shared_key(), Relation::Greater, 1)],
                then: vec![
                    Op::Range(KeyRange::single(&self.shared_key())),
                    Op::Range(KeyRange::prefix(b"k/0")),
                ],
                otherwise: vec![Op::Range(KeyRange::single(&self.shared_key()))],
                reading,
                at: 0,
            }),
        }
    }

    /// A write on condition that a key is as it was last seen.
    fn replacement(&mut self) -> Request {
        let key = self.shared_key();
        let (modified, version) = self.known.get(&key).copied().unwrap_or_default();
        let condition = if version >= 0 && self.random.one_in(2) {
            Comparison::Version(key.clone(), Relation::Equal, version)
        } else {
            Comparison::Modified(key.clone(), Relation::Equal, modified)
        };
        let otherwise = match self.random.below(3) {
            0 => vec![],
            1 => vec![Op::Range(KeyRange::single(&key))],
            _ => {
                let own = self.own_key();
                vec![self.put_op(own)]
            }
        };
        Request::Keys(Txn {
            conditions: vec![condition],
            then: vec![self.put_op(key)],
            otherwise,
            reading: Reading::Linearizable,
            at: 0,
        })
    }

    /// Several keys at once, with a read of what it does itself.
    fn transaction(&mut self) -> Request {
        let first = format!("t/{}/a", self.number);
        let second = format!("t/{}/b/{}", self.number, self.random.below(4));
        let mut then = vec![
            self.put_op(first.into()),
            self.put_op(second.into()),
            Op::Range(KeyRange::prefix(format!("t/{}/", self.number).as_bytes())),
        ];
        if self.random.one_in(3) {
            then[1] = Op::Delete {
                range: KeyRange::prefix(format!("t/{}/b/", self.number).as_bytes()),
                previous: true,
            };
        }
        Request::Keys(Txn {
            conditions: vec![],
            then,
            otherwise: vec![],
            reading: Reading::Linearizable,
            at: 0,
        })
    }
}

/// Reads and writes until the work is over.
async fn work(mut worker: Worker, pause: Duration) -> Vec<Call> {
    while worker.shared.works() {
        let request = worker.request();
        worker.ask(request).await;
        let time = worker.random.between(Duration::ZERO, pause);
        worker.shared.pause(time).await;
        // A member that joins late gets its share.
        if worker.random.one_in(200) {
            worker.place = worker.shared.any_place(&mut worker.random);
        }
    }
    worker.calls
}

/// Compacts behind what the watchers of everything have seen.
async fn compact(mut worker: Worker) -> Vec<Call> {
    let mut last = 0;
    loop {
        let time = worker
            .random
            .between(COMPACTION_PAUSE.0, COMPACTION_PAUSE.1);
        worker.shared.pause(time).await;
        if !worker.shared.works() {
            return worker.calls;
        }
        let now = worker.shared.now_us();
        let seen = worker.shared.seen.iter().filter_map(|(revision, at)| {
            let is_live = now.saturating_sub(at.load(Ordering::Relaxed)) < STALE_US;
            is_live.then(|| revision.load(Ordering::Relaxed))
        });
        let seen: Vec<i64> = seen.collect();
        let behind = i64::try_from(worker.random.below(200)).unwrap_or_default() + COMPACTED_BEHIND;
        let target = seen.iter().min().map_or(0, |least| least - behind);
        if seen.len() < 2 || target <= last {
            continue;
        }
        if let Reply::Done(_) = worker.ask(Request::Compact(target)).await {
            last = target;
        }
    }
}

/// Reads everything of every member, at the present and at revisions that are still there.
async fn audit(mut worker: Worker, last: i64) -> Vec<Call> {
    for place in 0..worker.shared.sites.len() {
        if !worker.shared.sites[place].is_in_use() {
            continue;
        }
        for step in 0..AUDIT_READS {
            worker.place = place;
            let at = if step < 2 {
                0
            } else {
                (last - step * 7).max(1)
            };
            let reading = if step % 2 == 0 {
                Reading::Linearizable
            } else {
                Reading::Serializable
            };
            worker
                .ask(Request::one(Op::Range(KeyRange::all()), reading, at))
                .await;
        }
    }
    worker.calls
}

/// A load on a cluster, on a thread of its own.
#[derive(Debug)]
pub struct Load {
    stage: watch::Sender<Stage>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome<Recording>>>,
}

impl Load {
    /// Begins to load a cluster.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(sites: &Arc<Vec<Site>>, options: &LoadOptions) -> Outcome<Load> {
        let (stage, stages) = watch::channel(Stage::Work);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            sites: Arc::clone(sites),
            begin: Instant::now(),
            stage: stages,
            seen: sites.iter().map(|_| Default::default()).collect(),
            last_write_us: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let (of_thread, options) = (Arc::clone(&shared), options.clone());
        let thread = thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || runtime.block_on(run(of_thread, options)))?;
        Ok(Load {
            stage,
            shared,
            thread: Some(thread),
        })
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// How long ago the last write was acknowledged.
    #[must_use]
    pub fn since_write(&self) -> Duration {
        let last = self.shared.last_write_us.load(Ordering::Relaxed);
        Duration::from_micros(self.shared.now_us().saturating_sub(last))
    }

    /// Lets every client end what it is doing and do nothing more. Watches go on.
    pub fn rest(&self) {
        self.stage.send_replace(Stage::Rest);
    }

    /// Waits until every watch has shown everything up to `revision`, and gives what was recorded.
    ///
    /// # Errors
    /// A watch does not come that far.
    pub fn finish(mut self, revision: i64) -> Outcome<Recording> {
        self.stage.send_replace(Stage::CatchUp(revision));
        let thread = self.thread.take();
        let joined = thread.map(JoinHandle::join);
        match joined {
            Some(Ok(recording)) => recording,
            _ => Err(Failure::new("the load panicked")),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stage.send_replace(Stage::CatchUp(0));
        if let Some(thread) = self.thread.take() {
            // Whoever drops it does not want to know.
            let _ = thread.join();
        }
    }
}

async fn run(shared: Arc<Shared>, options: LoadOptions) -> Outcome<Recording> {
    let mut random = Random::new(options.seed);
    let (mut workers, mut watchers) = (JoinSet::new(), JoinSet::new());
    let mut numbers = 0..;
    let mut next = || numbers.next().unwrap_or_default();
    for place in 0..shared.sites.len() {
        watchers.spawn(collect(next(), place, Arc::clone(&shared)));
    }
    for _ in 0..options.watchers {
        watchers.spawn(follow(
            next(),
            Arc::clone(&shared),
            Random::new(random.number()),
        ));
    }
    for _ in 0..options.clients {
        workers.spawn(work(
            Worker::new(next(), &shared, random.number()),
            options.pause,
        ));
    }
    for _ in 0..options.lease_clients {
        workers.spawn(tend_leases(Worker::new(next(), &shared, random.number())));
    }
    if options.compacts {
        workers.spawn(compact(Worker::new(next(), &shared, random.number())));
    }
    let mut recording = Recording::default();
    while let Some(calls) = workers.join_next().await {
        recording
            .calls
            .extend(calls.map_err(|e| Failure::new(e.to_string()))?);
    }
    let mut stage = shared.stage.clone();
    let last = loop {
        if let Stage::CatchUp(last) = *stage.borrow_and_update() {
            break last;
        }
        if stage.changed().await.is_err() {
            break 0;
        }
    };
    if last > 0 {
        recording
            .calls
            .extend(audit(Worker::new(next(), &shared, random.number()), last).await);
    }
    let deadline = Instant::now() + CATCH_UP_TIMEOUT;
    while let Some(watched) = watchers.join_next().await {
        let Watched { watches, behind } = watched.map_err(|e| Failure::new(e.to_string()))?;
        if let Some(behind) = behind {
            return Err(Failure::new(format!(
                "a watch did not show everything up to {last}: {behind}"
            )));
        }
        recording.watches.extend(watches);
    }
    debug_assert!(last == 0 || Instant::now() <= deadline + CATCH_UP_TIMEOUT);
    // What a client says last may still be on its way when the thread ends.
    sleep(Duration::ZERO).await;
    Ok(recording)
}
