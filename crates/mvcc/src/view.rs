use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use quorate_backend::{ApplyTxn, Backend, Revision};

use crate::horizon::Horizon;
use crate::index::{KeyIndex, KeyParts, Walk};
use crate::record::KeyVersion;
use crate::{Error, KeyRange};

/// The store as one reader sees it: the index, and where values come from.
///
/// The index lock is never held over I/O, and for no more than a chunk of keys.
pub(crate) struct View<'a> {
    pub(crate) index: &'a RwLock<KeyIndex>,
    pub(crate) values: &'a dyn Values,
    pub(crate) chunk_keys: usize,
    /// Where to look whether a compaction overtook the reader; `None` when it is held back.
    pub(crate) overtaken_by: Option<&'a Horizon>,
    /// What the read may still take; `None` when it may take everything.
    pub(crate) budget: Option<&'a Budget>,
}

/// Where the records of a view come from.
pub(crate) trait Values {
    /// Returns the record of a revision.
    fn value(&self, revision: Revision) -> Result<Option<Bytes>, Error>;

    /// Returns the records of many revisions, in their order, up to about so many bytes. `None` says nothing: they are to
    /// be asked for one by one.
    fn values(&self, revisions: &[Revision], bytes_max: usize)
    -> Result<Vec<Option<Bytes>>, Error>;
}

impl Values for Backend {
    fn value(&self, revision: Revision) -> Result<Option<Bytes>, Error> {
        Ok(Backend::value(self, revision)?)
    }

    fn values(
        &self,
        revisions: &[Revision],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        Ok(Backend::values(self, revisions, bytes_max)?)
    }
}

/// A transaction's own records first. There is no reading ahead: what a transaction reads is little.
impl Values for ApplyTxn {
    fn value(&self, revision: Revision) -> Result<Option<Bytes>, Error> {
        Ok(ApplyTxn::value(self, revision)?)
    }

    fn values(&self, revisions: &[Revision], _: usize) -> Result<Vec<Option<Bytes>>, Error> {
        Ok(vec![None; revisions.len()])
    }
}

/// Records that are asked for at a time.
const RECORDS_PER_READ: usize = 1024;
/// Fewer records are asked for one by one.
const RECORDS_PER_READ_MIN: usize = 8;
/// Most bytes of records that are read ahead of what was counted.
const READ_AHEAD_BYTES_MAX: usize = 4 << 20;

/// How much one read may look at and hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Most keys looked at in the index.
    pub keys_max: usize,
    /// Most bytes held for the answer.
    pub bytes_max: usize,
}

impl ReadLimit {
    /// Limits nothing.
    pub const NONE: ReadLimit = ReadLimit {
        keys_max: usize::MAX,
        bytes_max: usize::MAX,
    };
}

/// What is left of a [`ReadLimit`].
pub(crate) struct Budget {
    keys: Cell<usize>,
    bytes: Cell<usize>,
}

impl Budget {
    pub(crate) fn new(limit: ReadLimit) -> Budget {
        Budget {
            keys: Cell::new(limit.keys_max),
            bytes: Cell::new(limit.bytes_max),
        }
    }
}

fn take(left: &Cell<usize>, amount: usize) -> Result<(), Stop> {
    let rest = left.get().checked_sub(amount).ok_or(Error::TooLarge)?;
    left.set(rest);
    Ok(())
}

/// Why a read came to no result.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A compaction overtook it. A second attempt with a pin settles it.
    Overtaken,
    /// It failed.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl Stop {
    /// Takes the failure of a read that compaction cannot overtake.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Stop::Failed(error) => error,
            Stop::Overtaken => unreachable!("a pinned read is never overtaken"),
        }
    }
}

impl View<'_> {
    /// Returns what a key is at a main revision.
    pub(crate) fn get(&self, key: &[u8], main: i64) -> Result<Option<KeyVersion>, Stop> {
        Ok(self.lock(main)?.get(key, main))
    }

    /// Returns the record of a revision that the index knows.
    pub(crate) fn record(&self, revision: Revision) -> Result<Bytes, Stop> {
        match self.values.value(revision)? {
            Some(record) => {
                self.hold(record.len())?;
                Ok(record)
            }
            None if self.overtaken_by.is_some() => Err(Stop::Overtaken),
            None => Err(Stop::Failed(Error::Corrupt {
                main: revision.main,
                sub: revision.sub,
                expected: "a record, since the index knows the revision",
            })),
        }
    }

    /// Appends the records of revisions that the index knows, in their order.
    pub(crate) fn records(
        &self,
        revisions: impl ExactSizeIterator<Item = Revision>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Stop> {
        out.reserve(revisions.len());
        if revisions.len() < RECORDS_PER_READ_MIN {
            for revision in revisions {
                out.push(self.record(revision)?);
            }
            return Ok(());
        }
        let mut revisions = revisions.peekable();
        let mut part = Vec::with_capacity(revisions.len().min(RECORDS_PER_READ));
        while revisions.peek().is_some() {
            part.clear();
            part.extend(revisions.by_ref().take(RECORDS_PER_READ));
            let left = self.budget.map_or(usize::MAX, |budget| budget.bytes.get());
            let records = self.values.values(&part, left.min(READ_AHEAD_BYTES_MAX))?;
            for (revision, record) in part.iter().zip(records) {
                out.push(match record {
                    Some(record) => {
                        self.hold(record.len())?;
                        record
                    }
                    None => self.record(*revision)?,
                });
            }
        }
        Ok(())
    }

    /// Counts bytes that the read holds for its answer.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Stop> {
        self.budget
            .map_or(Ok(()), |budget| take(&budget.bytes, bytes))
    }

    fn look_at(&self, keys: usize) -> Result<(), Stop> {
        self.budget
            .map_or(Ok(()), |budget| take(&budget.keys, keys))
    }

    /// Visits the keys of a range that exist at a main revision, in key order, until told to stop. The visitor runs
    /// under the index lock; `between` runs after each chunk without it and may stop the walk too.
    pub(crate) fn walk(
        &self,
        range: &KeyRange,
        main: i64,
        mut visitor: impl FnMut(KeyParts<'_>, KeyVersion) -> ControlFlow<()>,
        mut between: impl FnMut() -> Result<ControlFlow<()>, Stop>,
    ) -> Result<(), Stop> {
        let mut rest = None;
        loop {
            let mut seen = 0;
            let count = |key: KeyParts<'_>, version: KeyVersion| {
                seen += 1;
                visitor(key, version)
            };
            let walk = self.lock(main)?.visit(
                rest.as_ref().unwrap_or(range),
                main,
                self.chunk_keys,
                count,
            );
            self.look_at(seen)?;
            if between()?.is_break() {
                return Ok(());
            }
            match walk {
                Walk::Done => return Ok(()),
                Walk::After(key) => rest = Some(range.after(&key)),
            }
        }
    }

    /// Counts the keys of a range that exist at a main revision.
    pub(crate) fn count(&self, range: &KeyRange, main: i64) -> Result<usize, Stop> {
        if let Some(count) = self.lock(main)?.count(range, main) {
            return Ok(count);
        }
        let mut count = 0;
        let visitor = |_: KeyParts<'_>, _| {
            count += 1;
            ControlFlow::Continue(())
        };
        self.walk(range, main, visitor, || Ok(ControlFlow::Continue(())))?;
        Ok(count)
    }

    fn lock(&self, main: i64) -> Result<RwLockReadGuard<'_, KeyIndex>, Stop> {
        let index = self.index.read();
        // A compaction changes the index after it moved the horizon, so what is not overtaken now is all there.
        if self
            .overtaken_by
            .is_some_and(|horizon| horizon.compact() > main)
        {
            return Err(Stop::Overtaken);
        }
        Ok(index)
    }
}
