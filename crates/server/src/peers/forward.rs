//! Questions that the front door passes on to the leader.
use std::sync::Arc;
use std::time::Duration;

use quorate_core::View;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{LeaseId, MemberId};
use quorate_rpc::{Asked, Leader, LeaseTime, Refused};
use quorate_transport::{Error, Refusal, Transport};

/// Asks the leader over the links between members.
pub(crate) struct Forward {
    pub(crate) transport: Transport,
    pub(crate) view: Arc<View>,
}

impl Forward {
    fn urls_of(&self, id: MemberId) -> Vec<String> {
        let members = self.view.members();
        let member = members.iter().find(|m| m.id == id.0);
        member.map_or_else(Vec::new, |m| m.peer_ur_ls.clone())
    }
}

fn refused(error: Error) -> Refused {
    match error {
        Error::Refused(Refusal::LeaseNotFound | Refusal::MemberNotFound) => Refused::NotFound,
        Error::Refused(Refusal::NotLearner) => Refused::NotLearner,
        Error::Refused(Refusal::LearnerNotReady) => Refused::LearnerNotReady,
        other => Refused::Unavailable(other.to_string()),
    }
}

impl Leader for Forward {
    fn renew_lease(&self, leader: MemberId, id: LeaseId, timeout: Duration) -> Asked<i64> {
        let (transport, urls) = (self.transport.clone(), self.urls_of(leader));
        Box::pin(async move {
            let asked = transport.renew_lease_on(urls, id, timeout).await;
            asked.map_err(refused)
        })
    }

    fn time_to_live(
        &self,
        leader: MemberId,
        id: LeaseId,
        keys: bool,
        timeout: Duration,
    ) -> Asked<LeaseTime> {
        let (transport, urls) = (self.transport.clone(), self.urls_of(leader));
        Box::pin(async move {
            let asked = transport.time_to_live_on(urls, id, keys, timeout).await;
            let lease = asked.map_err(refused)?;
            Ok(LeaseTime {
                remaining_s: lease.ttl_s,
                granted_s: lease.granted_ttl_s,
                keys: lease.keys,
            })
        })
    }

    fn promote(
        &self,
        leader: MemberId,
        id: MemberId,
        token: Option<String>,
        timeout: Duration,
    ) -> Asked<Vec<pb::Member>> {
        let (transport, urls) = (self.transport.clone(), self.urls_of(leader));
        Box::pin(async move {
            let asked = transport.promote_on(urls, id, token, timeout).await;
            asked.map_err(refused)
        })
    }
}
