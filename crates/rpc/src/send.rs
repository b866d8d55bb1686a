//! Bytes on their way out: gathered from pieces without copying them, and counted until they have left.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;

use crate::message::{Message, Piece};

/// Counts bytes that are held until a reader takes them; what it counts, its parent counts too.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    bytes: Cell<usize>,
    parent: Option<Rc<Gauge>>,
    waker: RefCell<Option<Waker>>,
}

impl Gauge {
    pub(crate) fn new(parent: Option<Rc<Gauge>>) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            parent,
            waker: RefCell::new(None),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Becomes ready once fewer than `max` bytes are held; one waiter at a time.
    pub(crate) fn poll_below(&self, cx: &mut Context<'_>, max: usize) -> Poll<()> {
        if self.bytes.get() < max {
            return Poll::Ready(());
        }
        self.wake_on_release(cx.waker());
        Poll::Pending
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
        self.add(bytes);
        Permit {
            gauge: self.clone(),
            bytes,
        }
    }

    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        if let Some(parent) = &self.parent {
            parent.add(bytes);
        }
    }

    fn sub(&self, bytes: usize) {
        let now = self.bytes.get().checked_sub(bytes);
        self.bytes
            .set(now.expect("a permit gives back what it took"));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        if let Some(parent) = &self.parent {
            parent.sub(bytes);
        }
    }
}

/// Bytes counted by a [`Gauge`] for as long as this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    gauge: Rc<Gauge>,
    bytes: usize,
}

impl Permit {
    /// Changes how many bytes are counted.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.gauge.add(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.gauge.sub(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.gauge.sub(self.bytes);
        }
    }
}

/// The payload of data frames: a message's pieces, counted until the connection has written or dropped them.
#[derive(Debug)]
pub(crate) struct SendBuf {
    pieces: VecDeque<Piece>,
    /// **Invariant:** the sum of the pieces' lengths; no piece is empty.
    remaining: usize,
    _permit: Permit,
}

impl SendBuf {
    pub(crate) fn new(message: Message, gauge: &Rc<Gauge>) -> Self {
        let remaining = message.wire_len();
        let pieces: VecDeque<Piece> = message.into_pieces().into();
        debug_assert_eq!(
            pieces.iter().map(Piece::len).sum::<usize>(),
            remaining,
            "a message knows its length"
        );
        Self {
            pieces,
            remaining,
            _permit: gauge.hold(remaining),
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
        drop(buf);
        assert_eq!((gauge.bytes(), root.bytes()), (0, 0));
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
