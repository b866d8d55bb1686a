//! One HTTP/2 connection: takes in calls, polls them, and writes what they have to say.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures_util::stream::{FuturesUnordered, Stream as _};
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::call::{Base, Call, Stream, Unary};
use super::reply::send_trailers_only;
use super::request::judge;
use super::{MessageStream, Reply};
use crate::method::Kind;
use crate::net::{PingPolicy, Wire, WireHandle};
use crate::options::{Options, STREAMS_MAX};
use crate::seam::{Inbound, Outbound, Service};
use crate::send::{Gauge, SendBuf};
use crate::status::Status;
use crate::thread::{LiveGuard, Thread};

/// How many calls one turn starts before other connections get theirs.
const STARTS_MAX: usize = 256;

/// The window of one stream, in bytes: how much of a request may come before it is looked at.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The window of the whole connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// The most bytes that a request's header may have once decoded.
///
/// Differs from etcd: 16 MiB there, held for each stream before anyone has been authenticated.
const HEADER_LIST_MAX_BYTES: u32 = 64 * 1024;

/// Decoded headers of calls that are held back until their client reads what waits for it, in bytes; beyond it the
/// connection is cut.
const HELD_BACK_MAX_BYTES: usize = 8 * 1024 * 1024;

/// What a call that is held back counts besides its header, in bytes.
const HELD_BACK_EACH_BYTES: usize = 512;

/// What small data frames that wait to be taken may count, in bytes; each counts 256. Requests that are held back because
/// their client does not read are such frames.
const SMALL_FRAMES_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Streams that may be reset by the client before they were taken up; beyond it the connection is closed.
const EARLY_RESETS_MAX: usize = 1_000;

/// Streams whose reset by us is remembered.
const OWN_RESETS_MAX: usize = 1_000;

/// How long a connection that is being closed may take to say so, in milliseconds.
const LEAVE_MS: u64 = 5_000;

/// How the thread's sweep and the stop talk to a connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    last_read_ms: Box<dyn ReadClock>,
    ping_sent_ms: Cell<Option<u64>>,
    leaving_since_ms: Cell<Option<u64>>,
    wants_ping: Cell<bool>,
    wants_drain: Cell<bool>,
    /// Whether answers to pings wait for something else to go with, and whether they have waited long enough.
    lingers: Cell<bool>,
    wants_flush: Cell<bool>,
    is_dead: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    unsent: Rc<Gauge>,
    /// How much had gone out when the sweep last looked, and since when that is so.
    sent: Cell<u64>,
    moved_ms: Cell<u64>,
}

/// Tells when a connection was last heard of.
trait ReadClock: std::fmt::Debug {
    fn last_read_ms(&self) -> u64;
}

impl<T: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug> ReadClock for WireHandle<T> {
    fn last_read_ms(&self) -> u64 {
        Self::last_read_ms(self)
    }
}

impl ConnectionState {
    /// Decides whether the connection is to be pinged or given up. While memory for answers is short, those are given up
    /// that take none of theirs.
    pub(crate) fn inspect(&self, now_ms: u64, options: &Options, is_memory_short: bool) {
        let is_leaving_late = self
            .leaving_since_ms
            .get()
            .is_some_and(|since| now_ms >= since + LEAVE_MS);
        if is_leaving_late || (self.is_stalled(now_ms, options) && is_memory_short) {
            self.is_dead.set(true);
            self.wake();
            return;
        }
        if options.keepalive_interval_ms == 0 {
            return;
        }
        let last_read_ms = self.last_read_ms.last_read_ms();
        match self.ping_sent_ms.get() {
            // Anything that was heard since is as good as an answer. In the tick of the ping itself nothing was heard
            // before it, or it would not have been due.
            Some(sent) if last_read_ms >= sent => self.ping_sent_ms.set(None),
            Some(sent) if now_ms >= sent.saturating_add(options.keepalive_timeout_ms) => {
                self.is_dead.set(true);
                self.wake();
            }
            Some(_) => {}
            None if now_ms >= last_read_ms.saturating_add(options.keepalive_interval_ms) => {
                self.ping_sent_ms.set(Some(now_ms));
                self.wants_ping.set(true);
                self.wake();
            }
            None => {}
        }
    }

    /// Says whether the client has taken nothing for long of what waits for it.
    fn is_stalled(&self, now_ms: u64, options: &Options) -> bool {
        let sent = self.unsent.sent();
        if self.unsent.bytes() == 0 || sent != self.sent.replace(sent) {
            self.moved_ms.set(now_ms);
        }
        now_ms >= self.moved_ms.get().saturating_add(options.stall_ms)
    }

    /// Tells the connection to end with its last call.
    pub(crate) fn drain(&self) {
        self.wants_drain.set(true);
        self.wake();
    }

    /// Tells the connection to write what waits for company.
    pub(crate) fn flush(&self) {
        self.wants_flush.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn set_waker(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }
}

/// A call whose header has come.
type Incoming = (Request<RecvStream>, SendResponse<SendBuf>);

/// A connection that is served by polling it.
pub(crate) struct Connection<S, T> {
    h2: h2::server::Connection<Wire<T>, SendBuf>,
    pings: Option<PingPong>,
    wire: WireHandle<T>,
    calls: FuturesUnordered<Call<S>>,
    service: Rc<S>,
    thread: Rc<Thread>,
    unsent: Rc<Gauge>,
    /// Calls that are not started because their client does not read.
    held_back: VecDeque<Incoming>,
    held_back_bytes: usize,
    state: Rc<ConnectionState>,
    is_leaving: bool,
    _live: LiveGuard,
}

impl<S: Service, T: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug + 'static> Connection<S, T> {
    /// Greets the client; `None` when it did not greet back in HTTP/2.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the connection is lost.
    pub(crate) async fn open(io: T, service: Rc<S>, thread: Rc<Thread>) -> Option<Self> {
        let options = &thread.options;
        let wire = WireHandle::new(
            io,
            PingPolicy::new(options.keepalive_min_ms),
            thread.now_ms.clone(),
        );
        let mut h2 = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADER_LIST_MAX_BYTES)
            .max_concurrent_streams(options.max_concurrent_streams.min(STREAMS_MAX))
            .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
            .max_concurrent_reset_streams(OWN_RESETS_MAX)
            .data_frame_budget(SMALL_FRAMES_MAX_BYTES)
            .handshake(wire.wire())
            .await
            .ok()?;
        wire.defer_flush();
        let unsent = thread.unsent_of_connection();
        let state = Rc::new(ConnectionState {
            last_read_ms: Box::new(wire.clone()),
            ping_sent_ms: Cell::new(None),
            leaving_since_ms: Cell::new(None),
            wants_ping: Cell::new(false),
            wants_drain: Cell::new(false),
            lingers: Cell::new(false),
            wants_flush: Cell::new(false),
            is_dead: Cell::new(false),
            waker: RefCell::new(None),
            unsent: unsent.clone(),
            sent: Cell::new(0),
            moved_ms: Cell::new(thread.now_ms.get()),
        });
        thread.register(&state);
        Some(Self {
            pings: h2.ping_pong(),
            h2,
            wire,
            calls: FuturesUnordered::new(),
            service,
            unsent,
            held_back: VecDeque::new(),
            held_back_bytes: 0,
            state,
            is_leaving: false,
            _live: thread.enter(),
            thread,
        })
    }

    /// Serves the connection to its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the connection and all calls on it.
    pub(crate) async fn serve(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.set_waker(cx.waker());
        if self.state.is_dead.get() {
            return Poll::Ready(());
        }
        if !self.is_leaving && self.poll_turn(cx).is_ready() {
            self.calls.clear();
            if !self.wire.is_violated() {
                return Poll::Ready(());
            }
            self.wire.queue_too_many_pings();
            self.is_leaving = true;
            self.state
                .leaving_since_ms
                .set(Some(self.thread.now_ms.get()));
        }
        if self.is_leaving {
            return self.wire.poll_shutdown(cx).map(|_| ());
        }
        Poll::Pending
    }

    /// Does everything there is to do now; ready when the connection is over.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.begin_turn();
        self.obey(cx);
        let is_over = self.poll_accept(cx).is_ready();
        while let Poll::Ready(Some(())) = Pin::new(&mut self.calls).poll_next(cx) {}
        // A call that has ended may still be on its way out.
        let has_streams = !self.calls.is_empty() || self.h2.has_streams();
        self.wire.set_has_streams(has_streams);
        if is_over
            || self.unsent.is_cut()
            || !self.lingers() && matches!(self.wire.poll_flush(cx), Poll::Ready(Err(_)))
        {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Says whether what is gathered is left for the next turn, or for the thread's next sweep if none comes before.
    fn lingers(&self) -> bool {
        if self.state.wants_flush.take() {
            self.state.lingers.set(false);
            return false;
        }
        let lingers = self.wire.may_linger();
        if lingers && !self.state.lingers.replace(true) {
            self.thread.linger(self.state.clone());
        }
        lingers
    }

    /// Does what the sweep or the stop asked for.
    fn obey(&mut self, cx: &mut Context<'_>) {
        if self.state.wants_drain.take() {
            self.h2.graceful_shutdown();
            self.calls.iter_mut().for_each(Call::stop);
        }
        let Some(pings) = &mut self.pings else { return };
        if self.state.wants_ping.take() {
            // It fails only while one is under way, which serves as well.
            let _ = pings.send_ping(Ping::opaque());
        }
        while let Poll::Ready(Ok(_)) = pings.poll_pong(cx) {}
    }

    /// Moves frames in and out, and starts the calls that came in.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..STARTS_MAX {
            let may_start = !self.unsent.is_paused();
            if may_start && let Some(incoming) = self.held_back.pop_front() {
                self.held_back_bytes -= held_back_bytes(&incoming);
                self.start(cx, incoming);
                continue;
            }
            if !may_start {
                self.unsent.wake_on_release(cx.waker());
            }
            match ready!(self.h2.poll_accept(cx)) {
                Some(Ok(incoming)) if may_start => self.start(cx, incoming),
                Some(Ok(incoming)) => {
                    self.held_back_bytes += held_back_bytes(&incoming);
                    self.held_back.push_back(incoming);
                    if self.held_back_bytes > HELD_BACK_MAX_BYTES {
                        return Poll::Ready(());
                    }
                }
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start(&mut self, cx: &mut Context<'_>, (request, respond): Incoming) {
        let accepted = match judge(&request) {
            Ok(accepted) => accepted,
            Err(refused) => {
                // The caller may be gone; then nobody is left to be told.
                let _ = send_trailers_only(
                    respond,
                    refused.http_status,
                    refused.content_type,
                    Some(&refused.status),
                );
                return;
            }
        };
        let method = accepted.method;
        let thread = self.thread.clone();
        thread.metrics.started(method);
        let mut reply = Reply::new(respond, accepted.content_type, method, thread.clone());
        let Some(guard) = thread.begin_stream() else {
            return reply.finish(Err(Status::TOO_MANY_STREAMS));
        };
        // Such a call would only be ended with all others of its kind.
        if thread.is_draining() && method.kind() == Kind::BidiStream {
            return reply.finish(Err(Status::STOPPED));
        }
        let deadline = accepted.timeout_ms.map(|timeout_ms| {
            thread
                .deadlines
                .add(thread.clock.now_ms().saturating_add(timeout_ms))
        });
        let base = Base {
            deadline,
            thread: guard,
        };
        let inbound = MessageStream::new(
            request.into_body(),
            accepted.is_gzip,
            method,
            thread.clone(),
        );
        if method.kind() == Kind::Unary {
            let context = (method, accepted.metadata);
            let mut call = Unary::new(
                base,
                self.service.clone(),
                context,
                inbound,
                reply,
                self.unsent.clone(),
            );
            // Most requests are here whole with their header, and many answers are known at once.
            if call.poll(cx).is_pending() {
                self.calls.push(Call::Unary(Box::new(call)));
            }
            return;
        }
        let gauge = Gauge::new(Some(self.unsent.clone()));
        let reply = Rc::new(RefCell::new(reply));
        let outbound = Outbound::new(reply.clone(), gauge, thread.options.stream_unsent_max_bytes);
        let handler =
            self.service
                .stream(method, accepted.metadata, Inbound::new(inbound), outbound);
        self.calls.push(Call::Stream(Box::new(Stream::new(
            base, method, reply, handler,
        ))));
    }
}

/// Returns what a call counts that is held back.
fn held_back_bytes((request, _): &Incoming) -> usize {
    let fields = request.headers().iter();
    let header: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    header + request.uri().path().len() + HELD_BACK_EACH_BYTES
}
