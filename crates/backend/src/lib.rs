//! The storage engine: [`redb`] behind transactions that carry the consistent index.
//!
//! The tables are the buckets of etcd's database ([`Table`]), with etcd's keys and values. Two types write, and nothing else
//! can:
//!
//! - [`ApplyTxn`] is begun with the log index and term it covers and commits them, and a digest, together with everything
//!   the batch changed. There is no way to write one without the others, and none to move the consistent index back.
//! - [`MaintenanceTxn`], for bootstrap and compaction, cannot touch the consistent index.
//!
//! # From a batch to the disk
//!
//! ```text
//! ApplyTxn::commit ─► open layer ─ Backend::seal ─► sealed layer ─ FlushJob::run ─► file
//!                     └──────────── readers see all three as one ────────────────┘
//! ```
//!
//! A committed batch is visible at once and in memory; the log that it came from is its durability. From time to time
//! [`Backend::seal`] freezes what has gathered and [`FlushJob::run`], on a thread of the caller's choice, commits it to the
//! file in one transaction. No reader and no batch ever waits for that: no lock is held over input or output.
//!
//! # What a crash leaves
//!
//! | crash | found at the next open |
//! |---|---|
//! | before a flush, or in it before its last sync | the state of the flush before, whole |
//! | after the last sync of a flush | the state of that flush, whole |
//! | while the file is made | no file, or the empty one |
//!
//! "State" is always all tables, consistent index, term and digest of one and the same batch. Opening reads a few pages,
//! however large the file is.
//!
//! Every page carries a checksum that is verified whenever the page comes from the disk: damage is an
//! [`Error::Corrupt`] with its place, never a wrong value. It is found when the page is read, not at the opening.
//!
//! After a write or sync has failed the backend is poisoned: nothing is written any more, so that the file keeps its last
//! whole state; open it again to recover.
//!
//! # Filling a new file
//!
//! An image of another member's database goes into a new file by [`Backend::append_rows`], as many times as memory asks for, and
//! then one [`ApplyTxn`] at the image's index and term, flushed. The index is there only when all the rest is; the file is renamed
//! to its place after that.
//!
//! # Defragmentation
//!
//! The file reuses its space and seldom gives any back. [`Backend::defragment`] copies the rows into a new file beside it, step by
//! step, while everything goes on, and gives that the name:
//!
//! | crash | found at the next open |
//! |---|---|
//! | before the rename is durable | the old file, whole; the copy under its other name is nobody's, and is made anew next time |
//! | after that | the copy, whole, with all that was flushed into the old one |
//!
//! A copy that fails, for want of space for example, is removed, and the old file goes on untouched. redb takes a free page of the
//! size that is asked for before it splits a larger one, wherever they are, so that rewriting rows in place gains nothing certain.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use quorate_backend::{Backend, Options, Revision, Table};
//! use quorate_disk::{Disk, SimDisk};
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! let disk = SimDisk::new(1);
//! disk.create_dir_all(Path::new("/data"))?;
//! let backend = Backend::open(Arc::new(disk), Path::new("/data/db"), Options::default())?;
//!
//! // Entry 7 of term 2 puts a key and grants a lease: one batch.
//! let mut txn = backend.begin_apply(7, 2);
//! txn.put_revision(Revision::new(2, 0), false, Bytes::from_static(b"an encoded KeyValue"));
//! txn.put(Table::Lease, &1_i64.to_be_bytes(), Bytes::from_static(b"an encoded Lease"));
//! txn.commit(0xd1e5);
//!
//! // Everybody sees it, the disk does not have it yet.
//! assert_eq!(backend.value(Revision::new(2, 0))?.unwrap(), "an encoded KeyValue");
//! assert_eq!((backend.applied().index, backend.durable().index), (7, 0));
//!
//! let job = backend.seal().expect("there is work to flush");
//! job.run()?;
//! assert_eq!(backend.durable(), backend.applied());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod revision;
mod table;

mod backend;

mod apply;
mod flush;
mod maintenance;
mod read;

mod accounting;
mod layer;
mod state;
mod value_cache;

mod engine;
mod gathered;
mod pages;
mod superblock;

mod error;
mod options;

pub mod fuzz;

pub use accounting::Sizes;
pub use apply::ApplyTxn;
pub use backend::{
    Backend, COPY_SUFFIX, DefragmentJob, DefragmentOptions, Defragmented, Defragmenting,
};
pub use error::Error;
pub use flush::FlushJob;
pub use maintenance::MaintenanceTxn;
pub use options::{Identity, Options, PAGE_CACHE_BYTES_DEFAULT, VALUE_CACHE_BYTES_DEFAULT};
pub use read::ReadTxn;
pub use revision::{Revision, RevisionKey, RevisionRow};
pub use state::Applied;
pub use superblock::FORMAT_VERSION;
pub use table::{CONSISTENT_INDEX_KEY, TERM_KEY, Table, TableRow};
