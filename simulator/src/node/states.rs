//! States of snapshots as they arrive: the database that is made of one, piece by piece.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_backend::TableRow;
use quorate_core::{Filling, StateReader, received_file};
use quorate_mvcc::Restoring;
use quorate_server::bootstrap::Place;

/// What the server's threads make of states that arrive.
#[derive(Default)]
pub(crate) struct Arrivals {
    under_way: BTreeMap<u64, Arrival>,
    /// Number of the newest.
    newest: u64,
    /// The key index made of the newest one that arrived, with its index.
    passed: Option<(u64, Restoring)>,
}

/// A state on its way into a database.
struct Arrival {
    reader: StateReader,
    filling: Filling,
    passed: Restoring,
    rest: Bytes,
    piece_bytes: usize,
}

/// How a state is cut up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    /// Pieces in which it comes.
    pub(crate) pieces: usize,
    /// Rows that are written at once.
    pub(crate) batch_rows: usize,
}

impl Arrivals {
    /// Says whether some are under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Begins to take a state in; those that are under way end at their next piece. Returns its number.
    ///
    /// # Errors
    /// Why there is no database for it.
    pub(crate) fn begin(
        &mut self,
        place: &Place,
        kv: &quorate_mvcc::Options,
        state: Bytes,
        cuts: Cuts,
    ) -> Result<u64, String> {
        self.newest += 1;
        let filling = Filling::begin(&place.disk, &place.snap_dir, self.newest, place.options);
        let arrival = Arrival {
            reader: StateReader::in_batches_of(cuts.batch_rows),
            filling: filling.map_err(|e| e.to_string())?,
            passed: Restoring::new(kv),
            piece_bytes: state.len().div_ceil(cuts.pieces).max(1),
            rest: state,
        };
        self.under_way.insert(self.newest, arrival);
        Ok(self.newest)
    }

    /// Takes the next piece of a state in, and brings what there is to the disk if asked to; says whether that was the last.
    ///
    /// # Errors
    /// Why no more is taken; nothing is left of it then.
    pub(crate) fn take_piece(&mut self, number: u64, writes_back: bool) -> Result<bool, String> {
        if number != self.newest {
            self.forget(number);
            return Err("another snapshot has begun to arrive".to_owned());
        }
        let arrival = self.under_way.get_mut(&number).ok_or("it is gone")?;
        let taken = arrival.take_piece(writes_back);
        if taken.is_err() {
            self.forget(number);
        }
        taken
    }

    /// Ends the arrival of a state that does not come to its end.
    pub(crate) fn forget(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// Keeps the database of a state that has come to its end, and that a message said to be at an index or behind it; returns
    /// where it is.
    ///
    /// # Errors
    /// Why it is of no use; nothing is left of it then.
    pub(crate) fn keep(&mut self, number: u64, index: u64) -> Result<PathBuf, String> {
        let mut arrival = self.under_way.remove(&number).ok_or("it is gone")?;
        let reader = std::mem::take(&mut arrival.reader);
        let (rows, state) = reader.finish().map_err(|e| e.to_string())?;
        if state.applied.index < index {
            return Err("the state is older than its message says".to_owned());
        }
        arrival.append(&rows)?;
        let path = arrival.filling.keep(state).map_err(|e| e.to_string())?;
        self.passed = Some((state.applied.index, arrival.passed));
        Ok(path)
    }

    /// Drops the key index of a database that was refused.
    pub(crate) fn forget_passed(&mut self, path: &Path) {
        let is_of_it = |of: u64| path.ends_with(received_file(of));
        drop(self.passed.take_if(|(of, _)| is_of_it(*of)));
    }

    /// Returns the key index of the state at an index, if that was the newest.
    pub(crate) fn take_passed(&mut self, index: u64) -> Option<Restoring> {
        let passed = self.passed.take_if(|(of, _)| *of == index);
        passed.map(|(_, passed)| passed)
    }
}

impl Arrival {
    fn take_piece(&mut self, writes_back: bool) -> Result<bool, String> {
        let piece = self.rest.split_to(self.piece_bytes.min(self.rest.len()));
        self.reader.push(&piece);
        while let Some(rows) = self.reader.batch().map_err(|e| e.to_string())? {
            self.append(&rows)?;
        }
        if writes_back {
            let written = self.filling.backend().write_back();
            written.map_err(|e| e.to_string())?;
        }
        Ok(self.rest.is_empty())
    }

    fn append(&mut self, rows: &[TableRow]) -> Result<(), String> {
        self.passed.add_rows(rows).map_err(|e| e.to_string())?;
        self.filling.append(rows).map_err(|e| e.to_string())
    }
}
