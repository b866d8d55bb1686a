//! Why a submission failed, grouped by what the caller does next.
use std::fmt;

use quorate_proto::MemberId;

use crate::ChangeError;

/// An error answered to a caller. The texts on the wire are the front door's table, not these.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The store refused: bad request, compacted, future revision, key or lease not found.
    Mvcc(quorate_mvcc::Error),
    /// The lessor refused.
    Lease(quorate_lease::Error),
    /// Authentication or authorization refused.
    Auth(quorate_auth::Error),
    /// Committed entries are too far ahead of applied ones; try again later. Nothing was proposed.
    TooManyRequests,
    /// The replicated form of the request is larger than the limit. Nothing was proposed.
    RequestTooLarge,
    /// The quota is used up or a NOSPACE alarm is active. The request may have been applied when only the check at apply
    /// failed.
    NoSpace,
    /// A CORRUPT alarm is active.
    Corrupt,
    /// No answer in time; the request may still be applied.
    Timeout,
    /// No answer in time near the loss of a leader; the request may still be applied.
    TimeoutLeaderFail,
    /// No answer in time while cut off from the quorum; the request may still be applied.
    TimeoutConnectionLost,
    /// The applied index did not catch up in time.
    TimeoutWaitApplied,
    /// No leader took the proposal before its deadline.
    DeadlineExceeded,
    /// No leader is known.
    NoLeader,
    /// The leader changed while a read waited.
    LeaderChanged,
    /// The leader must be asked. 0 is none known; where it is this member, it is not ready yet: ask again shortly.
    NotLeader {
        /// The leader.
        leader: MemberId,
    },
    /// The member named cannot lead.
    BadLeaderTransferee,
    /// Leadership did not get to the member named in time.
    TimeoutLeaderTransfer,
    /// The change of members is refused.
    Membership(ChangeError),
    /// Too few voters have ever started for the change to be safe.
    NotEnoughStarted,
    /// Too few voters have been connected long enough for the change to be safe.
    Unhealthy,
    /// The learner is too far behind to vote.
    LearnerNotReady,
    /// A version to downgrade to is no version.
    WrongDowngradeVersion,
    /// The cluster version is not decided yet.
    ClusterVersionUnavailable,
    /// Only one minor version down is possible.
    InvalidDowngradeTarget,
    /// A downgrade is under way.
    DowngradeInProcess,
    /// Raft dropped the proposal.
    ProposalDropped,
    /// Leadership could not be confirmed for a renewal.
    NotPrimaryLessor,
    /// The member is stopping.
    Stopped,
}

impl Error {
    /// Says whether applying cannot go on: the state in memory may no longer be what the log says.
    pub(crate) fn is_fatal(&self) -> bool {
        use quorate_mvcc::Error as Mvcc;
        match self {
            Self::Mvcc(e) => matches!(
                e,
                Mvcc::Corrupt { .. } | Mvcc::CorruptMeta { .. } | Mvcc::Poisoned | Mvcc::Backend(_)
            ),
            Self::Lease(e) => matches!(e, quorate_lease::Error::Backend(_)),
            Self::Auth(e) => matches!(e, quorate_auth::Error::Backend(_)),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mvcc(e) => return e.fmt(f),
            Self::Lease(e) => return e.fmt(f),
            Self::Auth(e) => return e.fmt(f),
            Self::TooManyRequests => "too many requests",
            Self::RequestTooLarge => "request is too large",
            Self::NoSpace => "no space",
            Self::Corrupt => "corrupt cluster",
            Self::Timeout => "request timed out",
            Self::TimeoutLeaderFail => "request timed out, possibly due to previous leader failure",
            Self::TimeoutConnectionLost => "request timed out, possibly due to connection lost",
            Self::TimeoutWaitApplied => {
                "request timed out, waiting for the applied index took too long"
            }
            Self::DeadlineExceeded => "context deadline exceeded",
            Self::NoLeader => "no leader",
            Self::LeaderChanged => "leader changed",
            Self::NotLeader { .. } => "not leader",
            Self::BadLeaderTransferee => "bad leader transferee",
            Self::TimeoutLeaderTransfer => "request timed out, leader transfer took too long",
            Self::Membership(e) => return e.fmt(f),
            Self::NotEnoughStarted => "re-configuration failed due to not enough started members",
            Self::Unhealthy => "unhealthy cluster",
            Self::LearnerNotReady => {
                "can only promote a learner member which is in sync with leader"
            }
            Self::WrongDowngradeVersion => "wrong downgrade target version format",
            Self::ClusterVersionUnavailable => "cluster version not found during downgrade",
            Self::InvalidDowngradeTarget => "invalid downgrade target version",
            Self::DowngradeInProcess => "cluster has a downgrade job in progress",
            Self::ProposalDropped => "raft proposal dropped",
            Self::NotPrimaryLessor => "not a primary lessor",
            Self::Stopped => "server stopped",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Mvcc(e) => Some(e),
            Self::Lease(e) => Some(e),
            Self::Auth(e) => Some(e),
            Self::Membership(e) => Some(e),
            _ => None,
        }
    }
}

impl From<quorate_mvcc::Error> for Error {
    fn from(e: quorate_mvcc::Error) -> Self {
        Self::Mvcc(e)
    }
}

impl From<quorate_lease::Error> for Error {
    fn from(e: quorate_lease::Error) -> Self {
        Self::Lease(e)
    }
}

impl From<quorate_auth::Error> for Error {
    fn from(e: quorate_auth::Error) -> Self {
        Self::Auth(e)
    }
}
