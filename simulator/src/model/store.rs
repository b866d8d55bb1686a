//! All of the reference under one log.
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::raftpb::ConfChange;

use super::entry::{Content, take_apart};
use super::keys::Change;
use super::txn::{check_put, execute, put, read_only};
use super::{
    Answer, Auth, Caller, Cluster, Entry, EntryKind, Keys, Leases, Outcome, Proposer, RangeAnswer,
    Refusal, Span, TxnAnswer, hash, range,
};

/// `AlarmType` on the wire.
const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;

/// What came of one entry.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in the log.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Who proposed it.
    pub proposer: Proposer,
    /// What must be answered.
    pub outcome: Outcome,
    /// The store's revision after it.
    pub revision: i64,
    /// The compact revision after it; -1 when nothing was ever compacted.
    pub compact: i64,
    /// The request of a normal entry that holds one.
    pub request: Option<Rc<pb::InternalRaftRequest>>,
}

/// The reference store at the end of the log, and as it was after each entry.
#[derive(Clone, Debug)]
pub struct Model {
    /// The least time to live that a lease is granted, in seconds.
    ttl_s_min: i64,
    learners_max: usize,
    keys: Keys,
    leases: Leases,
    auth: Rc<Auth>,
    alarms: Rc<BTreeSet<(u64, i32)>>,
    cluster: Rc<Cluster>,
    steps: Vec<Step>,
    /// How users, alarms and members were from an entry on.
    states: BTreeMap<u64, State>,
    /// Entries by the mark of their client.
    by_tag: BTreeMap<u64, Vec<u64>>,
}

/// What changes seldom.
#[derive(Clone, Debug)]
struct State {
    auth: Rc<Auth>,
    alarms: Rc<BTreeSet<(u64, i32)>>,
    cluster: Rc<Cluster>,
}

impl Model {
    /// Makes a store without anything.
    pub fn new(ttl_s_min: i64, learners_max: usize) -> Self {
        Self {
            ttl_s_min,
            learners_max,
            keys: Keys::default(),
            leases: Leases::default(),
            auth: Rc::default(),
            alarms: Rc::default(),
            cluster: Rc::default(),
            steps: Vec::new(),
            states: BTreeMap::new(),
            by_tag: BTreeMap::new(),
        }
    }

    /// Takes the next entry; returns what must come of it.
    ///
    /// # Errors
    /// When it is no entry that any version knows.
    ///
    /// # Panics
    /// When entries do not come in order without a gap.
    pub fn apply(&mut self, entry: &Entry) -> Result<&Step, String> {
        assert_eq!(entry.index, self.index() + 1, "entries come in order");
        let mut step = Step {
            index: entry.index,
            term: entry.term,
            proposer: Proposer::default(),
            outcome: Ok(Answer::Done),
            revision: 0,
            compact: self.compact_at(self.index()),
            request: None,
        };
        match entry.kind {
            EntryKind::ConfChange => {
                let change = ConfChange::decode(entry.data.clone()).map_err(|e| e.to_string())?;
                step.proposer.request_id = change.id.unwrap_or(0);
                let done = Rc::make_mut(&mut self.cluster).apply(&change, self.learners_max);
                step.outcome = done.map(|()| Answer::Members(self.cluster.members()));
            }
            EntryKind::Normal if entry.data.is_empty() => {}
            EntryKind::Normal => {
                let content = take_apart(&entry.data)?;
                step.proposer = content.proposer;
                step.outcome = self.request(&content, &mut step.compact, entry.index)?;
                step.request = Some(Rc::new(content.request));
            }
        }
        step.revision = self.keys.revision();
        if step.proposer.tag != 0 {
            let places = self.by_tag.entry(step.proposer.tag).or_default();
            places.push(entry.index);
        }
        self.remember(entry.index);
        self.steps.push(step);
        Ok(self.steps.last().expect("one was pushed"))
    }

    fn remember(&mut self, index: u64) {
        let is_same = self.states.last_key_value().is_some_and(|(_, s)| {
            Rc::ptr_eq(&s.auth, &self.auth)
                && Rc::ptr_eq(&s.alarms, &self.alarms)
                && Rc::ptr_eq(&s.cluster, &self.cluster)
        });
        if !is_same {
            let state = State {
                auth: self.auth.clone(),
                alarms: self.alarms.clone(),
                cluster: self.cluster.clone(),
            };
            self.states.insert(index, state);
        }
    }

    /// Applies a request; the order of checks is that of etcd's appliers.
    fn request(
        &mut self,
        content: &Content,
        compact: &mut i64,
        index: u64,
    ) -> Result<Outcome, String> {
        let request = &content.request;
        if self.is_internal(request) {
            return Ok(Ok(Answer::Done));
        }
        if let Err(refusal) = self.check_alarms(request) {
            return Ok(Err(refusal));
        }
        let caller = Caller {
            name: content.username.clone(),
            revision: content.auth_revision,
        };
        if let Some(outcome) = self.kv(&caller, request, compact) {
            return Ok(outcome);
        }
        if let Some(outcome) = self.lease(&caller, request, index) {
            return Ok(outcome);
        }
        if let Some(r) = &request.alarm {
            return Ok(Ok(Answer::Alarms(self.alarm(r))));
        }
        let revision = self.keys.revision();
        let auth = Rc::make_mut(&mut self.auth);
        match auth.apply(&caller, request, index) {
            Some(reply) => Ok(reply.map(|reply| Answer::Auth { revision, reply })),
            None if request.range.is_some() || request.downgrade_version_test.is_some() => {
                Ok(Ok(Answer::Done))
            }
            None => Err("an entry without any request that is known".to_owned()),
        }
    }

    /// Applies what only members propose; nobody is asked for permission.
    fn is_internal(&mut self, request: &pb::InternalRaftRequest) -> bool {
        if let Some(r) = &request.cluster_version_set {
            Rc::make_mut(&mut self.cluster).set_version(&r.ver);
        } else if let Some(r) = &request.cluster_member_attr_set {
            Rc::make_mut(&mut self.cluster).set_attributes(r);
        } else if let Some(r) = &request.downgrade_info_set {
            Rc::make_mut(&mut self.cluster).set_downgrade(r.enabled, &r.ver);
        } else {
            return false;
        }
        true
    }

    fn check_alarms(&self, request: &pb::InternalRaftRequest) -> Result<(), Refusal> {
        let is_active = |alarm| self.alarms.iter().any(|(_, a)| *a == alarm);
        let changes = request.put.is_some()
            || request.delete_range.is_some()
            || request.txn.is_some()
            || request.compaction.is_some()
            || request.lease_grant.is_some()
            || request.lease_revoke.is_some();
        if changes && is_active(CORRUPT) {
            return Err(Refusal::Corrupt);
        }
        let grows = request.put.is_some()
            || request.lease_grant.is_some()
            || request.txn.as_ref().is_some_and(puts_something);
        if grows && is_active(NOSPACE) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    fn kv(
        &mut self,
        caller: &Caller,
        request: &pb::InternalRaftRequest,
        compact: &mut i64,
    ) -> Option<Outcome> {
        let (leases, auth) = (&self.leases, self.auth.clone());
        let (keys, now) = (&self.keys, self.keys.revision());
        let keys_of = |id| match leases.is_now(id) {
            true => keys.of_lease(id, now),
            false => Vec::new(),
        };
        let has_lease = |id| leases.is_now(id);
        if let Some(r) = &request.put {
            let has_key = || keys.at(&r.key, now).is_some();
            let allowed = auth
                .may_put(caller, r, &keys_of)
                .and_then(|()| check_put(r, has_lease, has_key));
            return Some(allowed.and_then(|()| {
                let mut write = self.keys.write();
                let (revision, prev) = put(&mut write, r)?;
                write.finish();
                Ok(Answer::Put { revision, prev })
            }));
        }
        if let Some(r) = &request.delete_range {
            let allowed = auth.may_delete(caller, r);
            return Some(allowed.map(|()| self.delete(r)));
        }
        if let Some(r) = &request.txn {
            let allowed = auth.may_txn(caller, r, &keys_of);
            return Some(
                allowed.and_then(|()| {
                    execute(&mut self.keys, *compact, r, has_lease).map(Answer::Txn)
                }),
            );
        }
        let r = request.compaction.as_ref()?;
        if r.revision <= *compact {
            return Some(Err(Refusal::Compacted));
        }
        if r.revision > now {
            return Some(Err(Refusal::FutureRevision));
        }
        *compact = r.revision;
        Some(Ok(Answer::Compaction(now)))
    }

    fn delete(&mut self, request: &pb::DeleteRangeRequest) -> Answer {
        let mut write = self.keys.write();
        let gone = write.delete(&Span::new(&request.key, &request.range_end));
        Answer::Delete {
            deleted: i64::try_from(gone.len()).expect("few keys"),
            prevs: if request.prev_kv { gone } else { Vec::new() },
            revision: write.finish(),
        }
    }

    fn lease(
        &mut self,
        caller: &Caller,
        request: &pb::InternalRaftRequest,
        index: u64,
    ) -> Option<Outcome> {
        if let Some(r) = &request.lease_grant {
            let granted = self.leases.grant(r.id, r.ttl, self.ttl_s_min, index);
            return Some(granted.map(|ttl_s| Answer::Grant { id: r.id, ttl_s }));
        }
        if let Some(r) = &request.lease_revoke {
            let is_there = self.leases.is_now(r.id);
            let now = self.keys.revision();
            let keys = if is_there {
                self.keys.of_lease(r.id, now)
            } else {
                Vec::new()
            };
            let allowed = self.auth.may_all(caller, super::Kind::Write, &keys);
            return Some(allowed.and_then(|()| {
                if !is_there {
                    return Err(Refusal::LeaseNotFound);
                }
                let mut write = self.keys.write();
                for key in &keys {
                    write.delete(&Span::single(key));
                }
                let revision = write.finish();
                self.leases.end(r.id, index);
                Ok(Answer::Revoke(revision))
            }));
        }
        let r = request.lease_checkpoint.as_ref()?;
        for checkpoint in &r.checkpoints {
            self.leases
                .checkpoint(checkpoint.id, checkpoint.remaining_ttl, index);
        }
        Some(Ok(Answer::Done))
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Vec<(u64, i32)> {
        let one = (request.member_id, request.alarm);
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                let wanted = |a: i32| request.alarm == 0 || a == request.alarm;
                let active = self.alarms.iter().copied();
                active.filter(|(_, a)| wanted(*a)).collect()
            }
            Ok(AlarmAction::Activate) if request.alarm != 0 => {
                Rc::make_mut(&mut self.alarms).insert(one);
                vec![one]
            }
            Ok(AlarmAction::Deactivate) if Rc::make_mut(&mut self.alarms).remove(&one) => vec![one],
            _ => Vec::new(),
        }
    }

    /// Returns the last entry's index.
    pub fn index(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.index)
    }

    /// Returns what came of an entry.
    pub fn step(&self, index: u64) -> Option<&Step> {
        let place = usize::try_from(index.checked_sub(1)?).ok()?;
        self.steps.get(place)
    }

    /// Returns the entries that carry a client's mark.
    pub fn places(&self, tag: u64) -> &[u64] {
        self.by_tag.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// Returns the store's revision after an entry; 1 before the first.
    pub fn revision_at(&self, index: u64) -> i64 {
        self.step(index).map_or(1, |step| step.revision)
    }

    /// Returns the compact revision after an entry; -1 when nothing was compacted.
    pub fn compact_at(&self, index: u64) -> i64 {
        self.step(index).map_or(-1, |step| step.compact)
    }

    /// Returns the first entry after which the store has a revision, if it has got there.
    pub fn first_index_of(&self, revision: i64) -> Option<u64> {
        let place = self.steps.partition_point(|step| step.revision < revision);
        if revision <= 1 {
            return Some(0);
        }
        self.steps.get(place).map(|step| step.index)
    }

    /// Says whether a revision was ever the compact revision.
    pub fn was_compacted_at(&self, revision: i64) -> bool {
        let place = self.steps.partition_point(|step| step.compact < revision);
        self.steps.get(place).is_some_and(|s| s.compact == revision)
    }

    /// Answers a range on the store as it is after an entry.
    ///
    /// # Errors
    /// What a member in that state refuses it with.
    pub fn range(&self, index: u64, request: &pb::RangeRequest) -> Result<RangeAnswer, Refusal> {
        range(
            &self.keys,
            self.revision_at(index),
            self.compact_at(index),
            request,
        )
    }

    /// Answers a transaction that only reads, on the store as it is after an entry.
    ///
    /// # Errors
    /// What a member in that state refuses it with.
    pub fn read_txn(&self, index: u64, request: &pb::TxnRequest) -> Result<TxnAnswer, Refusal> {
        read_only(
            &self.keys,
            self.revision_at(index),
            self.compact_at(index),
            request,
        )
    }

    /// Hashes the history up to a revision in a store that is compacted up to `compact`; `None` when nothing lives there.
    pub fn hash(&self, revision: i64, compact: i64) -> Option<u32> {
        hash::hash(&self.keys, revision, compact)
    }

    /// Returns all keys with all their versions.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the changes of a revision.
    pub fn changes_of(&self, revision: i64) -> &[Change] {
        self.keys.changes_of(revision)
    }

    /// Returns all leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Returns the keys that hang on a lease once an entry is applied, sorted.
    pub fn keys_of_lease(&self, id: i64, index: u64) -> Vec<bytes::Bytes> {
        match self.leases.at(id, index) {
            Some(_) => self.keys.of_lease(id, self.revision_at(index)),
            None => Vec::new(),
        }
    }

    /// Returns who may do what once an entry is applied.
    pub fn auth_at(&self, index: u64) -> Rc<Auth> {
        self.state_at(index).map(|s| s.auth).unwrap_or_default()
    }

    /// Returns the active alarms once an entry is applied: member and type.
    pub fn alarms_at(&self, index: u64) -> Rc<BTreeSet<(u64, i32)>> {
        self.state_at(index).map(|s| s.alarms).unwrap_or_default()
    }

    /// Returns members and versions once an entry is applied.
    pub fn cluster_at(&self, index: u64) -> Rc<Cluster> {
        self.state_at(index).map(|s| s.cluster).unwrap_or_default()
    }

    fn state_at(&self, index: u64) -> Option<State> {
        let (_, state) = self.states.range(..=index).next_back()?;
        Some(state.clone())
    }
}

/// Says whether a transaction can put anything, whichever branches run.
fn puts_something(txn: &pb::TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts_something(nested),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
