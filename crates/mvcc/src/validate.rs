//! Checks of requests before they are proposed.
//!
//! They look at the request alone, in etcd's order, so that of several mistakes the same one is reported.
//!
//! Source: etcd v3.7.1 `server/etcdserver/api/v3rpc/key.go`.

use std::collections::BTreeSet;

use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::interval_set::IntervalSet;
use crate::range::{has_revision_filters, is_default_order};
use crate::{Error, KeyRange};

/// Limits that requests are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most compares, and most operations of a branch, of a transaction; nested ones share it.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { txn_ops_max: 128 }
    }
}

/// Checks a range request.
///
/// # Errors
/// [`Error::EmptyKey`], [`Error::InvalidSortOption`].
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// Checks a range request whose answer is to be streamed.
///
/// # Errors
/// Those of [`range`], then [`Error::StreamSortOrder`], [`Error::StreamRevisionFilter`].
pub fn range_stream(request: &RangeRequest) -> Result<(), Error> {
    range(request)?;
    if !is_default_order(request) {
        return Err(Error::StreamSortOrder);
    }
    if has_revision_filters(request) {
        return Err(Error::StreamRevisionFilter);
    }
    Ok(())
}

/// Checks a put request.
///
/// # Errors
/// [`Error::EmptyKey`], [`Error::ValueProvided`], [`Error::LeaseProvided`].
pub fn put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete request.
///
/// # Errors
/// [`Error::EmptyKey`].
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        Err(Error::EmptyKey)
    } else {
        Ok(())
    }
}

/// Checks a transaction and all that is nested in it.
///
/// # Errors
/// [`Error::TooManyOps`], [`Error::EmptyKey`], those of the operations in it, [`Error::KeyNotFound`] for an operation
/// without a request, and only when all that is well, [`Error::DuplicateKey`].
pub fn txn(request: &TxnRequest, limits: &Limits) -> Result<(), Error> {
    ops_of_txn(request, limits.txn_ops_max)?;
    // After the operations are counted, so that the work is bounded.
    changes_of_branch(&request.success)?;
    changes_of_branch(&request.failure)?;
    Ok(())
}

fn ops_of_txn(request: &TxnRequest, budget: usize) -> Result<(), Error> {
    let ops = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = budget.checked_sub(ops) else {
        return Err(Error::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    request
        .success
        .iter()
        .chain(&request.failure)
        .try_for_each(|op| op_of_txn(op, left))
}

fn op_of_txn(op: &RequestOp, budget: usize) -> Result<(), Error> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => ops_of_txn(request, budget),
        None => Err(Error::KeyNotFound),
    }
}

/// What the operations of a branch change.
#[derive(Default)]
struct BranchChanges<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: IntervalSet,
}

/// Collects what a branch changes, and fails when it puts a key twice or puts what it deletes.
///
/// The order of the steps is what makes the check miss some pairs: the deletes of a nested transaction join those of
/// this level only after its puts were compared with them, so that of two nested ones the second may delete what the
/// first puts, and not the other way round.
///
/// Source: etcd v3.7.1 `server/etcdserver/api/v3rpc/key.go` `checkIntervals`.
fn changes_of_branch(ops: &[RequestOp]) -> Result<BranchChanges<'_>, Error> {
    let mut changes = BranchChanges::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request
            // A range to the end of all keys is taken as the interval up to the key of one zero byte, which is empty.
            && *request.range_end != [0]
        {
            changes
                .deletes
                .insert(&KeyRange::from_wire(&request.key, &request.range_end));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(request)) = &op.request {
            let success = changes_of_branch(&request.success)?;
            let failure = changes_of_branch(&request.failure)?;
            changes.add_nested(success, failure)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request
            && (changes.deletes.contains(&request.key) || !changes.puts.insert(&request.key))
        {
            return Err(Error::DuplicateKey);
        }
    }
    Ok(changes)
}

impl<'a> BranchChanges<'a> {
    fn add_nested(
        &mut self,
        success: BranchChanges<'a>,
        failure: BranchChanges<'a>,
    ) -> Result<(), Error> {
        for key in &success.puts {
            if self.deletes.contains(key) || !self.puts.insert(key) {
                return Err(Error::DuplicateKey);
            }
        }
        for key in &failure.puts {
            // Only one of the two branches will run, so they may share keys.
            let is_new = self.puts.insert(key) || success.puts.contains(key);
            if self.deletes.contains(key) || !is_new {
                return Err(Error::DuplicateKey);
            }
        }
        self.deletes.merge(success.deletes);
        self.deletes.merge(failure.deletes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
