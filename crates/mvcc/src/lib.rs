//! A multi-version key-value store with watch, compaction and etcd's hashes.

mod error;
mod event;
mod event_log;
mod key_range;
mod options;
mod record;
mod watch;

pub use error::Error;
pub use event::{EventKind, EventRecord, RevisionEvents};
pub use event_log::{EventLog, LogRead};
pub use key_range::KeyRange;
pub use options::Options;
pub use quorate_backend::Revision;
pub use watch::{EventBatch, History, StreamId, WatchCreate, WatchHub, WatchOptions, WatchResponse, WatchStats};
