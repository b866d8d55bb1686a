//! An image into a new backend.
use std::vec;

use bytes::Bytes;
use quorate_backend::{
    Applied, Backend, CONSISTENT_INDEX_KEY, Revision, TERM_KEY, Table, TableRow,
};
use quorate_snap::ImageReader;

use super::ImageError;
use super::check::{ImageFacts, tables};

/// Bytes of rows at which a batch ends, which is written in one transaction.
pub(super) const BATCH_BYTES: usize = 8 << 20;
/// Rows at which a batch ends.
pub(super) const BATCH_ROWS: usize = 50_000;
/// What a row counts besides its bytes.
pub(super) const ROW_BYTES: usize = 96;

/// How an image goes into a backend.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Where the backend is to be; the image's own index and term when `None`, with digest 0.
    pub applied: Option<Applied>,
    /// Tables whose rows stay out.
    pub without: Vec<Table>,
    /// Rows written besides; they replace those of the image.
    pub with: Vec<(Table, Bytes, Bytes)>,
    /// A revision written besides, newer than all of the image, with its record.
    pub newest: Option<(Revision, Bytes)>,
}

/// How batches of rows get from where they are read to where they are written.
pub trait Carrier {
    /// Takes what `read` returns, until it returns nothing more, to `write`, in order. Each may run on a thread of its own.
    ///
    /// # Errors
    /// The first of either.
    fn carry(
        &mut self,
        read: &mut (dyn FnMut() -> Result<Option<Vec<TableRow>>, ImageError> + Send),
        write: &mut dyn FnMut(&[TableRow]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError>;
}

/// Carries a batch at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct InTurn;

impl Carrier for InTurn {
    fn carry(
        &mut self,
        read: &mut (dyn FnMut() -> Result<Option<Vec<TableRow>>, ImageError> + Send),
        write: &mut dyn FnMut(&[TableRow]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        while let Some(batch) = read()? {
            write(&batch)?;
        }
        Ok(())
    }
}

/// Fills a new backend from an image, checking each row.
///
/// # Errors
/// What is wrong with the image, or why the backend cannot be written: it is of no use then, and says so itself, since its applied
/// index is 0.
///
/// # Panics
/// When the backend is not a new one.
///
/// # Durability
/// All of it is durable when it returns; the applied index becomes so last.
pub fn import_image(
    image: &ImageReader,
    backend: &Backend,
    import: Import,
) -> Result<ImageFacts, ImageError> {
    import_image_by(image, backend, import, &mut InTurn)
}

pub(super) fn import_image_by(
    image: &ImageReader,
    backend: &Backend,
    import: Import,
    carrier: &mut dyn Carrier,
) -> Result<ImageFacts, ImageError> {
    let mut batches = Batches {
        image,
        tables: tables(image)?.into_iter(),
        open: None,
        without: &import.without,
        facts: ImageFacts::default(),
    };
    backend.begin_filling();
    carrier.carry(&mut || batches.next(), &mut |rows| {
        backend.append_rows(rows).map_err(ImageError::Backend)
    })?;
    let facts = batches.facts;
    let applied = import.applied.unwrap_or(Applied {
        index: facts.consistent_index,
        term: facts.term,
        digest: 0,
    });
    let mut txn = backend.begin_apply(applied.index, applied.term);
    for (table, key, value) in import.with {
        txn.put(table, &key, value);
    }
    if let Some((revision, record)) = import.newest {
        txn.put_revision(revision, false, record);
    }
    txn.commit(applied.digest);
    if let Some(job) = backend.seal() {
        job.run()?;
    }
    assert_eq!(backend.durable(), applied, "all of the import is durable");
    Ok(facts)
}

/// The rows of an image, checked, in batches.
struct Batches<'a> {
    image: &'a ImageReader,
    tables: vec::IntoIter<Table>,
    /// The table being read, and the rows that are left of it.
    open: Option<(Table, Rows<'a>)>,
    without: &'a [Table],
    facts: ImageFacts,
}

type Rows<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), quorate_snap::Error>> + Send + 'a>;

impl Batches<'_> {
    /// Reads the next batch; `None` when there are no more rows.
    fn next(&mut self) -> Result<Option<Vec<TableRow>>, ImageError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((table, key, value)) = self.row()? {
            self.facts.check(table, &key, &value)?;
            if self.without.contains(&table) || is_position(table, &key) {
                continue;
            }
            bytes += ROW_BYTES + key.len() + value.len();
            batch.push((table, key, value));
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_ROWS {
                break;
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn row(&mut self) -> Result<Option<TableRow>, ImageError> {
        loop {
            if let Some((table, rows)) = &mut self.open
                && let Some(row) = rows.next()
            {
                let (key, value) = row?;
                return Ok(Some((*table, key, value)));
            }
            let Some(table) = self.tables.next() else {
                self.open = None;
                return Ok(None);
            };
            let rows = self.image.rows(table.name().as_bytes());
            self.open = Some((table, Box::new(rows)));
        }
    }
}

pub(super) fn is_position(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && (key == CONSISTENT_INDEX_KEY || key == TERM_KEY)
}
