//! A state of the tables, read as an image.
use std::io::{self, Read, Write};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use quorate_backend::{ReadTxn, Revision, Table};
use quorate_snap::{ImageWriter, Layout};

use super::ImageError;
use crate::{DIGEST_KEY, digest_row};

/// Most rows that are read from the tables at a time.
const STEP_ROWS: usize = 1_000;
/// Bytes of values at which a step of the revision table ends.
const STEP_BYTES: usize = 256 << 10;

/// One state of all tables as etcd's image, made while it is read.
///
/// It reads the tables twice: all of them when it is opened, to know the size, and bit by bit while it is read. Memory: some rows,
/// and what the image's writer keeps. The transaction lives as long, and with it the pages that it sees.
pub struct ImageStream {
    txn: ReadTxn,
    layout: Layout,
    rows: Rows,
    /// `None` when the image has ended.
    image: Option<ImageWriter<Vec<u8>>>,
    ready: Vec<u8>,
    /// Bytes of `ready` that were read.
    taken: usize,
}

/// What the rows of a state go into, table by table in order.
pub(super) trait RowSink {
    fn bucket(&mut self, table: Table) -> Result<(), ImageError>;
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), ImageError>;
}

impl<W: Write> RowSink for ImageWriter<W> {
    fn bucket(&mut self, table: Table) -> Result<(), ImageError> {
        Ok(ImageWriter::bucket(self, table.name().as_bytes())?)
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), ImageError> {
        Ok(ImageWriter::row(self, key, value)?)
    }
}

/// How far the tables were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// Place in [`Table::ALL`].
    table: usize,
    begun: bool,
    /// The newest row read of a table that is not the one of revisions.
    last: Option<Bytes>,
    /// Where the table of revisions goes on.
    next: Revision,
    /// Whether the digest is still to be written into its table.
    digest: bool,
}

/// The first reading of the rows of an [`ImageStream`], some at a time.
pub struct ImageMeasure {
    txn: ReadTxn,
    rows: Rows,
    image: ImageWriter<io::Sink>,
    /// Whether the image is to say what the running digest is.
    digest: bool,
}

impl ImageMeasure {
    /// Begins; nothing is read yet.
    #[must_use]
    pub fn new(txn: ReadTxn) -> Self {
        Self::new_with(txn, false)
    }

    /// As [`Self::new`], for a member: the image also says what the running digest is.
    #[must_use]
    pub fn for_member(txn: ReadTxn) -> Self {
        Self::new_with(txn, true)
    }

    fn new_with(txn: ReadTxn, digest: bool) -> Self {
        Self {
            txn,
            rows: Rows {
                digest,
                ..Rows::default()
            },
            image: ImageWriter::measure(),
            digest,
        }
    }

    /// Reads some rows; false when there are no more.
    ///
    /// # Errors
    /// When the tables cannot be read, or hold a row that the format does not take.
    pub fn step(&mut self) -> Result<bool, ImageError> {
        self.rows.step(&self.txn, &mut self.image)
    }

    /// Ends, after the last step.
    ///
    /// # Errors
    /// None that a step would not have had; an image of fewer rows than there are fails while it is read.
    pub fn finish(self) -> Result<ImageStream, ImageError> {
        let (_, layout) = self.image.finish()?;
        let image = ImageWriter::new(Vec::new(), layout)?;
        Ok(ImageStream {
            txn: self.txn,
            layout,
            rows: Rows {
                digest: self.digest,
                ..Rows::default()
            },
            image: Some(image),
            ready: Vec::new(),
            taken: 0,
        })
    }
}

impl std::fmt::Debug for ImageMeasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageMeasure")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl ImageStream {
    /// Reads all rows once and gets ready to do it again.
    ///
    /// # Errors
    /// As [`ImageMeasure::step`].
    pub fn open(txn: ReadTxn) -> Result<Self, ImageError> {
        Self::open_measured(ImageMeasure::new(txn))
    }

    /// As [`Self::open`], of an image [`ImageMeasure::for_member`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for_member(txn: ReadTxn) -> Result<Self, ImageError> {
        Self::open_measured(ImageMeasure::for_member(txn))
    }

    fn open_measured(mut measure: ImageMeasure) -> Result<Self, ImageError> {
        while measure.step()? {}
        measure.finish()
    }

    /// Returns the size of the whole image in bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Returns how far the log is applied in the image.
    #[must_use]
    pub fn applied(&self) -> quorate_backend::Applied {
        self.txn.applied()
    }

    /// Returns the storage version in the image; empty while unset.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn storage_version(&self) -> Result<String, ImageError> {
        let version = self
            .txn
            .get(Table::Meta, super::check::STORAGE_VERSION_KEY)?;
        Ok(String::from_utf8_lossy(&version.unwrap_or_default()).into_owned())
    }

    /// Makes more of the image; nothing is left to be made when `ready` stays empty.
    fn refill(&mut self) -> Result<(), ImageError> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            let Some(image) = &mut self.image else {
                return Ok(());
            };
            // The last buffer is used again for the next bytes.
            std::mem::swap(image.output(), &mut self.ready);
            if !self.ready.is_empty() {
                return Ok(());
            }
            if !self.rows.step(&self.txn, image)? {
                let image = self.image.take().expect("just looked at");
                (self.ready, _) = image.finish()?;
            }
        }
        Ok(())
    }
}

impl Read for ImageStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            self.refill().map_err(io::Error::other)?;
        }
        let rest = &self.ready[self.taken..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

impl std::fmt::Debug for ImageStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStream")
            .field("layout", &self.layout)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Rows {
    /// Begins, for a member: the running digest is among the rows.
    pub(super) fn for_member() -> Self {
        Self {
            digest: true,
            ..Self::default()
        }
    }

    /// Hands some rows on; false when there are no more tables.
    pub(super) fn step(
        &mut self,
        txn: &ReadTxn,
        image: &mut impl RowSink,
    ) -> Result<bool, ImageError> {
        let Some(table) = Table::ALL.get(self.table).copied() else {
            return Ok(false);
        };
        if !self.begun {
            image.bucket(table)?;
            self.begun = true;
        }
        let more = match table {
            Table::Key => self.revisions(txn, image)?,
            table => self.others(table, txn, image)?,
        };
        if !more {
            *self = Self {
                table: self.table + 1,
                digest: self.digest,
                ..Self::default()
            };
        }
        Ok(true)
    }

    fn revisions(&mut self, txn: &ReadTxn, image: &mut impl RowSink) -> Result<bool, ImageError> {
        let (mut rows, mut bytes) = (0, 0);
        let mut last = None;
        let mut written = Ok(());
        txn.visit_revisions(self.next, Revision::MAX, |revision, tombstone, record| {
            written = image.row(revision.table_key(tombstone).as_bytes(), record);
            last = Some(revision);
            rows += 1;
            bytes += record.len();
            if written.is_err() || rows >= STEP_ROWS || bytes >= STEP_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        written?;
        let Some(Revision { main, sub }) = last else {
            return Ok(false);
        };
        self.next = match sub.checked_add(1) {
            Some(sub) => Revision::new(main, sub),
            None => Revision::new(main.saturating_add(1), 0),
        };
        Ok(true)
    }

    fn others(
        &mut self,
        table: Table,
        txn: &ReadTxn,
        image: &mut impl RowSink,
    ) -> Result<bool, ImageError> {
        let from = self
            .last
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let rows = txn.scan(table, from, STEP_ROWS)?;
        let more = rows.len() == STEP_ROWS;
        for (key, value) in &rows {
            // One that came with an image says nothing of this state.
            if table == Table::Meta && key == DIGEST_KEY {
                continue;
            }
            if table == Table::Meta && key > DIGEST_KEY {
                self.digest_row(txn, image)?;
            }
            image.row(key, value)?;
        }
        if table == Table::Meta && !more {
            self.digest_row(txn, image)?;
        }
        self.last = rows.into_iter().next_back().map(|(key, _)| key);
        Ok(more)
    }

    fn digest_row(&mut self, txn: &ReadTxn, image: &mut impl RowSink) -> Result<(), ImageError> {
        let applied = txn.applied();
        if std::mem::take(&mut self.digest) {
            image.row(DIGEST_KEY, &digest_row(applied.index, applied.digest))?;
        }
        Ok(())
    }
}
