//! The store itself: what is in the file, and what waits to get there.

use crate::accounting::{Sizes, database_bytes};
use crate::apply::ApplyTxn;
use crate::engine::{Engine, Opened, Snapshot};
use crate::error::Error;
use crate::flush::FlushJob;
use crate::layer::Layer;
use crate::maintenance::MaintenanceTxn;
use crate::options::{Identity, Options};
use crate::read::{ReadTxn, VisibleLayer};
use crate::revision::{Revision, RevisionRow};
use crate::state::{Applied, State};
use crate::table::Table;
use crate::value_cache::ValueCache;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_disk::Disk;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

mod append;
mod defragment;
mod writing;

pub use defragment::{COPY_SUFFIX, DefragmentJob, DefragmentOptions, Defragmented, Defragmenting};
use writing::Writing;

/// The store: tables in a file, and the batches that were applied since the last flush.
///
/// A handle; clones share the store. There is one writer at a time, readers may be on any thread.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

/// What all handles share.
pub(crate) struct Shared {
    /// Guards nothing but memory: never held over input or output.
    view: RwLock<View>,
    /// Holding it is the right to write to the file.
    file: Mutex<Writing>,
    /// Whether the file's name is still this backend's. Held only while a file takes the place of another.
    named: Mutex<bool>,
    cache: ValueCache,
    /// Every pending revision has a `main` of at least this.
    pending_main_min: AtomicI64,
    apply_open: AtomicBool,
    flush_open: AtomicBool,
    poisoned: AtomicBool,
    disk: Arc<dyn Disk>,
    options: Options,
}

/// What a reader sees: the file as of the last commit, and the layers over it.
struct View {
    snapshot: Arc<Snapshot>,
    /// The oldest first; all of it is newer than the snapshot.
    sealed: Vec<Arc<Layer>>,
    open: Arc<Layer>,
    applied: Applied,
    durable: State,
    /// Number of the newest commit into a layer.
    sequence: u64,
    last_revision: Option<Revision>,
    flushed_revision: Option<Revision>,
}

/// `pending_main_min` when nothing is pending.
const NOTHING_PENDING: i64 = i64::MAX;

impl Backend {
    /// Opens the file at a path, and makes it when it does not exist and [`Options::create`] is on.
    ///
    /// How long that takes does not depend on how large the file is or whether its last user was killed.
    ///
    /// # Errors
    /// - [`Error::NotFound`], [`Error::Locked`], [`Error::ForeignFile`], [`Error::ForeignIdentity`],
    ///   [`Error::NewerFormat`]: nothing was touched.
    /// - [`Error::Corrupt`]: what is read at the opening is damaged; what is not read is verified when it is.
    /// - [`Error::Io`].
    ///
    /// # Durability
    /// A new file is whole or not there, whenever power is lost.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<Backend, Error> {
        let Opened {
            engine,
            snapshot,
            state,
            last_revision,
        } = Engine::open(&*disk, path, &options)?;
        let view = View {
            snapshot: Arc::new(snapshot),
            sealed: Vec::new(),
            open: Arc::default(),
            applied: state.applied,
            durable: state,
            sequence: 0,
            last_revision,
            flushed_revision: last_revision,
        };
        Ok(Backend {
            shared: Arc::new(Shared {
                view: RwLock::new(view),
                file: Mutex::new(Writing {
                    state,
                    engine,
                    touched: None,
                }),
                named: Mutex::new(true),
                cache: ValueCache::new(options.value_cache_bytes),
                pending_main_min: AtomicI64::new(NOTHING_PENDING),
                apply_open: AtomicBool::new(false),
                flush_open: AtomicBool::new(false),
                poisoned: AtomicBool::new(false),
                disk,
                options,
            }),
        })
    }

    /// Returns whose file it is.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.shared.view.read().snapshot.engine().pages().identity()
    }

    /// Returns how far the log is applied, what waits for its flush included.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.shared.view.read().applied
    }

    /// Returns how far the log is applied in what a crash keeps. The log may be cut up to that index and no further.
    #[must_use]
    pub fn durable(&self) -> Applied {
        self.shared.view.read().durable.applied
    }

    /// Returns the newest revision in the file; compaction deletes nothing newer.
    #[must_use]
    pub fn flushed_revision(&self) -> Option<Revision> {
        self.shared.flushed_revision()
    }

    /// Begins the transaction that brings the backend to a log index; the index it is at already is allowed.
    ///
    /// After a failed flush this goes on working, in memory: nothing is lost by it, since the log has all of it, and whoever
    /// ran the flush has the error that ends the member.
    ///
    /// # Panics
    /// When the index or the term goes back, or when a transaction is open already.
    #[must_use]
    pub fn begin_apply(&self, index: u64, term: u64) -> ApplyTxn {
        let before = self.applied();
        assert!(
            index >= before.index && term >= before.term,
            "entry {index} of term {term} is applied after {before:?}"
        );
        let open = self.shared.apply_open.swap(true, Ordering::AcqRel);
        assert!(!open, "two transactions apply at the same time");
        ApplyTxn::new(Arc::clone(&self.shared), index, term)
    }

    /// Begins reading what is committed now.
    ///
    /// # Errors
    /// None today; reading itself is where the file can fail.
    pub fn read(&self) -> Result<ReadTxn, Error> {
        Ok(self.shared.read())
    }

    /// Returns the record of a revision, be it pending, cached or in the file; tombstones have one too.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`] when the file cannot be read.
    pub fn value(&self, rev: Revision) -> Result<Option<Bytes>, Error> {
        self.shared.value(rev)
    }

    /// Returns the records of many revisions, in their order, as [`value`](Backend::value) does, but reads neighbours from
    /// the file in one go.
    ///
    /// It stops reading when the records have `bytes_max` bytes, so `None` says nothing: ask for those again one by one.
    ///
    /// # Errors
    /// As [`value`](Backend::value).
    pub fn values(
        &self,
        revisions: &[Revision],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.shared.values(revisions, bytes_max)
    }

    /// Freezes what was applied so far and returns the job that makes it durable; `None` when there is nothing to do or a
    /// job is still on its way.
    ///
    /// On a poisoned backend the job fails with [`Error::Poisoned`].
    #[must_use]
    pub fn seal(&self) -> Option<FlushJob> {
        self.shared.seal()
    }

    /// Returns how much memory the work takes that waits for its flush, in bytes.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        let view = self.shared.view.read();
        view.layers().map(|layer| layer.read().bytes()).sum()
    }

    /// Begins a transaction for bootstrap or compaction.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure.
    pub fn maintenance(&self) -> Result<MaintenanceTxn, Error> {
        if self.is_poisoned() {
            return Err(Error::Poisoned);
        }
        Ok(MaintenanceTxn::new(Arc::clone(&self.shared)))
    }

    /// Says whether a write has failed, after which nothing becomes durable any more.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }

    /// Says whether a read of the file has failed, after which nothing more can be read until it is opened again.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        let view = self.shared.view.read();
        view.snapshot.engine().pages().is_unreadable()
    }

    /// Returns the sizes, from counters. What waits for its flush counts too, replaced rows twice until then.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let view = self.shared.view.read();
        let pending: u64 = view
            .layers()
            .map(|layer| layer.read().logical_bytes())
            .sum();
        let in_use_bytes = database_bytes(view.durable.rows_bytes + pending);
        Sizes {
            total_bytes: view.durable.high_water_bytes.max(in_use_bytes),
            in_use_bytes,
            file_bytes: view.snapshot.engine().pages().physical_len(),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field(
                "path",
                &self.shared.view.read().snapshot.engine().pages().path(),
            )
            .field("applied", &self.applied())
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

impl View {
    /// Returns the layers, the newest first.
    fn layers(&self) -> impl Iterator<Item = &Arc<Layer>> {
        std::iter::once(&self.open).chain(self.sealed.iter().rev())
    }

    fn pending_main_min(&self) -> i64 {
        self.sealed
            .iter()
            .chain([&self.open])
            .find_map(|layer| layer.read().first_revision())
            .map_or(NOTHING_PENDING, |rev| rev.main)
    }
}

impl Shared {
    pub(crate) fn last_revision(&self) -> Option<Revision> {
        self.view.read().last_revision
    }

    pub(crate) fn flushed_revision(&self) -> Option<Revision> {
        self.view.read().flushed_revision
    }

    pub(crate) fn read(&self) -> ReadTxn {
        let view = self.view.read();
        let layers = view
            .sealed
            .iter()
            .chain([&view.open])
            .filter_map(|layer| {
                let data = layer.read();
                data.is_used().then(|| VisibleLayer {
                    layer: Arc::clone(layer),
                    row_count: data.row_count(),
                })
            })
            .collect();
        ReadTxn::new(
            Arc::clone(&view.snapshot),
            layers,
            view.sequence,
            view.applied,
        )
    }

    pub(crate) fn value(&self, rev: Revision) -> Result<Option<Bytes>, Error> {
        if let Some(value) = self.value_in_memory(rev) {
            return Ok(Some(value));
        }
        // Taken after the look into the layers: what has left them since is in this snapshot.
        let snapshot = Arc::clone(&self.view.read().snapshot);
        let found = snapshot.revision(rev)?;
        if let Some(value) = &found {
            self.cache.insert(rev, value);
        }
        Ok(found)
    }

    fn value_in_memory(&self, rev: Revision) -> Option<Bytes> {
        if rev.main >= self.pending_main_min.load(Ordering::Acquire) {
            let view = self.view.read();
            for layer in view.layers() {
                if let Some(row) = layer.read().find(rev, usize::MAX) {
                    return Some(row.record.clone());
                }
            }
        }
        self.cache.get(rev)
    }

    fn values(
        &self,
        revisions: &[Revision],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let mut values: Vec<Option<Bytes>> = revisions
            .iter()
            .map(|rev| self.value_in_memory(*rev))
            .collect();
        let mut missing: Vec<(Revision, usize)> = revisions
            .iter()
            .enumerate()
            .filter(|(at, _)| values[*at].is_none())
            .map(|(at, rev)| (*rev, at))
            .collect();
        if missing.is_empty() {
            return Ok(values);
        }
        missing.sort_unstable();
        missing.dedup_by_key(|(rev, _)| *rev);
        let wanted: Vec<Revision> = missing.iter().map(|(rev, _)| *rev).collect();
        let held: usize = values.iter().flatten().map(Bytes::len).sum();
        let mut left = bytes_max.saturating_sub(held);
        let snapshot = Arc::clone(&self.view.read().snapshot);
        snapshot.visit_each(&wanted, |place, record| {
            let Some(rest) = left.checked_sub(record.len()) else {
                return ControlFlow::Break(());
            };
            left = rest;
            let value = Bytes::copy_from_slice(record);
            self.cache.insert(wanted[place], &value);
            values[missing[place].1] = Some(value);
            ControlFlow::Continue(())
        })?;
        Ok(values)
    }

    pub(crate) fn commit(
        &self,
        rows: Vec<RevisionRow>,
        writes: BTreeMap<(Table, Bytes), Option<Bytes>>,
        applied: Applied,
    ) {
        let first = rows.first().map(|row| row.rev);
        let last = rows.last().map(|row| row.rev);
        let mut view = self.view.write();
        view.sequence += 1;
        view.open.commit(rows, writes, view.sequence);
        view.applied = applied;
        if let Some(first) = first {
            self.pending_main_min
                .fetch_min(first.main, Ordering::AcqRel);
            view.last_revision = last;
        }
    }

    pub(crate) fn end_apply(&self) {
        self.apply_open.store(false, Ordering::Release);
    }

    fn seal(self: &Arc<Self>) -> Option<FlushJob> {
        let mut view = self.view.write();
        if view.open.read().is_used() && !self.flush_open.load(Ordering::Acquire) {
            let open = std::mem::take(&mut view.open);
            view.sealed.push(open);
        }
        if view.sealed.is_empty() || self.flush_open.swap(true, Ordering::AcqRel) {
            return None;
        }
        let applied = view.applied;
        Some(FlushJob::new(
            Arc::clone(self),
            view.sealed.clone(),
            applied,
        ))
    }

    pub(crate) fn end_flush(&self) {
        self.flush_open.store(false, Ordering::Release);
    }
}
