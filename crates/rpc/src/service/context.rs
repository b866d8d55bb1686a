//! What the services of one thread share: the engine, the stores' readers, the watch hub.
use std::cell::{Cell, Ref, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_auth::{Access, AuthReader, Identity, Operation, Stage};
use quorate_core::{
    Applied, Current, Handles, Outcome, Proposal, Request, Submission, View, request_timeout_ms,
};
use quorate_mvcc::validate::Limits;
use quorate_mvcc::{Reader, WatchHub, WatchOptions};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb::ResponseHeader;
use tokio::time::sleep;

use super::defragment::DefragmentLog;
use super::desk::WatchDesk;
use super::vigil::{CommitWatch, LeaderWatch};
use crate::clock::Clock;
use crate::engine::{Engine, Mailboxes, Wait};
use crate::leader::LeaderLink;
use crate::metadata::Metadata;
use crate::metrics::{Registry, ThreadMetrics};
use crate::status::Status;

/// How often ended tokens are dropped, in milliseconds.
const TOKEN_SWEEP_MS: u64 = 1_000;

/// How long a request waits until what is committed is applied. Source: etcd v3.7.1 server.go applyTimeout.
const CATCH_UP_MS: u64 = 1_000;
const CATCH_UP_LOOK: Duration = Duration::from_millis(5);

/// How often an unconfirmed log index is looked at while a token waits for it.
const TOKEN_WAIT: Duration = Duration::from_millis(5);
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(1);

/// The services' settings.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Most operations of a transaction (`max-txn-ops`).
    pub max_txn_ops: usize,
    /// The largest replicated request, in bytes (`max-request-bytes`).
    pub max_request_bytes: usize,
    /// The election timeout, in milliseconds.
    pub election_timeout_ms: u64,
    /// The quota as set (`quota-backend-bytes`); 0 is the default.
    pub quota_bytes: i64,
    /// The version shown, as `X.Y.Z`.
    pub server_version: String,
    /// Time between two rounds of progress on a watch stream (`watch-progress-notify-interval`), in milliseconds.
    pub watch_progress_interval_ms: u64,
    /// What the watch hubs draw their jitter from.
    pub seed: u64,
    /// The way to the leader of a cluster.
    pub leader: LeaderLink,
    /// Whether the health service says that the member does not serve while its database is defragmented
    /// (`StopGRPCServiceOnDefrag`).
    pub unhealthy_while_defragmenting: bool,
    /// Who is told of defragmentations.
    pub defragment_log: DefragmentLog,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            max_txn_ops: 128,
            max_request_bytes: 1536 * 1024,
            election_timeout_ms: 1_000,
            quota_bytes: 0,
            server_version: "3.7.1".to_owned(),
            watch_progress_interval_ms: 10 * 60 * 1_000,
            seed: 0,
            leader: LeaderLink::default(),
            unhealthy_while_defragmenting: false,
            defragment_log: DefragmentLog::default(),
        }
    }
}

/// The shared state of one thread's services.
pub(crate) struct Context {
    pub(crate) handles: Handles,
    pub(crate) options: ServiceOptions,
    pub(crate) metrics: Arc<ThreadMetrics>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) engine: Rc<Engine>,
    pub(crate) watch: WatchDesk,
    /// The stores as they were when the generation was seen.
    current: RefCell<(u64, Current)>,
    clock: Clock,
    leader_watch: LeaderWatch,
    commit_watch: CommitWatch,
    swept_ms: Cell<u64>,
    is_stopping: Cell<bool>,
    stopping: tokio::sync::Notify,
}

/// A request on its way through the log.
pub(crate) struct Proposed {
    /// The number of its kind.
    op: usize,
    started: Instant,
    wait: Wait,
}

/// Makes a full header from what a member shows of itself.
pub(crate) fn header(view: &View, revision: i64) -> ResponseHeader {
    ResponseHeader {
        cluster_id: view.cluster_id().0,
        member_id: view.member_id().0,
        revision,
        raft_term: view.term(),
    }
}

impl Context {
    pub(crate) fn new(
        thread: usize,
        handles: Handles,
        mailboxes: Mailboxes,
        registry: Arc<Registry>,
        clock: Clock,
        options: ServiceOptions,
    ) -> Rc<Self> {
        let watch_options = WatchOptions {
            fragment_bytes: options.max_request_bytes + crate::options::GRPC_OVERHEAD_BYTES,
            progress_interval_ms: options
                .watch_progress_interval_ms
                .max(WatchOptions::PROGRESS_INTERVAL_MS_MIN),
            seed: options.seed ^ u64::try_from(thread).unwrap_or(0),
            ..WatchOptions::default()
        };
        // The generation is read first: should it move in between, the hub is only told once too often.
        let generation = handles.live.generation();
        let current = handles.live.current();
        let watch = WatchDesk {
            hub: RefCell::new(WatchHub::new(current.reader.clone(), watch_options)),
            wakers: RefCell::default(),
            is_due: Cell::new(false),
            pump: RefCell::new(None),
            pause: RefCell::new(None),
            intake: handles.intake.clone(),
            live: handles.live.clone(),
            generation: Cell::new(generation),
        };
        Rc::new(Self {
            engine: Engine::new(thread, handles.intake.clone(), mailboxes),
            metrics: registry.thread(thread),
            handles,
            options,
            registry,
            watch,
            current: RefCell::new((generation, current)),
            clock,
            leader_watch: LeaderWatch::default(),
            commit_watch: CommitWatch::default(),
            swept_ms: Cell::new(0),
            is_stopping: Cell::new(false),
            stopping: tokio::sync::Notify::new(),
        })
    }

    pub(crate) fn auth(&self) -> &AuthReader {
        &self.handles.auth
    }

    /// Returns the stores as they are now; not to be held over an `await`.
    pub(crate) fn current(&self) -> Ref<'_, Current> {
        let generation = self.handles.live.generation();
        if self.current.borrow().0 != generation {
            let current = self.handles.live.current();
            *self.current.borrow_mut() = (generation, current);
        }
        Ref::map(self.current.borrow(), |(_, current)| current)
    }

    /// Returns the reader of keys; not to be held over an `await`.
    pub(crate) fn reader(&self) -> Ref<'_, Reader> {
        Ref::map(self.current(), |current| &current.reader)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            txn_ops_max: self.options.max_txn_ops,
        }
    }

    /// Makes a full header.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        header(&self.handles.view, revision)
    }

    /// Makes a full header with the store's revision now.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.reader().current_revision())
    }

    /// Finds out who calls, when that can be known at once.
    ///
    /// `None` when the token can only be judged once more of the log is applied here.
    pub(crate) fn identity_now(&self, metadata: &Metadata) -> Option<Result<Identity, Status>> {
        let judged = self.judged_now(metadata)?;
        Some(judged.map_err(Status::from))
    }

    /// Does what [`Context::identity_now`] does.
    fn judged_now(&self, metadata: &Metadata) -> Option<Result<Identity, quorate_auth::Error>> {
        let auth = self.auth();
        if !auth.is_enabled() {
            return Some(Ok(Identity::NONE));
        }
        let token = metadata.token.as_deref();
        let waits_for = token.and_then(|token| auth.token_waits_for(token));
        if waits_for.is_some_and(|index| self.handles.view.applied() < index) {
            return None;
        }
        Some(auth.identity_of_token(token, self.now_ms()))
    }

    /// Finds out who calls; waits until the token can be judged, for as long as the call lasts.
    pub(crate) async fn identity(&self, metadata: &Metadata) -> Result<Identity, Status> {
        Ok(self.judged(metadata).await?)
    }

    /// Does what [`Context::identity`] does.
    pub(crate) async fn judged(
        &self,
        metadata: &Metadata,
    ) -> Result<Identity, quorate_auth::Error> {
        let mut pause = TOKEN_WAIT;
        loop {
            if let Some(identity) = self.judged_now(metadata) {
                return identity;
            }
            sleep(pause).await;
            // Made-up tokens wait for an index that never comes; they must not keep the thread busy.
            pause = (pause * 2).min(TOKEN_WAIT_MAX);
        }
    }

    /// Decides at the front door whether the caller may do an operation that touches no lease's keys.
    pub(crate) fn gate(
        &self,
        identity: &Identity,
        operation: &Operation<'_>,
    ) -> Result<(), Status> {
        Ok(self
            .auth()
            .gate(identity, Stage::Door, operation, |_| Vec::new())?)
    }

    /// Decides as [`Context::gate`] for an operation on the keys attached to a lease, or to every lease (`None`).
    pub(crate) async fn gate_lease(
        self: &Rc<Self>,
        identity: &Identity,
        operation: Operation<'_>,
        id: Option<LeaseId>,
    ) -> Result<(), Status> {
        // Whoever may do everything is not made to wait for the keys.
        let admin = self
            .auth()
            .check(identity, &[Access::Admin], |_| Vec::new());
        if !self.auth().is_enabled() || admin.is_ok() {
            return Ok(());
        }
        let keys: Vec<Bytes> = match self
            .engine
            .submit(|token| Submission::LeaseKeys { token, id })
            .await
        {
            Outcome::LeaseKeys(keys) => keys,
            other => return Err(unexpected(other)),
        };
        Ok(self
            .auth()
            .gate(identity, Stage::Door, &operation, |_| keys.clone())?)
    }

    /// Proposes a request.
    pub(crate) fn propose(
        &self,
        request: Request,
        raw: Option<Bytes>,
        identity: Identity,
    ) -> Proposed {
        let (op, started) = (request.op(), Instant::now());
        let wait = self.engine.submit(|token| {
            Submission::Propose(Proposal {
                token,
                request,
                raw,
                identity,
            })
        });
        Proposed { op, started, wait }
    }

    /// Waits for a proposal's result.
    pub(crate) async fn applied(&self, proposed: Proposed) -> Result<Applied, Status> {
        let outcome = proposed.wait.await;
        let is_ok = matches!(outcome, Outcome::Applied(_));
        self.metrics
            .replicated(proposed.op, is_ok, proposed.started.elapsed());
        match outcome {
            Outcome::Applied(applied) => Ok(applied),
            other => Err(unexpected(other)),
        }
    }

    /// Makes reads of the local store linearizable from here on.
    pub(crate) async fn read_index(&self) -> Result<(), Status> {
        if self.handles.view.reads_are_linearizable() {
            return Ok(());
        }
        match self
            .engine
            .submit(|token| Submission::ReadIndex { token })
            .await
        {
            Outcome::ReadReady => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Waits a while until what was committed when it was called is applied.
    pub(crate) async fn catch_up(&self) -> Result<(), Status> {
        let view = &self.handles.view;
        let (committed, ends_ms) = (view.committed(), self.now_ms() + CATCH_UP_MS);
        while view.applied() < committed {
            if self.now_ms() >= ends_ms {
                return Err(Status::TIMEOUT_WAIT_APPLIED_INDEX);
            }
            sleep(CATCH_UP_LOOK).await;
        }
        Ok(())
    }

    /// Moves everything that goes by time.
    pub(crate) fn tick(&self, now_ms: u64) {
        let is_due = {
            let mut hub = self.watch.hub.borrow_mut();
            let is_due = hub.next_tick_ms().is_some_and(|due| due <= now_ms);
            if is_due {
                hub.tick(now_ms);
            }
            is_due
        };
        if is_due {
            self.watch.nudge();
        }
        if now_ms >= self.swept_ms.get() + TOKEN_SWEEP_MS {
            self.swept_ms.set(now_ms);
            self.commit_watch.look(now_ms, &self.handles.view);
            let tasks = tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks();
            let stats = self.watch.hub.borrow().stats();
            self.metrics.show_holdings(stats, tasks);
            self.auth().sweep_tokens(now_ms);
        }
        self.leader_watch.tick(
            now_ms,
            self.options.election_timeout_ms,
            self.handles.view.leader().0 != 0,
        );
    }

    /// Returns how long a request may take, in milliseconds.
    pub(crate) fn request_timeout_ms(&self) -> u64 {
        request_timeout_ms(self.options.election_timeout_ms)
    }

    /// Says whether entries wait to be committed, and none was for as long as a request may take.
    pub(crate) fn is_log_stuck(&self) -> bool {
        self.now_ms() >= self.commit_watch.moved_ms.get() + self.request_timeout_ms()
    }

    /// Makes sure that the engine works and that nothing newer was acknowledged elsewhere.
    pub(crate) async fn read_index_by_engine(&self) -> Result<(), Status> {
        let wait = self.engine.submit(|token| Submission::ReadIndex { token });
        let limit = Duration::from_millis(self.request_timeout_ms());
        match tokio::time::timeout(limit, wait).await {
            Ok(Outcome::ReadReady) => Ok(()),
            Ok(other) => Err(unexpected(other)),
            Err(_) => Err(Status::TIMEOUT),
        }
    }

    /// Tells everyone that the member stops serving.
    pub(crate) fn stop(&self) {
        self.is_stopping.set(true);
        self.stopping.notify_waiters();
    }

    /// Says whether the member serves, and goes on to do so.
    pub(crate) fn is_serving(&self) -> bool {
        !self.is_stopping.get()
    }

    /// Ends when the member stops serving.
    pub(crate) async fn stopping(&self) {
        if self.is_serving() {
            self.stopping.notified().await;
        }
    }

    /// Ends when there has been no leader for three election timeouts.
    pub(crate) async fn leader_lost(&self) {
        self.leader_watch.lost.notified().await;
    }
}

/// Returns the status of an outcome that is no success of the kind that was asked for.
pub(crate) fn unexpected(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Failed(error) => Status::from(error),
        other => unreachable!("the engine answers in kind, not with {other:?}"),
    }
}

/// Decodes a request.
pub(crate) fn decode<M: prost::Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|_| Status::UNDECODABLE)
}

/// Decodes a request that refers to the bytes given.
pub(crate) fn decode_ref<M: prost::Message + Default>(body: &Bytes) -> Result<M, Status> {
    decode(body.clone())
}

/// Carries batches between the thread and the engine, and moves the watch hub, for as long as the thread lives.
pub(crate) async fn pump(context: Rc<Context>) {
    poll_fn(|cx| {
        *context.watch.pump.borrow_mut() = Some(cx.waker().clone());
        let watch = &context.watch;
        let watches = watch.hub.borrow().stats().streams > 0;
        if context.engine.pump(cx, watches) {
            watch.is_due.set(true);
        }
        if watch.is_due.get() && watch.poll_rested(cx).is_ready() {
            let more = watch.advance();
            watch.is_due.set(more);
            if more {
                cx.waker().wake_by_ref();
            }
        }
        Poll::<()>::Pending
    })
    .await;
}
