//! What a member shows to other threads: numbers that change often as atomics, the rest as shared values.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{ClusterId, MemberId};

use crate::Cluster;
use crate::promotions::Promotions;
use crate::tally::Tally;

/// A read-only window on a member, for the front door. Written only by the member; cheap to read from any thread.
#[derive(Debug)]
pub struct View {
    cluster_id: ClusterId,
    member_id: MemberId,
    term: AtomicU64,
    leader: AtomicU64,
    appended: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    leader_changes: AtomicU64,
    pending: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    sole_leader: AtomicBool,
    stopping: AtomicBool,
    compacting: AtomicBool,
    slow: RwLock<Slow>,
    tally: Tally,
    promotions: Promotions,
}

#[derive(Debug, Default)]
struct Slow {
    alarms: Arc<Vec<pb::AlarmMember>>,
    members: Arc<Vec<pb::Member>>,
    removed: Arc<BTreeSet<u64>>,
    cluster_version: Arc<str>,
    storage_version: Arc<str>,
    downgrade: Option<Arc<str>>,
}

impl View {
    /// Makes the view of a member that has not started.
    pub(crate) fn new(cluster_id: ClusterId, member_id: MemberId) -> Self {
        Self {
            cluster_id,
            member_id,
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            appended: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            leader_changes: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sole_leader: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            compacting: AtomicBool::new(false),
            slow: RwLock::new(Slow::default()),
            tally: Tally::default(),
            promotions: Promotions::default(),
        }
    }

    /// Returns the cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Returns this member's id.
    pub fn member_id(&self) -> MemberId {
        self.member_id
    }

    /// Returns the current raft term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Returns the known leader; id 0 is none.
    pub fn leader(&self) -> MemberId {
        MemberId(self.leader.load(Ordering::Acquire))
    }

    /// Returns the index of the last entry that raft has, durable or not. Beyond what is committed for long only when the
    /// log or the other members do not keep up.
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Returns the commit index.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Returns the index of the last applied entry whose effects readers see.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Returns how often a known leader that differs from the one before was seen.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Returns the number of proposals that wait for their result.
    pub fn proposals_pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Returns the number of proposals that failed or timed out.
    pub fn proposals_failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns the number of messages from other members that were not taken.
    pub fn messages_refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Says whether a read of the local store is linearizable right now without asking anyone.
    ///
    /// True only on a leader that is the only voter and has committed in its term: every write it ever acknowledged has
    /// been applied here before it was acknowledged.
    pub fn reads_are_linearizable(&self) -> bool {
        self.sole_leader.load(Ordering::Acquire)
    }

    /// Returns what the member counts of its own work.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns where promotions of learners are counted.
    pub fn promotions(&self) -> &Promotions {
        &self.promotions
    }

    /// Says whether the member is shutting down.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Says whether a compaction was applied whose history is still being removed.
    pub fn is_compacting(&self) -> bool {
        self.compacting.load(Ordering::Acquire)
    }

    /// Returns the active alarms, ordered by member and type.
    pub fn alarms(&self) -> Arc<Vec<pb::AlarmMember>> {
        self.slow.read().alarms.clone()
    }

    /// Returns the members, ordered by id.
    pub fn members(&self) -> Arc<Vec<pb::Member>> {
        self.slow.read().members.clone()
    }

    /// Returns the cluster version as `X.Y.Z`; empty while it is not decided.
    pub fn cluster_version(&self) -> Arc<str> {
        self.slow.read().cluster_version.clone()
    }

    /// Returns the storage version as `X.Y.Z`; empty while it is not set.
    pub fn storage_version(&self) -> Arc<str> {
        self.slow.read().storage_version.clone()
    }

    /// Says whether a member was removed from the cluster.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.slow.read().removed.contains(&id.0)
    }

    /// Returns the version that the cluster is being downgraded to, as `X.Y.0`; `None` while it is not.
    pub fn downgrade_target(&self) -> Option<Arc<str>> {
        self.slow.read().downgrade.clone()
    }

    /// Says whether this member is a learner.
    pub fn is_learner(&self) -> bool {
        self.slow
            .read()
            .members
            .iter()
            .any(|m| m.id == self.member_id.0 && m.is_learner)
    }

    pub(crate) fn set_raft(&self, term: u64, leader: MemberId, appended: u64, committed: u64) {
        self.appended.store(appended, Ordering::Release);
        self.term.store(term, Ordering::Release);
        if self.leader.swap(leader.0, Ordering::AcqRel) != leader.0 && leader.0 != 0 {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        self.committed.store(committed, Ordering::Release);
    }

    pub(crate) fn set_sole_leader(&self, sole: bool) {
        self.sole_leader.store(sole, Ordering::Release);
    }

    pub(crate) fn set_applied(&self, applied: u64) {
        self.applied.store(applied, Ordering::Release);
    }

    pub(crate) fn set_pending(&self, pending: u64) {
        self.pending.store(pending, Ordering::Relaxed);
    }

    pub(crate) fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn set_compacting(&self, compacting: bool) {
        self.compacting.store(compacting, Ordering::Release);
    }

    pub(crate) fn set_alarms(&self, alarms: Vec<pb::AlarmMember>) {
        self.slow.write().alarms = Arc::new(alarms);
    }

    pub(crate) fn set_cluster(&self, cluster: &Cluster) {
        let mut slow = self.slow.write();
        slow.members = Arc::new(cluster.to_wire());
        if !cluster.removed().eq(slow.removed.iter().copied()) {
            slow.removed = Arc::new(cluster.removed().collect());
        }
        slow.cluster_version = cluster.version().into();
        slow.storage_version = cluster.storage_version().into();
        slow.downgrade = cluster.downgrade_target().map(Into::into);
    }
}
