//! What only the leader can answer, asked of it by a member that does not lead.
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{LeaseId, MemberId};

/// An answer of the leader.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such lease or member.
    NotFound,
    /// The member to be promoted votes already.
    NotLearner,
    /// The learner to be promoted is too far behind.
    LearnerNotReady,
    /// It was not the leader, or did not answer: to be asked again.
    Unavailable(String),
}

/// A lease as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTime {
    /// Seconds left.
    pub remaining_s: i64,
    /// Seconds granted.
    pub granted_s: i64,
    /// Attached keys, when asked for.
    pub keys: Vec<Bytes>,
}

/// The way to the leader, if there is any.
#[derive(Clone, Default)]
pub struct LeaderLink(pub Option<Arc<dyn Leader>>);

impl std::fmt::Debug for LeaderLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeaderLink")
            .field(&self.0.is_some())
            .finish()
    }
}

/// Asks the leader, over whatever links the members have. Futures may be awaited on any runtime.
pub trait Leader: Send + Sync {
    /// Renews a lease and returns its time to live in seconds.
    fn renew_lease(&self, leader: MemberId, id: LeaseId, timeout: Duration) -> Asked<i64>;

    /// Describes a lease.
    fn time_to_live(
        &self,
        leader: MemberId,
        id: LeaseId,
        keys: bool,
        timeout: Duration,
    ) -> Asked<LeaseTime>;

    /// Promotes a learner in the name of the token's user and returns the members after it.
    fn promote(
        &self,
        leader: MemberId,
        id: MemberId,
        token: Option<String>,
        timeout: Duration,
    ) -> Asked<Vec<pb::Member>>;
}
