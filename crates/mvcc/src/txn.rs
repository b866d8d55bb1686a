use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::compare::all_hold;
use crate::interval_set::IntervalSet;
use crate::range::{Counting, RangeResult, read};
use crate::view::{Stop, View};
use crate::{Changes, Error, KeyRange};

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// The store's revision after it.
    pub revision: i64,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One for each operation of the branch that ran, in order.
    pub responses: Vec<OpResult>,
    /// What the lessor must be told.
    pub changes: Changes,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Of a range.
    Range(RangeResult),
    /// Of a put.
    Put {
        /// The revision of the transaction's changes.
        revision: i64,
        /// The record before, when asked for.
        prev: Option<Bytes>,
    },
    /// Of a deletion.
    Delete {
        /// The revision of the transaction's changes, or the one before when nothing had changed so far.
        revision: i64,
        /// How many keys were deleted.
        deleted: i64,
        /// The records before, in key order, when asked for.
        prevs: Vec<Bytes>,
    },
    /// Of a nested transaction.
    Txn {
        /// Whether its compares held.
        succeeded: bool,
        /// One for each operation of the branch that ran, in order.
        responses: Vec<OpResult>,
    },
    /// Of an operation without a request, which changes nothing. Validation refuses it.
    Empty,
}

/// Returns whether a transaction changes nothing whatever its compares say: all operations of both branches are ranges.
/// A nested transaction counts as a change.
///
/// Source: etcd v3.7.1 `server/etcdserver/txn/txn.go` `IsTxnReadonly`.
pub fn is_read_only(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Returns whether a read-only transaction may be answered from local state: all its ranges are serializable.
///
/// Source: etcd v3.7.1 `server/etcdserver/txn/txn.go` `IsTxnSerializable`.
pub fn is_serializable(request: &TxnRequest) -> bool {
    ops(request)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// Which branch each transaction of a tree takes, in the order in which they are met.
///
/// All compares are evaluated before anything is changed, nested ones along the branches taken.
#[derive(Debug)]
pub(crate) struct Path {
    branches: Vec<bool>,
    next: usize,
}

impl Path {
    /// Evaluates the compares of a tree at a main revision.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/txn/txn.go` `compareToPath`.
    pub(crate) fn choose(view: &View<'_>, at: i64, request: &TxnRequest) -> Result<Path, Stop> {
        let mut branches = Vec::new();
        choose_into(view, at, request, &mut branches)?;
        Ok(Path { branches, next: 0 })
    }

    /// Returns whether the next transaction's compares held, and the operations it runs.
    pub(crate) fn enter<'a>(&mut self, request: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
        let succeeded = self.branches[self.next];
        self.next += 1;
        (succeeded, branch(request, succeeded))
    }

    /// Goes back to the start.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }
}

fn choose_into(
    view: &View<'_>,
    at: i64,
    request: &TxnRequest,
    branches: &mut Vec<bool>,
) -> Result<(), Stop> {
    let succeeded = all_hold(view, at, &request.compare)?;
    branches.push(succeeded);
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            choose_into(view, at, nested, branches)?;
        }
    }
    Ok(())
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded {
        &request.success
    } else {
        &request.failure
    }
}

/// What operations are checked against before the first of them runs.
pub(crate) struct PreCheck<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) current: i64,
    pub(crate) compact: i64,
    pub(crate) lease_exists: &'a dyn Fn(i64) -> bool,
    deleted: IntervalSet,
    put: BTreeSet<Bytes>,
}

impl<'a> PreCheck<'a> {
    pub(crate) fn new(
        view: &'a View<'a>,
        current: i64,
        compact: i64,
        lease_exists: &'a dyn Fn(i64) -> bool,
    ) -> PreCheck<'a> {
        PreCheck {
            view,
            current,
            compact,
            lease_exists,
            deleted: IntervalSet::default(),
            put: BTreeSet::new(),
        }
    }

    /// Checks what will run, so that nothing fails once something was changed.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/txn/txn.go` `checkTxn`. Differs from etcd: a put that keeps the value or
    /// lease of a key which an earlier operation deletes fails here; etcd, which checks against the state before the
    /// transaction only, crashes on it.
    pub(crate) fn check(&mut self, request: &TxnRequest, path: &mut Path) -> Result<(), Stop> {
        for op in path.enter(request).1 {
            match &op.request {
                Some(Request::RequestRange(range)) => self.check_range(range)?,
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestDeleteRange(delete)) => {
                    let range = KeyRange::from_wire(&delete.key, &delete.range_end);
                    self.put.retain(|key| !range.contains(key));
                    self.deleted.insert(&range);
                }
                Some(Request::RequestTxn(nested)) => self.check(nested, path)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Unlike in a plain range, a revision below 0 is one that may be compacted.
    fn check_range(&self, request: &RangeRequest) -> Result<(), Error> {
        match request.revision {
            0 => Ok(()),
            revision if revision > self.current => Err(Error::FutureRevision),
            revision if revision < self.compact => Err(Error::Compacted),
            _ => Ok(()),
        }
    }

    fn check_put(&mut self, request: &PutRequest) -> Result<(), Stop> {
        if request.lease != 0 && !(self.lease_exists)(request.lease) {
            return Err(Error::LeaseNotFound.into());
        }
        if request.ignore_value || request.ignore_lease {
            let gone = self.deleted.contains(&request.key) && !self.put.contains(&request.key);
            if gone || self.view.get(&request.key, self.current)?.is_none() {
                return Err(Error::KeyNotFound.into());
            }
        }
        self.put.insert(request.key.clone());
        Ok(())
    }
}

/// Evaluates a read-only transaction.
pub(crate) fn read_only(
    view: &View<'_>,
    request: &TxnRequest,
    current: i64,
    compact: i64,
) -> Result<TxnResult, Stop> {
    let mut path = Path::choose(view, current, request)?;
    PreCheck::new(view, current, compact, &|_| false).check(request, &mut path)?;
    path.rewind();
    let (succeeded, ops) = path.enter(request);
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let Some(Request::RequestRange(range)) = &op.request else {
            panic!(
                "a transaction with an operation that is no range was taken for a read-only one"
            );
        };
        responses.push(OpResult::Range(read(
            view,
            range,
            current,
            compact,
            Counting::All,
        )?));
    }
    let changes = Changes {
        revision: current,
        ..Changes::default()
    };
    Ok(TxnResult {
        revision: current,
        succeeded,
        responses,
        changes,
    })
}
