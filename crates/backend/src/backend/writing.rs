//! Commits to the file: flushes and maintenance.

use super::{NOTHING_PENDING, Shared};
use crate::engine::{Engine, Snapshot};
use crate::error::Error;
use crate::layer::Layer;
use crate::maintenance::Work;
use crate::state::{Applied, State};
use crate::table::Table;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Rows that may change between two steps of a defragmentation, which ends when there are more.
const TOUCHED_ROWS_MAX: usize = 1 << 20;

/// The file, for whoever has the right to write to it.
pub(super) struct Writing {
    /// The state row as it is in the file.
    pub(super) state: State,
    pub(super) engine: Arc<Engine>,
    /// What has changed since the last step of the defragmentation under way.
    pub(super) touched: Option<Touched>,
}

/// Rows that were written or deleted, but for revisions that were appended.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) rows: BTreeSet<(Table, Bytes)>,
    /// Whether there were too many to keep.
    pub(super) overflown: bool,
}

impl Touched {
    fn add(&mut self, table: Table, key: Bytes) {
        if self.rows.len() < TOUCHED_ROWS_MAX {
            self.rows.insert((table, key));
        } else {
            self.overflown = true;
        }
    }

    fn add_layers(&mut self, layers: &[Arc<Layer>]) {
        for layer in layers {
            let layer = layer.read();
            for table in Table::ALL {
                for (key, _) in layer.newest(table) {
                    self.add(table, key.clone());
                }
            }
        }
    }

    fn add_work(&mut self, work: &Work) {
        for (table, key) in work.writes.keys() {
            self.add(*table, key.clone());
        }
        for (rev, tombstone) in &work.deleted {
            let key = rev.table_key(*tombstone);
            self.add(Table::Key, Bytes::copy_from_slice(key.as_bytes()));
        }
    }
}

/// Poisons the backend unless it is disarmed: a write that fails or panics is the last one.
pub(super) struct Fuse<'a> {
    shared: &'a Shared,
    engine: Arc<Engine>,
    armed: bool,
}

impl<'a> Fuse<'a> {
    pub(super) fn new(shared: &'a Shared, engine: &Arc<Engine>) -> Fuse<'a> {
        Fuse {
            shared,
            engine: Arc::clone(engine),
            armed: true,
        }
    }

    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.shared.poisoned.store(true, Ordering::Release);
            self.engine.pages().fail();
        }
    }
}

impl Shared {
    /// Writes sealed layers to the file and takes them out of the view.
    pub(crate) fn flush(&self, layers: &[Arc<Layer>], applied: Applied) -> Result<Applied, Error> {
        let mut file = self.file.lock();
        let (fuse, snapshot) = self.write_file(&mut file, |engine, state| {
            engine.flush(layers, applied, state)
        })?;
        if let Some(touched) = &mut file.touched {
            touched.add_layers(layers);
        }
        let flushed;
        let old;
        {
            let mut view = self.view.write();
            // What goes is dropped after the lock: it may be a lot of memory to give back.
            flushed = view.sealed.drain(..layers.len()).collect::<Vec<_>>();
            old = std::mem::replace(&mut view.snapshot, snapshot);
            view.durable = file.state;
            let last = flushed
                .iter()
                .rev()
                .find_map(|layer| layer.read().last_revision());
            view.flushed_revision = last.or(view.flushed_revision);
            self.pending_main_min
                .store(view.pending_main_min(), Ordering::Release);
        }
        fuse.disarm();
        drop((flushed, old));
        Ok(applied)
    }

    pub(crate) fn maintain(&self, work: &Work) -> Result<(), Error> {
        let mut file = self.file.lock();
        let revisions = work.last_revision();
        assert!(
            revisions.is_none() || self.view.read().pending_main_min() == NOTHING_PENDING,
            "maintenance writes revisions while others are pending"
        );
        let (fuse, snapshot) =
            self.write_file(&mut file, |engine, state| engine.maintain(work, state))?;
        if let Some(touched) = &mut file.touched {
            touched.add_work(work);
        }
        let old;
        {
            let mut view = self.view.write();
            old = std::mem::replace(&mut view.snapshot, snapshot);
            view.durable = file.state;
            view.sequence += 1;
            let sequence = view.sequence;
            // A layer that has the key would hide what was just written, and its flush would write over it.
            for ((table, key), value) in &work.writes {
                for layer in view.layers() {
                    layer.supersede(*table, key, value.as_ref(), sequence);
                }
            }
            view.last_revision = view.last_revision.max(revisions);
            view.flushed_revision = view.flushed_revision.max(revisions);
        }
        for (rev, _) in &work.deleted {
            self.cache.remove(*rev);
        }
        fuse.disarm();
        drop(old);
        Ok(())
    }

    /// Commits something to the file and begins reading the result. Whatever fails or panics, also after it until the fuse
    /// is disarmed, poisons the backend.
    pub(super) fn write_file(
        &self,
        file: &mut Writing,
        write: impl FnOnce(&Engine, State) -> Result<State, Error>,
    ) -> Result<(Fuse<'_>, Arc<Snapshot>), Error> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        let fuse = Fuse::new(self, &file.engine);
        file.state = write(&file.engine, file.state)?;
        let snapshot = Arc::new(file.engine.snapshot()?);
        Ok((fuse, snapshot))
    }
}
