//! What other members ask of this one over HTTP.
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quorate_auth::{AuthReader, Operation, Stage};
use quorate_core::{Error, LiveStores, MemberChange, Outcome, Submission, View};
use quorate_proto::etcdserverpb::Member;
use quorate_proto::{LeaseId, MemberId};
use quorate_rpc::Clock;
use quorate_transport::{Answer, HashKv, Refusal, Service, TimeToLive, Transport, Versions};
use tokio::time::Instant;

use super::digests;
use crate::calls::Calls;
use crate::queue::Queue;
use crate::version;

/// How long a request waits until everything committed is applied. Source: etcd v3.7.1
/// server/etcdserver/api/etcdhttp/peer.go, applyTimeout.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// How often that is looked at.
const APPLY_LOOK: Duration = Duration::from_millis(5);
/// How long to wait before the leader is asked again.
const FORWARD_PAUSE: Duration = Duration::from_millis(50);

/// Answers other members from the stores and the engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub(crate) calls: Calls,
    pub(crate) queue: Queue,
    pub(crate) view: Arc<View>,
    pub(crate) live: LiveStores,
    pub(crate) auth: AuthReader,
    pub(crate) clock: Clock,
    /// The way to the leader, once there are links.
    pub(crate) transport: Arc<OnceLock<Transport>>,
    /// How long a request may wait.
    pub(crate) timeout: Duration,
}

impl PeerService {
    /// Waits until what was committed when it was called is applied.
    async fn catch_up(&self) -> Result<(), Refusal> {
        let committed = self.view.committed();
        let look = async {
            while self.view.applied() < committed {
                tokio::time::sleep(APPLY_LOOK).await;
            }
        };
        tokio::time::timeout(APPLY_TIMEOUT, look)
            .await
            .map_err(|_| Refusal::NotCaughtUp)
    }

    /// Promotes here or on the leader, whoever that turns out to be.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/server.go PromoteMember.
    async fn promote_anywhere(
        &self,
        id: MemberId,
        token: Option<String>,
    ) -> Result<Vec<Member>, Refusal> {
        let ends = Instant::now() + self.timeout;
        loop {
            let change = MemberChange::Promote { id };
            let ask = |token| Submission::ChangeMembers { token, change };
            let outcome = self.calls.ask(ask).await;
            self.view.promotions().count(&outcome);
            let leader = match outcome {
                Outcome::Members { members, .. } => return Ok(members),
                Outcome::Failed(Error::NotLeader { leader }) => leader,
                other => return Err(refusal(other)),
            };
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(refusal(Outcome::Failed(Error::Timeout)));
            }
            if let Some(transport) = self.transport.get()
                && leader.0 != 0
                && leader != self.view.member_id()
            {
                let urls = self
                    .view
                    .members()
                    .iter()
                    .find(|m| m.id == leader.0)
                    .map_or_else(Vec::new, |m| m.peer_ur_ls.clone());
                match transport.promote_on(urls, id, token.clone(), left).await {
                    Ok(members) => return Ok(members),
                    Err(quorate_transport::Error::Refused(
                        refused @ (Refusal::MemberNotFound
                        | Refusal::NotLearner
                        | Refusal::LearnerNotReady),
                    )) => return Err(refused),
                    // It does not lead any more, or cannot be reached.
                    Err(_) => {}
                }
            }
            tokio::time::sleep(FORWARD_PAUSE).await;
        }
    }

    /// Describes a lease, if this member leads.
    async fn lease_as_leader(&self, id: LeaseId, keys: bool) -> Result<TimeToLive, Refusal> {
        self.catch_up().await?;
        let ask = |token| Submission::LeaseTimeToLive { token, id, keys };
        match self.calls.ask(ask).await {
            // One whose time is over a second ago has that much left, too.
            Outcome::LeaseTimeToLive {
                remaining_s: -1,
                granted_s: 0,
                ..
            } => Err(Refusal::LeaseNotFound),
            Outcome::LeaseTimeToLive {
                remaining_s,
                granted_s,
                keys,
            } => Ok(TimeToLive {
                ttl_s: remaining_s,
                granted_ttl_s: granted_s,
                keys,
            }),
            other => Err(refusal(other)),
        }
    }

    /// Says whether a member that does not lead knows of a lease.
    async fn knows_lease(&self, id: LeaseId) -> bool {
        match self
            .calls
            .ask(|token| Submission::LeaseLeases { token })
            .await
        {
            Outcome::LeaseLeases(leases) => leases.contains(&id),
            _ => true,
        }
    }

    fn is_root(&self, token: Option<&str>) -> Result<(), quorate_auth::Error> {
        let identity = self.auth.identity_of_token(token, self.clock.now_ms())?;
        let none = |_| Vec::new();
        self.auth
            .gate(&identity, Stage::Door, &Operation::MemberChange, none)
    }
}

/// Says in peers' terms why the engine refused something.
fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Failed(Error::NotLeader { .. } | Error::NotPrimaryLessor) => Refusal::NotPrimary,
        Outcome::Failed(Error::LearnerNotReady) => Refusal::LearnerNotReady,
        Outcome::Failed(Error::Membership(quorate_core::ChangeError::NotLearner)) => {
            Refusal::NotLearner
        }
        Outcome::Failed(Error::Membership(
            quorate_core::ChangeError::IdNotFound | quorate_core::ChangeError::IdRemoved,
        )) => Refusal::MemberNotFound,
        Outcome::Failed(error) => Refusal::Other(error.to_string()),
        other => Refusal::Other(format!("unexpected outcome {other:?}")),
    }
}

impl Service for PeerService {
    fn members(&self) -> Vec<Member> {
        self.view.members().to_vec()
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.view.is_removed(id)
    }

    fn versions(&self) -> Versions {
        let known = |text: Arc<str>| (!text.is_empty()).then(|| text.to_string());
        Versions {
            server: version::ETCD_VERSION.to_owned(),
            cluster: known(self.view.cluster_version()),
            storage: known(self.view.storage_version()),
        }
    }

    fn promote(&self, id: MemberId, token: Option<String>) -> Answer<Result<Vec<Member>, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            let promotions = this.view.promotions();
            this.catch_up()
                .await
                .inspect_err(|_| promotions.refused(&Error::TimeoutWaitApplied))?;
            this.is_root(token.as_deref()).map_err(|e| {
                let error = Error::Auth(e);
                promotions.refused(&error);
                Refusal::Other(error.to_string())
            })?;
            this.promote_anywhere(id, token).await
        })
    }

    fn hash_kv(&self, revision: i64) -> Answer<Result<HashKv, Refusal>> {
        let reader = self.live.reader();
        Box::pin(async move {
            let hash = tokio::task::spawn_blocking(move || reader.hash_kv(revision)).await;
            match hash {
                Ok(Ok(hash)) => Ok(HashKv {
                    revision: hash.revision,
                    hash: hash.hash,
                    compact_revision: hash.compact_revision,
                    hash_revision: hash.hash_revision,
                }),
                Ok(Err(quorate_mvcc::Error::Compacted)) => Err(Refusal::Compacted),
                Ok(Err(quorate_mvcc::Error::FutureRevision)) => Err(Refusal::FutureRevision),
                Ok(Err(other)) => Err(Refusal::Other(other.to_string())),
                Err(_) => Err(Refusal::Other("stopping".to_owned())),
            }
        })
    }

    fn renew_lease(&self, id: LeaseId) -> Answer<Result<i64, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            this.catch_up().await?;
            let ask = |token| Submission::LeaseRenew { token, id };
            match this.calls.ask(ask).await {
                Outcome::LeaseRenewed { ttl_s: 0 } => Err(Refusal::LeaseNotFound),
                Outcome::LeaseRenewed { ttl_s } => Ok(ttl_s),
                other => Err(refusal(other)),
            }
        })
    }

    fn time_to_live(&self, id: LeaseId, keys: bool) -> Answer<Result<TimeToLive, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            match this.lease_as_leader(id, keys).await {
                // What nobody knows is missed first.
                Err(Refusal::NotPrimary) if !this.knows_lease(id).await => {
                    Err(Refusal::LeaseNotFound)
                }
                answer => answer,
            }
        })
    }

    fn seconds_left(&self, id: LeaseId) -> Answer<Result<TimeToLive, Refusal>> {
        let this = self.clone();
        Box::pin(async move { this.lease_as_leader(id, false).await })
    }

    fn exchange(&self, topic: String, body: Bytes) -> Answer<Result<Bytes, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            match &topic[..] {
                digests::DIGEST => Ok(digests::answer(&this.calls, &body).await),
                digests::DIVERGED => {
                    digests::stop_diverged(&this.queue);
                    Ok(Bytes::new())
                }
                _ => Err(Refusal::Other(format!("unknown topic {topic:?}"))),
            }
        })
    }

    fn downgrade_enabled(&self) -> Answer<Result<bool, Refusal>> {
        let this = self.clone();
        Box::pin(async move {
            match this
                .calls
                .ask(|token| Submission::ReadIndex { token })
                .await
            {
                Outcome::ReadReady => Ok(this.view.downgrade_target().is_some()),
                other => Err(refusal(other)),
            }
        })
    }
}
