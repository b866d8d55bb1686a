use quorate_proto::authpb::Permission;
use quorate_proto::mvccpb::KeyValue;

use super::Peer;

/// What comes of an entry.
pub type Outcome = Result<Answer, Refusal>;

/// An answer to a request, as far as the log determines it.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a put.
    Put {
        /// Its revision.
        revision: i64,
        /// The pair before, when asked for.
        prev: Option<KeyValue>,
    },
    /// To a deletion.
    Delete {
        /// The store's revision after it.
        revision: i64,
        /// How many keys were deleted.
        deleted: i64,
        /// The pairs before, when asked for.
        prevs: Vec<KeyValue>,
    },
    /// To a transaction.
    Txn(TxnAnswer),
    /// To a compaction: the store's revision.
    Compaction(i64),
    /// To a grant.
    Grant {
        /// The lease.
        id: i64,
        /// Granted seconds.
        ttl_s: i64,
    },
    /// To a revocation: the store's revision after it.
    Revoke(i64),
    /// To a request about alarms: member and type, sorted.
    Alarms(Vec<(u64, i32)>),
    /// To a request about users and roles.
    Auth {
        /// The store's revision.
        revision: i64,
        /// The answer itself.
        reply: AuthReply,
    },
    /// To a change of members: all of them after it, sorted.
    Members(Vec<Peer>),
    /// To what is only done.
    Done,
}

/// An answer to a request about users and roles.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthReply {
    /// It is done.
    Done,
    /// Whether authentication is on, and the auth revision.
    Status(bool, u64),
    /// The token assigned.
    Token(String),
    /// Names, sorted.
    Names(Vec<String>),
    /// A role's permissions.
    Permissions(Vec<Permission>),
}

/// An answer to a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeAnswer {
    /// The store's revision when it was read.
    pub revision: i64,
    /// The pairs.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range has.
    pub count: i64,
}

/// An answer to a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnAnswer {
    /// The store's revision after it.
    pub revision: i64,
    /// Which branch ran.
    pub succeeded: bool,
    /// One for each operation of that branch.
    pub ops: Vec<OpAnswer>,
}

/// An answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum OpAnswer {
    /// Of a range.
    Range(RangeAnswer),
    /// Of a put: its revision and the pair before.
    Put(i64, Option<KeyValue>),
    /// Of a deletion: the revision, the number, the pairs before.
    Delete(i64, i64, Vec<KeyValue>),
    /// Of a nested transaction: which branch ran, and its answers.
    Txn(bool, Vec<OpAnswer>),
    /// Of an operation without a request.
    Empty,
}

/// Why a request is refused, as far as the log determines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "each is one line of the table of errors, under its name there"
)]
pub enum Refusal {
    KeyNotFound,
    LeaseNotFound,
    LeaseExists,
    TtlTooLarge,
    Compacted,
    FutureRevision,
    NoSpace,
    Corrupt,
    UserEmpty,
    RoleEmpty,
    PermissionNotGiven,
    InvalidAuthMgmt,
    NoPasswordUser,
    AuthFailed,
    AuthNotEnabled,
    InvalidAuthToken,
    AuthOldRevision,
    PermissionDenied,
    RootUserNotExist,
    RootRoleNotExist,
    UserAlreadyExist,
    UserNotFound,
    RoleAlreadyExist,
    RoleNotFound,
    RoleNotGranted,
    PermissionNotGranted,
    MemberNotFound,
    MemberExists,
    PeerUrlExists,
    NotLearner,
    TooManyLearners,
}

impl Answer {
    /// Returns the store's revision that the answer tells, if it tells one.
    pub fn revision(&self) -> Option<i64> {
        match self {
            Self::Put { revision, .. }
            | Self::Delete { revision, .. }
            | Self::Txn(TxnAnswer { revision, .. })
            | Self::Compaction(revision)
            | Self::Revoke(revision)
            | Self::Auth { revision, .. } => Some(*revision),
            Self::Grant { .. } | Self::Alarms(_) | Self::Members(_) | Self::Done => None,
        }
    }
}
