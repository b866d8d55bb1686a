//! What clients ask for.
use bytes::Bytes;
use quorate_core::{DowngradeAction, Request};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op;

use super::Callers;
use super::admin::Errand;
use super::reads::Read;
use crate::Random;

/// Keys that are written.
const KEYS: u64 = 12;
/// Leases whose ids clients choose.
const LEASES: u64 = 6;
/// Revisions in which a deletion is looked for.
const DELETION_REVISIONS: usize = 40;
/// Depth of nested transactions.
const DEPTH: u64 = 2;

/// One thing that a client does.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Propose(Request),
    /// Grants a lease and lets the member choose its id.
    Grant(i64),
    Read {
        read: Read,
        is_serializable: bool,
    },
    Renew(i64),
    TimeToLive {
        id: i64,
        keys: bool,
    },
    Leases,
    LogIn,
    Manage,
    Watch,
    /// Stalls or breaks off a stream.
    Disturb,
    Administrate(Errand),
}

/// What a run does how often: some runs do little of this and much of that.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    weights: Vec<(Sort, u64)>,
    has_alarms: bool,
    has_auth: bool,
    /// How far behind the newest revision compactions are drawn.
    kept: u64,
}

#[derive(Clone, Copy, Debug)]
enum Sort {
    Put,
    Delete,
    Txn,
    Read,
    Compact,
    Lease,
    Watch,
    Auth,
    Alarm,
    Leader,
    Downgrade,
    Members,
}

impl Swarm {
    /// Draws it; changes of members from a generator of their own.
    pub(super) fn draw(random: &mut Random, members: &mut Random) -> Self {
        let has_auth = random.one_in(3);
        let has_alarms = random.one_in(5);
        let rates = |common: &[u64], random: &mut Random| random.choose(common);
        let mut weights = vec![
            (Sort::Put, rates(&[10, 30, 60], random)),
            (Sort::Delete, rates(&[0, 4, 10], random)),
            (Sort::Txn, rates(&[0, 10, 25], random)),
            (Sort::Read, rates(&[10, 25, 50], random)),
            (Sort::Compact, rates(&[0, 1, 4], random)),
            (Sort::Lease, rates(&[0, 10, 25], random)),
            (Sort::Watch, rates(&[0, 3, 10], random)),
            (Sort::Leader, rates(&[0, 0, 1], random)),
            (Sort::Downgrade, rates(&[0, 0, 0, 1], random)),
        ];
        if has_auth {
            weights.push((Sort::Auth, rates(&[5, 15], random)));
        }
        if members.one_in(4) {
            weights.push((Sort::Members, rates(&[1, 4], members)));
        }
        if has_alarms {
            weights.push((Sort::Alarm, 1));
        }
        Self {
            weights,
            has_alarms,
            has_auth,
            kept: random.choose(&[3, 30, 200]),
        }
    }

    fn pick(&self, random: &mut Random) -> Sort {
        let total = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = random.below(total);
        for (sort, weight) in &self.weights {
            if drawn < *weight {
                return *sort;
            }
            drawn -= weight;
        }
        Sort::Put
    }
}

impl Callers {
    pub(super) fn draw_deed(&mut self) -> Deed {
        if self.swarm.has_alarms && self.has_alarm() && self.random.one_in(3) {
            return self.draw_disarm();
        }
        if self.swarm.has_auth
            && !self.model.auth_at(self.model.index()).is_enabled()
            && self.random.one_in(3)
        {
            return Deed::Manage;
        }
        match self.swarm.pick(&mut self.random) {
            Sort::Put => Deed::Propose(Request::Put(self.draw_put())),
            Sort::Delete => Deed::Propose(Request::DeleteRange(self.draw_delete())),
            Sort::Txn => {
                let txn = self.draw_txn(DEPTH);
                if quorate_mvcc::is_read_only(&txn) {
                    let is_serializable = quorate_mvcc::is_serializable(&txn);
                    let read = Read::Txn(txn);
                    return Deed::Read {
                        read,
                        is_serializable,
                    };
                }
                Deed::Propose(Request::Txn(txn))
            }
            Sort::Read => self.draw_read(),
            Sort::Compact => {
                let newest = self.model.keys().revision();
                let revision = match self.random.below(20) {
                    0 => newest + 1,
                    1 => -1,
                    2..6 => self.last_deletion().unwrap_or(newest),
                    // Not at 0: the hash that it leaves is taken for that of the newest revision, as in etcd.
                    _ => (newest - signed(self.random.below(self.swarm.kept))).max(1),
                };
                let physical = self.random.one_in(2);
                Deed::Propose(Request::Compaction(pb::CompactionRequest {
                    revision,
                    physical,
                }))
            }
            Sort::Lease => self.draw_lease(),
            Sort::Watch if self.random.one_in(2) => Deed::Watch,
            Sort::Watch => Deed::Disturb,
            Sort::Auth if self.random.one_in(2) => Deed::LogIn,
            Sort::Auth => Deed::Manage,
            Sort::Alarm => self.draw_alarm(),
            Sort::Leader => Deed::Administrate(Errand::MoveLeader),
            Sort::Members => Deed::Administrate(Errand::Members),
            Sort::Downgrade => Deed::Administrate(Errand::Downgrade(match self.random.below(3) {
                0 => DowngradeAction::Validate,
                1 => DowngradeAction::Enable,
                _ => DowngradeAction::Cancel,
            })),
        }
    }

    /// Returns the newest revision that deleted something, as far as it is not compacted: its tombstone must outlive a
    /// compaction at it.
    fn last_deletion(&self) -> Option<i64> {
        let oldest = self.model.compact_at(self.model.index()).max(1);
        let newest = self.model.keys().revision();
        let deletes = |revision: &i64| {
            let changes = self.model.changes_of(*revision);
            changes.iter().any(|change| change.pair.is_none())
        };
        (oldest..=newest)
            .rev()
            .take(DELETION_REVISIONS)
            .find(deletes)
    }

    fn has_alarm(&self) -> bool {
        !self.model.alarms_at(self.model.index()).is_empty()
    }

    fn draw_disarm(&mut self) -> Deed {
        let alarms = self.model.alarms_at(self.model.index());
        let alarms: Vec<_> = alarms.iter().copied().collect();
        let (member_id, alarm) = self.random.pick(&alarms).unwrap_or((0, 0));
        Deed::Propose(Request::Alarm(pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate.into(),
            member_id,
            alarm,
        }))
    }

    fn draw_alarm(&mut self) -> Deed {
        let action = i32::try_from(self.random.below(2)).unwrap_or(0);
        let alarm = match self.random.below(5) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        Deed::Propose(Request::Alarm(pb::AlarmRequest {
            action,
            member_id: 1 + self.random.below(3),
            alarm,
        }))
    }

    fn draw_lease(&mut self) -> Deed {
        let id = self.draw_lease_id();
        match self.random.below(12) {
            0..3 => {
                let ttl = match self.random.below(30) {
                    0 => 9_000_000_001,
                    1 => -1,
                    _ => signed(self.random.below(8)),
                };
                Deed::Propose(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl }))
            }
            3 => Deed::Grant(signed(self.random.below(6))),
            4 => Deed::Propose(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
            5..9 => Deed::Renew(id),
            9..11 => Deed::TimeToLive {
                id,
                keys: self.random.one_in(2),
            },
            _ => Deed::Leases,
        }
    }

    fn draw_lease_id(&mut self) -> i64 {
        let living: Vec<i64> = self.model.leases().living().map(|(id, _)| id).collect();
        match self.random.pick(&living) {
            Some(id) if !self.random.one_in(3) => id,
            _ => match 1 + self.random.below(LEASES) {
                1 => -1,
                id => signed(id),
            },
        }
    }

    /// Draws a lease for a key; where it counts who may write what, mostly one that others hang on already.
    fn draw_lease_with_keys(&mut self) -> i64 {
        if self.swarm.has_auth && !self.random.one_in(3) {
            let index = self.model.index();
            let living = self.model.leases().living().map(|(id, _)| id);
            let held: Vec<i64> = living
                .filter(|id| !self.model.keys_of_lease(*id, index).is_empty())
                .collect();
            if let Some(id) = self.random.pick(&held) {
                return id;
            }
        }
        self.draw_lease_id()
    }

    fn draw_key(&mut self) -> Bytes {
        format!("k{:02}", self.random.below(KEYS)).into()
    }

    /// Draws a span of keys: one, some, all from one on, or all.
    pub(super) fn draw_span(&mut self) -> (Bytes, Bytes) {
        let first = self.random.below(KEYS);
        let key = Bytes::from(format!("k{first:02}"));
        match self.random.below(6) {
            0..2 => (key, Bytes::new()),
            2..4 => {
                let end = first + 1 + self.random.below(KEYS - first);
                (key, format!("k{end:02}").into())
            }
            4 => (key, "\0".into()),
            _ => ("\0".into(), "\0".into()),
        }
    }

    fn draw_put(&mut self) -> pb::PutRequest {
        let size = self.random.choose(&[0, 0, 0, 20, 200, 1_000]);
        let padding = "x".repeat(usize::try_from(size).unwrap_or(0));
        let mut put = pb::PutRequest {
            key: self.draw_key(),
            value: format!("{}{padding}", self.number).into(),
            prev_kv: self.random.one_in(2),
            ..pb::PutRequest::default()
        };
        if self.random.one_in(3) {
            put.lease = self.draw_lease_with_keys();
        }
        if self.random.one_in(12) {
            put.ignore_value = true;
            put.value = Bytes::new();
        }
        if self.random.one_in(12) {
            put.ignore_lease = true;
            put.lease = 0;
        }
        put
    }

    fn draw_delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.draw_span();
        let prev_kv = self.random.one_in(2);
        pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv,
        }
    }

    fn draw_revision(&mut self) -> i64 {
        let newest = self.model.keys().revision();
        let compact = self.model.compact_at(self.model.index());
        match self.random.below(10) {
            0..5 => 0,
            5 => compact,
            6 => newest + 1,
            7 => compact - 1,
            _ => newest - signed(self.random.below(self.swarm.kept + 10)),
        }
    }

    pub(super) fn draw_range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.draw_span();
        let mut range = pb::RangeRequest {
            key,
            range_end,
            revision: self.draw_revision(),
            keys_only: self.random.one_in(6),
            count_only: self.random.one_in(10),
            serializable: self.random.one_in(2),
            ..pb::RangeRequest::default()
        };
        if self.random.one_in(3) {
            range.limit = signed(self.random.below(5));
        }
        if self.random.one_in(4) {
            range.sort_order = i32::try_from(self.random.below(3)).unwrap_or(0);
            range.sort_target = i32::try_from(self.random.below(5)).unwrap_or(0);
        }
        if self.random.one_in(6) {
            let newest = self.model.keys().revision().cast_unsigned();
            let drawn = signed(self.random.below(newest + 1));
            match drawn % 4 {
                0 => range.min_mod_revision = drawn,
                1 => range.max_mod_revision = drawn,
                2 => range.min_create_revision = drawn,
                _ => range.max_create_revision = drawn,
            }
        }
        range
    }

    fn draw_read(&mut self) -> Deed {
        let range = self.draw_range();
        let is_serializable = range.serializable;
        let read = match self.random.below(20) {
            0 => Read::Members,
            1 => Read::Hash(self.draw_revision()),
            2..4 if range.sort_target == 0
                && quorate_mvcc::validate::range_stream(&range).is_ok() =>
            {
                Read::Stream(range)
            }
            _ => Read::Range(range),
        };
        Deed::Read {
            read,
            is_serializable,
        }
    }

    fn draw_txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compares = self.random.below(3);
        let compare = (0..compares).map(|_| self.draw_compare()).collect();
        let only_reads = depth == DEPTH && self.random.one_in(4);
        let mut ops = || {
            let count = self.random.below(4);
            (0..count)
                .map(|_| self.draw_op(depth, only_reads))
                .collect()
        };
        pb::TxnRequest {
            compare,
            success: ops(),
            failure: ops(),
        }
    }

    fn draw_op(&mut self, depth: u64, only_reads: bool) -> pb::RequestOp {
        let request = match self.random.below(8) {
            _ if only_reads => request_op::Request::RequestRange(self.draw_range()),
            0..2 => request_op::Request::RequestRange(self.draw_range()),
            2 => request_op::Request::RequestDeleteRange(self.draw_delete()),
            3 if depth > 0 => request_op::Request::RequestTxn(self.draw_txn(depth - 1)),
            _ => request_op::Request::RequestPut(self.draw_put()),
        };
        pb::RequestOp {
            request: Some(request),
        }
    }

    fn draw_compare(&mut self) -> pb::Compare {
        let (key, range_end) = if self.random.one_in(4) {
            self.draw_span()
        } else {
            (self.draw_key(), Bytes::new())
        };
        let now = self.model.keys().at(&key, i64::MAX).cloned();
        let kv = now.unwrap_or_default();
        let target = i32::try_from(self.random.below(5)).unwrap_or(0);
        // Often what is there, so that both branches are taken.
        let off = signed(self.random.choose(&[0, 0, 1]));
        let target_union = Some(match target {
            0 => TargetUnion::Version(kv.version + off),
            1 => TargetUnion::CreateRevision(kv.create_revision + off),
            2 => TargetUnion::ModRevision(kv.mod_revision + off),
            3 => TargetUnion::Value(kv.value),
            _ => TargetUnion::Lease(kv.lease + off),
        });
        pb::Compare {
            result: i32::try_from(self.random.below(4)).unwrap_or(0),
            target,
            key,
            range_end,
            target_union: target_union.filter(|_| !self.random.one_in(20)),
        }
    }
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
