use std::fmt;
use std::sync::atomic::AtomicI64;

use parking_lot::RwLock;
use quorate_backend::{Backend, Revision};

use crate::hash::StoredHashes;
use crate::horizon::{Horizon, Pin};
use crate::index::KeyIndex;
use crate::view::{Stop, View};
use crate::{Error, EventLog, Options};

/// What the writer and all readers share.
pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) options: Options,
    pub(crate) index: RwLock<KeyIndex>,
    pub(crate) horizon: Horizon,
    pub(crate) event_log: EventLog,
    pub(crate) hashes: StoredHashes,
    /// The newest compaction that ended, or that had ended at the restore; -1 when there was none.
    pub(crate) finished_compaction: AtomicI64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("horizon", &self.horizon)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Reads what the caller asks for, again with a pin when a compaction gets in between.
    pub(crate) fn read<R>(
        &self,
        read: impl Fn(&View<'_>, i64, i64) -> Result<R, Stop>,
    ) -> Result<R, Error> {
        let (current, compact) = (self.horizon.current(), self.horizon.compact());
        // The compact revision was read later, so it may lie above.
        if compact <= current {
            let values = |revision: Revision| self.backend.value(revision).map_err(Error::from);
            let view = self.view(&values, Some(&self.horizon));
            match read(&view, current, compact) {
                Ok(result) => return Ok(result),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Overtaken) => {}
            }
        }
        self.read_pinned(|view, pin| read(view, pin.current, pin.compact))
    }

    /// Reads with a pin.
    pub(crate) fn read_pinned<R>(
        &self,
        read: impl FnOnce(&View<'_>, &Pin<'_>) -> Result<R, Stop>,
    ) -> Result<R, Error> {
        let pin = self.horizon.pin();
        let values = |revision: Revision| self.backend.value(revision).map_err(Error::from);
        let view = self.view(&values, None);
        read(&view, &pin).map_err(Stop::into_error)
    }

    pub(crate) fn view<'a>(
        &'a self,
        values: &'a dyn Fn(Revision) -> Result<Option<bytes::Bytes>, Error>,
        overtaken_by: Option<&'a Horizon>,
    ) -> View<'a> {
        View {
            index: &self.index,
            values,
            chunk_keys: self.options.index_chunk_keys,
            overtaken_by,
        }
    }
}
