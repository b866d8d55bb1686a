//! Who a member without data is to be.
use quorate_core::{ClusterMember, cluster_id, member_id};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{ClusterId, MemberId};
use quorate_wal::Identity;

/// What a member without data begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Nothing is known: only a directory with data can be opened.
    Restart,
    /// A new cluster of these members, ordered by id.
    Found {
        /// This member.
        member_id: MemberId,
        /// All of them.
        members: Vec<ClusterMember>,
    },
    /// A running cluster that has this member in its list already; its log comes from the others.
    Join {
        /// This member.
        member_id: MemberId,
        /// The cluster.
        cluster_id: ClusterId,
        /// Its members, which know more than this one until the log has come.
        members: Vec<pb::Member>,
    },
}

impl Start {
    /// Makes the start of a new cluster of members with these names and peer URLs, of which `name` is this one.
    ///
    /// # Panics
    /// When `name` is not among them.
    pub fn found<'a>(
        members: impl IntoIterator<Item = (&'a str, Vec<String>)>,
        token: &str,
        name: &str,
    ) -> Self {
        let mut own = None;
        let mut founders: Vec<ClusterMember> = members
            .into_iter()
            .map(|(member, peer_urls)| {
                let id = member_id(&peer_urls, token, None);
                own = own.or((member == name).then_some(id));
                ClusterMember {
                    id: id.0,
                    peer_urls,
                    name: member.to_owned(),
                    ..ClusterMember::default()
                }
            })
            .collect();
        founders.sort_by_key(|m| m.id);
        Self::Found {
            member_id: own.expect("the member is among the founders"),
            members: founders,
        }
    }

    /// Returns who the member is to be; `None` when only its data knows.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Self::Restart => None,
            Self::Found { member_id, members } => {
                let ids: Vec<_> = members.iter().map(|m| MemberId(m.id)).collect();
                Some(Identity {
                    cluster_id: cluster_id(&ids).0,
                    member_id: member_id.0,
                })
            }
            Self::Join {
                member_id,
                cluster_id,
                ..
            } => Some(Identity {
                cluster_id: cluster_id.0,
                member_id: member_id.0,
            }),
        }
    }
}
