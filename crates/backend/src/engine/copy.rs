//! Filling a file with the rows of another.

use super::{Engine, append_row, definition, write_applied, write_row, write_state};
use crate::error::Error;
use crate::options::Options;
use crate::pages::PagedFile;
use crate::state::{Applied, State};
use crate::table::{Table, TableRow};
use bytes::Bytes;
use quorate_disk::Disk;
use redb::WriteTransaction;
use std::ops::Bound;
use std::path::Path;

impl Engine {
    /// Makes an empty file in place of whatever has the path, to become a copy of this one.
    pub(crate) fn begin_copy(
        &self,
        disk: &dyn Disk,
        path: &Path,
        options: &Options,
    ) -> Result<(Engine, State), Error> {
        let pages = PagedFile::create(disk, path, self.pages.identity())?;
        let engine = Engine::with_pages(pages.named(self.pages.path()), options)?;
        let state = engine.make_tables()?;
        Ok((engine, state))
    }

    /// Brings rows that the copy has to what they are now, and appends rows behind those of their tables. The last call
    /// says how far the log is applied in what the copy then holds.
    pub(crate) fn copy(
        &self,
        touched: &[(Table, Bytes, Option<Bytes>)],
        rows: &[TableRow],
        applied: Option<Applied>,
        before: State,
    ) -> Result<State, Error> {
        let mut state = before;
        self.write(|txn| {
            for run in touched.chunk_by(|a, b| a.0 == b.0) {
                let Some((table, ..)) = run.first() else {
                    continue;
                };
                let mut rows = txn.open_table(definition(table.name()))?;
                for (_, key, value) in run {
                    write_row(&mut rows, key, value.as_deref(), &mut state)?;
                }
            }
            append_rows(txn, rows, &mut state)?;
            if let Some(applied) = applied {
                state.applied = applied;
                state.high_water_bytes = 0;
                write_applied(txn, applied, &mut state)?;
            }
            write_state(txn, &mut state)
        })?;
        Ok(state)
    }

    /// Writes rows of which each goes behind all that its table has.
    pub(crate) fn append(&self, rows: &[TableRow], before: State) -> Result<State, Error> {
        let mut state = before;
        self.write(|txn| {
            append_rows(txn, rows, &mut state)?;
            write_state(txn, &mut state)
        })?;
        Ok(state)
    }
}

fn append_rows(
    txn: &WriteTransaction,
    rows: &[TableRow],
    state: &mut State,
) -> Result<(), redb::Error> {
    for run in rows.chunk_by(|a, b| a.0 == b.0) {
        let Some((table, ..)) = run.first() else {
            continue;
        };
        let mut rows = txn.open_table(definition(table.name()))?;
        let mut end = rows.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
        for (_, key, value) in run {
            append_row(&mut end, key, value, state)?;
        }
        end.close()?;
    }
    Ok(())
}
