//! Takes a snapshot: its message, then the database's image, or what comes in its place, into a store.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::sync::mpsc;

use super::answer::{Answer, Refused, error, method_not_allowed, no_content};
use super::raft::{check_message, is_kindred, is_paused};
use super::route::{check_sender, next_data, remember_sender};
use crate::codec::{Decoder, StreamKind};
use crate::headers::{CLUSTER_ID, TRAILING, checksum_in};
use crate::metrics::{Counters, Gauge};
use crate::outbound::snapshot_index;
use crate::shared::Shared;
use crate::{Error, ImageStore, SnapshotForm};

/// Longest message in front of an image.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/http.go `snapshotLimitByte`.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Snapshots received at the same time; each takes a thread that may block. More are refused, and sent again.
pub(crate) const RECEIVED_MAX: usize = 4;

/// Pieces of an image on the way to the disk.
const PIECES_AHEAD_MAX: usize = 8;

/// Takes a snapshot: `POST /raft/snapshot`.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/http.go `snapshotHandler`.
pub(super) async fn receive(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let nobody = shared.registry.of_sender(None);
    if request.method() != Method::POST {
        nobody.snapshot_receive_failures.add(1);
        return method_not_allowed(Some("POST"));
    }
    let mut answer = match check_sender(shared, &request) {
        Ok(()) => take(shared, request).await,
        Err(refused) => {
            nobody.snapshot_receive_failures.add(1);
            *refused
        }
    };
    let headers = answer.headers_mut();
    headers.insert(CLUSTER_ID, shared.identity.cluster.clone());
    answer
}

async fn take(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let began = Instant::now();
    remember_sender(shared, &request);
    let sealed = match checksum_in(request.headers()) {
        Ok(None) => false,
        Ok(Some(value)) if *value == TRAILING => true,
        _ => return error(StatusCode::BAD_REQUEST, "headers of a snapshot"),
    };
    let mut seal = Seal::new(sealed);
    let mut body = request.into_body();
    let (message, rest) = match read_message(shared, &mut body, &mut seal).await {
        Ok(read) => read,
        Err(cause) => {
            let nobody = shared.registry.of_sender(None);
            nobody.received_failures.add(1);
            nobody.snapshot_receive_failures.add(1);
            tracing::warn!(error = %cause, "failed to decode Raft message");
            let text = match cause {
                Error::TooLarge { .. } => "rafthttp: error limit exceeded".to_owned(),
                Error::Closed => "unexpected EOF".to_owned(),
                cause => cause.to_string(),
            };
            let text = format!("failed to decode raft message ({text})");
            return error(StatusCode::BAD_REQUEST, text);
        }
    };
    let from = MemberId(message.from());
    let counters = shared.registry.of_sender(Some(from));
    if let Err(refused) = check(shared, &message).and_then(|()| seal.must_be(shared, from)) {
        counters.snapshot_receive_failures.add(1);
        return *refused;
    }
    if is_paused(shared, from) {
        return error(StatusCode::SERVICE_UNAVAILABLE, "paused");
    }
    let index = snapshot_index(&message);
    tracing::info!(
        "remote-snapshot-sender-id" = %from,
        "incoming-snapshot-index" = index,
        "receiving database snapshot"
    );
    let _inflight = Gauge::enter(&counters, |counters| &counters.snapshots_being_received);
    match store(shared, body, rest, seal, message, &counters).await {
        Ok(form) => {
            let took = began.elapsed();
            tracing::info!(
                "remote-snapshot-sender-id" = %from,
                "incoming-snapshot-index" = index,
                %form,
                "download-took" = ?took,
                "received and saved database snapshot"
            );
            counters.snapshot_was_received(took);
            no_content()
        }
        Err(cause) => {
            counters.snapshot_receive_failures.add(1);
            tracing::warn!(
                "remote-snapshot-sender-id" = %from,
                "incoming-snapshot-index" = index,
                error = %cause,
                "failed to save incoming database snapshot"
            );
            let text = format!("failed to save KV snapshot ({cause})");
            error(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// Refuses what is no snapshot for this member, before anything is stored.
fn check(shared: &Shared, message: &Message) -> Result<(), Refused> {
    if message.r#type() != MessageType::MsgSnap {
        let refused = error(StatusCode::BAD_REQUEST, "wrong raft message type");
        return Err(Box::new(refused));
    }
    check_message(shared, message).map_err(|why| {
        let text = format!("failed to process raft message ({why})");
        Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, text))
    })?;
    if snapshot_index(message) == 0 {
        let text = "failed to decode raft message (no index)";
        return Err(Box::new(error(StatusCode::BAD_REQUEST, text)));
    }
    Ok(())
}

/// Reads the message and returns it with what came of the image already.
async fn read_message(
    shared: &Shared,
    body: &mut Incoming,
    seal: &mut Seal,
) -> Result<(Message, Bytes), Error> {
    let nobody = MemberId(0);
    let mut decoder = Decoder::new(StreamKind::Message, shared.identity.member_id, nobody)
        .with_limit(MESSAGE_BYTES_MAX);
    loop {
        if let Some(message) = decoder.next()? {
            return Ok((message, decoder.into_rest().freeze()));
        }
        match next_data(body, shared.config.snapshot_timeout).await? {
            Some(data) => decoder.push(&seal.pass(&data)),
            None => return Err(Error::Closed),
        }
    }
}

/// Takes the checksum off the end of what comes, if there is one.
struct Seal {
    hasher: Option<crc32fast::Hasher>,
    /// The last bytes that came, which may be the checksum.
    held: BytesMut,
}

impl Seal {
    const BYTES: usize = 4;

    fn new(sealed: bool) -> Self {
        Self {
            hasher: sealed.then(crc32fast::Hasher::new),
            held: BytesMut::new(),
        }
    }

    /// Refuses an image without a checksum from a member that has them.
    fn must_be(&self, shared: &Shared, from: MemberId) -> Result<(), Refused> {
        if self.hasher.is_none() && is_kindred(shared, from) {
            let refused = error(StatusCode::BAD_REQUEST, "snapshot without a checksum");
            return Err(Box::new(refused));
        }
        Ok(())
    }

    /// Returns what is certain to be no checksum.
    fn pass(&mut self, data: &Bytes) -> Bytes {
        let Some(hasher) = &mut self.hasher else {
            return data.clone();
        };
        self.held.extend_from_slice(data);
        let certain = self.held.len().saturating_sub(Self::BYTES);
        let passed = self.held.split_to(certain).freeze();
        hasher.update(&passed);
        passed
    }

    fn check(self) -> Result<(), Error> {
        let expected = self.hasher.map(|hasher| hasher.finalize().to_be_bytes());
        if expected.is_some_and(|expected| self.held[..] != expected) {
            return Err(Error::Malformed("checksum of a snapshot"));
        }
        Ok(())
    }
}

/// Says whether what comes after the headers of a snapshot is taken for whole, given with its checksum and in pieces.
pub(crate) fn is_taken(sealed: &[u8], piece_bytes: usize) -> bool {
    let mut seal = Seal::new(true);
    for piece in sealed.chunks(piece_bytes.max(1)) {
        seal.pass(&Bytes::copy_from_slice(piece));
    }
    seal.check().is_ok()
}

/// What the writing thread is told.
enum Piece {
    Data(Bytes),
    /// The body came to its end, whole.
    End,
}

/// Stores an image, hands it on with its message, and tells in what form it came. Nothing is left of one that breaks off.
async fn store(
    shared: &Shared,
    mut body: Incoming,
    rest: Bytes,
    mut seal: Seal,
    message: Message,
    counters: &Counters,
) -> Result<SnapshotForm, Error> {
    let Ok(_permit) = shared.receiving.try_acquire() else {
        return Err(Error::Io(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "too many snapshots are being received",
        )));
    };
    let (pieces, queue) = mpsc::channel(PIECES_AHEAD_MAX);
    let (images, receiver) = (Arc::clone(&shared.store), Arc::clone(&shared.receiver));
    let writing = tokio::task::spawn_blocking(move || {
        let (image, form) = write(&*images, queue, snapshot_index(&message))?;
        // Here, since nobody may be waiting for the answer any more; what was kept is then still somebody's.
        receiver.snapshot(message, image);
        Ok::<_, io::Error>(form)
    });
    let passing = async move {
        let mut data = Some(rest);
        while let Some(piece) = data {
            counters.received_bytes.add(piece.len());
            // The writer is gone when it failed; its error says why.
            if !piece.is_empty() && pieces.send(Piece::Data(piece)).await.is_err() {
                return Ok(());
            }
            let next = next_data(&mut body, shared.config.snapshot_timeout).await?;
            data = next.map(|data| seal.pass(&data));
        }
        seal.check()?;
        let _ = pieces.send(Piece::End).await;
        Ok(())
    };
    let passed: Result<(), Error> = passing.await;
    // The queue is closed now, so the writer ends; only then is it certain that nothing is left.
    let written = writing.await.map_err(|_| Error::Stopped)?;
    passed?;
    Ok(written?)
}

fn write(
    images: &dyn ImageStore,
    mut queue: mpsc::Receiver<Piece>,
    index: u64,
) -> io::Result<(PathBuf, SnapshotForm)> {
    let mut image = images.create()?;
    let mut is_empty = true;
    loop {
        match queue.blocking_recv() {
            Some(Piece::Data(data)) => {
                image.append(&data)?;
                is_empty = false;
            }
            Some(Piece::End) if is_empty => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no image"));
            }
            Some(Piece::End) => {
                let form = image.form();
                return Ok((image.keep(index)?, form));
            }
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the image breaks off",
                ));
            }
        }
    }
}
