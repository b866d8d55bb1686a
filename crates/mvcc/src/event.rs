use bytes::Bytes;
use quorate_backend::Revision;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A value was written.
    Put,
    /// The key was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// What happened.
    pub kind: EventKind,
    /// The key; usually a slice of `record`.
    pub key: Bytes,
    /// The encoded `mvccpb.KeyValue` as stored; of a deletion it has only the key.
    pub record: Bytes,
    /// When it happened.
    pub revision: Revision,
    /// Main revision of the put that created the key; 0 of a deletion.
    pub create_revision: i64,
}

/// All changes of one main revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionEvents {
    /// The main revision.
    pub main: i64,
    /// The changes, by ascending sub revision; never empty.
    pub events: Vec<EventRecord>,
}
