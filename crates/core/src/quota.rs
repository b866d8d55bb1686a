//! How much a request may grow the backend, and whether there is room for it.
use quorate_backend::Backend;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op;

use crate::Request;

/// Quota in force when the setting is 0.
pub const DEFAULT_QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;

/// Cost of a lease beside its keys.
const LEASE_BYTES: i64 = 64;
/// Cost of a key-value pair beside its own bytes.
const KV_OVERHEAD_BYTES: i64 = 256;
/// How deep nested transactions are followed; validation refuses deeper ones long before.
const MAX_DEPTH: usize = 256;

/// The backend quota. Source: etcd v3.7.1 server/storage/quota.go.
#[derive(Clone)]
pub struct Quota {
    backend: Backend,
    limit_bytes: Option<i64>,
}

impl Quota {
    /// Makes a quota from the setting: 0 is the default, negative is none.
    pub fn new(backend: Backend, setting_bytes: i64) -> Self {
        let limit_bytes = match setting_bytes {
            0 => Some(DEFAULT_QUOTA_BYTES),
            n if n < 0 => None,
            n => Some(n),
        };
        Self {
            backend,
            limit_bytes,
        }
    }

    /// Says whether a request of this cost fits. A request that costs nothing always does, and so do deletes.
    pub fn has_room(&self, cost_bytes: i64) -> bool {
        let Some(limit) = self.limit_bytes else {
            return true;
        };
        if cost_bytes == 0 {
            return true;
        }
        let used = i64::try_from(self.backend.sizes().total_bytes).unwrap_or(i64::MAX);
        used.saturating_add(cost_bytes) < limit
    }

    /// Returns the limit, or `None` without one.
    pub fn limit_bytes(&self) -> Option<i64> {
        self.limit_bytes
    }
}

/// Returns what a request costs, in bytes.
pub fn cost(request: &Request) -> i64 {
    match request {
        Request::Put(put) => put_cost(put),
        Request::Txn(txn) => txn_cost(txn),
        Request::LeaseGrant(_) => LEASE_BYTES,
        _ => 0,
    }
}

/// Returns what a put costs, in bytes.
pub fn put_cost(put: &pb::PutRequest) -> i64 {
    KV_OVERHEAD_BYTES + len(&put.key) + len(&put.value)
}

/// Returns what a transaction costs, in bytes: that of its dearer branch, nested ones included.
pub fn txn_cost(txn: &pb::TxnRequest) -> i64 {
    txn_cost_at(txn, 0)
}

fn txn_cost_at(txn: &pb::TxnRequest, depth: usize) -> i64 {
    if depth == MAX_DEPTH {
        return 0;
    }
    let branch = |ops: &[pb::RequestOp]| {
        ops.iter().fold(0_i64, |sum, op| {
            sum.saturating_add(match &op.request {
                Some(request_op::Request::RequestPut(put)) => put_cost(put),
                Some(request_op::Request::RequestTxn(nested)) => txn_cost_at(nested, depth + 1),
                _ => 0,
            })
        })
    };
    branch(&txn.success).max(branch(&txn.failure))
}

fn len(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value_bytes: usize) -> pb::RequestOp {
        let put = pb::PutRequest {
            key: "k".into(),
            value: vec![0; value_bytes].into(),
            ..Default::default()
        };
        pb::RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }
    }

    #[test]
    fn a_transaction_costs_its_dearer_branch_with_nested_puts() {
        let nested = pb::TxnRequest {
            success: vec![put(100)],
            ..Default::default()
        };
        let nested = pb::RequestOp {
            request: Some(request_op::Request::RequestTxn(nested)),
        };
        let txn = pb::TxnRequest {
            success: vec![put(1), nested],
            failure: vec![put(2)],
            ..Default::default()
        };
        assert_eq!(txn_cost(&txn), 258 + 357);
        assert_eq!(
            cost(&Request::DeleteRange(pb::DeleteRangeRequest::default())),
            0
        );
    }
}
