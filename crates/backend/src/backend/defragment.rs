//! Defragmentation: a copy of the file takes its place, while everything goes on.

use super::writing::{Fuse, Touched, Writing};
use super::{Backend, Shared};
use crate::accounting::Sizes;
use crate::engine::{Engine, Snapshot};
use crate::error::Error;
use crate::pages::{corrupt, io_error};
use crate::state::State;
use crate::table::{Table, TableRow, is_consistent_index_key};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Appended to the file's name for the copy that a defragmentation makes.
pub const COPY_SUFFIX: &str = ".defrag";
/// The tables in the order in which they are copied. The one that grows at its end comes last, so that what is appended
/// meanwhile is met there.
const ORDER: [Table; Table::COUNT] = [
    Table::Alarm,
    Table::Auth,
    Table::AuthRoles,
    Table::AuthUsers,
    Table::Cluster,
    Table::Lease,
    Table::Members,
    Table::MembersRemoved,
    Table::Meta,
    Table::Key,
];

/// How a defragmentation goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefragmentOptions {
    /// Bytes of rows that one step copies.
    pub step_bytes: usize,
    /// Bytes that the file must be larger than a quarter more than what is in use, or it is left as it is.
    pub gain_bytes_min: u64,
}

impl Default for DefragmentOptions {
    fn default() -> DefragmentOptions {
        DefragmentOptions {
            step_bytes: 1 << 20,
            gain_bytes_min: 1 << 20,
        }
    }
}

/// What a defragmentation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defragmented {
    /// The sizes when it began.
    pub before: Sizes,
    /// The sizes when it ended.
    pub after: Sizes,
    /// Whether the file was copied; one that has little to gain is not.
    pub copied: bool,
}

/// What a step of a [`DefragmentJob`] leads to.
pub enum Defragmenting {
    /// There is more to do.
    More(DefragmentJob),
    /// It is done.
    Done(Defragmented),
}

/// One defragmentation, in steps: the rows are copied into a new file, which then takes the old one's place.
///
/// Applying, reading and flushing go on between the steps and during them; only the last one holds up a flush, for about as
/// long as a flush takes. Readers that began before it ends go on reading the old file. Dropping the job gives up: the
/// database is as before.
///
/// Every step brings the copy to exactly what the database's file has, as far as the copy has come: it reads the newest
/// commit, takes over what changed behind it since the step before, and goes on with the rows in front of it.
pub struct DefragmentJob {
    shared: Arc<Shared>,
    options: DefragmentOptions,
    before: Sizes,
    copy: Option<Copy>,
    /// Whether what changes is being noted for this job.
    notes: bool,
}

/// The new file.
struct Copy {
    path: PathBuf,
    engine: Arc<Engine>,
    state: State,
    cursor: Cursor,
    /// Whether the step before met the end of the rows.
    at_end: bool,
    /// Bytes of rows that the last step may copy while a flush waits. Doubles with each attempt, so that one succeeds.
    last_bytes: usize,
}

/// How far the copy has come.
#[derive(Clone, Default)]
struct Cursor {
    /// Place in [`ORDER`].
    table: usize,
    /// The last key that was copied of that table.
    key: Option<Bytes>,
}

/// Keys of rows that changed.
type Touches = Vec<(Table, Bytes)>;

impl Backend {
    /// Begins to defragment the file; nothing happens before the first step.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure; [`Error::Defragmenting`].
    pub fn defragment(&self, options: DefragmentOptions) -> Result<DefragmentJob, Error> {
        if self.is_poisoned() {
            return Err(Error::Poisoned);
        }
        let mut file = self.shared.file.lock();
        if file.touched.is_some() {
            return Err(Error::Defragmenting);
        }
        file.touched = Some(Touched::default());
        drop(file);
        Ok(DefragmentJob {
            shared: Arc::clone(&self.shared),
            options,
            before: self.sizes(),
            copy: None,
            notes: true,
        })
    }

    /// Leaves the file's name to another file that is about to take its place: a defragmentation under way fails with
    /// [`Error::Replaced`], and so do later ones. Waits for one that is giving its copy the name right now.
    pub fn leave_name(&self) {
        *self.shared.named.lock() = false;
    }
}

impl DefragmentJob {
    /// Does one step.
    ///
    /// # Errors
    /// - [`Error::Replaced`], [`Error::Overtaken`], [`Error::Poisoned`].
    /// - [`Error::Io`] and [`Error::Corrupt`] when the file cannot be read or the copy cannot be written, for example for
    ///   want of space.
    ///
    /// The database is as before then, and goes on. The exception is an error of the directory's sync after the copy got
    /// the name, which poisons the backend as a failed flush does.
    ///
    /// # Durability
    /// At any moment a crash leaves the old file or the whole copy under the name, with everything that was flushed.
    pub fn step(mut self) -> Result<Defragmenting, Error> {
        match self.advance()? {
            None => Ok(Defragmenting::More(self)),
            Some(copied) => Ok(Defragmenting::Done(Defragmented {
                before: self.before,
                after: self.backend().sizes(),
                copied,
            })),
        }
    }

    /// Does all steps, one after the other.
    ///
    /// # Errors
    /// As [`DefragmentJob::step`].
    pub fn run(mut self) -> Result<Defragmented, Error> {
        loop {
            match self.step()? {
                Defragmenting::More(more) => self = more,
                Defragmenting::Done(done) => return Ok(done),
            }
        }
    }

    /// Does one step; says whether the file was copied when it was the last.
    fn advance(&mut self) -> Result<Option<bool>, Error> {
        let Some(copy) = &mut self.copy else {
            return self.begin();
        };
        let shared = Arc::clone(&self.shared);
        let mut file = shared.file.lock();
        let (touched, snapshot) = shared.changes(&mut file, &copy.cursor)?;
        // Whoever holds it keeps the file as it is in the snapshot.
        let mut held = copy.at_end.then_some(file);
        let bytes_max = match held {
            Some(_) => copy.last_bytes,
            None => self.options.step_bytes,
        };
        let rows = copy.next_rows(&snapshot, bytes_max)?;
        let touched = read_touched(&snapshot, touched)?;
        drop(snapshot);
        if let Some(mut file) = held.take_if(|_| copy.at_end) {
            let old = shared.replace(&mut file, copy, &touched, &rows)?;
            self.notes = false;
            self.copy = None;
            drop(file);
            drop(old);
            return Ok(Some(true));
        }
        if held.take().is_some() {
            copy.last_bytes = copy.last_bytes.saturating_mul(2);
        }
        copy.state = copy.engine.copy(&touched, &rows, None, copy.state)?;
        Ok(None)
    }

    fn begin(&mut self) -> Result<Option<bool>, Error> {
        let Sizes {
            in_use_bytes,
            file_bytes,
            ..
        } = self.before;
        if file_bytes < in_use_bytes + in_use_bytes / 4 + self.options.gain_bytes_min {
            let mut txn = self.backend().maintenance()?;
            txn.reset_high_water();
            txn.commit()?;
            return Ok(Some(false));
        }
        let original = Arc::clone(&self.shared.file.lock().engine);
        let mut path = original.pages().path().as_os_str().to_owned();
        path.push(COPY_SUFFIX);
        let path = PathBuf::from(path);
        let begun = original.begin_copy(&*self.shared.disk, &path, &self.shared.options);
        let (engine, state) = begun.inspect_err(|_| self.remove(&path))?;
        self.copy = Some(Copy {
            path,
            engine: Arc::new(engine),
            state,
            cursor: Cursor::default(),
            at_end: false,
            last_bytes: self.options.step_bytes,
        });
        Ok(None)
    }

    fn backend(&self) -> Backend {
        Backend {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Removes a copy that nobody needs; one that stays is in nobody's way, and made anew by the next defragmentation.
    fn remove(&self, path: &Path) {
        let _ = self.shared.disk.remove_file(path);
    }
}

impl Drop for DefragmentJob {
    fn drop(&mut self) {
        if self.notes {
            self.shared.file.lock().touched = None;
        }
        if let Some(copy) = self.copy.take() {
            copy.engine.pages().fail();
            self.remove(&copy.path);
        }
    }
}

impl Shared {
    /// Takes the keys of what changed behind a cursor, and the commit that has all of it and nothing more.
    fn changes(
        &self,
        file: &mut Writing,
        cursor: &Cursor,
    ) -> Result<(Touches, Arc<Snapshot>), Error> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        if !*self.named.lock() {
            return Err(Error::Replaced);
        }
        let touched = file.touched.replace(Touched::default()).unwrap_or_default();
        if touched.overflown {
            return Err(Error::Overtaken);
        }
        // What is in front of the cursor is read when the copy gets there.
        let rows = touched.rows.into_iter();
        let behind = rows.filter(|(table, key)| cursor.has_passed(*table, key));
        Ok((behind.collect(), Arc::clone(&self.view.read().snapshot)))
    }

    /// Finishes the copy, puts it in the place of the file, and returns what was read of that.
    fn replace(
        &self,
        file: &mut Writing,
        copy: &Copy,
        touched: &[(Table, Bytes, Option<Bytes>)],
        rows: &[TableRow],
    ) -> Result<Arc<Snapshot>, Error> {
        let applied = file.state.applied;
        let state = copy.engine.copy(touched, rows, Some(applied), copy.state)?;
        let path = file.engine.pages().path().to_path_buf();
        let (found, expected) = (state.rows_bytes, file.state.rows_bytes);
        if found != expected {
            let what = format!("rows of {found} bytes were copied, state row says {expected}");
            return Err(corrupt(&path, None, what));
        }
        let snapshot = Arc::new(copy.engine.snapshot()?);
        let named = self.named.lock();
        if !*named {
            return Err(Error::Replaced);
        }
        let io = |source| io_error(&path, source);
        self.disk.rename(&copy.path, &path).map_err(io)?;
        // From here on the old file may be the one that a crash leaves, or not: nothing more may become durable in either
        // before that is known.
        let fuse = Fuse::new(self, &file.engine);
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let synced = self.disk.sync_dir(parent.unwrap_or(Path::new(".")));
        synced.map_err(io)?;
        drop(named);
        let before = std::mem::replace(&mut file.engine, Arc::clone(&copy.engine));
        file.state = state;
        file.touched = None;
        let old;
        {
            let mut view = self.view.write();
            old = std::mem::replace(&mut view.snapshot, snapshot);
            view.durable = state;
        }
        fuse.disarm();
        // Closing it would tidy up in a file that has no name any more.
        before.pages().fail();
        Ok(old)
    }
}

impl Copy {
    /// Reads on in a commit and moves the cursor.
    fn next_rows(&mut self, snapshot: &Snapshot, bytes_max: usize) -> Result<Vec<TableRow>, Error> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        loop {
            let table = ORDER[self.cursor.table];
            let from = self.cursor.key.take();
            let bound = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut last = None;
            snapshot.visit(table, bound, |key, value| {
                let key = Bytes::copy_from_slice(key);
                last = Some(key.clone());
                // The last step writes these itself.
                if !is_consistent_index_key(table, &key) {
                    bytes += key.len() + value.len();
                    rows.push((table, key, Bytes::copy_from_slice(value)));
                }
                match bytes < bytes_max {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            self.cursor.key = last.or(from);
            self.at_end = bytes < bytes_max && self.cursor.table + 1 == ORDER.len();
            if self.at_end || bytes >= bytes_max {
                return Ok(rows);
            }
            self.cursor = Cursor {
                table: self.cursor.table + 1,
                key: None,
            };
        }
    }
}

impl Cursor {
    /// Says whether a row of this key would be in the copy.
    fn has_passed(&self, table: Table, key: &Bytes) -> bool {
        let place = ORDER.iter().position(|of| *of == table);
        match place.cmp(&Some(self.table)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => self.key.as_ref().is_some_and(|last| key <= last),
            std::cmp::Ordering::Greater => false,
        }
    }
}

/// Reads what has become of rows.
fn read_touched(
    snapshot: &Snapshot,
    touched: Touches,
) -> Result<Vec<(Table, Bytes, Option<Bytes>)>, Error> {
    let read = |(table, key): (Table, Bytes)| {
        let value = snapshot.get(table, &key)?;
        Ok((table, key, value))
    };
    touched.into_iter().map(read).collect()
}
