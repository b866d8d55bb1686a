//! Whether a change of members is safe to propose, and what it looks like in the log.
use std::collections::BTreeMap;

use quorate_proto::MemberId;
use quorate_proto::raftpb::{ConfChange, ConfChangeType};

use crate::cluster::{Cluster, Member, promotion_context};
use crate::ids::member_id;
use crate::{Error, MemberChange};

/// How long a member must have been connected to count. Source: etcd v3.7.1 server.go HealthInterval.
const HEALTH_INTERVAL_MS: u64 = 5_000;

/// Since when there are active links to other members, in milliseconds of the member's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(pub(crate) BTreeMap<MemberId, u64>);

impl Links {
    pub(crate) fn is_active(&self, id: MemberId) -> bool {
        self.0.contains_key(&id)
    }

    /// Says whether a link was active before the time and ever since.
    pub(crate) fn is_connected_since(&self, id: MemberId, since_ms: u64) -> bool {
        self.0.get(&id).is_some_and(|active| *active < since_ms)
    }

    /// Counts members, this one included, that have been connected since the time.
    pub(crate) fn connected_since<'a>(
        &self,
        own: MemberId,
        members: impl Iterator<Item = &'a Member>,
        since_ms: u64,
    ) -> usize {
        let is_connected =
            |m: &&Member| m.id == own.0 || self.is_connected_since(MemberId(m.id), since_ms);
        members.filter(is_connected).count()
    }

    /// Returns the member of those given whose link is the oldest.
    pub(crate) fn longest_active(&self, ids: impl Iterator<Item = MemberId>) -> Option<MemberId> {
        ids.filter_map(|id| self.0.get(&id).map(|since| (*since, id)))
            .min()
            .map(|(_, id)| id)
    }
}

/// What the checks of a change look at.
pub(crate) struct Facts<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) links: &'a Links,
    pub(crate) own: MemberId,
    pub(crate) now_ms: u64,
}

impl Facts<'_> {
    /// Checks a change as etcd's strict reconfiguration check does.
    ///
    /// # Errors
    /// [`Error::NotEnoughStarted`], [`Error::Unhealthy`].
    /// Source: etcd v3.7.1 server/etcdserver/server.go mayAddMember, mayRemoveMember, mayPromoteMember.
    pub(crate) fn check(&self, change: &MemberChange) -> Result<(), Error> {
        match change {
            MemberChange::Add { is_learner, .. } => self.may_add(*is_learner),
            MemberChange::Remove { id } => self.may_remove(*id),
            MemberChange::Promote { .. } => {
                let (voters, started) = self.voters_without(None);
                enough_started(voters + 1, started + 1)
            }
            MemberChange::Update { .. } => Ok(()),
        }
    }

    fn may_add(&self, is_learner: bool) -> Result<(), Error> {
        let (voters, started) = self.voters_without(None);
        // One started voter alone is how a cluster is rebuilt after a loss.
        let is_rebuilt = started == 1 && voters == 1;
        if !is_learner && !is_rebuilt {
            enough_started(voters + 1, started)?;
        }
        if voters == 1 || self.connected() > voters.div_ceil(2) {
            Ok(())
        } else {
            Err(Error::Unhealthy)
        }
    }

    fn may_remove(&self, id: MemberId) -> Result<(), Error> {
        if self.cluster.member(id.0).is_some_and(|m| m.is_learner) {
            return Ok(());
        }
        let (rest, started) = self.voters_without(Some(id));
        enough_started(rest, started)?;
        // One that is down is no part of the quorum that works.
        if id != self.own && !self.links.is_active(id) {
            return Ok(());
        }
        let (voters, _) = self.voters_without(None);
        if self.connected() > 1 + voters.saturating_sub(1) / 2 {
            Ok(())
        } else {
            Err(Error::Unhealthy)
        }
    }

    fn connected(&self) -> usize {
        let since_ms = self.now_ms.saturating_sub(HEALTH_INTERVAL_MS);
        self.links
            .connected_since(self.own, self.cluster.voters(), since_ms)
    }

    /// Counts voters but for one, and those of them that have started.
    fn voters_without(&self, id: Option<MemberId>) -> (usize, usize) {
        let rest = || {
            self.cluster
                .voters()
                .filter(move |m| Some(MemberId(m.id)) != id)
        };
        (
            rest().count(),
            rest().filter(|m| !m.name.is_empty()).count(),
        )
    }
}

fn enough_started(voters: usize, started: usize) -> Result<(), Error> {
    if started > voters / 2 {
        Ok(())
    } else {
        Err(Error::NotEnoughStarted)
    }
}

/// Makes the change as it goes into the log; returns it and the member it is about.
///
/// Source: etcd v3.7.1 server/etcdserver/server.go AddMember and those after it.
pub(crate) fn to_log(change: MemberChange, request_id: u64, unix_s: u64) -> (ConfChange, MemberId) {
    let context = |member: Member| Some(Cluster::founding_context(&member));
    let (kind, id, context) = match change {
        MemberChange::Add {
            mut peer_urls,
            is_learner,
        } => {
            peer_urls.sort();
            let id = member_id(&peer_urls, "", Some(unix_s));
            let kind = if is_learner {
                ConfChangeType::ConfChangeAddLearnerNode
            } else {
                ConfChangeType::ConfChangeAddNode
            };
            let member = Member {
                id: id.0,
                peer_urls,
                is_learner,
                ..Member::default()
            };
            (kind, id, context(member))
        }
        MemberChange::Remove { id } => (ConfChangeType::ConfChangeRemoveNode, id, None),
        MemberChange::Update { id, peer_urls } => {
            let member = Member {
                id: id.0,
                peer_urls,
                ..Member::default()
            };
            (ConfChangeType::ConfChangeUpdateNode, id, context(member))
        }
        MemberChange::Promote { id } => (
            ConfChangeType::ConfChangeAddNode,
            id,
            Some(promotion_context(id.0)),
        ),
    };
    let change = ConfChange {
        r#type: Some(kind.into()),
        node_id: Some(id.0),
        context,
        id: Some(request_id),
    };
    (change, id)
}
