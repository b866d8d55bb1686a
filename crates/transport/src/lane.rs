//! Messages on their way into a stream that a peer opened to us.
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Frame};
use parking_lot::Mutex;
use quorate_proto::raftpb::Message;
use tokio::time::{Instant, Sleep};

use bytes::Buf;

use crate::Config;
use crate::codec::{
    BATCH_BYTES_MAX, Chunks, StreamKind, encode_batch, encode_heartbeat, seal, weigh,
};
use crate::io::{Door, Patience};
use crate::link::Link;

/// Messages that wait for a stream; more are dropped.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/stream.go `streamBufSize`.
const QUEUED_MESSAGES_MAX: usize = 4096;

/// Bytes that wait for a stream; a first message is always taken. Entries are shared with raft's log, but a peer that
/// does not read must not hold that log in memory.
const QUEUED_BYTES_MAX: usize = 256 << 20;

/// Bytes that whoever has messages writes itself, when nothing waits before them; more is the stream's own work.
const WRITTEN_AT_ONCE_MAX: usize = 64 << 10;

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
    /// The stream's connection.
    outlet: Option<Outlet>,
}

/// How a message gets onto a stream without waking the stream's task.
struct Outlet {
    door: Arc<Door>,
    /// Whether batches have checksums.
    sealed: bool,
    /// Whether something was written since the task last looked.
    was_used: bool,
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
                outlet: None,
            }),
        })
    }

    /// Sends messages if a stream is attached: at once when little is to be written and nothing waits before it, and there is
    /// room; otherwise they are queued for the stream's task. Never blocks.
    pub(crate) fn push(&self, messages: Vec<Message>) -> Pushed {
        let mut dropped = 0;
        let waker = {
            let mut state = self.state.lock();
            if !state.attached || state.closing {
                return Pushed::Detached(messages);
            }
            let messages = match self.write(&mut state, messages) {
                Ok(waker) => {
                    drop(state);
                    waker.into_iter().for_each(Waker::wake);
                    return Pushed::Queued { dropped };
                }
                Err(messages) => messages,
            };
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

    /// Writes messages past the stream's task, or gives them back. Returns whom to wake for what found no room.
    fn write(
        &self,
        state: &mut State,
        messages: Vec<Message>,
    ) -> Result<Option<Waker>, Vec<Message>> {
        let Some(outlet) = state.outlet.as_mut().filter(|_| state.queue.is_empty()) else {
            return Err(messages);
        };
        if messages.iter().map(weigh).sum::<usize>() > WRITTEN_AT_ONCE_MAX {
            return Err(messages);
        }
        let mut messages = Some(messages);
        let (kind, sealed) = (self.kind, outlet.sealed);
        let written = outlet.door.write(|| {
            let batch = encode_batch(kind, messages.take().unwrap_or_default());
            if sealed { seal(batch) } else { batch }
        });
        match (written, messages) {
            (None, messages) => Err(messages.unwrap_or_default()),
            (Some((bytes, is_done)), _) => {
                outlet.was_used = true;
                self.link.counters.sent_bytes.add(bytes);
                Ok(if is_done { None } else { state.waker.take() })
            }
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.state.lock().attached
    }

    /// Makes the body of a stream that the peer opened; a stream attached before ends. With a door, which leads to the
    /// stream's connection if its body is chunked, messages need not pass through the body.
    pub(crate) fn attach(
        self: &Arc<Self>,
        config: &Config,
        sealed: bool,
        door: Option<Arc<Door>>,
    ) -> StreamBody {
        let (generation, waker, lost) = {
            let mut state = self.state.lock();
            state.generation += 1;
            state.attached = true;
            state.outlet = None;
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
        let interval = config.link_heartbeat_interval();
        StreamBody {
            lane: Arc::clone(self),
            generation,
            sealed,
            door,
            patience: Patience::new(config.write_timeout),
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

    /// Takes what is next for the stream's task.
    fn take(
        &self,
        generation: u64,
        door: Option<&Arc<Door>>,
        sealed: bool,
        cx: &Context<'_>,
    ) -> Taken {
        let mut state = self.state.lock();
        let is_old = state.generation != generation;
        if !is_old && state.queue.is_empty() && !state.closing {
            state.waker = Some(cx.waker().clone());
            if state.outlet.is_none()
                && let Some(door) = door
            {
                // The HTTP library asks for a body only behind its head. It flushes what it has of that before long.
                door.disturb();
                state.outlet = Some(Outlet {
                    door: Arc::clone(door),
                    sealed,
                    was_used: false,
                });
            }
            // Somebody may have written while this task was awake, and could not wake it.
            if door.is_some_and(|door| door.has_rest()) {
                return Taken::Rest;
            }
            return Taken::Nothing;
        }
        if !door.is_none_or(|door| door.disturb()) {
            return Taken::Rest;
        }
        if is_old || state.queue.is_empty() {
            return Taken::End;
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

    /// Says what is to be done when a heartbeat is due.
    fn beat(&self, generation: u64) -> Beat {
        let mut state = self.state.lock();
        if state.generation != generation {
            return Beat::Needless;
        }
        if let Some(outlet) = &mut state.outlet
            && std::mem::take(&mut outlet.was_used)
        {
            return Beat::Needless;
        }
        if state.disturb() {
            Beat::Now
        } else {
            Beat::Needless
        }
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
            state.outlet = None;
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
    /// Announces to the door that the stream's task has something to write; `false` while it may not.
    fn disturb(&self) -> bool {
        self.outlet.as_ref().is_none_or(|o| o.door.disturb())
    }

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
    /// Something that was written past the task is not all written.
    Rest,
    End,
}

enum Beat {
    Now,
    /// Messages are a sign of life as well.
    Needless,
}

/// A stream's body: batches of messages as they come, and link heartbeats.
pub(crate) struct StreamBody {
    lane: Arc<Lane>,
    generation: u64,
    /// Whether batches have checksums.
    sealed: bool,
    door: Option<Arc<Door>>,
    /// With what was written past this task and finds no room.
    patience: Patience,
    interval: Duration,
    heartbeat: Pin<Box<Sleep>>,
}

impl StreamBody {
    /// Waits until a heartbeat must be sent.
    fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.heartbeat.as_mut().poll(cx));
            self.rest_from_now();
            if matches!(self.lane.beat(self.generation), Beat::Now) {
                return Poll::Ready(());
            }
        }
    }

    fn rest_from_now(&mut self) {
        let next = Instant::now() + self.interval;
        self.heartbeat.as_mut().reset(next);
    }

    /// Writes what found no room when it was written past this task.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(door) = &self.door else {
            return Poll::Ready(Ok(()));
        };
        door.poll_rest(cx, &mut self.patience)
    }
}

impl Body for StreamBody {
    type Data = Chunks;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Chunks>>>> {
        let this = self.get_mut();
        let lane = Arc::clone(&this.lane);
        let chunks = loop {
            if let Err(error) = std::task::ready!(this.poll_rest(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            match lane.take(this.generation, this.door.as_ref(), this.sealed, cx) {
                Taken::End => return Poll::Ready(None),
                Taken::Rest => {}
                Taken::Batch(batch) => {
                    this.rest_from_now();
                    break encode_batch(lane.kind, batch);
                }
                Taken::Nothing => {
                    std::task::ready!(this.poll_beat(cx));
                    break Chunks::from(encode_heartbeat(lane.kind));
                }
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
