//! A multi-version key-value store with watch, compaction and etcd's hashes.

mod error;
mod event;
mod key_range;
mod options;
mod record;

pub use error::Error;
pub use event::{EventKind, EventRecord, RevisionEvents};
pub use key_range::KeyRange;
pub use options::Options;
pub use quorate_backend::Revision;
