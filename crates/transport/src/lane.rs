//! Messages on their way into a stream that a peer opened to us.
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Frame};
use parking_lot::Mutex;
use quorate_proto::raftpb::Message;
use tokio::time::{Instant, Sleep};

use bytes::Buf;

use crate::codec::{
    BATCH_BYTES_MAX, Chunks, StreamKind, encode_batch, encode_heartbeat, seal, weigh,
};
use crate::link::Link;

/// Messages that wait for a stream; more are dropped.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/stream.go `streamBufSize`.
const QUEUED_MESSAGES_MAX: usize = 4096;

/// Bytes that wait for a stream; a first message is always taken. Entries are shared with raft's log, but a peer that
/// does not read must not hold that log in memory.
const QUEUED_BYTES_MAX: usize = 256 << 20;

/// Link heartbeats in the time in which a peer gives a silent stream up.
const HEARTBEATS_PER_TIMEOUT: u32 = 3;

/// A queue that has at most one stream at its end.
pub(crate) struct Lane {
    kind: StreamKind,
    link: Arc<Link>,
    state: Mutex<State>,
}

struct State {
    /// Number of the stream attached last; what an older one does is of no matter.
    generation: u64,
    attached: bool,
    /// Ends the stream once it is empty.
    closing: bool,
    queue: VecDeque<Message>,
    /// **Invariant:** the weight of the queue.
    queued_bytes: usize,
    waker: Option<Waker>,
}

/// What became of messages that were to be queued.
pub(crate) enum Pushed {
    /// They wait; so many of them were dropped.
    Queued { dropped: usize },
    /// No stream is attached: another way must be found.
    Detached(Vec<Message>),
}

impl Lane {
    pub(crate) fn new(kind: StreamKind, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            kind,
            link,
            state: Mutex::new(State {
                generation: 0,
                attached: false,
                closing: false,
                queue: VecDeque::new(),
                queued_bytes: 0,
                waker: None,
            }),
        })
    }

    /// Queues messages if a stream is attached. Never blocks.
    pub(crate) fn push(&self, messages: Vec<Message>) -> Pushed {
        let mut dropped = 0;
        let waker = {
            let mut state = self.state.lock();
            if !state.attached || state.closing {
                return Pushed::Detached(messages);
            }
            for message in messages {
                let weight = weigh(&message);
                let is_full = state.queue.len() >= QUEUED_MESSAGES_MAX
                    || state.queued_bytes + weight > QUEUED_BYTES_MAX;
                if is_full && !state.queue.is_empty() {
                    dropped += 1;
                    continue;
                }
                state.queued_bytes += weight;
                state.queue.push_back(message);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Pushed::Queued { dropped }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.state.lock().attached
    }

    /// Makes the body of a stream that the peer opened; a stream attached before ends.
    pub(crate) fn attach(self: &Arc<Self>, link_timeout: Duration, sealed: bool) -> StreamBody {
        let (generation, waker, lost) = {
            let mut state = self.state.lock();
            state.generation += 1;
            state.attached = true;
            let lost = state.clear();
            (state.generation, state.waker.take(), lost)
        };
        if let Some(waker) = waker {
            waker.wake();
            tracing::warn!(
                "stream-writer-type" = self.kind.name(),
                "remote-peer-id" = %self.link.id,
                "closed TCP streaming connection with remote peer"
            );
        }
        if lost > 0 {
            self.link.lost(lost);
        }
        self.link.activate();
        tracing::info!(
            "stream-writer-type" = self.kind.name(),
            "remote-peer-id" = %self.link.id,
            "established TCP streaming connection with remote peer"
        );
        let interval = link_timeout / HEARTBEATS_PER_TIMEOUT;
        StreamBody {
            lane: Arc::clone(self),
            generation,
            sealed,
            interval,
            heartbeat: Box::pin(tokio::time::sleep(interval)),
        }
    }

    /// Lets the stream send what waits and end; no message is taken any more.
    pub(crate) fn close(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.closing = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self, generation: u64, cx: &Context<'_>) -> Taken {
        let mut state = self.state.lock();
        if state.generation != generation {
            return Taken::End;
        }
        if state.queue.is_empty() {
            if state.closing {
                return Taken::End;
            }
            state.waker = Some(cx.waker().clone());
            return Taken::Nothing;
        }
        let mut batch = Vec::with_capacity(state.queue.len());
        let mut batch_bytes = 0;
        while batch_bytes < BATCH_BYTES_MAX
            && let Some(message) = state.queue.pop_front()
        {
            batch_bytes += weigh(&message);
            batch.push(message);
        }
        state.queued_bytes -= batch_bytes;
        Taken::Batch(batch)
    }

    /// Notes that a stream ended, for whatever reason.
    fn detach(&self, generation: u64) {
        let lost = {
            let mut state = self.state.lock();
            if state.generation != generation || !state.attached {
                return;
            }
            state.attached = false;
            state.waker = None;
            if state.closing {
                return;
            }
            state.clear()
        };
        tracing::warn!(
            "stream-writer-type" = self.kind.name(),
            "remote-peer-id" = %self.link.id,
            "lost TCP streaming connection with remote peer"
        );
        if lost > 0 {
            self.link
                .deactivate("write", self.kind.name(), &"messages are lost");
        }
        // What the system had taken may be lost too, so raft is told even if nothing waited.
        self.link.lost(lost);
    }
}

impl State {
    /// Drops what waits and returns how many messages that were.
    fn clear(&mut self) -> usize {
        self.queued_bytes = 0;
        let lost = self.queue.len();
        self.queue = VecDeque::new();
        lost
    }
}

enum Taken {
    Batch(Vec<Message>),
    Nothing,
    End,
}

/// A stream's body: batches of messages as they come, and link heartbeats.
pub(crate) struct StreamBody {
    lane: Arc<Lane>,
    generation: u64,
    /// Whether batches have checksums.
    sealed: bool,
    interval: Duration,
    heartbeat: Pin<Box<Sleep>>,
}

impl StreamBody {
    fn beat(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.heartbeat.as_mut().poll(cx));
        let next = Instant::now() + self.interval;
        self.heartbeat.as_mut().reset(next);
        Poll::Ready(())
    }
}

impl Body for StreamBody {
    type Data = Chunks;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunks>, Infallible>>> {
        let this = self.get_mut();
        let lane = Arc::clone(&this.lane);
        let chunks = match lane.take(this.generation, cx) {
            Taken::End => return Poll::Ready(None),
            // Messages are a sign of life as well.
            Taken::Batch(batch) => {
                let next = Instant::now() + this.interval;
                this.heartbeat.as_mut().reset(next);
                encode_batch(lane.kind, batch)
            }
            Taken::Nothing => {
                std::task::ready!(this.beat(cx));
                Chunks::from(encode_heartbeat(lane.kind))
            }
        };
        let chunks = if this.sealed { seal(chunks) } else { chunks };
        lane.link.counters.sent_bytes.add(chunks.remaining());
        Poll::Ready(Some(Ok(Frame::data(chunks))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.lane.detach(self.generation);
    }
}
