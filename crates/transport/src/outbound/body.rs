//! Bodies of requests.
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::pace::Pace;

/// What a request carries.
pub(crate) enum RequestBody {
    /// Bytes that are there, sent with their length.
    Whole(Option<Bytes>),
    /// A snapshot, in pieces as they are read.
    Snapshot(Box<SnapshotBody>),
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        RequestBody::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            RequestBody::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            RequestBody::Snapshot(body) => body.poll_piece(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, RequestBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            RequestBody::Snapshot(_) => SizeHint::default(),
        }
    }
}

/// The message, then the image in pieces, at a rate.
pub(crate) struct SnapshotBody {
    head: Option<Bytes>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    pace: Arc<Pace>,
    /// Checksum of what went, if it is to follow the image.
    hasher: Option<crc32fast::Hasher>,
    /// A piece that must not go before its time.
    waiting: Option<(Bytes, Pin<Box<Sleep>>)>,
}

impl SnapshotBody {
    pub(crate) fn new(
        head: Bytes,
        pieces: mpsc::Receiver<io::Result<Bytes>>,
        pace: Arc<Pace>,
        sealed: bool,
    ) -> Self {
        Self {
            head: Some(head),
            pieces,
            pace,
            hasher: sealed.then(crc32fast::Hasher::new),
            waiting: None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match std::task::ready!(self.poll_bytes(cx)) {
            Some(Ok(piece)) => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&piece);
                }
                Some(Ok(piece))
            }
            // Nothing follows an image that broke off: its receiver must see that.
            Some(Err(error)) => {
                self.hasher = None;
                Some(Err(error))
            }
            None => self.hasher.take().map(|hasher| {
                let checksum = hasher.finalize().to_be_bytes();
                Ok(Bytes::copy_from_slice(&checksum))
            }),
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(head)));
        }
        if self.waiting.is_none() {
            let piece = match std::task::ready!(self.pieces.poll_recv(cx)) {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            match self.pace.book(piece.len()) {
                Some(at) if at > Instant::now() => {
                    self.waiting = Some((piece, Box::pin(tokio::time::sleep_until(at))));
                }
                _ => return Poll::Ready(Some(Ok(piece))),
            }
        }
        if let Some((_, sleep)) = &mut self.waiting {
            std::task::ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(self.waiting.take().map(|(piece, _)| Ok(piece)))
    }
}
