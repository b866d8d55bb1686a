//! What clients write down.

use bytes::Bytes;

/// Values longer than this are kept as their beginning and a hash.
const VALUE_BYTES_MAX: usize = 48;
/// What is kept of the beginning.
const VALUE_BYTES_KEPT: usize = 32;

/// A range of keys as the API writes it: no end for a single key, an end of one zero byte for every key from `key` on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key.
    pub key: Bytes,
    /// The key behind the last one.
    pub end: Bytes,
}

impl KeyRange {
    /// One key.
    #[must_use]
    pub fn single(key: &[u8]) -> KeyRange {
        KeyRange {
            key: Bytes::copy_from_slice(key),
            end: Bytes::new(),
        }
    }

    /// Every key that begins with `prefix`, whose last byte is below 255.
    ///
    /// # Panics
    /// The prefix is empty or ends with the byte 255.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        let mut end = prefix.to_vec();
        let last = end.last_mut().expect("a prefix has a byte");
        *last = last.checked_add(1).expect("a prefix ends below 255");
        KeyRange {
            key: Bytes::copy_from_slice(prefix),
            end: end.into(),
        }
    }

    /// Every key.
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange {
            key: Bytes::from_static(b"\0"),
            end: Bytes::from_static(b"\0"),
        }
    }

    /// Whether the key is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end[..] {
            b"" => self.key == key,
            b"\0" => &self.key[..] <= key,
            end => &self.key[..] <= key && key < end,
        }
    }
}

/// A key as a member shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// Its value, or what [`shorten`] leaves of it.
    pub value: Bytes,
    /// The revision that made it.
    pub created: i64,
    /// The revision that wrote it last.
    pub modified: i64,
    /// The writes since it was made.
    pub version: i64,
    /// Its lease, 0 for none.
    pub lease: i64,
}

/// What stands for a value: itself, or its beginning and a hash where it is long.
#[must_use]
pub fn shorten(value: &Bytes) -> Bytes {
    if value.len() <= VALUE_BYTES_MAX {
        return value.clone();
    }
    // FNV-1a, 64 bits.
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut short = value[..VALUE_BYTES_KEPT].to_vec();
    short.extend(format!("{hash:016x}").as_bytes());
    short.into()
}

/// How two numbers or values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// More than the given one.
    Greater,
    /// Less than the given one.
    Less,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// On the version of a key, 0 when it is not there.
    Version(Bytes, Relation, i64),
    /// On the revision of its last write, 0 when it is not there.
    Modified(Bytes, Relation, i64),
    /// On its value; never true when it is not there.
    Value(Bytes, Relation, Bytes),
}

/// A part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value; no other put of a recording has the same.
        value: Bytes,
        /// The lease, 0 for none.
        lease: i64,
        /// Whether the key as it was is asked for.
        previous: bool,
    },
    /// Deletes keys.
    Delete {
        /// Which.
        range: KeyRange,
        /// Whether the keys as they were are asked for.
        previous: bool,
    },
    /// Reads keys.
    Range(KeyRange),
}

/// How a request that only reads is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As of a moment within the call.
    Linearizable,
    /// As of what the member has.
    Serializable,
}

/// Conditions and what is done; a plain put, delete or range is one without conditions and with one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for the first branch.
    pub conditions: Vec<Comparison>,
    /// Done when they hold.
    pub then: Vec<Op>,
    /// Done when they do not.
    pub otherwise: Vec<Op>,
    /// How it is read, where it only reads; writes are always linearizable.
    pub reading: Reading,
    /// The revision that a plain range asks for, 0 for the present.
    pub at: i64,
}

/// What is asked of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Reads and writes keys.
    Keys(Txn),
    /// Forgets what was before a revision.
    Compact(i64),
    /// Makes a lease.
    Grant {
        /// Its id, used for no other.
        lease: i64,
        /// The seconds asked for.
        ttl: i64,
    },
    /// Keeps a lease alive.
    Renew(i64),
    /// Ends a lease.
    Revoke(i64),
}

impl Request {
    /// A plain put.
    #[must_use]
    pub fn put(key: &[u8], value: &[u8], lease: i64) -> Request {
        Request::one(
            Op::Put {
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
                lease,
                previous: false,
            },
            Reading::Linearizable,
            0,
        )
    }

    /// A single operation; `at` is the revision of a range.
    #[must_use]
    pub fn one(op: Op, reading: Reading, at: i64) -> Request {
        Request::Keys(Txn {
            conditions: Vec::new(),
            then: vec![op],
            otherwise: Vec::new(),
            reading,
            at,
        })
    }
}

/// What came of an operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// A put, with the key as it was when that was asked for.
    Put(Option<Kv>),
    /// A delete: how many, and the keys as they were when that was asked for.
    Delete(i64, Vec<Kv>),
    /// A range.
    Range(Vec<Kv>),
}

/// What a member answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The revision in the header.
    pub revision: i64,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// One for each operation of the branch.
    pub results: Vec<OpResult>,
    /// The seconds a lease has got, 0 when there is no such lease.
    pub ttl: i64,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// With an answer.
    Done(Answer),
    /// With an error that says that nothing was done.
    Refused(String),
    /// With an error that says nothing, or with none: it may have been done, or may yet be.
    Unknown(String),
}

impl Reply {
    /// The answer, when there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Reply::Done(answer) => Some(answer),
            _ => None,
        }
    }
}

/// One request of one client.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asked; a client asks one thing at a time.
    pub client: usize,
    /// Whom.
    pub member: usize,
    /// Which life of that member, when the call began and ended within the same.
    pub life: Option<u64>,
    /// When it was sent, in microseconds since the beginning of the recording.
    pub begun_us: u64,
    /// When it had ended, on the same clock.
    pub ended_us: u64,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub reply: Reply,
}

/// An event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A put; otherwise a delete, of which only key and revision count.
    pub is_put: bool,
    /// The key as it is now.
    pub kv: Kv,
    /// The key as it was, when the watch asked for that.
    pub previous: Option<Kv>,
}

/// One answer of a watch.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// When it came.
    pub at_us: u64,
    /// The revision in the header.
    pub revision: i64,
    /// Events, or none for progress.
    pub events: Vec<Event>,
    /// The first answer, which says that the watch exists.
    pub is_created: bool,
    /// The compacted revision with which it was cancelled, 0 otherwise.
    pub compacted: i64,
}

/// One watch, from its creation to the end of its stream.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Who watched.
    pub client: usize,
    /// Whom.
    pub member: usize,
    /// What.
    pub range: KeyRange,
    /// From which revision on, 0 for what comes after the creation.
    pub from: i64,
    /// Whether keys as they were are asked for.
    pub previous: bool,
    /// What came.
    pub messages: Vec<Message>,
}

/// The hash of a member's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    /// Whose.
    pub member: String,
    /// Up to which revision.
    pub revision: i64,
    /// From which on.
    pub compacted: i64,
    /// The hash.
    pub hash: u32,
}

/// Everything that was seen of a cluster from its first revision on.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Requests, in any order.
    pub calls: Vec<Call>,
    /// Watches, in any order; those of every key together show every revision.
    pub watches: Vec<Watch>,
    /// Hashes taken of members.
    pub hashes: Vec<Hash>,
}
