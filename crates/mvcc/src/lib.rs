//! A multi-version key-value store with watch, compaction and etcd's hashes.
//!
//! Every write gets the next revision, and every revision stays readable until a compaction moves the horizon past it.
//! The store keeps, byte for byte, the records that etcd keeps, so that the hash of a history is the same in both.
//!
//! ```text
//! Store (the writer) --ApplyTxn--> backend: revision -> record
//!   |  index: key -> revisions          ^
//!   |  event log                        | values, history
//!   +--publish--> Reader, RangeStream, WatchHub (any thread)
//! ```
//!
//! - [`Store`] is the only writer. It works inside an `ApplyTxn` of the backend, several requests to a batch, and shows
//!   the batch with [`Store::publish`].
//! - [`Reader`] reads at one revision, waits for nobody, and holds the index lock for a bounded number of keys at a time.
//! - [`CompactionJob`] frees what a compaction left behind, in small steps that may end at any point.
//! - [`WatchHub`] tells watchers of changes, from the shared [`EventLog`] or, for those far behind, from the backend.
//! - [`validate`] checks requests before they are proposed.
//!
//! # Example
//!
//! ```
//! use std::{path::Path, sync::Arc};
//!
//! use quorate_backend::Backend;
//! use quorate_disk::SimDisk;
//! use quorate_mvcc::{Options, Store};
//! use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = Arc::new(SimDisk::new(1));
//! let backend = Backend::open(disk, Path::new("db"), quorate_backend::Options::default())?;
//! let (mut store, _leases) = Store::restore(&backend, Options::default())?;
//! let reader = store.reader();
//!
//! // Index and term of the log entry that is applied.
//! let mut txn = backend.begin_apply(1, 1);
//! let put = PutRequest { key: "greeting".into(), value: "hello".into(), ..Default::default() };
//! let result = store.put(&mut txn, &put, |_lease| false)?;
//! txn.commit(0);
//! store.publish();
//!
//! assert_eq!((result.revision, reader.current_revision()), (2, 2));
//! let range = RangeRequest { key: "greeting".into(), ..Default::default() };
//! assert_eq!(reader.range(&range)?.count, 1);
//! # Ok(())
//! # }
//! ```

mod error;
mod options;

mod event;
mod key_range;
mod record;

mod horizon;
mod index;
mod shared;
mod view;

mod compare;
mod interval_set;
mod range;
mod range_stream;
mod txn;
pub mod validate;

mod compaction;
mod hash;
mod reader;
mod restore;
mod store;

mod event_log;
mod watch;

pub use compaction::{CompactionJob, CompactionSummary, Progress};
pub use error::Error;
pub use event::{EventKind, EventRecord, RevisionEvents};
pub use event_log::{EventLog, LogRead};
pub use hash::{CompactionHash, HashKv};
pub use key_range::KeyRange;
pub use options::Options;
pub use quorate_backend::Revision;
pub use range::RangeResult;
pub use range_stream::{RangeChunk, RangeEnd, RangeStream, RangeStreamOptions};
pub use reader::Reader;
pub use restore::Restoring;
pub use store::{Changes, DeleteResult, PutResult, Store};
pub use txn::{OpResult, TxnResult, is_read_only, is_serializable};
pub use view::ReadLimit;
pub use watch::{
    EventBatch, History, StreamId, WatchCreate, WatchHub, WatchOptions, WatchResponse, WatchStats,
};
