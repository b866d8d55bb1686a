//! `Maintenance.Snapshot`: the database as etcd's image, streamed.
use std::io::Read as _;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use quorate_auth::Operation;
use quorate_core::{ImageError, ImageHash, ImageMeasure, ImageStream};
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode};
use crate::background::Pace;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::seam::{Inbound, Outbound};
use crate::status::{Code, Status};

/// Bytes of the image in a message. Source: etcd v3.7.1 server/etcdserver/api/v3rpc/maintenance.go `snapshotSendBufferSize`.
const CHUNK_BYTES: usize = 32 << 10;
/// Messages made at a time, beside the connection thread; as much is in memory for each snapshot under way. Few: while many are
/// written to the client and it takes them in, other calls wait.
const CHUNKS_MAX: usize = 4;

/// An image on its way.
struct Sending {
    image: ImageStream,
    hash: ImageHash,
    remaining: u64,
    version: String,
}

/// Sends the image in messages of one size, then its hash.
///
/// Nothing is made that the client has no room for, and nothing is read on the connection's thread.
pub(super) async fn serve(
    context: Rc<Context>,
    metadata: Metadata,
    mut inbound: Inbound,
    outbound: Outbound,
) -> Result<(), Status> {
    let _: pb::SnapshotRequest = decode(inbound.only().await?)?;
    let identity = context.identity(&metadata).await?;
    context.gate(&identity, &Operation::Maintenance)?;
    let begun = Instant::now();
    let mut pace = Pace::new(context.handles.view.clone());
    let txn = context.handles.live.backend().read();
    let mut measure = ImageMeasure::new(txn.map_err(|e| failed(e.into()))?);
    loop {
        let (next, more) = pace.step(measure, ImageMeasure::step).await?;
        measure = next;
        if !more.map_err(failed)? {
            break;
        }
    }
    let mut sending = Sending::new(measure).map_err(failed)?;
    while sending.remaining > 0 {
        let (next, chunks) = pace.step(sending, Sending::step).await?;
        sending = next;
        for chunk in chunks? {
            outbound.send(Message::encode(&chunk)).await?;
        }
    }
    let hash = Bytes::copy_from_slice(&sending.hash.finish());
    let last = pb::SnapshotResponse {
        blob: hash,
        version: sending.version,
        ..pb::SnapshotResponse::default()
    };
    outbound.send(Message::encode(&last)).await?;
    context.registry.maintenance().snapshot_written(begun);
    Ok(())
}

impl Sending {
    fn new(measure: ImageMeasure) -> Result<Self, ImageError> {
        let image = measure.finish()?;
        Ok(Self {
            remaining: image.image_bytes(),
            version: image.storage_version()?,
            hash: ImageHash::default(),
            image,
        })
    }

    /// Makes the next messages.
    fn step(&mut self) -> Result<Vec<pb::SnapshotResponse>, Status> {
        let mut chunks = Vec::new();
        while self.remaining > 0 && chunks.len() < CHUNKS_MAX {
            let bytes =
                usize::try_from(self.remaining).map_or(CHUNK_BYTES, |all| all.min(CHUNK_BYTES));
            let mut blob = vec![0; bytes];
            let read = self.image.read_exact(&mut blob);
            read.map_err(|e| Status::new(Code::Unknown, e.to_string()))?;
            self.hash.update(&blob);
            self.remaining -= u64::try_from(bytes).unwrap_or(u64::MAX);
            chunks.push(pb::SnapshotResponse {
                header: None,
                remaining_bytes: self.remaining,
                blob: blob.into(),
                version: self.version.clone(),
            });
        }
        Ok(chunks)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands at the end of the error's way"
)]
fn failed(error: ImageError) -> Status {
    Status::new(Code::Unknown, error.to_string())
}
