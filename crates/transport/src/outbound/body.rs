//! Bodies of requests.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

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

/// The message, then the image in pieces.
pub(crate) struct SnapshotBody {
    head: Option<Bytes>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Checksum of what went, if it is to follow the image.
    hasher: Option<crc32fast::Hasher>,
}

impl SnapshotBody {
    pub(crate) fn new(
        head: Bytes,
        pieces: mpsc::Receiver<io::Result<Bytes>>,
        sealed: bool,
    ) -> Self {
        Self {
            head: Some(head),
            pieces,
            hasher: sealed.then(crc32fast::Hasher::new),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.head.take() {
            Some(head) => Some(Ok(head)),
            None => std::task::ready!(self.pieces.poll_recv(cx)),
        };
        let piece = match piece {
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
}
