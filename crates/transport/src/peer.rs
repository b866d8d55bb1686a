//! One peer: its lanes, pipeline, snapshots, and the tasks that serve them.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::Error;
use crate::codec::StreamKind;
use crate::lane::{Lane, Pushed};
use crate::link::Link;
use crate::metrics::Standing;
use crate::outbound::{
    CONNECTIONS, LeaseAsked, LeaseQuestion, LeaseSeconds, Pipeline, lease_queue, run_lease_batches,
    run_pipeline, run_probe, run_stream, send_snapshot,
};
use crate::shared::Shared;
use crate::url::{PeerUrl, Picker};

/// A member of the cluster that this one talks with.
pub(crate) struct Peer {
    pub(crate) link: Arc<Link>,
    msg_app: Arc<Lane>,
    message: Arc<Lane>,
    pipeline: Pipeline,
    snapshot_is_sent: Arc<AtomicBool>,
    lease_questions: mpsc::Sender<LeaseAsked>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Peer {
    /// Begins to dial a peer and to send to it.
    pub(crate) fn start(shared: &Arc<Shared>, id: MemberId, urls: Vec<PeerUrl>) -> Arc<Self> {
        let link = Link::new(
            id,
            Picker::new(urls),
            shared.registry.of_peer(id),
            Arc::clone(&shared.receiver),
        );
        let pipeline = Pipeline::new();
        let mut tasks = start_pipeline(shared, &link, &pipeline);
        for kind in [StreamKind::MsgApp, StreamKind::Message] {
            let stream = run_stream(Arc::clone(shared), Arc::clone(&link), kind);
            tasks.push(shared.handle.spawn(stream).abort_handle());
        }
        let (lease_questions, queue) = lease_queue();
        let asking = run_lease_batches(Arc::clone(shared), Arc::clone(&link), queue);
        tasks.push(shared.handle.spawn(asking).abort_handle());
        let probe = run_probe(Arc::clone(shared), Arc::clone(&link));
        tasks.push(shared.handle.spawn(probe).abort_handle());
        Arc::new(Self {
            msg_app: Lane::new(StreamKind::MsgApp, Arc::clone(&link)),
            message: Lane::new(StreamKind::Message, Arc::clone(&link)),
            link,
            pipeline,
            snapshot_is_sent: Arc::new(AtomicBool::new(false)),
            lease_questions,
            tasks: Mutex::new(tasks),
        })
    }

    /// Returns the lane for streams of a kind that the peer opens.
    pub(crate) fn lane(&self, kind: StreamKind) -> &Arc<Lane> {
        match kind {
            StreamKind::MsgApp => &self.msg_app,
            StreamKind::Message => &self.message,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        let lanes = [&self.msg_app, &self.message];
        Standing {
            known: true,
            active: self.link.active_since().is_some(),
            streams_open: lanes.iter().filter(|lane| lane.is_attached()).count(),
        }
    }

    /// Queues a question about a lease for the peer, which is asked with others at once.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if too many wait, or the peer was removed; a refusal of the peer.
    pub(crate) async fn ask_of_lease(
        &self,
        question: LeaseQuestion,
    ) -> Result<LeaseSeconds, Error> {
        let (waiter, answer) = oneshot::channel();
        let queued = self.lease_questions.try_send((question, waiter));
        queued.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Sends messages in order: appends by their stream, the rest by the other, by post what has no stream. Never
    /// blocks; what finds no room is dropped and reported.
    pub(crate) fn send(&self, shared: &Arc<Shared>, messages: Vec<Message>) {
        if self.link.is_paused() {
            return;
        }
        let mut appends = Vec::new();
        let mut others = Vec::new();
        for message in messages {
            match message.r#type() {
                MessageType::MsgSnap => self.send_snapshot(shared, message),
                MessageType::MsgApp => appends.push(message),
                _ => others.push(message),
            }
        }
        let mut dropped = 0;
        if !appends.is_empty() {
            match self.msg_app.push(appends) {
                Pushed::Queued { dropped: full } => dropped += full,
                // Behind what is in `others`: raft does not mind, and heartbeats come first.
                Pushed::Detached(appends) => others.extend(appends),
            }
        }
        if !others.is_empty() {
            dropped += match self.message.push(others) {
                Pushed::Queued { dropped } => dropped,
                Pushed::Detached(others) => self.pipeline.push(others),
            };
        }
        if dropped > 0 {
            tracing::warn!(
                "remote-peer-id" = %self.link.id,
                dropped,
                "dropped internal Raft message since sending buffer is full"
            );
            self.link.lost(dropped);
        }
    }

    /// Sends a snapshot unless one is under way already.
    fn send_snapshot(&self, shared: &Arc<Shared>, message: Message) {
        if self.snapshot_is_sent.swap(true, Ordering::AcqRel) {
            self.link.counters.snapshot_send_failures.add(1);
            self.link.receiver.snapshot_sent(self.link.id, false);
            return;
        }
        let under_way = UnderWay(Arc::clone(&self.snapshot_is_sent));
        let link = Arc::clone(&self.link);
        let sending = send_snapshot(Arc::clone(shared), link, message, under_way);
        let task = shared.handle.spawn(sending);
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    /// Ends everything; streams that the peer opened get what waits for them first.
    pub(crate) fn stop(&self) {
        self.msg_app.close();
        self.message.close();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// Lets the next snapshot begin when dropped.
struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn start_pipeline(shared: &Arc<Shared>, link: &Arc<Link>, pipeline: &Pipeline) -> Vec<AbortHandle> {
    let start = |_| {
        let posting = run_pipeline(Arc::clone(shared), Arc::clone(link), pipeline.end());
        shared.handle.spawn(posting).abort_handle()
    };
    (0..CONNECTIONS).map(start).collect()
}

/// A member that is not known from the log yet, and is answered by post alone: it told us where it is.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/remote.go.
pub(crate) struct Remote {
    pub(crate) link: Arc<Link>,
    pipeline: Pipeline,
    tasks: Vec<AbortHandle>,
}

impl Remote {
    pub(crate) fn start(shared: &Arc<Shared>, id: MemberId, urls: Vec<PeerUrl>) -> Arc<Self> {
        let link = Link::new(
            id,
            Picker::new(urls),
            shared.registry.of_peer(id),
            Arc::clone(&shared.receiver),
        );
        let pipeline = Pipeline::new();
        let tasks = start_pipeline(shared, &link, &pipeline);
        Arc::new(Self {
            link,
            pipeline,
            tasks,
        })
    }

    pub(crate) fn send(&self, messages: Vec<Message>) {
        if self.link.is_paused() {
            return;
        }
        let is_snapshot = |message: &Message| message.r#type() == MessageType::MsgSnap;
        let (snapshots, messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_snapshot);
        for _ in snapshots {
            self.link.receiver.snapshot_sent(self.link.id, false);
        }
        let dropped = self.pipeline.push(messages);
        if dropped > 0 {
            self.link.lost(dropped);
        }
    }

    pub(crate) fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
