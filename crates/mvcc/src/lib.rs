//! A multi-version key-value store with watch, compaction and etcd's hashes.

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
pub use store::{Changes, DeleteResult, PutResult, Store};
pub use txn::{OpResult, TxnResult, is_read_only, is_serializable};
pub use watch::*;
