//! What a member counts of its own work, for whoever shows it.
//!
//! One thread writes, the member's; any may read. Nothing here decides anything: a member whose stopwatch stands still
//! counts the same and measures nothing.
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_mvcc::{OpResult, TxnResult};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Op;

use crate::{Applied, Error, Request};

/// Upper bounds of the times of applying are this, doubled from one to the next, in nanoseconds.
///
/// Source: etcd v3.7.1 server/etcdserver/txn/metrics.go, applySec.
pub const FIRST_APPLY_BOUND_NS: u64 = 100_000;
/// How many bounds there are.
pub const APPLY_BOUNDS: usize = 20;
/// How many bounds the granted times to live have: 1 s, doubled from one to the next.
///
/// Source: etcd v3.7.1 server/lease/metrics.go, leaseTTLs.
pub const TTL_BOUNDS: usize = 24;

/// A counter with one writer, which needs no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the member's thread may.
    pub(crate) fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Returns the sum of all that was added.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Observations by size, in buckets whose upper bounds double from one to the next.
#[derive(Debug)]
pub struct Doubling<const BOUNDS: usize> {
    first: u64,
    buckets: [Count; BOUNDS],
    count: Count,
    sum: Count,
}

impl<const BOUNDS: usize> Doubling<BOUNDS> {
    fn new(first: u64) -> Self {
        Self {
            first,
            buckets: std::array::from_fn(|_| Count::default()),
            count: Count::default(),
            sum: Count::default(),
        }
    }

    fn observe(&self, value: u64) {
        // The bucket is the number of doublings that the first bound needs to reach the value.
        let multiple = value.div_ceil(self.first).max(1);
        let doublings = u64::BITS - (multiple - 1).leading_zeros();
        let bucket = usize::try_from(doublings).unwrap_or(BOUNDS);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.count.add(1);
        self.sum.add(value);
    }

    /// Returns how many observations each bucket holds by itself; those above the last bound are in none.
    pub fn buckets(&self) -> [u64; BOUNDS] {
        std::array::from_fn(|at| self.buckets[at].get())
    }

    /// Returns how many observations there were.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Returns their sum.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// Kinds of requests by etcd's names for them. Source: etcd v3.7.1 server/etcdserver/apply/uber_applier.go dispatch.
const OPS: [&str; 28] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "AuthEnable",
    "AuthDisable",
    "Authenticate",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserGet",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthUserList",
    "AuthRoleList",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGet",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
    "DowngradeInfoSet",
    // What etcd has no name for: AuthStatus.
    "unknown",
];

impl Request {
    /// How many kinds of requests are told apart by [`Request::op`].
    pub const OPS: usize = OPS.len();

    /// Returns the number of the request's kind; kinds without a name of their own share one.
    pub fn op(&self) -> usize {
        match self {
            Self::Put(_) => 0,
            Self::DeleteRange(_) => 1,
            Self::Txn(_) => 2,
            Self::Compaction(_) => 3,
            Self::LeaseGrant(_) => 4,
            Self::LeaseRevoke(_) => 5,
            Self::LeaseCheckpoint(_) => 6,
            Self::Alarm(_) => 7,
            Self::AuthEnable(_) => 8,
            Self::AuthDisable(_) => 9,
            Self::Authenticate(_) => 10,
            Self::AuthUserAdd(_) => 11,
            Self::AuthUserDelete(_) => 12,
            Self::AuthUserGet(_) => 13,
            Self::AuthUserChangePassword(_) => 14,
            Self::AuthUserGrantRole(_) => 15,
            Self::AuthUserRevokeRole(_) => 16,
            Self::AuthUserList(_) => 17,
            Self::AuthRoleList(_) => 18,
            Self::AuthRoleAdd(_) => 19,
            Self::AuthRoleDelete(_) => 20,
            Self::AuthRoleGet(_) => 21,
            Self::AuthRoleGrantPermission(_) => 22,
            Self::AuthRoleRevokePermission(_) => 23,
            Self::ClusterMemberAttrSet(_) => 24,
            Self::ClusterVersionSet(_) => 25,
            Self::DowngradeInfoSet(_) => 26,
            _ => 27,
        }
    }

    /// Returns etcd's name of a kind of request.
    ///
    /// # Panics
    ///
    /// When there is no such kind.
    pub fn op_name(op: usize) -> &'static str {
        OPS[op]
    }
}

/// What was done to the keys. Source: etcd v3.7.1 server/storage/mvcc/metrics_txn.go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyWork {
    /// Ranges, compares and looks at what was there before included.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletions of ranges.
    pub deletes: u64,
    /// Bytes of keys and values put.
    pub put_bytes: u64,
}

impl KeyWork {
    /// Returns what a transaction did whose answer is known.
    pub fn of_txn(request: &pb::TxnRequest, succeeded: bool, responses: &[OpResult]) -> Self {
        let mut work = Self::default();
        work.add_txn(request, succeeded, responses);
        work
    }

    /// Says whether it is more than one operation, which counts as a transaction.
    pub fn is_txn(&self) -> bool {
        self.ranges + self.puts + self.deletes > 1
    }

    fn add_put(&mut self, request: &pb::PutRequest) {
        self.puts += 1;
        self.put_bytes += (request.key.len() + request.value.len()) as u64;
        self.ranges += u64::from(request.prev_kv || request.ignore_value || request.ignore_lease);
    }

    fn add_delete(&mut self, request: &pb::DeleteRangeRequest) {
        self.deletes += 1;
        self.ranges += u64::from(request.prev_kv);
    }

    fn add_txn(&mut self, request: &pb::TxnRequest, succeeded: bool, responses: &[OpResult]) {
        self.ranges += request.compare.len() as u64;
        let branch = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        for (op, response) in branch.iter().zip(responses) {
            match (&op.request, response) {
                (Some(Op::RequestRange(_)), _) => self.ranges += 1,
                (Some(Op::RequestPut(put)), _) => self.add_put(put),
                (Some(Op::RequestDeleteRange(delete)), _) => self.add_delete(delete),
                (
                    Some(Op::RequestTxn(txn)),
                    OpResult::Txn {
                        succeeded,
                        responses,
                    },
                ) => self.add_txn(txn, *succeeded, responses),
                _ => {}
            }
        }
    }
}

/// What a member counts of its own work.
#[derive(Debug)]
pub struct Tally {
    /// Times of applying, failures before successes, by [`Request::op`]; in nanoseconds.
    applies: Vec<[Doubling<APPLY_BOUNDS>; 2]>,
    /// Ranges within applied requests.
    pub ranges: Count,
    /// Puts.
    pub puts: Count,
    /// Deletions of ranges.
    pub deletes: Count,
    /// Requests of more than one operation.
    pub txns: Count,
    /// Bytes of keys and values put.
    pub put_bytes: Count,
    /// Requests that took longer to apply than they should.
    pub slow_applies: Count,
    /// Leases granted.
    pub leases_granted: Count,
    /// Leases revoked, those that ran out included.
    pub leases_revoked: Count,
    /// Renewals of leases.
    pub leases_renewed: Count,
    /// Leases found to have run out.
    pub leases_expired: Count,
    /// Granted times to live, in seconds.
    pub lease_ttls: Doubling<TTL_BOUNDS>,
    /// Heartbeats that were sent late.
    pub late_heartbeats: Count,
    /// Rounds of linearizable reads that failed because the leader changed.
    pub read_indexes_failed: Count,
    /// Linearizable reads that waited for their index until their time was over.
    pub read_indexes_slow: Count,
}

impl Default for Tally {
    fn default() -> Self {
        let times = || Doubling::new(FIRST_APPLY_BOUND_NS);
        Self {
            applies: (0..Request::OPS).map(|_| [times(), times()]).collect(),
            ranges: Count::default(),
            puts: Count::default(),
            deletes: Count::default(),
            txns: Count::default(),
            put_bytes: Count::default(),
            slow_applies: Count::default(),
            leases_granted: Count::default(),
            leases_revoked: Count::default(),
            leases_renewed: Count::default(),
            leases_expired: Count::default(),
            late_heartbeats: Count::default(),
            lease_ttls: Doubling::new(1),
            read_indexes_failed: Count::default(),
            read_indexes_slow: Count::default(),
        }
    }
}

impl Tally {
    /// Returns the times of applying requests of a kind that failed or that did not.
    ///
    /// # Panics
    ///
    /// When there is no such kind.
    pub fn applies(&self, op: usize, succeeded: bool) -> &Doubling<APPLY_BOUNDS> {
        &self.applies[op][usize::from(succeeded)]
    }

    /// Counts an applied request.
    pub(crate) fn applied(&self, request: &Request, result: &Result<Applied, Error>, took_ns: u64) {
        self.applies(request.op(), succeeded(result))
            .observe(took_ns);
        let mut work = KeyWork::default();
        match (request, result) {
            (Request::Put(put), Ok(_)) => work.add_put(put),
            (Request::DeleteRange(delete), Ok(_)) => work.add_delete(delete),
            (
                Request::Txn(txn),
                Ok(Applied::Txn(TxnResult {
                    succeeded,
                    responses,
                    ..
                })),
            ) => work.add_txn(txn, *succeeded, responses),
            (Request::LeaseGrant(_), Ok(Applied::LeaseGrant { ttl_s, .. })) => {
                self.leases_granted.add(1);
                self.lease_ttls.observe(u64::try_from(*ttl_s).unwrap_or(0));
            }
            (Request::LeaseRevoke(_), Ok(_)) => self.leases_revoked.add(1),
            _ => {}
        }
        if work != KeyWork::default() {
            self.ranges.add(work.ranges);
            self.puts.add(work.puts);
            self.deletes.add(work.deletes);
            self.put_bytes.add(work.put_bytes);
            self.txns.add(u64::from(work.is_txn()));
        }
    }
}

/// Says whether a result counts as a success: to ask for what is compacted does.
pub(crate) fn succeeded(result: &Result<Applied, Error>) -> bool {
    matches!(
        result,
        Ok(_) | Err(Error::Mvcc(quorate_mvcc::Error::Compacted))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_below_the_first_bound_that_it_does_not_exceed() {
        let times: Doubling<3> = Doubling::new(100);
        for value in [0, 1, 100, 101, 200, 201, 400, 401, u64::MAX / 4] {
            times.observe(value);
        }
        assert_eq!(times.buckets(), [3, 2, 2]);
        assert_eq!(times.count(), 9);
        assert_eq!(times.sum(), 1_404 + u64::MAX / 4);
    }

    #[test]
    fn every_kind_of_request_has_its_own_name() {
        let mut names = OPS.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Request::OPS);
        let grant = Request::LeaseGrant(pb::LeaseGrantRequest::default());
        assert_eq!(Request::op_name(grant.op()), "LeaseGrant");
        let status = Request::AuthStatus(pb::AuthStatusRequest::default());
        assert_eq!(Request::op_name(status.op()), "unknown");
        let downgrade = Request::DowngradeInfoSet(
            quorate_proto::membershippb::DowngradeInfoSetRequest::default(),
        );
        assert_eq!(Request::op_name(downgrade.op()), "DowngradeInfoSet");
    }

    #[test]
    fn transactions_are_counted_along_the_branches_taken() {
        let put = pb::PutRequest {
            key: "k".into(),
            value: "vv".into(),
            prev_kv: true,
            ..pb::PutRequest::default()
        };
        let op = |request| pb::RequestOp {
            request: Some(request),
        };
        let inner = pb::TxnRequest {
            failure: vec![op(
                Op::RequestDeleteRange(pb::DeleteRangeRequest::default()),
            )],
            ..pb::TxnRequest::default()
        };
        let request = pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            success: vec![op(Op::RequestPut(put)), op(Op::RequestTxn(inner))],
            failure: vec![op(Op::RequestRange(pb::RangeRequest::default()))],
        };
        let responses = [
            OpResult::Empty,
            OpResult::Txn {
                succeeded: false,
                responses: vec![OpResult::Empty],
            },
        ];
        let work = KeyWork::of_txn(&request, true, &responses);
        let expected = KeyWork {
            ranges: 2,
            puts: 1,
            deletes: 1,
            put_bytes: 3,
        };
        assert_eq!(work, expected);
        assert!(work.is_txn());
        let other = KeyWork::of_txn(&request, false, &[OpResult::Empty]);
        assert_eq!((other.ranges, other.puts), (2, 0));
    }
}
