//! An image into a new backend.
use bytes::Bytes;
use quorate_backend::{Applied, Backend, CONSISTENT_INDEX_KEY, Revision, TERM_KEY, Table};
use quorate_snap::ImageReader;

use super::ImageError;
use super::check::{ImageFacts, tables};

/// Bytes of rows at which a transaction ends.
const TXN_BYTES: usize = 16 << 20;
/// Rows at which a transaction ends.
const TXN_ROWS: usize = 100_000;
/// What a row counts besides its bytes.
const ROW_BYTES: usize = 64;

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
    let mut facts = ImageFacts::default();
    let mut txn = backend.maintenance()?;
    let (mut bytes, mut rows) = (0, 0);
    for table in tables(image)? {
        for row in image.rows(table.name().as_bytes()) {
            let (key, value) = row?;
            facts.check(table, &key, &value)?;
            if import.without.contains(&table) || is_position(table, &key) {
                continue;
            }
            bytes += ROW_BYTES + key.len() + value.len();
            rows += 1;
            txn.put(table, &key, value);
            if bytes >= TXN_BYTES || rows >= TXN_ROWS {
                txn.commit()?;
                txn = backend.maintenance()?;
                (bytes, rows) = (0, 0);
            }
        }
    }
    txn.commit()?;
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

fn is_position(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && (key == CONSISTENT_INDEX_KEY || key == TERM_KEY)
}
