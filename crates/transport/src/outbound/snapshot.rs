//! Sends a snapshot: its message, then the database's image or what is sent in its place, read as it goes.
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use quorate_proto::raftpb::Message;
use tokio::sync::{mpsc, oneshot};

use super::body::{RequestBody, SnapshotBody};
use super::pipeline::judge_post;
use super::pool::{Reply, read_whole, request};
use crate::Error;
use crate::codec::encode_message;
use crate::config::ANSWER_TIMEOUT;
use crate::headers::{TRAILING, seal};
use crate::link::Link;
use crate::metrics::Gauge;
use crate::seam::{ImageSource, OpenedImage, SnapshotForm};
use crate::shared::Shared;
use crate::url::PeerUrl;

/// Bytes of an image that are read at once.
const PIECE_BYTES: usize = 128 << 10;

/// Pieces read ahead of the link.
const PIECES_AHEAD_MAX: usize = 4;

/// Longest answer to a snapshot.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How many times the longest silence a receiver may take to store the image it has.
const STORE_PATIENCE: u32 = 10;

/// Sends one snapshot and tells raft how it went, after dropping `under_way`: raft may send the next at once.
///
/// # Cancel safety
///
/// Cancel safe for the peer, which drops what it has; raft is not told then.
pub(crate) async fn send_snapshot<T>(
    shared: Arc<Shared>,
    link: Arc<Link>,
    message: Message,
    under_way: T,
) {
    let began = Instant::now();
    let inflight = Gauge::enter(&link.counters, |counters| &counters.snapshots_being_sent);
    let index = snapshot_index(&message);
    let url = link.picker.pick();
    let sent = post(&shared, &link, &url, message).await;
    link.note_snapshot(sent.is_ok());
    drop(inflight);
    drop(under_way);
    match sent {
        Ok(Sent { form, bytes }) => {
            link.activate();
            tracing::info!(
                "snapshot-index" = index,
                "remote-peer-id" = %link.id,
                %form,
                bytes,
                "sent database snapshot"
            );
            link.counters
                .sent_bytes
                .add(usize::try_from(bytes).unwrap_or(usize::MAX));
            link.counters.snapshot_was_sent(began.elapsed());
            link.receiver.snapshot_sent(link.id, true);
        }
        Err(error) => {
            tracing::warn!(
                "snapshot-index" = index,
                "remote-peer-id" = %link.id,
                error = %error,
                "failed to send database snapshot"
            );
            link.picker.failed(&url);
            link.deactivate("post", "sendMsgSnap", &error);
            link.counters.snapshot_send_failures.add(1);
            link.lost(1);
            link.receiver.snapshot_sent(link.id, false);
        }
    }
}

/// Returns the raft index a snapshot's message stands for.
pub(crate) fn snapshot_index(message: &Message) -> u64 {
    let metadata = message
        .snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.metadata.as_ref());
    metadata.map_or(0, |metadata| metadata.index())
}

/// What has arrived.
struct Sent {
    form: SnapshotForm,
    bytes: u64,
}

async fn post(
    shared: &Shared,
    link: &Link,
    url: &PeerUrl,
    message: Message,
) -> Result<Sent, Error> {
    let index = snapshot_index(&message);
    let takes_checksums = || shared.config.checksums && link.takes_checksums();
    let to_kindred = takes_checksums() && !link.snapshot_failed();
    let Reading {
        form,
        bytes,
        pieces: queue,
        read,
        ended,
    } = Reading::begin(&shared.images, index, to_kindred).await?;
    // A member of etcd would store a checksum behind the image as a part of it. Which it is may have come out meanwhile.
    let sealed = takes_checksums();
    tracing::info!(
        "snapshot-index" = index,
        "remote-peer-id" = %link.id,
        %form,
        bytes,
        to = %url,
        "sending database snapshot"
    );
    let mut head = encode_message(message);
    let head = head.copy_to_bytes(head.remaining());
    let head_bytes = head.len() as u64;
    let body = SnapshotBody::new(head, queue, sealed);
    let mut headers = shared.identity.request_headers();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if sealed {
        seal(&mut headers, TRAILING);
    }
    let stall_max = shared.config.snapshot_timeout;
    let mut sender = shared.pool.dial_patiently(url, stall_max).await?;
    let body = RequestBody::Snapshot(Box::new(body));
    let request = request(url, Method::POST, "/raft/snapshot", headers, body)?;
    // While the image is under way only a stalled write ends the wait; the time to store it counts from its last byte.
    let mut answer = std::pin::pin!(sender.send_request(request));
    let patience = shared.config.snapshot_timeout * STORE_PATIENCE;
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        () = stored_too_late(ended, patience) => {
            return Err(Error::TimedOut("the snapshot is not acknowledged"));
        }
    };
    let (parts, body) = answer.into_parts();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, read_whole(body, ANSWER_BYTES_MAX))
        .await
        .map_err(|_| Error::TimedOut("the answer does not end"))??;
    let reply = Reply {
        status: parts.status,
        headers: parts.headers,
        body,
    };
    judge_post(shared, &reply, shared.identity.member_id)?;
    let bytes = head_bytes + read.load(Ordering::Relaxed);
    Ok(Sent { form, bytes })
}

/// An image that a thread of its own reads.
struct Reading {
    form: SnapshotForm,
    bytes: Option<u64>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes that were read.
    read: Arc<AtomicU64>,
    /// Closed when the thread is at the image's end.
    ended: oneshot::Receiver<()>,
}

impl Reading {
    /// Opens the image of a snapshot and reads ahead. Without a reader of the pieces the thread ends at its next one.
    async fn begin(
        images: &Arc<dyn ImageSource>,
        index: u64,
        to_kindred: bool,
    ) -> Result<Self, Error> {
        let images = Arc::clone(images);
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        let (opened, is_opened) = oneshot::channel();
        let (pieces, queue) = mpsc::channel(PIECES_AHEAD_MAX);
        let (end, ended) = oneshot::channel();
        let named = thread::Builder::new().name("image".to_owned());
        named.spawn(move || {
            let _end = end;
            // Whoever is not there any more needs neither the image nor why there is none.
            match images.open(index, to_kindred) {
                Ok(OpenedImage { form, bytes, body }) => {
                    if opened.send(Ok((form, bytes))).is_ok() {
                        read_image(bytes, body, &pieces, &count);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        })?;
        let (form, bytes) = is_opened.await.map_err(|_| Error::Stopped)??;
        Ok(Self {
            form,
            bytes,
            pieces: queue,
            read,
            ended,
        })
    }
}

/// Ends when the image was read and then stored for too long.
async fn stored_too_late(ended: oneshot::Receiver<()>, patience: Duration) {
    // How the reading ended is seen in the body.
    let _ = ended.await;
    tokio::time::sleep(patience).await;
}

/// Reads an image to its end, the announced one if there is one, and passes it on in pieces; an image that is shorter or longer
/// is an error, which breaks the request off, so that the receiver cannot take it for whole.
fn read_image(
    bytes: Option<u64>,
    mut image: Box<dyn Read + Send>,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    count: &AtomicU64,
) {
    let mut left = bytes;
    loop {
        let piece = match read_piece(&mut image, left) {
            Ok(piece) if piece.is_empty() => return,
            Ok(piece) => piece,
            Err(error) => {
                // A receiver that is gone has ended the request already.
                let _ = pieces.blocking_send(Err(error));
                return;
            }
        };
        let piece_bytes = piece.len() as u64;
        left = left.map(|left| left - piece_bytes);
        count.fetch_add(piece_bytes, Ordering::Relaxed);
        if pieces.blocking_send(Ok(piece)).is_err() {
            return;
        }
    }
}

fn read_piece(image: &mut dyn Read, left: Option<u64>) -> io::Result<Bytes> {
    // One byte more than announced is asked for, to see that nothing follows.
    let wanted = left.and_then(|left| usize::try_from(left + 1).ok());
    let wanted = wanted.map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
    let mut piece = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match image.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let filled_bytes = filled as u64;
    let is_wrong = |left| filled_bytes > left || (filled < wanted && filled_bytes < left);
    if left.is_some_and(is_wrong) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the image is not as long as announced",
        ));
    }
    piece.truncate(filled);
    Ok(Bytes::from(piece))
}
