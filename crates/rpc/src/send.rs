//! Bytes on their way out: gathered from pieces without copying them, and counted until they have left.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;

use crate::beside::{ROOMY_BYTES, Room, try_room};
use crate::message::{Message, Piece};

/// What a reader that does not keep up may make grow at one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GaugeLimits {
    /// From here on everyone who can wait waits.
    pub(crate) pause_bytes: usize,
    /// Beyond this the connection is cut: answers that cannot wait pile up. What has room of its own does not count.
    pub(crate) cut_bytes: usize,
}

impl GaugeLimits {
    const NONE: Self = Self {
        pause_bytes: usize::MAX,
        cut_bytes: usize::MAX,
    };
}

/// What a connection may have unsent when the whole thread has too much, before it is cut.
const SHARE_BYTES: usize = 256 * 1024;

/// Counts bytes that are held until a reader takes them; what it counts, its parent counts too.
#[derive(Debug)]
pub(crate) struct Gauge {
    bytes: Cell<usize>,
    /// Those of `bytes` that have no room of their own.
    roomless: Cell<usize>,
    /// All bytes that ever went out, for telling whether anything moves.
    sent: Cell<u64>,
    limits: GaugeLimits,
    is_cut: Cell<bool>,
    parent: Option<Rc<Gauge>>,
    waker: RefCell<Option<Waker>>,
    /// Those below that wait for the pause to end. **Limit:** one for each call of the connection.
    paused: RefCell<Vec<Rc<Gauge>>>,
    /// Whether this one is among its parent's.
    is_in_line: Cell<bool>,
}

impl Gauge {
    pub(crate) fn new(parent: Option<Rc<Gauge>>) -> Rc<Self> {
        Self::with(parent, GaugeLimits::NONE)
    }

    pub(crate) fn with(parent: Option<Rc<Gauge>>, limits: GaugeLimits) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            roomless: Cell::new(0),
            sent: Cell::new(0),
            limits,
            is_cut: Cell::new(false),
            parent,
            waker: RefCell::new(None),
            paused: RefCell::default(),
            is_in_line: Cell::new(false),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Returns how many bytes went out so far; wraps around.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    fn count_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get().wrapping_add(bytes as u64));
        if let Some(parent) = &self.parent {
            parent.count_sent(bytes);
        }
    }

    /// Says whether more is unsent than may ever be.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Says whether nothing more is to be made for the reader until it has taken some.
    ///
    /// Whoever reads everything at once is never held up by others that do not.
    pub(crate) fn is_paused(&self) -> bool {
        let bytes = self.bytes.get();
        let is_over = |gauge: &Self| gauge.bytes.get() >= gauge.limits.pause_bytes;
        is_over(self) || (bytes > 0 && self.parent.as_deref().is_some_and(is_over))
    }

    /// Becomes ready once fewer than `max` bytes are held here, and the parent is not paused; one waiter at a time.
    pub(crate) fn poll_below(self: &Rc<Self>, cx: &mut Context<'_>, max: usize) -> Poll<()> {
        if self.bytes.get() >= max {
            self.wake_on_release(cx.waker());
            return Poll::Pending;
        }
        if let Some(parent) = self.parent.as_deref().filter(|parent| parent.is_paused()) {
            self.wake_on_release(cx.waker());
            if !self.is_in_line.replace(true) {
                parent.paused.borrow_mut().push(self.clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Remembers whom to wake when bytes are released.
    pub(crate) fn wake_on_release(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Counts `bytes` until the permit is dropped.
    pub(crate) fn hold(self: &Rc<Self>, bytes: usize) -> Permit {
        self.hold_as(bytes, false)
    }

    /// Counts `bytes`, which may have room of their own, until the permit is dropped.
    fn hold_as(self: &Rc<Self>, bytes: usize, has_room: bool) -> Permit {
        self.add(bytes, has_room);
        Permit {
            gauge: self.clone(),
            bytes,
            has_room,
        }
    }

    fn add(&self, bytes: usize, has_room: bool) {
        self.bytes.set(self.bytes.get() + bytes);
        if !has_room {
            self.roomless.set(self.roomless.get() + bytes);
        }
        if let Some(parent) = &self.parent {
            parent.add(bytes, has_room);
        }
        if self.is_beyond(self.limits.cut_bytes) {
            self.is_cut.set(true);
        }
    }

    fn is_beyond(&self, cut_bytes: usize) -> bool {
        let is_parent_beyond = |parent: &Self| parent.roomless.get() > parent.limits.cut_bytes;
        self.roomless.get() > cut_bytes
            || (self.roomless.get() > SHARE_BYTES
                && self.parent.as_deref().is_some_and(is_parent_beyond))
    }

    fn sub(&self, bytes: usize, has_room: bool) {
        let less = |cell: &Cell<usize>| {
            let now = cell.get().checked_sub(bytes);
            cell.set(now.expect("a permit gives back what it took"));
        };
        less(&self.bytes);
        if !has_room {
            less(&self.roomless);
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        if let Some(parent) = &self.parent {
            parent.sub(bytes, has_room);
        }
        self.end_pause();
    }

    /// Wakes those that wait for the pause to end. It ends some way below where it began, so that not all of them are
    /// woken again and again for nothing.
    fn end_pause(&self) {
        if self.paused.borrow().is_empty() {
            return;
        }
        let bytes = self.bytes.get();
        if bytes == 0 || (bytes <= self.limits.pause_bytes / 2 && !self.is_paused()) {
            let paused = std::mem::take(&mut *self.paused.borrow_mut());
            for gauge in paused {
                gauge.is_in_line.set(false);
                let waker = gauge.waker.borrow_mut().take();
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// Bytes counted by a [`Gauge`] for as long as this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    gauge: Rc<Gauge>,
    bytes: usize,
    has_room: bool,
}

impl Permit {
    /// Changes how many bytes are counted.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.gauge.add(bytes - self.bytes, self.has_room);
        } else if bytes < self.bytes {
            self.gauge.sub(self.bytes - bytes, self.has_room);
        }
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.gauge.sub(self.bytes, self.has_room);
        }
    }
}

/// The payload of data frames: a message's pieces, counted until the connection has written or dropped them.
#[derive(Debug)]
pub(crate) struct SendBuf {
    pieces: VecDeque<Piece>,
    /// **Invariant:** the sum of the pieces' lengths; no piece is empty.
    remaining: usize,
    permit: Permit,
    _room: Option<Arc<Room>>,
}

impl SendBuf {
    pub(crate) fn new(message: Message, gauge: &Rc<Gauge>) -> Self {
        let remaining = message.wire_len();
        let (pieces, room) = message.into_parts();
        let room = room.or_else(|| {
            let is_roomy = remaining >= ROOMY_BYTES;
            is_roomy
                .then(|| try_room(remaining))
                .flatten()
                .map(Arc::new)
        });
        let pieces: VecDeque<Piece> = pieces.into();
        debug_assert_eq!(
            pieces.iter().map(Piece::len).sum::<usize>(),
            remaining,
            "a message knows its length"
        );
        Self {
            pieces,
            remaining,
            permit: gauge.hold_as(remaining, room.is_some()),
            _room: room,
        }
    }
}

impl Buf for SendBuf {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        match self.pieces.front().map(Piece::parts) {
            None => &[],
            Some(([], shared)) => shared,
            Some((own, _)) => own,
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for piece in &self.pieces {
            let (own, shared) = piece.parts();
            for part in [own, shared] {
                let Some(slot) = dst.get_mut(filled) else {
                    return filled;
                };
                if !part.is_empty() {
                    *slot = IoSlice::new(part);
                    filled += 1;
                }
            }
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "cannot advance past the end");
        self.remaining -= count;
        self.permit.gauge.count_sent(count);
        while count > 0 {
            let front = self.pieces.front_mut().expect("pieces hold what remains");
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::message::Gather;

    #[test]
    fn payload_is_counted_until_it_is_dropped() {
        let root = Gauge::new(None);
        let gauge = Gauge::new(Some(root.clone()));
        let mut gather = Gather::with_capacity(0);
        gather.begin(10_000);
        gather.splice(&Bytes::from(vec![1_u8; 10_000]));
        let mut buf = SendBuf::new(gather.finish(), &gauge);
        assert_eq!((gauge.bytes(), root.bytes()), (10_005, 10_005));
        buf.advance(7_000);
        assert_eq!(buf.remaining(), 3_005);
        assert_eq!((gauge.sent(), root.sent()), (7_000, 7_000));
        drop(buf);
        assert_eq!((gauge.bytes(), root.bytes()), (0, 0));
    }

    /// A thread, one of its connections, and two streams on that.
    fn tree() -> (Rc<Gauge>, Rc<Gauge>, [Rc<Gauge>; 2]) {
        let limits = |pause_bytes, cut_bytes| GaugeLimits {
            pause_bytes,
            cut_bytes,
        };
        let thread = Gauge::with(None, limits(2_000_000, 4_000_000));
        let connection = Gauge::with(Some(thread.clone()), limits(1_000, 3_000_000));
        let stream = || Gauge::new(Some(connection.clone()));
        let streams = [stream(), stream()];
        (thread, connection, streams)
    }

    fn is_ready(gauge: &Rc<Gauge>, count: &Arc<Wakes>) -> bool {
        let waker = Waker::from(count.clone());
        gauge
            .poll_below(&mut Context::from_waker(&waker), 500)
            .is_ready()
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_stream_waits_for_its_connection_to_have_room_as_well() {
        let (_, connection, [one, two]) = tree();
        let wakes = Arc::new(Wakes::default());
        let first = one.hold(400);
        assert!(is_ready(&two, &wakes));
        let second = two.hold(300);
        let third = connection.hold(300);
        assert!(connection.is_paused());
        for _ in 0..3 {
            assert!(!is_ready(&one, &wakes) && !is_ready(&two, &wakes));
        }
        assert_eq!(connection.paused.borrow().len(), 2, "once each");
        drop(third);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "the pause is not over");
        drop(first);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
        assert!(is_ready(&one, &wakes) && is_ready(&two, &wakes));
        drop(second);
    }

    #[test]
    fn a_full_thread_pauses_those_who_have_something_unread_and_nobody_else() {
        let (thread, connection, [one, _]) = tree();
        let wakes = Arc::new(Wakes::default());
        let others = thread.hold(2_000_000);
        assert!(is_ready(&one, &wakes) && !connection.is_paused());
        let held = one.hold(1);
        assert!(!is_ready(&one, &wakes) && connection.is_paused());
        drop(held);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(is_ready(&one, &wakes));
        drop(others);
    }

    #[test]
    fn answers_that_pile_up_unread_cut_their_connection() {
        let (thread, connection, [one, two]) = tree();
        let held: Vec<_> = (0..3).map(|_| one.hold(1_000_000)).collect();
        assert!(!connection.is_cut());
        let roomy = two.hold_as(50_000_000, true);
        assert!(!connection.is_cut() && !thread.is_cut());
        let more = two.hold(1);
        assert!(connection.is_cut());
        drop((held, roomy, more));

        let (thread, connection, [one, _]) = tree();
        let others = thread.hold(4_000_000);
        let fair = one.hold(SHARE_BYTES);
        assert!(!connection.is_cut(), "what is fair may wait");
        let more = one.hold(1);
        assert!(connection.is_cut());
        drop((others, fair, more));
    }

    #[test]
    fn payload_reads_the_same_piece_by_piece_and_gathered() {
        let gauge = Gauge::new(None);
        let value = Bytes::from((0..=255).cycle().take(5_000).collect::<Vec<u8>>());
        let build = || {
            let mut gather = Gather::with_capacity(4);
            gather.begin(2 * value.len() + 7);
            gather.put_slice(b"ab");
            gather.splice(&value);
            gather.splice_field(8, &value);
            gather.put_slice(b"yz");
            SendBuf::new(gather.finish(), &gauge)
        };
        let mut slow = build();
        let mut bytes = Vec::new();
        while slow.has_remaining() {
            let take = slow.chunk().len().min(7);
            bytes.extend_from_slice(&slow.chunk()[..take]);
            slow.advance(take);
        }
        let mut slices = [IoSlice::new(&[]); 8];
        let fast = build();
        let filled = fast.chunks_vectored(&mut slices);
        let gathered: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(bytes, gathered);
        assert_eq!(bytes.len(), 10_012);
        assert_eq!(bytes[5_007..5_010], [8, 0x88, 0x27]);
    }
}
