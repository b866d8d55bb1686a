//! The bytes of an HTTP/2 connection: written in one piece per turn, and watched for what the HTTP library does not show.
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scan::{FLAG_ACK, FrameHeader, FrameScanner, kind};

/// Writes are gathered up to this size; beyond it they go out at once.
const GATHER_BYTES: usize = 64 * 1024;

/// A single write from this size on is passed through instead of copied.
const PASS_THROUGH_BYTES: usize = 24 * 1024;

/// How many pieces one gather write takes.
const SLICES_MAX: usize = 64;

/// How many pings out of turn a client may send before it is sent away.
///
/// Source: grpc-go v1.82.1 internal/transport/defaults.go `maxPingStrikes`.
const PING_STRIKES_MAX: u32 = 2;

/// How far apart pings must be while no stream is open, in milliseconds.
///
/// Source: grpc-go v1.82.1 internal/transport/http2_server.go `defaultPingTimeout`.
const IDLE_PING_MIN_MS: u64 = 2 * 60 * 60 * 1000;

/// How far apart pings must be when no time is set, in milliseconds.
///
/// Source: grpc-go v1.82.1 internal/transport/defaults.go `defaultKeepalivePolicyMinTime`.
const PING_MIN_MS: u64 = 5 * 60 * 1000;

/// How many calls' headers are taken in before other connections get their turn.
const HEADERS_PER_TURN_MAX: usize = 256;

/// How many SETTINGS frames a client may send for every byte-carrying frame of ours before it is sent away.
const SETTINGS_STRIKES_MAX: u32 = 1_000;

/// What a client is told that pings too often; the official clients then ping half as often.
const TOO_MANY_PINGS: &[u8] = b"too_many_pings";

/// HTTP/2's ENHANCE_YOUR_CALM.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Decides which pings come too often.
///
/// Source: grpc-go v1.82.1 internal/transport/http2_server.go `handlePing`.
#[derive(Debug)]
pub(crate) struct PingPolicy {
    min_ms: u64,
    last_ping_ms: Option<u64>,
    is_forgiven: bool,
    strikes: u32,
    settings: u32,
}

impl PingPolicy {
    /// A `min_ms` of 0 is grpc-go's own minimum.
    pub(crate) fn new(min_ms: u64) -> Self {
        Self {
            min_ms: if min_ms == 0 { PING_MIN_MS } else { min_ms },
            last_ping_ms: None,
            is_forgiven: false,
            strikes: 0,
            settings: 0,
        }
    }

    /// Forgives everything so far, and the next ping: headers or data went out, so the client had reason to measure.
    fn forgive(&mut self) {
        self.is_forgiven = true;
        self.settings = 0;
    }

    /// Judges a ping; true when it is one too many.
    fn is_one_too_many(&mut self, now_ms: u64, has_streams: bool) -> bool {
        let min_ms = if has_streams {
            self.min_ms
        } else {
            IDLE_PING_MIN_MS
        };
        let last_ping_ms = self.last_ping_ms.replace(now_ms);
        if std::mem::take(&mut self.is_forgiven) {
            self.strikes = 0;
        } else if last_ping_ms.is_some_and(|last| now_ms < last.saturating_add(min_ms)) {
            self.strikes += 1;
        }
        self.strikes > PING_STRIKES_MAX
    }

    fn is_one_setting_too_many(&mut self) -> bool {
        self.settings += 1;
        self.settings > SETTINGS_STRIKES_MAX
    }
}

#[derive(Debug)]
struct State<T> {
    io: T,
    out: BytesMut,
    /// Whether anything but answers to pings is gathered.
    is_urgent: bool,
    /// Whether `poll_flush` leaves gathered bytes for the connection's own flush at the end of its turn.
    deferred: bool,
    inbound: FrameScanner,
    outbound: FrameScanner,
    pings: PingPolicy,
    last_stream_id: u32,
    headers_left: usize,
    violated: bool,
}

/// What the connection's task and the byte stream inside the HTTP library share.
#[derive(Debug)]
pub(crate) struct WireHandle<T> {
    state: Rc<RefCell<State<T>>>,
    now_ms: Rc<Cell<u64>>,
    last_read_ms: Rc<Cell<u64>>,
    has_streams: Rc<Cell<bool>>,
}

impl<T> Clone for WireHandle<T> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            now_ms: self.now_ms.clone(),
            last_read_ms: self.last_read_ms.clone(),
            has_streams: self.has_streams.clone(),
        }
    }
}

/// The byte stream that the HTTP library reads and writes.
#[derive(Debug)]
pub(crate) struct Wire<T>(WireHandle<T>);

impl<T: AsyncRead + AsyncWrite + Unpin> WireHandle<T> {
    /// Wraps a connection that has not been read from; `now_ms` is the thread's coarse clock.
    pub(crate) fn new(io: T, pings: PingPolicy, now_ms: Rc<Cell<u64>>) -> Self {
        let last_read_ms = Rc::new(Cell::new(now_ms.get()));
        Self {
            state: Rc::new(RefCell::new(State {
                io,
                out: BytesMut::new(),
                is_urgent: false,
                deferred: false,
                inbound: FrameScanner::new(super::detect::PREFACE.len()),
                outbound: FrameScanner::new(0),
                pings,
                last_stream_id: 0,
                headers_left: HEADERS_PER_TURN_MAX,
                violated: false,
            })),
            now_ms,
            last_read_ms,
            has_streams: Rc::new(Cell::new(false)),
        }
    }

    /// Makes the byte stream for the HTTP library.
    pub(crate) fn wire(&self) -> Wire<T> {
        Wire(self.clone())
    }

    /// From now on only [`WireHandle::poll_flush`] flushes.
    pub(crate) fn defer_flush(&self) {
        self.state.borrow_mut().deferred = true;
    }

    /// Returns when bytes last came in.
    pub(crate) fn last_read_ms(&self) -> u64 {
        self.last_read_ms.get()
    }

    /// Tells whether streams are open, for judging pings.
    pub(crate) fn set_has_streams(&self, has_streams: bool) {
        self.has_streams.set(has_streams);
    }

    /// Lets the client send headers again.
    pub(crate) fn begin_turn(&self) {
        self.state.borrow_mut().headers_left = HEADERS_PER_TURN_MAX;
    }

    /// Says whether the client broke the rules and is to be sent away.
    pub(crate) fn is_violated(&self) -> bool {
        self.state.borrow().violated
    }

    /// Says whether nothing is gathered but answers to pings, which may wait for company: a client asks for one with almost
    /// every answer it reads, to measure the link, and each would be a write of its own.
    pub(crate) fn may_linger(&self) -> bool {
        let state = self.state.borrow();
        !state.is_urgent && !state.out.is_empty()
    }

    /// Writes what was gathered; ready once nothing is left.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().poll_drain(cx)
    }

    /// Queues the frame that sends the client away, where one can stand.
    ///
    /// The HTTP library cannot give a reason with its own; the official clients look for this one.
    pub(crate) fn queue_too_many_pings(&self) {
        let mut state = self.state.borrow_mut();
        if !state.outbound.is_at_boundary() {
            return;
        }
        let len = u32::try_from(8 + TOO_MANY_PINGS.len()).expect("a short text");
        let header = FrameHeader {
            len,
            kind: kind::GOAWAY,
            flags: 0,
            stream_id: 0,
        };
        let last_stream_id = state.last_stream_id;
        state.is_urgent = true;
        state.out.extend_from_slice(&header.encode());
        state.out.extend_from_slice(&last_stream_id.to_be_bytes());
        state
            .out
            .extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        state.out.extend_from_slice(TOO_MANY_PINGS);
    }

    /// Flushes and closes the sending side.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        ready!(state.poll_drain(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> State<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // An idle connection holds no buffer.
        self.out = BytesMut::new();
        self.is_urgent = false;
        Poll::Ready(Ok(()))
    }

    /// Copies the pieces behind what is gathered, as far as there is room; gives how many bytes.
    fn gather(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        let mut room = GATHER_BYTES.saturating_sub(self.out.len());
        let mut copied = 0;
        for buf in bufs {
            let take = buf.len().min(room);
            self.out.extend_from_slice(&buf[..take]);
            room -= take;
            copied += take;
            if room == 0 {
                break;
            }
        }
        copied
    }

    /// Writes what is gathered and the pieces behind it in one call; gives how many bytes of the pieces went out.
    fn poll_write_through(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let gathered = self.out.len();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slot, piece) in slices.iter_mut().zip(
                std::iter::once(&self.out[..])
                    .filter(|o| !o.is_empty())
                    .chain(bufs.iter().map(|b| &b[..])),
            ) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written.min(gathered));
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
        }
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let taken = if total >= PASS_THROUGH_BYTES {
            ready!(self.poll_write_through(cx, bufs))?
        } else {
            if self.out.len() >= GATHER_BYTES {
                ready!(self.poll_drain(cx))?;
            }
            self.gather(bufs)
        };
        self.see_outbound(bufs, taken);
        Poll::Ready(Ok(taken))
    }

    fn see_outbound(&mut self, bufs: &[IoSlice<'_>], mut taken: usize) {
        let Self {
            outbound,
            pings,
            is_urgent,
            ..
        } = self;
        for buf in bufs {
            let len = buf.len().min(taken);
            taken -= len;
            // Whoever reads waits for the rest of a frame whose beginning went out before.
            *is_urgent |= len > 0 && !outbound.is_at_boundary();
            let seen = outbound.scan(&buf[..len], |frame| {
                if frame.kind == kind::DATA || frame.kind == kind::HEADERS {
                    pings.forgive();
                }
                *is_urgent |= frame.kind != kind::PING || frame.flags & FLAG_ACK == 0;
                Ok::<(), std::convert::Infallible>(())
            });
            let Ok(()) = seen;
        }
    }

    fn see_inbound(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        has_streams: &Cell<bool>,
    ) -> io::Result<()> {
        let Self {
            inbound,
            pings,
            last_stream_id,
            headers_left,
            ..
        } = self;
        let seen = inbound.scan(bytes, |frame| {
            let too_many = match frame.kind {
                kind::HEADERS => {
                    *last_stream_id = frame.stream_id.max(*last_stream_id);
                    *headers_left = headers_left.saturating_sub(1);
                    has_streams.set(true);
                    false
                }
                kind::PING if frame.flags & FLAG_ACK == 0 => {
                    pings.is_one_too_many(now_ms, has_streams.get())
                }
                kind::SETTINGS if frame.flags & FLAG_ACK == 0 => pings.is_one_setting_too_many(),
                _ => false,
            };
            if too_many { Err(()) } else { Ok(()) }
        });
        seen.map_err(|()| {
            self.violated = true;
            io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the client sends too many pings or settings",
            )
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let handle = &self.get_mut().0;
        let mut state = handle.state.borrow_mut();
        if state.headers_left == 0 {
            // What they make is looked at first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut state.io).poll_read(cx, buf))?;
        let now_ms = handle.now_ms.get();
        handle.last_read_ms.set(now_ms);
        let seen = state.see_inbound(&buf.filled()[before..], now_ms, &handle.has_streams);
        Poll::Ready(seen)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .0
            .state
            .borrow_mut()
            .poll_put(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().0.state.borrow_mut().poll_put(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.get_mut().0.state.borrow_mut();
        if state.deferred {
            Poll::Ready(Ok(()))
        } else {
            state.poll_drain(cx)
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_judged_as_grpc_go_does() {
        let mut policy = PingPolicy::new(5_000);
        assert!(
            !policy.is_one_too_many(0, true),
            "the first is always in turn"
        );
        assert!(!policy.is_one_too_many(1_000, true));
        assert!(!policy.is_one_too_many(2_000, true));
        assert!(
            policy.is_one_too_many(3_000, true),
            "the third out of turn is one too many"
        );
        let mut policy = PingPolicy::new(5_000);
        for at in 0..100 {
            assert!(
                !policy.is_one_too_many(at * 5_000, true),
                "in turn for ever"
            );
        }
        let mut policy = PingPolicy::new(5_000);
        for at in 0..3 {
            assert!(!policy.is_one_too_many(at * 60_000, false));
        }
        assert!(
            policy.is_one_too_many(180_000, false),
            "without streams a minute is out of turn"
        );
    }

    #[test]
    fn a_ping_after_an_answer_is_not_judged_and_one_without_a_minimum_is_by_the_usual_one() {
        let mut policy = PingPolicy::new(0);
        for at in [0, 1, 2] {
            assert!(!policy.is_one_too_many(at, true));
        }
        policy.forgive();
        for at in [3, 4, 5] {
            assert!(
                !policy.is_one_too_many(at, true),
                "the first is free, then two strikes"
            );
        }
        assert!(policy.is_one_too_many(PING_MIN_MS, true));
    }

    #[test]
    fn answering_forgives() {
        let mut policy = PingPolicy::new(5_000);
        for at in 0..1_000 {
            assert!(!policy.is_one_too_many(at, true));
            policy.forgive();
        }
    }

    /// Writes to a connection and says whether what is gathered then may wait for company.
    fn may_linger_after(state: &mut State<tokio::io::Empty>, bytes: &[u8]) -> bool {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let written = state.poll_put(cx, &[IoSlice::new(bytes)]);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == bytes.len()));
        let may_linger = !state.is_urgent;
        assert!(state.poll_drain(cx).is_ready());
        may_linger
    }

    #[test]
    fn answers_to_pings_wait_for_company_and_rests_of_frames_do_not() {
        let handle = WireHandle::new(tokio::io::empty(), PingPolicy::new(0), Rc::default());
        let state = &mut *handle.state.borrow_mut();
        let pong = b"\0\0\x08\x06\x01\0\0\0\0pingpong";
        let data = b"\0\0\x04\0\0\0\0\0\x01data";
        assert!(may_linger_after(state, pong));
        assert!(!may_linger_after(state, data));
        assert!(!may_linger_after(state, &data[..11]));
        assert!(!may_linger_after(state, &data[11..]));
        assert!(may_linger_after(state, pong));
    }
}
