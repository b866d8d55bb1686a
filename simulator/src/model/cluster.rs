//! Members and versions.
use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::etcdserverpb::Member;
use quorate_proto::membershippb::ClusterMemberAttrSetRequest;
use quorate_proto::raftpb::{ConfChange, ConfChangeType};
use serde_json::Value;

use super::Refusal;

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: u64,
    /// Its name; empty before it has published it.
    pub name: String,
    /// Where it listens for members.
    pub peer_urls: Vec<String>,
    /// Where it listens for clients.
    pub client_urls: Vec<String>,
    /// Whether it does not vote.
    pub is_learner: bool,
}

impl From<&Member> for Peer {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_ur_ls.clone(),
            client_urls: member.client_ur_ls.clone(),
            is_learner: member.is_learner,
        }
    }
}

/// Who is a member and who was, and what all of them can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    members: BTreeMap<u64, Peer>,
    removed: BTreeSet<u64>,
    version: String,
    /// What the cluster is being downgraded to.
    downgrade: Option<String>,
}

impl Cluster {
    /// Returns the members, sorted by id.
    pub fn members(&self) -> Vec<Peer> {
        self.members.values().cloned().collect()
    }

    /// Says whether a member was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Lists the members that were removed, sorted by id.
    pub fn removed(&self) -> impl Iterator<Item = u64> + '_ {
        self.removed.iter().copied()
    }

    /// Returns the cluster version; empty before there is one.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns what the cluster is being downgraded to.
    pub fn downgrade(&self) -> Option<&str> {
        self.downgrade.as_deref()
    }

    pub(super) fn set_version(&mut self, version: &str) {
        self.version = version.to_owned();
    }

    pub(super) fn set_downgrade(&mut self, enabled: bool, version: &str) {
        self.downgrade = enabled.then(|| version.to_owned());
    }

    pub(super) fn set_attributes(&mut self, request: &ClusterMemberAttrSetRequest) {
        if let Some(member) = self.members.get_mut(&request.member_id) {
            let attributes = request.member_attributes.clone().unwrap_or_default();
            member.name = attributes.name;
            member.client_urls = attributes.client_urls;
        }
    }

    /// Applies a change of members.
    pub(super) fn apply(
        &mut self,
        change: &ConfChange,
        learners_max: usize,
    ) -> Result<(), Refusal> {
        let id = change.node_id.unwrap_or(0);
        if self.removed.contains(&id) {
            return Err(Refusal::MemberNotFound);
        }
        let context = context_of(change);
        let is_known = self.members.contains_key(&id);
        match ConfChangeType::try_from(change.r#type.unwrap_or(0)) {
            Ok(ConfChangeType::ConfChangeRemoveNode) => {
                self.members.remove(&id).ok_or(Refusal::MemberNotFound)?;
                self.removed.insert(id);
            }
            Ok(ConfChangeType::ConfChangeUpdateNode) => {
                if !is_known {
                    return Err(Refusal::MemberNotFound);
                }
                let urls = context.urls("peerURLs");
                self.check_urls(id, &urls)?;
                self.members.entry(id).or_default().peer_urls = urls;
            }
            _ if context.is("isPromote") => {
                let member = self.members.get_mut(&id).ok_or(Refusal::MemberNotFound)?;
                if !member.is_learner {
                    return Err(Refusal::NotLearner);
                }
                member.is_learner = false;
            }
            kind => {
                if is_known {
                    return Err(Refusal::MemberExists);
                }
                let peer = Peer {
                    id,
                    name: context.text("name"),
                    peer_urls: context.urls("peerURLs"),
                    client_urls: context.urls("clientURLs"),
                    is_learner: context.is("isLearner"),
                };
                self.check_urls(id, &peer.peer_urls)?;
                let learners = self.members.values().filter(|m| m.is_learner).count();
                let adds_learner = kind == Ok(ConfChangeType::ConfChangeAddLearnerNode);
                if adds_learner && peer.is_learner && learners >= learners_max {
                    return Err(Refusal::TooManyLearners);
                }
                self.members.insert(id, peer);
            }
        }
        Ok(())
    }

    fn check_urls(&self, id: u64, urls: &[String]) -> Result<(), Refusal> {
        let others = self.members.values().filter(|m| m.id != id);
        if others.flat_map(|m| &m.peer_urls).any(|u| urls.contains(u)) {
            return Err(Refusal::PeerUrlExists);
        }
        Ok(())
    }
}

/// The context of a change, as JSON.
struct Context(Value);

fn context_of(change: &ConfChange) -> Context {
    let context = change.context.as_deref().unwrap_or_default();
    Context(serde_json::from_slice(context).unwrap_or(Value::Null))
}

impl Context {
    fn is(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or(false)
    }

    fn text(&self, field: &str) -> String {
        self.0[field].as_str().unwrap_or_default().to_owned()
    }

    fn urls(&self, field: &str) -> Vec<String> {
        let texts = self.0[field].as_array().into_iter().flatten();
        texts
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: i32, id: u64, context: &str) -> ConfChange {
        ConfChange {
            id: Some(1),
            r#type: Some(kind),
            node_id: Some(id),
            context: Some(context.to_owned().into()),
        }
    }

    const ADD: i32 = 0;
    const REMOVE: i32 = 1;
    const UPDATE: i32 = 2;
    const ADD_LEARNER: i32 = 3;

    #[test]
    fn changes_are_judged_as_the_reference_says() {
        let mut cluster = Cluster::default();
        let one = r#"{"id":1,"peerURLs":["http://a"]}"#;
        let two = r#"{"id":2,"peerURLs":["http://b"],"isLearner":true}"#;
        let three = r#"{"id":3,"peerURLs":["http://c"],"isLearner":true}"#;
        let promote = r#"{"id":2,"peerURLs":null,"isPromote":true}"#;
        let mut apply = |kind, id, context: &str| cluster.apply(&change(kind, id, context), 1);
        apply(ADD, 1, one).unwrap();
        assert_eq!(apply(ADD, 1, one), Err(Refusal::MemberExists));
        assert_eq!(apply(ADD, 4, one), Err(Refusal::PeerUrlExists));
        apply(ADD_LEARNER, 2, two).unwrap();
        assert_eq!(apply(ADD_LEARNER, 3, three), Err(Refusal::TooManyLearners));
        apply(ADD, 2, promote).unwrap();
        assert_eq!(apply(ADD, 2, promote), Err(Refusal::NotLearner));
        assert_eq!(apply(UPDATE, 2, one), Err(Refusal::PeerUrlExists));
        assert_eq!(apply(UPDATE, 9, one), Err(Refusal::MemberNotFound));
        apply(REMOVE, 2, "").unwrap();
        assert_eq!(apply(REMOVE, 2, ""), Err(Refusal::MemberNotFound));
        assert_eq!(apply(ADD, 2, two), Err(Refusal::MemberNotFound));
        assert_eq!(cluster.members().len(), 1);
        assert!(cluster.is_removed(2));
    }
}
