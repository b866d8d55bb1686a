//! A state of the tables as members of our own send it to each other: row by row, without the pages of an image.
//!
//! An image begins with what is known at its end, and its pages say what they belong to only there, so that one must be
//! measured before it is sent and stored before it is read. This is made in one reading, and can be taken in as it comes.
//!
//! **Shape**: [`MAGIC`], then records, each beginning with a byte that says which it is; numbers are little-endian.
//!
//! | byte | record |
//! |---|---|
//! | 1 | a table begins, in ascending order: 1 byte length, name |
//! | 2 | a row of it, in ascending order of keys: 4 bytes length of the key, 4 bytes length of the value, key, value |
//! | 3 | the end: 8 bytes number of rows |
use std::io::{self, Read};

use bytes::{Buf as _, Bytes, BytesMut};
use quorate_backend::{Applied, ReadTxn, Table, TableRow};

use super::ImageError;
use super::check::ImageFacts;
use super::export::{RowSink, Rows};
use super::import::{BATCH_BYTES, BATCH_ROWS, ROW_BYTES, is_position};
use crate::{CONF_STATE_KEY, DIGEST_KEY, digest_of_row};

/// What a state begins with; the last byte is the version. An image begins with eight zeros.
const MAGIC: &[u8; 8] = b"QUORROW\x01";
const VERSION_BYTES: usize = 1;
const TABLE: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;
/// Bytes of a row's record before its key.
const ROW_HEAD_BYTES: usize = 9;
/// Bytes of the last record.
const END_BYTES: usize = 9;
/// Largest key and value, in bytes; what an image can hold is not larger.
const KEY_BYTES_MAX: usize = 32_768;
const VALUE_BYTES_MAX: usize = 512 << 20;
/// Bytes that are taken in at once, at least.
const CHUNK_BYTES: usize = 1 << 20;

/// One state of all tables, made while it is read, in one reading and bounded memory.
///
/// The transaction lives as long, and with it the pages that it sees.
pub struct StateStream {
    txn: ReadTxn,
    rows: Rows,
    records: Records,
    /// Bytes of the records that were read.
    taken: usize,
    ended: bool,
}

/// Records that were not read yet.
struct Records {
    bytes: Vec<u8>,
    rows: u64,
}

impl StateStream {
    /// Begins; nothing is read yet.
    #[must_use]
    pub fn new(txn: ReadTxn) -> Self {
        Self {
            txn,
            rows: Rows::for_member(),
            records: Records {
                bytes: MAGIC.to_vec(),
                rows: 0,
            },
            taken: 0,
            ended: false,
        }
    }

    fn refill(&mut self) -> Result<(), ImageError> {
        self.records.bytes.clear();
        self.taken = 0;
        while self.records.bytes.is_empty() && !self.ended {
            if !self.rows.step(&self.txn, &mut self.records)? {
                self.ended = true;
                self.records.bytes.push(END);
                self.records.bytes.extend(self.records.rows.to_le_bytes());
            }
        }
        Ok(())
    }
}

impl RowSink for Records {
    fn bucket(&mut self, table: Table) -> Result<(), ImageError> {
        let name = table.name().as_bytes();
        let bytes = u8::try_from(name.len()).expect("names of tables are short");
        self.bytes.extend([TABLE, bytes]);
        self.bytes.extend(name);
        Ok(())
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), ImageError> {
        let unfit = || {
            ImageError::Image(quorate_snap::Error::UnfitRow {
                key_bytes: key.len(),
                value_bytes: value.len(),
            })
        };
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(unfit());
        }
        let [key_bytes, value_bytes] = [key, value].map(|part| u32::try_from(part.len()));
        self.bytes.push(ROW);
        self.bytes
            .extend(key_bytes.map_err(|_| unfit())?.to_le_bytes());
        self.bytes
            .extend(value_bytes.map_err(|_| unfit())?.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.rows += 1;
        Ok(())
    }
}

impl Read for StateStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.records.bytes.len() {
            self.refill().map_err(io::Error::other)?;
        }
        let rest = &self.records.bytes[self.taken..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

impl std::fmt::Debug for StateStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStream")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Takes in a state as it comes, in pieces of any size, and makes checked rows of it.
#[derive(Debug)]
pub struct StateReader {
    batch_rows_max: usize,
    /// What came and is no whole record yet.
    held: BytesMut,
    has_begun: bool,
    has_ended: bool,
    table: Option<Table>,
    /// Key of the last row of the table.
    last_key: Bytes,
    batch: Vec<TableRow>,
    batch_bytes: usize,
    facts: ImageFacts,
    digest: Option<Bytes>,
    has_conf_state: bool,
}

/// What a state that has come to its end says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedState {
    /// How far the log is applied in it.
    pub applied: Applied,
    /// Rows in all tables.
    pub rows: u64,
}

impl Default for StateReader {
    fn default() -> Self {
        Self::in_batches_of(BATCH_ROWS)
    }
}

impl StateReader {
    /// Bytes from the beginning that say whether it is a state.
    pub const BEGIN_BYTES: usize = MAGIC.len() - VERSION_BYTES;

    /// Begins, with so many rows in a batch at most.
    #[must_use]
    pub fn in_batches_of(rows: usize) -> Self {
        Self {
            batch_rows_max: rows,
            held: BytesMut::new(),
            has_begun: false,
            has_ended: false,
            table: None,
            last_key: Bytes::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            facts: ImageFacts::default(),
            digest: None,
            has_conf_state: false,
        }
    }

    /// Says whether these first bytes, at least [`Self::BEGIN_BYTES`], are those of a state, be it of a version that is not
    /// known here: that one is refused, and its sender goes on with an image.
    #[must_use]
    pub fn is_state(begin: &[u8]) -> bool {
        begin.starts_with(&MAGIC[..Self::BEGIN_BYTES])
    }

    /// Takes more bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.held.capacity() - self.held.len() < bytes.len() {
            // Rows hold what was taken in before.
            let capacity = CHUNK_BYTES.max(2 * (self.held.len() + bytes.len()));
            let mut held = BytesMut::with_capacity(capacity);
            held.extend_from_slice(&self.held);
            self.held = held;
        }
        self.held.extend_from_slice(bytes);
    }

    /// Returns the next full batch of rows; `None` when more must come first.
    ///
    /// # Errors
    /// What is wrong with the state.
    pub fn batch(&mut self) -> Result<Option<Vec<TableRow>>, ImageError> {
        while self.record()? {
            if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= self.batch_rows_max {
                self.batch_bytes = 0;
                return Ok(Some(std::mem::take(&mut self.batch)));
            }
        }
        Ok(None)
    }

    /// Ends; returns the last rows and what the state says of itself.
    ///
    /// # Errors
    /// What is wrong with the state; that there is more to come.
    pub fn finish(mut self) -> Result<(Vec<TableRow>, ReceivedState), ImageError> {
        let facts = &self.facts;
        if !self.has_ended {
            return Err(damaged("cut short"));
        }
        if facts.consistent_index == 0 || facts.term == 0 || !self.has_conf_state {
            return Err(damaged("without a place in the log"));
        }
        let index = facts.consistent_index;
        let applied = Applied {
            index,
            term: facts.term,
            digest: digest_of_row(self.digest.as_deref(), index),
        };
        let rows = facts.rows;
        Ok((
            std::mem::take(&mut self.batch),
            ReceivedState { applied, rows },
        ))
    }

    /// Takes the next record in; false when it is not whole yet.
    fn record(&mut self) -> Result<bool, ImageError> {
        if !self.has_begun {
            if self.held.len() < MAGIC.len() {
                return Ok(false);
            }
            if !self.held.starts_with(MAGIC) {
                return Err(damaged("not a state that is known"));
            }
            self.held.advance(MAGIC.len());
            self.has_begun = true;
        }
        let Some(kind) = self.held.first() else {
            return Ok(false);
        };
        match *kind {
            _ if self.has_ended => Err(damaged("longer than it says")),
            TABLE => self.table(),
            ROW => self.row(),
            END => self.end(),
            _ => Err(damaged("no record")),
        }
    }

    fn table(&mut self) -> Result<bool, ImageError> {
        let Some(bytes) = self.held.get(1) else {
            return Ok(false);
        };
        let end = 2 + usize::from(*bytes);
        if self.held.len() < end {
            return Ok(false);
        }
        let name = self.held.split_to(end).split_off(2);
        let known = Table::ALL
            .into_iter()
            .find(|table| table.name().as_bytes() == &name[..]);
        let unknown = || ImageError::UnknownBucket(String::from_utf8_lossy(&name).into_owned());
        let table = known.ok_or_else(unknown)?;
        if self.table >= Some(table) {
            return Err(damaged("of tables that are out of order"));
        }
        self.table = Some(table);
        self.last_key = Bytes::new();
        Ok(true)
    }

    fn row(&mut self) -> Result<bool, ImageError> {
        let Some(head) = self.held.get(..ROW_HEAD_BYTES) else {
            return Ok(false);
        };
        let mut sizes = &head[1..];
        let mut size = || usize::try_from(sizes.get_u32_le()).unwrap_or(usize::MAX);
        let (key_bytes, value_bytes) = (size(), size());
        if key_bytes == 0 || key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(damaged("of rows too large"));
        }
        let bytes = ROW_HEAD_BYTES + key_bytes + value_bytes;
        if self.held.len() < bytes {
            return Ok(false);
        }
        let Some(table) = self.table else {
            return Err(damaged("a row without a table"));
        };
        let mut key = self.held.split_to(bytes).freeze();
        let value = key.split_off(ROW_HEAD_BYTES + key_bytes);
        key.advance(ROW_HEAD_BYTES);
        if key <= self.last_key {
            return Err(damaged("of keys that are out of order"));
        }
        self.facts.check(table, &key, &value)?;
        self.last_key = key.clone();
        if table == Table::Meta {
            self.has_conf_state |= key == CONF_STATE_KEY;
            if key == DIGEST_KEY {
                self.digest = Some(value.clone());
            }
        }
        if !is_position(table, &key) {
            self.batch_bytes += ROW_BYTES + bytes;
            self.batch.push((table, key, value));
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<bool, ImageError> {
        let Some(record) = self.held.get(1..END_BYTES) else {
            return Ok(false);
        };
        if record != self.facts.rows.to_le_bytes() {
            return Err(damaged("without all of its rows"));
        }
        self.held.advance(END_BYTES);
        self.has_ended = true;
        Ok(true)
    }
}

fn damaged(what: &'static str) -> ImageError {
    ImageError::State(what)
}
