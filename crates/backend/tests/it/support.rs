//! A small obvious store to compare with, and what all tests need.

use bytes::Bytes;
use quorate_backend::{
    Applied, Backend, CONSISTENT_INDEX_KEY, Error, Options, ReadTxn, Revision, RevisionRow,
    TERM_KEY, Table,
};
use quorate_disk::{Disk, SimDisk};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// Where the tests keep their file.
pub(crate) const PATH: &str = "/data/db";

/// A disk with a durable, empty directory for the file.
pub(crate) fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// Small caches, so that pages and values really come from the disk.
pub(crate) fn small_options() -> Options {
    Options {
        page_cache_bytes: 64 << 10,
        value_cache_bytes: 4 << 10,
        ..Options::default()
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<Backend, Error> {
    Backend::open(Arc::new(disk.clone()), Path::new(PATH), small_options())
}

pub(crate) fn flush(backend: &Backend) -> Applied {
    backend.seal().unwrap().run().unwrap()
}

/// Small numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub(crate) fn size(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap()
    }
}

/// Everything there is, as plain maps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    pub(crate) applied: Applied,
    pub(crate) tables: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
}

impl Model {
    pub(crate) fn set(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        let rows = self.tables.entry(table).or_default();
        match value {
            Some(value) => {
                rows.insert(Bytes::copy_from_slice(key), value);
            }
            None => {
                rows.remove(key);
            }
        }
        if rows.is_empty() {
            self.tables.remove(&table);
        }
    }

    pub(crate) fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
        for (key, number) in [
            (CONSISTENT_INDEX_KEY, applied.index),
            (TERM_KEY, applied.term),
        ] {
            let value = Bytes::copy_from_slice(&number.to_be_bytes());
            self.set(Table::Meta, key, (number != 0).then_some(value));
        }
    }

    pub(crate) fn rows(&self, table: Table) -> Vec<(Bytes, Bytes)> {
        let rows = self.tables.get(&table);
        rows.into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn revisions(&self) -> Vec<RevisionRow> {
        self.rows(Table::Key)
            .into_iter()
            .map(|(key, record)| {
                let (rev, tombstone) = Revision::from_table_key(&key).unwrap();
                RevisionRow {
                    rev,
                    tombstone,
                    record,
                }
            })
            .collect()
    }
}

/// Reads everything.
pub(crate) fn read_all(txn: &ReadTxn, step: usize) -> Result<Model, Error> {
    let mut model = Model {
        applied: txn.applied(),
        ..Model::default()
    };
    for table in Table::ALL {
        let mut from = Bound::Unbounded;
        loop {
            let rows = txn.scan(table, from.as_ref().map(Bytes::as_ref), step)?;
            let Some((last, _)) = rows.last() else {
                break;
            };
            let end = rows.len() < step;
            from = Bound::Excluded(last.clone());
            for (key, value) in rows {
                model.set(table, &key, Some(value));
            }
            if end {
                break;
            }
        }
    }
    Ok(model)
}
