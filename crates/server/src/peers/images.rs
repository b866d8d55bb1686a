//! The states that snapshots on their way stand for, until their images are sent.
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::SnapshotSource;
use quorate_proto::MemberId;
use quorate_transport::ImageSource;

/// Holds each state until its image is opened or a newer one for the same member comes. Cheap to clone.
///
/// A state holds up pages of the backend, so there is at most one a member.
#[derive(Clone, Default)]
pub(crate) struct States {
    waiting: Arc<Mutex<BTreeMap<MemberId, SnapshotSource>>>,
}

impl States {
    /// Keeps a state for the sender of its snapshot.
    pub(crate) fn put(&self, source: SnapshotSource) {
        self.waiting.lock().insert(source.to, source);
    }

    /// Lets go of the state for a member whose snapshot was sent or given up.
    pub(crate) fn drop_for(&self, id: MemberId) {
        self.waiting.lock().remove(&id);
    }
}

impl ImageSource for States {
    fn open(&self, index: u64) -> io::Result<(u64, Box<dyn Read + Send>)> {
        let source = {
            let mut waiting = self.waiting.lock();
            let found = waiting.iter().find(|(_, s)| s.index == index);
            let found = found.map(|(id, _)| *id);
            found.and_then(|id| waiting.remove(&id))
        };
        let source = source.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the snapshot's state is gone")
        })?;
        let stream =
            quorate_core::ImageStream::open_for_member(source.state).map_err(io::Error::other)?;
        Ok((stream.image_bytes(), Box::new(stream)))
    }
}
