//! redb, and nothing of it outside of this file and [`crate::pages`].

use crate::accounting::{database_bytes, row_cost};
use crate::error::Error;
use crate::layer::{Layer, LayerData};
use crate::maintenance::Work;
use crate::options::Options;
use crate::pages::{PagedFile, Pages, corrupt, io_error};
use crate::revision::{Revision, RevisionRow};
use crate::state::{Applied, State};
use crate::table::{CONSISTENT_INDEX_KEY, TERM_KEY, Table};
use bytes::Bytes;
use quorate_disk::Disk;
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod copy;

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;
type End<'a> = redb::CursorMut<'a, &'static [u8], &'static [u8]>;
type WriteRows<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

/// Name of the table that is no bucket of etcd's.
const STATE_TABLE: &str = "quorate";
/// Its only key.
const STATE_KEY: &[u8] = b"state";
/// Revisions this near to each other are read in one scan: passing over a row costs less than a tenth of finding one.
const NEAR_REVISIONS: i64 = 8;
/// Appended to the file's name while it is made.
const UNFINISHED_SUFFIX: &str = ".new";

/// The file with redb on it. Writes are ordered by the caller.
pub(crate) struct Engine {
    database: Database,
    pages: Arc<PagedFile>,
}

/// All tables as one commit left them. It keeps the pages of that commit from being used again.
pub(crate) struct Snapshot {
    tables: [Rows; Table::COUNT],
    /// Kept open, since reading ends when redb closes the file.
    engine: Arc<Engine>,
}

/// What an opened file says about itself.
pub(crate) struct Opened {
    pub(crate) engine: Arc<Engine>,
    pub(crate) snapshot: Snapshot,
    pub(crate) state: State,
    pub(crate) last_revision: Option<Revision>,
}

fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

impl Engine {
    /// Opens the file, and makes it first when it does not exist and the options say so.
    ///
    /// | found | action |
    /// |---|---|
    /// | the file | opened |
    /// | no file | made under another name, synced, renamed |
    /// | the other name | a crash while the file was made, or making it failed and it could not be removed; made anew |
    pub(crate) fn open(disk: &dyn Disk, path: &Path, options: &Options) -> Result<Opened, Error> {
        match PagedFile::open(disk, path, options) {
            Err(Error::NotFound { .. }) if options.create => {
                Engine::create(disk, path, options)?;
                Engine::start(PagedFile::open(disk, path, options)?, options)
            }
            found => Engine::start(found?, options),
        }
    }

    fn create(disk: &dyn Disk, path: &Path, options: &Options) -> Result<(), Error> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED_SUFFIX);
        let unfinished = PathBuf::from(unfinished);
        let make = || -> Result<(), Error> {
            let pages = PagedFile::create(disk, &unfinished, options.identity)?;
            let engine = Engine::with_pages(pages, options)?;
            engine.make_tables()?;
            drop(engine);
            disk.rename(&unfinished, path)
                .map_err(|source| io_error(path, source))
        };
        if let Err(error) = make() {
            // One that another process makes is locked, and stays.
            if !matches!(error, Error::Locked { .. }) {
                let _ = disk.remove_file(&unfinished);
            }
            return Err(error);
        }
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        disk.sync_dir(parent.unwrap_or(Path::new(".")))
            .map_err(|source| io_error(path, source))
    }

    fn with_pages(pages: PagedFile, options: &Options) -> Result<Engine, Error> {
        let pages = Arc::new(pages);
        let database = Builder::new()
            .set_cache_size(options.page_cache_bytes)
            // Every commit leaves what quick repair needs. If it is not there, then a walk over the whole file might end
            // at an older commit, which must not happen unasked.
            .set_repair_callback(redb::RepairSession::abort)
            .create_with_backend(Pages(Arc::clone(&pages)))
            .map_err(|error| pages.explain(error))?;
        Ok(Engine { database, pages })
    }

    /// Gives a new file its tables, and returns its state.
    fn make_tables(&self) -> Result<State, Error> {
        let state = State {
            high_water_bytes: database_bytes(0),
            ..State::default()
        };
        self.write(|txn| {
            for table in Table::ALL {
                txn.open_table(definition(table.name()))?;
            }
            let mut table = txn.open_table(definition(STATE_TABLE))?;
            table.insert(STATE_KEY, state.encode().as_slice())?;
            Ok(())
        })?;
        Ok(state)
    }

    fn start(pages: PagedFile, options: &Options) -> Result<Opened, Error> {
        let engine = Arc::new(Engine::with_pages(pages, options)?);
        let snapshot = engine.snapshot()?;
        let state = engine.read_state()?;
        let consistent = Applied {
            index: snapshot.number(CONSISTENT_INDEX_KEY)?,
            term: snapshot.number(TERM_KEY)?,
            digest: state.applied.digest,
        };
        if consistent != state.applied {
            return Err(corrupt(
                engine.pages.path(),
                None,
                format!(
                    "table meta says {consistent:?}, state row {:?}",
                    state.applied
                ),
            ));
        }
        let last_revision = snapshot.last_revision()?;
        Ok(Opened {
            engine,
            snapshot,
            state,
            last_revision,
        })
    }

    pub(crate) fn pages(&self) -> &PagedFile {
        &self.pages
    }

    /// Begins reading what is committed now.
    pub(crate) fn snapshot(self: &Arc<Self>) -> Result<Snapshot, Error> {
        let open = || -> Result<_, redb::Error> {
            let txn = self.database.begin_read()?;
            let [a, b, c, d, e, f, g, h, i, j] =
                Table::ALL.map(|table| txn.open_table(definition(table.name())));
            Ok([a?, b?, c?, d?, e?, f?, g?, h?, i?, j?])
        };
        Ok(Snapshot {
            tables: open().map_err(|error| self.pages.explain(error))?,
            engine: Arc::clone(self),
        })
    }

    fn read_state(&self) -> Result<State, Error> {
        let read = || -> Result<_, redb::Error> {
            let txn = self.database.begin_read()?;
            let table = txn.open_table(definition(STATE_TABLE))?;
            let row = table.get(STATE_KEY)?;
            Ok(row.and_then(|row| State::decode(row.value())))
        };
        read()
            .map_err(|error| self.pages.explain(error))?
            .ok_or_else(|| corrupt(self.pages.path(), None, "bad state row".to_owned()))
    }

    /// Runs one durable transaction.
    ///
    /// # Durability
    /// All of it is on disk when this returns, and nothing of it when it fails before the commit; a failure inside the
    /// commit may leave either.
    fn write(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), Error> {
        let run = || -> Result<(), redb::Error> {
            let mut txn = self.database.begin_write()?;
            // Implies two-phase commit: the header never names pages that are not synced.
            txn.set_quick_repair(true);
            body(&txn)?;
            txn.commit()?;
            Ok(())
        };
        run().map_err(|error| self.pages.explain(error))
    }

    /// Writes sealed layers, the oldest first, and with them how far the log is applied.
    pub(crate) fn flush(
        &self,
        layers: &[Arc<Layer>],
        applied: Applied,
        before: State,
    ) -> Result<State, Error> {
        self.pages.set_filling(false);
        let mut state = State { applied, ..before };
        self.write(|txn| {
            for layer in layers {
                write_layer(txn, &layer.read(), &mut state)?;
            }
            write_applied(txn, applied, &mut state)?;
            write_state(txn, &mut state)
        })?;
        Ok(state)
    }

    /// Does the work of a maintenance transaction.
    pub(crate) fn maintain(&self, work: &Work, before: State) -> Result<State, Error> {
        self.pages.set_filling(false);
        let mut state = before;
        self.write(|txn| {
            for table in Table::ALL {
                let mut writes = work.writes_of(table).peekable();
                if writes.peek().is_some() {
                    let mut rows = txn.open_table(definition(table.name()))?;
                    for (key, value) in writes {
                        write_row(&mut rows, key, value.map(Bytes::as_ref), &mut state)?;
                    }
                }
            }
            if !work.deleted.is_empty() {
                let mut rows = txn.open_table(definition(Table::Key.name()))?;
                for (rev, tombstone) in &work.deleted {
                    let key = rev.table_key(*tombstone);
                    write_row(&mut rows, key.as_bytes(), None, &mut state)?;
                }
            }
            if work.reset_high_water {
                state.high_water_bytes = 0;
            }
            write_state(txn, &mut state)
        })?;
        Ok(state)
    }
}

/// Puts a row behind the last one of its table, where a cursor fills page after page.
fn append_row(
    end: &mut End<'_>,
    key: &[u8],
    value: &[u8],
    state: &mut State,
) -> Result<(), redb::Error> {
    end.insert_before(key, value).map_err(|error| match error {
        redb::CursorError::Storage(error) => redb::Error::from(error),
        other => redb::Error::Corrupted(format!("key {key:02x?}: {other}")),
    })?;
    state.rows_bytes += row_cost(key.len(), value.len());
    Ok(())
}

fn write_layer(
    txn: &WriteTransaction,
    layer: &LayerData,
    state: &mut State,
) -> Result<(), redb::Error> {
    if layer.row_count() > 0 {
        // Revisions only ever grow, so the rows go behind the last one.
        let mut rows = txn.open_table(definition(Table::Key.name()))?;
        let mut end = rows.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
        for row in layer.rows() {
            append_row(&mut end, row.table_key().as_bytes(), &row.record, state)?;
        }
        end.close()?;
    }
    for table in Table::ALL {
        let mut newest = layer.newest(table).peekable();
        if newest.peek().is_some() {
            let mut rows = txn.open_table(definition(table.name()))?;
            for (key, value) in newest {
                write_row(&mut rows, key, value.map(Bytes::as_ref), state)?;
            }
        }
    }
    Ok(())
}

fn write_row(
    rows: &mut WriteRows<'_>,
    key: &[u8],
    value: Option<&[u8]>,
    state: &mut State,
) -> Result<(), redb::Error> {
    let before = match value {
        Some(value) => rows.insert(key, value)?,
        None => rows.remove(key)?,
    };
    let removed = before.map_or(0, |before| row_cost(key.len(), before.value().len()));
    let added = value.map_or(0, |value| row_cost(key.len(), value.len()));
    state.rows_bytes = (state.rows_bytes + added).saturating_sub(removed);
    Ok(())
}

/// Writes the consistent index and term as etcd does, which never stores a zero.
fn write_applied(
    txn: &WriteTransaction,
    applied: Applied,
    state: &mut State,
) -> Result<(), redb::Error> {
    let mut rows = txn.open_table(definition(Table::Meta.name()))?;
    for (key, number) in [
        (CONSISTENT_INDEX_KEY, applied.index),
        (TERM_KEY, applied.term),
    ] {
        if number != 0 {
            write_row(&mut rows, key, Some(&number.to_be_bytes()), state)?;
        }
    }
    Ok(())
}

fn write_state(txn: &WriteTransaction, state: &mut State) -> Result<(), redb::Error> {
    let in_use = database_bytes(state.rows_bytes);
    state.high_water_bytes = state.high_water_bytes.max(in_use);
    let mut rows = txn.open_table(definition(STATE_TABLE))?;
    rows.insert(STATE_KEY, state.encode().as_slice())?;
    Ok(())
}

impl Snapshot {
    /// Returns the file that it reads.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.tables[table.slot()]
            .get(key)
            .map_err(|error| self.engine.pages.explain(error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Hands the rows of a table from a bound on to a function, until it breaks.
    pub(crate) fn visit(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        mut row: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let rows = self.tables[table.slot()]
            .range::<&[u8]>((from, Bound::Unbounded))
            .map_err(|error| self.engine.pages.explain(error))?;
        for found in rows {
            let (key, value) = found.map_err(|error| self.engine.pages.explain(error))?;
            if row(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Hands the revision rows of a range to a function, until it breaks.
    pub(crate) fn visit_revisions(
        &self,
        from: Revision,
        to: Revision,
        mut row: impl FnMut(Revision, bool, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut bad = None;
        let first = from.table_key(false);
        self.visit(
            Table::Key,
            Bound::Included(first.as_bytes()),
            |key, record| match Revision::from_table_key(key) {
                Some((rev, _)) if rev >= to => ControlFlow::Break(()),
                Some((rev, tombstone)) => row(rev, tombstone, record),
                None => {
                    bad = Some(format!("{key:02x?} in table key is no revision"));
                    ControlFlow::Break(())
                }
            },
        )?;
        match bad {
            Some(what) => Err(corrupt(self.engine.pages.path(), None, what)),
            None => Ok(()),
        }
    }

    /// Returns the row of a revision, be it a tombstone's or not.
    pub(crate) fn revision(&self, rev: Revision) -> Result<Option<Bytes>, Error> {
        match self.get(Table::Key, rev.table_key(false).as_bytes())? {
            None => self.get(Table::Key, rev.table_key(true).as_bytes()),
            found => Ok(found),
        }
    }

    /// Hands the records of ascending revisions to a function, each with its place among them, until it breaks. Those that
    /// do not exist are passed over. Neighbours are read in one scan.
    pub(crate) fn visit_each(
        &self,
        wanted: &[Revision],
        mut found: impl FnMut(usize, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let are_near = |a: &Revision, b: &Revision| b.main - a.main <= NEAR_REVISIONS;
        let mut start = 0;
        for run in wanted.chunk_by(are_near) {
            let mut flow = ControlFlow::Continue(());
            if let [single] = run {
                if let Some(record) = self.revision(*single)? {
                    flow = found(start, &record);
                }
            } else {
                let mut next = 0;
                let end = Revision::new(run[run.len() - 1].main.saturating_add(1), 0);
                self.visit_revisions(run[0], end, |rev, _, record| {
                    while run.get(next).is_some_and(|wanted| *wanted < rev) {
                        next += 1;
                    }
                    if run.get(next) == Some(&rev) {
                        flow = found(start + next, record);
                        next += 1;
                    }
                    if next == run.len() {
                        return ControlFlow::Break(());
                    }
                    flow
                })?;
            }
            if flow.is_break() {
                break;
            }
            start += run.len();
        }
        Ok(())
    }

    fn last_revision(&self) -> Result<Option<Revision>, Error> {
        let last = self.tables[Table::Key.slot()]
            .last()
            .map_err(|error| self.engine.pages.explain(error))?;
        let Some((key, _)) = last else {
            return Ok(None);
        };
        match Revision::from_table_key(key.value()) {
            Some((rev, _)) => Ok(Some(rev)),
            None => Err(corrupt(
                self.engine.pages.path(),
                None,
                format!("{:02x?} in table key is no revision", key.value()),
            )),
        }
    }

    /// Returns a number of 8 bytes, big endian, of table `meta`; 0 when it is absent.
    fn number(&self, key: &[u8]) -> Result<u64, Error> {
        let Some(value) = self.get(Table::Meta, key)? else {
            return Ok(0);
        };
        let bytes: Result<[u8; 8], _> = value.as_ref().try_into();
        bytes.map(u64::from_be_bytes).map_err(|_| {
            corrupt(
                self.engine.pages.path(),
                None,
                format!(
                    "{:?} in table meta is no number",
                    Bytes::copy_from_slice(key)
                ),
            )
        })
    }
}

/// Makes a row of what a visitor gets.
pub(crate) fn owned_row(rev: Revision, tombstone: bool, record: &[u8]) -> RevisionRow {
    RevisionRow {
        rev,
        tombstone,
        record: Bytes::copy_from_slice(record),
    }
}
