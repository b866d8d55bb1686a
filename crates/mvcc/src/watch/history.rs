use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::event_log::bytes_of;
use crate::{Error, EventKind, EventLog, EventRecord, RevisionEvents};

/// What a hub reads: the store, or a stand-in for it in tests.
pub trait History {
    /// Returns the log that the store appends to.
    fn event_log(&self) -> &EventLog;

    /// Returns the compact revision, below which history may be gone. It moves before anything is removed.
    fn compact_revision(&self) -> i64;

    /// Reads the events of revisions from `from` to `to`, exclusive, from the backend, oldest first, up to the limits
    /// but at least one revision if there is one. Revisions are whole.
    ///
    /// # Errors
    /// When the backend fails or a record is damaged.
    fn history(
        &self,
        from: i64,
        to: i64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<RevisionEvents>>, Error>;

    /// Returns the encoded pair that a key had just before a revision; none when it had none, or when that is compacted.
    ///
    /// # Errors
    /// When the backend fails or a record is damaged.
    fn value_before(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, Error>;
}

/// All events from one revision up to another.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) from: i64,
    /// Exclusive.
    pub(super) to: i64,
    pub(super) revisions: Vec<Arc<RevisionEvents>>,
}

impl Stretch {
    /// Makes a stretch of what was read from `from` on when the end was asked to be `to`.
    pub(super) fn new(from: i64, to: i64, revisions: Vec<Arc<RevisionEvents>>) -> Stretch {
        // Nothing found means there is nothing in the whole of it; else more may follow the last one found.
        let to = revisions.last().map_or(to, |last| last.main + 1);
        assert!(from < to, "a stretch from {from} to {to} leads nowhere");
        Stretch {
            from,
            to,
            revisions,
        }
    }
}

/// The stretches read last from the backend: many watchers come by one after the other.
#[derive(Debug, Default)]
pub(super) struct StretchCache {
    stretches: VecDeque<Arc<Stretch>>,
}

impl StretchCache {
    /// Most bytes kept, whatever the number of stretches.
    const BYTES_MAX: usize = 8 << 20;

    pub(super) fn find(&self, revision: i64) -> Option<Arc<Stretch>> {
        let holds = |stretch: &&Arc<Stretch>| (stretch.from..stretch.to).contains(&revision);
        self.stretches.iter().find(holds).cloned()
    }

    pub(super) fn keep(&mut self, stretch: &Arc<Stretch>, stretches_max: usize) {
        let bytes = |stretch: &Arc<Stretch>| -> usize {
            stretch
                .revisions
                .iter()
                .map(|revision| bytes_of(revision))
                .sum()
        };
        self.stretches.push_front(Arc::clone(stretch));
        self.stretches.truncate(stretches_max);
        while self.stretches.iter().map(bytes).sum::<usize>() > Self::BYTES_MAX {
            self.stretches.pop_back();
        }
    }

    pub(super) fn clear(&mut self) {
        self.stretches.clear();
    }
}

/// Pairs that events replaced, each read once.
#[derive(Debug, Default)]
pub(super) struct PreviousPairs {
    /// By the event's number.
    pairs: BTreeMap<u32, Option<Bytes>>,
}

impl PreviousPairs {
    /// Returns the pair an event replaced, if it is an event that carries one.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/api/v3rpc/watch.go` `IsCreateEvent`.
    pub(super) fn of(
        &mut self,
        source: &impl History,
        at: u32,
        event: &EventRecord,
    ) -> Result<Option<Bytes>, Error> {
        let main = event.revision.main;
        if event.kind == EventKind::Put && event.create_revision == main {
            return Ok(None);
        }
        if let Some(pair) = self.pairs.get(&at) {
            return Ok(pair.clone());
        }
        let pair = source.value_before(&event.key, main)?;
        self.pairs.insert(at, pair.clone());
        Ok(pair)
    }
}
