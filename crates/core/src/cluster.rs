//! Members, removed members and versions of the cluster, as replicated and stored.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{ApplyTxn, Backend, ReadTxn, Table};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::membershippb::ClusterMemberAttrSetRequest;
use quorate_proto::raftpb::{ConfChange, ConfChangeType};
use serde::{Deserialize, Serialize};

use crate::actions::PeerChange;
use crate::convert::change_kind;
use crate::versions::{MIN_CLUSTER_VERSION, Version};

/// A member as etcd writes it to JSON: in the `members` table, in configuration changes, and to peers.
///
/// Source: etcd v3.7.1 server/etcdserver/api/membership/member.go Member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Member id.
    pub id: u64,
    /// Peer URLs, sorted.
    #[serde(rename = "peerURLs", deserialize_with = "null_as_empty", default)]
    pub peer_urls: Vec<String>,
    /// Whether it is a learner.
    #[serde(
        rename = "isLearner",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_learner: bool,
    /// Its name; empty until it has published itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Client URLs; empty until it has published itself.
    #[serde(
        rename = "clientURLs",
        deserialize_with = "null_as_empty",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub client_urls: Vec<String>,
}

/// The downgrade under way, as etcd writes it. Source: etcd v3.7.1 server/etcdserver/version/downgrade.go DowngradeInfo.
#[derive(Debug, Serialize, Deserialize)]
struct DowngradeInfo {
    #[serde(rename = "target-version", default)]
    target_version: String,
    #[serde(default)]
    enabled: bool,
}

/// The context of a configuration change: a member, and whether a learner is promoted.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ChangeContext {
    #[serde(flatten)]
    member: Member,
    #[serde(
        rename = "isPromote",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    is_promote: bool,
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// Why a configuration change has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The id was removed before.
    IdRemoved,
    /// The id is a member already.
    IdExists,
    /// No such member.
    IdNotFound,
    /// Another member uses a peer URL.
    PeerUrlExists,
    /// Only learners are promoted.
    NotLearner,
    /// There are as many learners as allowed.
    TooManyLearners,
    /// The context is no member, or not of the member named.
    BadContext,
    /// The type is none that this version knows.
    UnknownType,
}

impl std::fmt::Display for ChangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::IdRemoved => "membership: ID removed",
            Self::IdExists => "membership: ID exists",
            Self::IdNotFound => "membership: ID not found",
            Self::PeerUrlExists => "membership: peerURL exists",
            Self::NotLearner => "membership: can only promote a learner member",
            Self::TooManyLearners => "membership: too many learner members in cluster",
            Self::BadContext => "membership: malformed configuration change",
            Self::UnknownType => "membership: unknown configuration change",
        })
    }
}

impl std::error::Error for ChangeError {}

/// The cluster's membership and versions.
#[derive(Debug, Default)]
pub struct Cluster {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    version: String,
    storage_version: String,
    /// Target of the downgrade under way.
    downgrade: Option<Version>,
    max_learners: usize,
}

/// Rows read at once while restoring.
const RESTORE_ROWS: usize = 1_000;
const CLUSTER_VERSION_KEY: &[u8] = b"clusterVersion";
const DOWNGRADE_KEY: &[u8] = b"downgrade";
const STORAGE_VERSION_KEY: &[u8] = b"storageVersion";
/// The first version that writes down its storage version. Source: etcd v3.7.1 server/storage/schema/schema.go.
const FIRST_STORAGE_VERSION: Version = Version { major: 3, minor: 6 };

/// Why the cluster's tables cannot be restored.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backend cannot be read.
    Backend(quorate_backend::Error),
    /// A row is damaged; says which.
    Corrupt(String),
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(e) => e.fmt(f),
            Self::Corrupt(what) => write!(f, "corrupt row: {what}"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<quorate_backend::Error> for RestoreError {
    fn from(e: quorate_backend::Error) -> Self {
        Self::Backend(e)
    }
}

impl Cluster {
    /// Restores membership and versions from the backend.
    ///
    /// # Errors
    /// When the backend cannot be read or a row is damaged.
    pub fn restore(backend: &Backend, max_learners: usize) -> Result<Self, RestoreError> {
        let txn = backend.read()?;
        let mut cluster = Self {
            max_learners,
            ..Self::default()
        };
        for (key, value) in rows(&txn, Table::Members)? {
            let corrupt =
                || RestoreError::Corrupt(format!("member {}", String::from_utf8_lossy(&key)));
            let member: Member = serde_json::from_slice(&value).map_err(|_| corrupt())?;
            cluster.members.insert(member.id, member);
        }
        for (key, _) in rows(&txn, Table::MembersRemoved)? {
            let id = std::str::from_utf8(&key)
                .ok()
                .and_then(|s| u64::from_str_radix(s, 16).ok());
            let corrupt = || {
                RestoreError::Corrupt(format!("removed member {}", String::from_utf8_lossy(&key)))
            };
            cluster.removed.insert(id.ok_or_else(corrupt)?);
        }
        cluster.version = text(&txn, Table::Cluster, CLUSTER_VERSION_KEY)?;
        cluster.storage_version = text(&txn, Table::Meta, STORAGE_VERSION_KEY)?;
        if let Some(json) = txn.get(Table::Cluster, DOWNGRADE_KEY)? {
            let corrupt = || RestoreError::Corrupt("downgrade".to_owned());
            let info: DowngradeInfo = serde_json::from_slice(&json).map_err(|_| corrupt())?;
            if info.enabled {
                let target = Version::parse_target(&info.target_version);
                cluster.downgrade = Some(target.ok_or_else(corrupt)?);
            }
        }
        Ok(cluster)
    }

    /// Returns a member.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Returns the members that vote, ordered by id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| !m.is_learner)
    }

    /// Says whether a member was removed; its id never comes back.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Returns the ids of removed members, ascending.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// Returns the target of the downgrade under way, as `X.Y.0`.
    pub fn downgrade_target(&self) -> Option<String> {
        self.downgrade.map(|target| target.to_string())
    }

    pub(crate) fn downgrade(&self) -> Option<Version> {
        self.downgrade
    }

    /// Returns the cluster version; `None` while undecided.
    pub(crate) fn parsed_version(&self) -> Option<Version> {
        Version::parse(&self.version)
    }

    /// Returns the members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns the cluster version as `X.Y.Z`; empty while undecided.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the storage version as `X.Y.Z`; empty while unset.
    pub fn storage_version(&self) -> &str {
        &self.storage_version
    }

    /// Returns the members as answered to clients, ordered by id.
    pub fn to_wire(&self) -> Vec<pb::Member> {
        self.members
            .values()
            .map(|m| pb::Member {
                id: m.id,
                name: m.name.clone(),
                peer_ur_ls: m.peer_urls.clone(),
                client_ur_ls: m.client_urls.clone(),
                is_learner: m.is_learner,
            })
            .collect()
    }

    /// Makes the data of the configuration change that adds a founding member.
    ///
    /// # Panics
    /// Never: a member is plain data.
    pub fn founding_context(member: &Member) -> Bytes {
        serde_json::to_vec(member)
            .expect("a member is plain data")
            .into()
    }

    /// Checks a configuration change against the members as they are.
    ///
    /// # Errors
    /// The rule it breaks; such a change is applied with member id 0 and does nothing.
    /// Source: etcd v3.7.1 server/etcdserver/api/membership/cluster.go ValidateConfigurationChange.
    pub fn validate(&self, change: &ConfChange) -> Result<(), ChangeError> {
        let id = change.node_id.unwrap_or(0);
        if self.removed.contains(&id) {
            return Err(ChangeError::IdRemoved);
        }
        let kind = change_kind(change).ok_or(ChangeError::UnknownType)?;
        let known = self.members.get(&id);
        match kind {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let context = context(change)?;
                if context.is_promote {
                    return match known {
                        None => Err(ChangeError::IdNotFound),
                        Some(m) if !m.is_learner => Err(ChangeError::NotLearner),
                        Some(_) => Ok(()),
                    };
                }
                if known.is_some() {
                    return Err(ChangeError::IdExists);
                }
                self.check_urls(id, &context.member.peer_urls)?;
                let learners = self.members.values().filter(|m| m.is_learner).count();
                let is_learner =
                    context.member.is_learner && kind == ConfChangeType::ConfChangeAddLearnerNode;
                if is_learner && learners >= self.max_learners {
                    return Err(ChangeError::TooManyLearners);
                }
                Ok(())
            }
            ConfChangeType::ConfChangeRemoveNode => {
                known.map(|_| ()).ok_or(ChangeError::IdNotFound)
            }
            ConfChangeType::ConfChangeUpdateNode => {
                known.ok_or(ChangeError::IdNotFound)?;
                self.check_urls(id, &context(change)?.member.peer_urls)
            }
        }
    }

    fn check_urls(&self, id: u64, urls: &[String]) -> Result<(), ChangeError> {
        let used = |url: &String| {
            self.members
                .values()
                .any(|m| m.id != id && m.peer_urls.contains(url))
        };
        if urls.iter().any(used) {
            Err(ChangeError::PeerUrlExists)
        } else {
            Ok(())
        }
    }

    /// Applies a configuration change that [`Self::validate`] accepted.
    ///
    /// # Panics
    /// When it was not validated.
    pub(crate) fn apply_change(&mut self, txn: &mut ApplyTxn, change: &ConfChange) -> PeerChange {
        let id = change.node_id.unwrap_or(0);
        let peer = MemberId(id);
        let effect = match change_kind(change).expect("validated") {
            ConfChangeType::ConfChangeRemoveNode => {
                self.members.remove(&id);
                self.removed.insert(id);
                txn.delete(Table::Members, hex(id).as_bytes());
                txn.put(
                    Table::MembersRemoved,
                    hex(id).as_bytes(),
                    Bytes::from_static(b"removed"),
                );
                return PeerChange::Remove { id: peer };
            }
            ConfChangeType::ConfChangeUpdateNode => {
                let urls = context(change).expect("validated").member.peer_urls;
                self.members.get_mut(&id).expect("validated").peer_urls = urls.clone();
                PeerChange::Update { id: peer, urls }
            }
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let context = context(change).expect("validated");
                if context.is_promote {
                    let member = self.members.get_mut(&id).expect("validated");
                    member.is_learner = false;
                    let urls = member.peer_urls.clone();
                    PeerChange::Update { id: peer, urls }
                } else {
                    let urls = context.member.peer_urls.clone();
                    self.members.insert(id, context.member);
                    PeerChange::Add { id: peer, urls }
                }
            }
        };
        self.store(txn, id);
        effect
    }

    /// Applies what a member published of itself; ignored for one that is not a member.
    pub(crate) fn apply_attributes(
        &mut self,
        txn: &mut ApplyTxn,
        request: &ClusterMemberAttrSetRequest,
    ) {
        let Some(member) = self.members.get_mut(&request.member_id) else {
            return;
        };
        let attributes = request.member_attributes.clone().unwrap_or_default();
        member.name = attributes.name;
        member.client_urls = attributes.client_urls;
        self.store(txn, request.member_id);
    }

    /// Applies a cluster version.
    pub(crate) fn apply_version(&mut self, txn: &mut ApplyTxn, version: &str) {
        version.clone_into(&mut self.version);
        txn.put(
            Table::Cluster,
            CLUSTER_VERSION_KEY,
            Bytes::copy_from_slice(version.as_bytes()),
        );
    }

    /// Returns what the storage version is to become, empty for none; `None` when it has followed the cluster's.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/version/monitor.go UpdateStorageVersionIfNeeded.
    pub(crate) fn due_storage_version(&self) -> Option<&str> {
        if self.version == self.storage_version {
            return None;
        }
        let version = self.parsed_version()?;
        if version == MIN_CLUSTER_VERSION {
            return None;
        }
        let due = if version < FIRST_STORAGE_VERSION {
            ""
        } else {
            &self.version
        };
        (due != self.storage_version).then_some(due)
    }

    /// Lets the storage version follow; says what it was.
    pub(crate) fn follow_storage_version(&mut self, txn: &mut ApplyTxn, version: &str) -> String {
        if version.is_empty() {
            txn.delete(Table::Meta, STORAGE_VERSION_KEY);
        } else {
            let value = Bytes::copy_from_slice(version.as_bytes());
            txn.put(Table::Meta, STORAGE_VERSION_KEY, value);
        }
        std::mem::replace(&mut self.storage_version, version.to_owned())
    }

    /// Applies the start or the end of a downgrade.
    pub(crate) fn apply_downgrade(&mut self, txn: &mut ApplyTxn, enabled: bool, target: &str) {
        let target = if enabled { target } else { "" };
        self.downgrade = Version::parse_target(target);
        let info = DowngradeInfo {
            target_version: target.to_owned(),
            enabled,
        };
        let json = serde_json::to_vec(&info).expect("plain data");
        txn.put(Table::Cluster, DOWNGRADE_KEY, json.into());
    }

    fn store(&self, txn: &mut ApplyTxn, id: u64) {
        let json = serde_json::to_vec(&self.members[&id]).expect("a member is plain data");
        txn.put(Table::Members, hex(id).as_bytes(), json.into());
    }
}

/// Checks what can be checked of a configuration change's bytes without knowing the cluster: a change that fails here
/// would end every etcd member if it were committed.
pub(crate) fn check_change(data: &[u8]) -> Result<(), ChangeError> {
    let change = ConfChange::decode(data).map_err(|_| ChangeError::BadContext)?;
    match change_kind(&change).ok_or(ChangeError::UnknownType)? {
        ConfChangeType::ConfChangeRemoveNode => Ok(()),
        _ => context(&change).map(|_| ()),
    }
}

/// Makes the context that promotes a learner, as etcd writes it.
pub(crate) fn promotion_context(id: u64) -> Bytes {
    format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#).into()
}

fn context(change: &ConfChange) -> Result<ChangeContext, ChangeError> {
    let bytes = change.context.as_deref().unwrap_or_default();
    let context: ChangeContext =
        serde_json::from_slice(bytes).map_err(|_| ChangeError::BadContext)?;
    if context.member.id == change.node_id.unwrap_or(0) {
        Ok(context)
    } else {
        Err(ChangeError::BadContext)
    }
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Reads a whole table, in steps.
pub(crate) fn rows(
    txn: &ReadTxn,
    table: Table,
) -> Result<Vec<(Bytes, Bytes)>, quorate_backend::Error> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let bound = all
            .last()
            .map_or(Bound::Unbounded, |(k, _)| Bound::Excluded(&k[..]));
        let chunk = txn.scan(table, bound, RESTORE_ROWS)?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend(chunk);
    }
}

fn text(txn: &ReadTxn, table: Table, key: &[u8]) -> Result<String, RestoreError> {
    let value = txn.get(table, key)?.unwrap_or_default();
    let corrupt = |_| RestoreError::Corrupt(String::from_utf8_lossy(key).into_owned());
    String::from_utf8(value.to_vec()).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_as_etcd_writes_them() {
        let member = Member {
            id: u64::MAX,
            peer_urls: vec!["http://a:1".into()],
            ..Member::default()
        };
        assert_eq!(
            &Cluster::founding_context(&member)[..],
            br#"{"id":18446744073709551615,"peerURLs":["http://a:1"]}"#
        );
        let context: ChangeContext =
            serde_json::from_str(r#"{"id":5,"peerURLs":null,"isPromote":true}"#).unwrap();
        assert!(
            context.is_promote && context.member.id == 5 && context.member.peer_urls.is_empty()
        );
    }

    #[test]
    fn the_storage_version_follows_that_of_the_cluster_and_is_gone_below_3_6() {
        let due = |version: &str, storage: &str| {
            let cluster = Cluster {
                version: version.to_owned(),
                storage_version: storage.to_owned(),
                ..Cluster::default()
            };
            cluster.due_storage_version().map(str::to_owned)
        };
        assert_eq!(due("", ""), None);
        assert_eq!(due("3.0.0", ""), None);
        assert_eq!(due("3.7.0", "").as_deref(), Some("3.7.0"));
        assert_eq!(due("3.7.0", "3.7.0"), None);
        assert_eq!(due("3.6.0", "3.7.0").as_deref(), Some("3.6.0"));
        assert_eq!(due("3.5.0", "3.6.0").as_deref(), Some(""));
        assert_eq!(due("3.5.0", ""), None);
    }

    fn change(kind: ConfChangeType, id: u64, context: &str) -> ConfChange {
        ConfChange {
            r#type: Some(kind.into()),
            node_id: Some(id),
            context: Some(Bytes::copy_from_slice(context.as_bytes())),
            id: Some(1),
        }
    }

    #[test]
    fn changes_are_refused_by_etcds_rules() {
        use ConfChangeType as T;
        let member = |id: u64, url: &str, is_learner| Member {
            id,
            peer_urls: vec![url.into()],
            is_learner,
            ..Member::default()
        };
        let mut cluster = Cluster {
            max_learners: 1,
            ..Cluster::default()
        };
        cluster.members.insert(1, member(1, "u1", false));
        cluster.members.insert(2, member(2, "u2", true));
        cluster.removed.insert(9);
        let check = |kind, id, context: &str| cluster.validate(&change(kind, id, context));
        assert_eq!(
            check(T::ConfChangeAddNode, 9, r#"{"id":9}"#),
            Err(ChangeError::IdRemoved)
        );
        assert_eq!(
            check(T::ConfChangeAddNode, 1, r#"{"id":1}"#),
            Err(ChangeError::IdExists)
        );
        assert_eq!(
            check(T::ConfChangeAddNode, 3, r#"{"id":3,"peerURLs":["u1"]}"#),
            Err(ChangeError::PeerUrlExists)
        );
        assert_eq!(
            check(T::ConfChangeAddNode, 3, r#"{"id":4}"#),
            Err(ChangeError::BadContext)
        );
        assert_eq!(
            check(T::ConfChangeAddNode, 3, "no json"),
            Err(ChangeError::BadContext)
        );
        assert_eq!(
            check(
                T::ConfChangeAddLearnerNode,
                3,
                r#"{"id":3,"peerURLs":["u3"],"isLearner":true}"#
            ),
            Err(ChangeError::TooManyLearners)
        );
        assert_eq!(
            check(T::ConfChangeAddNode, 2, r#"{"id":2,"isPromote":true}"#),
            Ok(())
        );
        assert_eq!(
            check(T::ConfChangeAddNode, 1, r#"{"id":1,"isPromote":true}"#),
            Err(ChangeError::NotLearner)
        );
        assert_eq!(
            check(T::ConfChangeRemoveNode, 3, ""),
            Err(ChangeError::IdNotFound)
        );
        assert_eq!(
            check(T::ConfChangeUpdateNode, 2, r#"{"id":2,"peerURLs":["u1"]}"#),
            Err(ChangeError::PeerUrlExists)
        );
        assert_eq!(
            check(
                T::ConfChangeUpdateNode,
                2,
                r#"{"id":2,"peerURLs":["u2","x"]}"#
            ),
            Ok(())
        );
    }
}
