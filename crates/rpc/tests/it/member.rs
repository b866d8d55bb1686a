//! A real member behind a real front door: an engine thread on a simulated disk, and a typed client.
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use parking_lot::{Condvar, Mutex};
use prost::Message as _;
use quorate_backend::Backend;
use quorate_core::{
    Actions, Alarms, Bounds, Cluster, ClusterMember, Config, Handles, Intake, LogStart, Member,
    Outlet, Stores, Submission,
};
use quorate_disk::{Disk, SimDisk};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{ConfChange, ConfState};
use quorate_proto::{ClusterId, MemberId};
use quorate_rpc::{
    Clock, FrontDoor, Mailboxes, Options, Registry, ServiceOptions, Services, Stop, member_source,
};
use quorate_wal::{Batch, Entry, HardState, Identity, Wal};

use crate::echo::{call, connect, framed, post};

/// The member's id.
pub(crate) const MEMBER: u64 = 0x11;
const TICK_MS: u64 = 20;

#[derive(Default)]
struct Inbox {
    submissions: Mutex<(Vec<Submission>, bool)>,
    wake: Condvar,
}

impl Intake for Inbox {
    fn submit(&self, submissions: &mut Vec<Submission>) {
        self.submissions.lock().0.append(submissions);
        self.wake.notify_one();
    }

    fn fail(&self, why: String) {
        panic!("{why}");
    }
}

/// What every write of the log passes.
#[derive(Default)]
struct LogGate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl LogGate {
    fn pass(&self) {
        let mut is_shut = self.is_shut.lock();
        while *is_shut {
            self.opened.wait(&mut is_shut);
        }
    }
}

/// A log that hangs.
pub(crate) struct Hanging(Arc<LogGate>);

impl Drop for Hanging {
    fn drop(&mut self) {
        *self.0.is_shut.lock() = false;
        self.0.opened.notify_all();
    }
}

struct Engine {
    member: Member,
    wal: Wal,
    mailboxes: Mailboxes,
    log: Arc<LogGate>,
}

impl Engine {
    fn run(mut self, inbox: &Inbox, clock: Clock) {
        loop {
            let (submissions, stop) = {
                let mut inbox_now = inbox.submissions.lock();
                if inbox_now.0.is_empty() && !inbox_now.1 {
                    inbox
                        .wake
                        .wait_for(&mut inbox_now, Duration::from_millis(TICK_MS));
                }
                (std::mem::take(&mut inbox_now.0), inbox_now.1)
            };
            self.member.handle_tick(clock.now_ms());
            self.member.handle_submissions(submissions);
            if stop {
                self.member.stop();
            }
            self.perform();
            if stop {
                return;
            }
        }
    }

    fn perform(&mut self) {
        loop {
            let Actions {
                persist,
                replies,
                published,
                flush,
                compact,
                save_snapshots,
                ..
            } = self.member.take_actions();
            let is_idle = persist.is_empty()
                && flush.is_none()
                && compact.is_none()
                && save_snapshots.is_empty();
            if published {
                self.mailboxes.published();
            }
            if !replies.is_empty() {
                self.mailboxes.deliver(replies);
            }
            if !persist.is_empty() {
                self.log.pass();
                let synced = self.wal.append(&persist).unwrap();
                self.member.handle_synced(&synced);
            }
            if let Some(job) = flush {
                job.run().unwrap();
                self.member.handle_flushed();
            }
            if let Some(mut job) = compact {
                while !matches!(job.step().unwrap(), quorate_mvcc::Progress::Done(_)) {}
                self.member.handle_compacted();
            }
            for snapshot in save_snapshots {
                self.member
                    .handle_snapshot_saved(snapshot.index, snapshot.term);
            }
            if is_idle {
                return;
            }
        }
    }
}

fn config(quota_bytes: i64) -> Config {
    Config {
        member_id: MemberId(MEMBER),
        cluster_id: ClusterId(7),
        name: "m".to_owned(),
        client_urls: vec!["http://c:1".to_owned()],
        tick_ms: TICK_MS,
        election_ticks: 10,
        pre_vote: true,
        initial_election_tick_advance: true,
        max_request_bytes: 1536 * 1024,
        snapshot_count: 10_000,
        catchup_entries: 5_000,
        flush_interval_ms: 100,
        flush_bytes: 1 << 20,
        quota_bytes,
        lease_checkpoint: false,
        auto_compaction: quorate_core::AutoCompaction::Off,
        seed: 1,
        start_unix_ms: 1_000,
        batch_bytes: 1 << 20,
        downgrade_check_ms: 5_000,
        strict_reconfig_check: true,
        cluster_version: "3.7.0".to_owned(),
        bounds: Bounds::default(),
    }
}

fn restore(backend: &Backend) -> Stores {
    let lease = quorate_lease::Options {
        min_ttl_s: 1,
        revoke_retry_ms: 7_000,
        ..quorate_lease::Options::default()
    };
    let mut lessor = quorate_lease::Lessor::restore(backend, lease).unwrap();
    let (kv, keys) =
        quorate_mvcc::Store::restore(backend, quorate_mvcc::Options::default()).unwrap();
    lessor.attach_restored(keys);
    let token_provider = quorate_auth::TokenProvider::Simple {
        ttl_ms: 300_000,
        tokens_max: 100,
    };
    let auth = quorate_auth::Options {
        bcrypt_cost: 4,
        token_provider,
    };
    Stores {
        backend: backend.clone(),
        kv,
        lessor,
        auth: quorate_auth::AuthStore::restore(backend, auth).unwrap(),
        alarms: Alarms::restore(backend).unwrap(),
        cluster: Cluster::restore(backend, 1).unwrap(),
    }
}

/// Founds a member on a fresh disk.
fn found(quota_bytes: i64, mailboxes: Mailboxes, now_ms: u64) -> Engine {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let identity = Identity {
        cluster_id: 7,
        member_id: MEMBER,
    };
    let mut wal = Wal::create(
        disk.clone(),
        Path::new("/d/wal"),
        identity,
        quorate_wal::Options::default(),
    )
    .unwrap();
    let founder = ClusterMember {
        id: MEMBER,
        peer_urls: vec!["http://p:1".into()],
        ..ClusterMember::default()
    };
    let context = Some(Cluster::founding_context(&founder));
    let change = ConfChange {
        id: None,
        r#type: Some(0),
        node_id: Some(MEMBER),
        context,
    };
    let entry = Entry {
        term: 1,
        index: 1,
        kind: 1,
        data: change.encode_to_vec().into(),
    };
    let hard_state = HardState {
        term: 1,
        vote: 0,
        commit: 1,
    };
    let batch = Batch {
        ticket: 0,
        entries: vec![entry.clone()],
        hard_state: Some(hard_state),
        snapshot: None,
        must_sync: true,
    };
    let _synced = wal.append(&[batch]).unwrap();
    let backend = Backend::open(
        disk,
        Path::new("/d/db"),
        quorate_backend::Options::default(),
    )
    .unwrap();
    let log = LogStart {
        snapshot: quorate_wal::SnapshotMark::default(),
        entries: vec![entry],
        hard_state,
        conf_state: ConfState {
            voters: vec![MEMBER],
            ..ConfState::default()
        },
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let member = Member::new(config(quota_bytes), log, restore(&backend), &logger, now_ms).unwrap();
    Engine {
        member,
        wal,
        mailboxes,
        log: Arc::default(),
    }
}

/// A running member; it is stopped and joined when dropped.
pub(crate) struct Served {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// What a front door holds of it.
    pub(crate) handles: Handles,
    log: Arc<LogGate>,
    inbox: Arc<Inbox>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Served {
    /// Starts a member without limits of its own.
    pub(crate) fn start() -> Self {
        Self::with(0, ServiceOptions::default())
    }

    /// Starts a member with a quota and service options, and two connection threads.
    pub(crate) fn with(quota_bytes: i64, service: ServiceOptions) -> Self {
        const THREADS: usize = 2;
        let clock = Clock::start();
        let mailboxes = Mailboxes::new(THREADS);
        let engine = found(quota_bytes, mailboxes.clone(), clock.now_ms());
        let inbox = Arc::new(Inbox::default());
        let log = engine.log.clone();
        let stores = engine.member.stores();
        let handles = Handles {
            intake: inbox.clone(),
            view: engine.member.view(),
            live: engine.member.live(),
            auth: stores.auth.reader(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut registry = Registry::new(THREADS);
        registry.add_source(member_source(handles.clone(), "3.7.1".to_owned()));
        let registry = Arc::new(registry);
        let options = Options {
            threads: THREADS,
            ..Options::default()
        };
        let door = FrontDoor::new(vec![listener], &options, clock, &registry).unwrap();
        let engine_inbox = inbox.clone();
        let mut threads = vec![spawn(move || engine.run(&engine_inbox, clock))];
        for worker in door.workers {
            let (handles, mailboxes, registry) =
                (handles.clone(), mailboxes.clone(), registry.clone());
            let service = ServiceOptions {
                quota_bytes,
                ..service.clone()
            };
            threads.push(spawn(move || {
                let index = worker.index();
                worker
                    .run(|| Services::new(index, handles, mailboxes, registry, clock, service))
                    .unwrap();
            }));
        }
        Self {
            addr,
            handles,
            log,
            inbox,
            stop: door.stop,
            threads,
        }
    }

    /// Keeps the log from writing until what is returned is dropped.
    pub(crate) fn hang_log(&self) -> Hanging {
        *self.log.is_shut.lock() = true;
        Hanging(self.log.clone())
    }

    /// Tells the front door to close, without waiting.
    pub(crate) fn begin_stop(&self) {
        self.stop.stop();
    }

    /// Connects a client once the member leads.
    pub(crate) async fn client(&self) -> Client {
        let view = self.handles.view.clone();
        crate::echo::until("the member leads", || {
            view.reads_are_linearizable() && !view.cluster_version().is_empty()
        })
        .await;
        Client {
            http: connect(self.addr).await.0,
            token: None,
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().spawn(run).unwrap()
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.stop();
        let engine = self.threads.remove(0);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "a worker panicked"
            );
        }
        self.inbox.submissions.lock().1 = true;
        self.inbox.wake.notify_one();
        let ended = engine.join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "the engine panicked"
        );
    }
}

/// How a call was refused: code and text.
pub(crate) type Refused = (u8, String);

/// A client that speaks in messages.
#[derive(Clone)]
pub(crate) struct Client {
    http: SendRequest<Bytes>,
    /// Sent with every call.
    token: Option<String>,
}

impl Client {
    /// Returns the client below this one.
    pub(crate) fn http(&self) -> &SendRequest<Bytes> {
        &self.http
    }

    /// Returns a client on the same connection that sends a token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            http: self.http.clone(),
            token: Some(token.to_owned()),
        }
    }

    fn request(&self, path: &str) -> http::Request<()> {
        let request = post(path);
        let request = match &self.token {
            Some(token) => request.header("token", token),
            None => request,
        };
        request.body(()).unwrap()
    }

    /// Calls a method with one message each way.
    pub(crate) async fn call<R: prost::Message + Default>(
        &self,
        path: &str,
        request: &impl prost::Message,
    ) -> Result<R, Refused> {
        let body = framed(&request.encode_to_vec());
        let called = call(&self.http, self.request(path), Some(body))
            .await
            .unwrap();
        match called.status() {
            (0, _) => Ok(R::decode(&called.data[5..]).unwrap()),
            refused => Err(refused),
        }
    }

    /// Opens a stream.
    pub(crate) async fn open(&self, path: &str) -> Stream {
        let mut http = self.http.clone().ready().await.unwrap();
        let (response, send) = http.send_request(self.request(path), false).unwrap();
        Stream {
            send,
            response: Some(response),
            recv: None,
            buf: BytesMut::new(),
        }
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<pb::PutResponse, Refused> {
        let put = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.call("/etcdserverpb.KV/Put", &put).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<pb::RangeResponse, Refused> {
        let get = pb::RangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        self.call("/etcdserverpb.KV/Range", &get).await
    }
}

/// A stream of messages both ways.
pub(crate) struct Stream {
    send: SendStream<Bytes>,
    response: Option<h2::client::ResponseFuture>,
    recv: Option<RecvStream>,
    buf: BytesMut,
}

impl Stream {
    /// Sends a message.
    pub(crate) fn send(&mut self, message: &impl prost::Message) {
        self.send
            .send_data(framed(&message.encode_to_vec()), false)
            .unwrap();
    }

    /// Says that there will be no more messages.
    pub(crate) fn finish(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Gives the next message, or how the stream ended.
    pub(crate) async fn next<R: prost::Message + Default>(&mut self) -> Result<R, Refused> {
        if let Some(response) = self.response.take() {
            let (parts, recv) = response.await.unwrap().into_parts();
            if let Some(code) = parts.headers.get("grpc-status") {
                let text = parts
                    .headers
                    .get("grpc-message")
                    .map_or("", |v| v.to_str().unwrap());
                return Err((code.to_str().unwrap().parse().unwrap(), text.to_owned()));
            }
            self.recv = Some(recv);
        }
        let recv = self.recv.as_mut().unwrap();
        loop {
            if let Some(prefix) = self.buf.first_chunk::<5>() {
                let [_, length @ ..] = *prefix;
                let len = usize::try_from(u32::from_be_bytes(length)).unwrap();
                if self.buf.len() >= 5 + len {
                    self.buf.advance(5);
                    return Ok(R::decode(self.buf.split_to(len)).unwrap());
                }
            }
            match recv.data().await {
                Some(data) => {
                    let data = data.unwrap();
                    let _ = recv.flow_control().release_capacity(data.len());
                    self.buf.extend_from_slice(&data);
                }
                None => {
                    let trailers = recv.trailers().await.unwrap().unwrap();
                    let text = trailers
                        .get("grpc-message")
                        .map_or("", |v| v.to_str().unwrap());
                    return Err((
                        trailers["grpc-status"].to_str().unwrap().parse().unwrap(),
                        text.to_owned(),
                    ));
                }
            }
        }
    }
}

/// A refusal as it is expected.
pub(crate) fn refused(code: u8, text: &str) -> Refused {
    (code, text.to_owned())
}
