//! What can go wrong between members.
use std::{fmt, io};

/// Why a link, or a request over one, failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A peer URL is not one; the configuration is wrong.
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The other side asks for a newer member, or is too old for us.
    IncompatibleVersion,
    /// The other side belongs to another cluster.
    ClusterMismatch,
    /// The other side says that this member was removed from the cluster.
    Removed,
    /// The other side does not know this member (yet).
    UnknownSender,
    /// The other side understood the request and refuses it.
    Refused(Refusal),
    /// The other side answered with a status that is not expected.
    Status {
        /// The HTTP status.
        code: u16,
        /// The answer's text, cut short.
        text: String,
    },
    /// The bytes of a message are none, or break the format.
    Malformed(&'static str),
    /// A length on the wire is above its limit.
    TooLarge {
        /// The length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Nothing came for too long.
    TimedOut(&'static str),
    /// The other side ended the stream.
    Closed,
    /// The transport was stopped.
    Stopped,
    /// HTTP broke off.
    Http(hyper::Error),
    /// The operating system said no.
    Io(io::Error),
}

/// Why a member refuses what another one asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such member.
    MemberNotFound,
    /// The member is a voter already.
    NotLearner,
    /// The learner lags too far behind.
    LearnerNotReady,
    /// There is no such lease.
    LeaseNotFound,
    /// The member asked is not the leader.
    NotPrimary,
    /// The member asked did not apply what it has committed in time.
    NotCaughtUp,
    /// The revision is compacted.
    Compacted,
    /// The revision is in the future.
    FutureRevision,
    /// The request is for another cluster.
    ClusterMismatch,
    /// Something else, in the words of the member asked.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::MemberNotFound => "membership: ID not found",
            Refusal::NotLearner => "membership: can only promote a learner member",
            Refusal::LearnerNotReady => {
                "etcdserver: can only promote a learner member which is in sync with leader"
            }
            Refusal::LeaseNotFound => "lease not found",
            Refusal::NotPrimary => "not a primary lessor",
            Refusal::NotCaughtUp => "waiting for node to catch up its applied index has timed out",
            Refusal::Compacted => "mvcc: required revision has been compacted",
            Refusal::FutureRevision => "mvcc: required revision is a future revision",
            Refusal::ClusterMismatch => "cluster ID mismatch",
            Refusal::Other(text) => text,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Url { url, what } => write!(f, "peer URL {url:?} {what}"),
            Error::IncompatibleVersion => f.write_str("incompatible version"),
            Error::ClusterMismatch => f.write_str("cluster ID mismatch"),
            Error::Removed => {
                f.write_str("the member has been permanently removed from the cluster")
            }
            Error::UnknownSender => f.write_str("peer failed to find local node"),
            Error::Refused(refusal) => write!(f, "{refusal}"),
            Error::Status { code, text } => write!(f, "unhandled http status {code}: {text}"),
            Error::Malformed(what) => write!(f, "malformed message: {what}"),
            Error::TooLarge { bytes, limit } => {
                write!(f, "message of {bytes} bytes is above the limit of {limit}")
            }
            Error::TimedOut(what) => write!(f, "timed out: {what}"),
            Error::Closed => f.write_str("closed by the remote"),
            Error::Stopped => f.write_str("stopped"),
            Error::Http(source) => write!(f, "http: {source}"),
            Error::Io(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Http(source) => Some(source),
            Error::Io(source) => Some(source),
            _ => None,
        }
    }
}

impl From<hyper::Error> for Error {
    fn from(source: hyper::Error) -> Self {
        Error::Http(source)
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Error::Io(source)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(refusal)
    }
}
