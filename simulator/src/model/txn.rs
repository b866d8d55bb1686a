//! Transactions: which branch, what may not run, what runs.
use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use quorate_proto::mvccpb::KeyValue;

use super::keys::Write;
use super::{Keys, OpAnswer, Refusal, Span, TxnAnswer, range};

/// The branch that a transaction takes, and those of the transactions in it.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

/// Carries a transaction out, or nothing of it.
pub(super) fn execute(
    keys: &mut Keys,
    compact: i64,
    request: &TxnRequest,
    has_lease: impl Fn(i64) -> bool,
) -> Result<TxnAnswer, Refusal> {
    let path = choose(keys, request);
    let mut check = Check {
        keys,
        compact,
        has_lease: &has_lease,
        deleted: Vec::new(),
    };
    check.branch(request, &path)?;
    let mut write = keys.write();
    match run(&mut write, compact, request, &path) {
        Ok(ops) => Ok(TxnAnswer {
            succeeded: path.succeeded,
            ops,
            revision: write.finish(),
        }),
        Err(refusal) => {
            write.undo();
            Err(refusal)
        }
    }
}

/// Answers a transaction that only reads, on a store at revision `current` that is compacted up to `compact`.
///
/// # Errors
/// A revision asked for lies ahead, or is gone.
pub(super) fn read_only(
    keys: &Keys,
    current: i64,
    compact: i64,
    request: &TxnRequest,
) -> Result<TxnAnswer, Refusal> {
    let succeeded = request.compare.iter().all(|c| holds(keys, current, c));
    let mut ops = Vec::new();
    for op in branch(request, succeeded) {
        if let Some(Request::RequestRange(r)) = &op.request {
            check_range(r, current, compact)?;
        }
    }
    for op in branch(request, succeeded) {
        ops.push(match &op.request {
            Some(Request::RequestRange(r)) => OpAnswer::Range(range(keys, current, compact, r)?),
            _ => OpAnswer::Empty,
        });
    }
    Ok(TxnAnswer {
        revision: current,
        succeeded,
        ops,
    })
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded {
        &request.success
    } else {
        &request.failure
    }
}

/// Evaluates all compares against the state before the transaction.
fn choose(keys: &Keys, request: &TxnRequest) -> Path {
    let succeeded = request
        .compare
        .iter()
        .all(|c| holds(keys, keys.revision(), c));
    let nested = branch(request, succeeded)
        .iter()
        .filter_map(|op| match &op.request {
            Some(Request::RequestTxn(t)) => Some(choose(keys, t)),
            _ => None,
        })
        .collect();
    Path { succeeded, nested }
}

/// Evaluates one compare: every key of its range must satisfy it.
fn holds(keys: &Keys, revision: i64, compare: &Compare) -> bool {
    /// `CompareTarget.VALUE`.
    const VALUE: i32 = 3;
    let found = keys.all_at(&Span::new(&compare.key, &compare.range_end), revision);
    if found.is_empty() {
        return compare.target != VALUE && holds_for(compare, &KeyValue::default());
    }
    found.iter().all(|kv| holds_for(compare, kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let given = compare.target_union.as_ref();
    let number = |wanted: fn(&TargetUnion) -> Option<i64>| given.and_then(wanted).unwrap_or(0);
    let ordering = match compare.target {
        0 => kv.version.cmp(&number(|t| match t {
            TargetUnion::Version(n) => Some(*n),
            _ => None,
        })),
        1 => kv.create_revision.cmp(&number(|t| match t {
            TargetUnion::CreateRevision(n) => Some(*n),
            _ => None,
        })),
        2 => kv.mod_revision.cmp(&number(|t| match t {
            TargetUnion::ModRevision(n) => Some(*n),
            _ => None,
        })),
        3 => {
            let value = match given {
                Some(TargetUnion::Value(value)) => value.clone(),
                _ => Bytes::new(),
            };
            kv.value.cmp(&value)
        }
        4 => kv.lease.cmp(&number(|t| match t {
            TargetUnion::Lease(n) => Some(*n),
            _ => None,
        })),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => ordering.is_eq(),
        1 => ordering.is_gt(),
        2 => ordering.is_lt(),
        3 => ordering.is_ne(),
        _ => true,
    }
}

/// Unlike for a range alone, a revision below 0 is one that can be gone.
fn check_range(request: &RangeRequest, current: i64, compact: i64) -> Result<(), Refusal> {
    match request.revision {
        0 => Ok(()),
        ahead if ahead > current => Err(Refusal::FutureRevision),
        gone if gone < compact => Err(Refusal::Compacted),
        _ => Ok(()),
    }
}

/// Checks a put against the store: its lease, and the pair that it keeps a part of.
pub(super) fn check_put(
    request: &PutRequest,
    has_lease: impl Fn(i64) -> bool,
    has_key: impl Fn() -> bool,
) -> Result<(), Refusal> {
    if request.lease != 0 && !has_lease(request.lease) {
        return Err(Refusal::LeaseNotFound);
    }
    if (request.ignore_value || request.ignore_lease) && !has_key() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

/// What is checked before anything runs, against the state before the transaction.
///
/// One rule is ours: a put that keeps a part of a pair which the transaction has deleted is refused; etcd ends there.
struct Check<'a> {
    keys: &'a Keys,
    compact: i64,
    has_lease: &'a dyn Fn(i64) -> bool,
    /// What the transaction deletes, and puts again (`true`), in order.
    deleted: Vec<(Span, bool)>,
}

impl Check<'_> {
    fn branch(&mut self, request: &TxnRequest, path: &Path) -> Result<(), Refusal> {
        let mut nested = path.nested.iter();
        let current = self.keys.revision();
        for op in branch(request, path.succeeded) {
            match &op.request {
                Some(Request::RequestRange(r)) => check_range(r, current, self.compact)?,
                Some(Request::RequestPut(r)) => {
                    check_put(r, self.has_lease, || self.keeps(&r.key))?;
                    self.deleted.push((Span::single(&r.key), true));
                }
                Some(Request::RequestDeleteRange(r)) => {
                    self.deleted.push((Span::new(&r.key, &r.range_end), false));
                }
                Some(Request::RequestTxn(t)) => {
                    self.branch(t, nested.next().expect("one for each"))?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Says whether a key is there now and was there before.
    fn keeps(&self, key: &Bytes) -> bool {
        let last = self.deleted.iter().rev().find(|(span, _)| span.has(key));
        let is_deleted = last.is_some_and(|(_, is_put)| !is_put);
        !is_deleted && self.keys.at(key, self.keys.revision()).is_some()
    }
}

fn run(
    write: &mut Write<'_>,
    compact: i64,
    request: &TxnRequest,
    path: &Path,
) -> Result<Vec<OpAnswer>, Refusal> {
    let mut nested = path.nested.iter();
    let mut answers = Vec::new();
    for op in branch(request, path.succeeded) {
        answers.push(match &op.request {
            Some(Request::RequestRange(r)) => {
                OpAnswer::Range(range(write.keys(), write.sees(), compact, r)?)
            }
            Some(Request::RequestPut(r)) => {
                let (revision, prev) = put(write, r)?;
                OpAnswer::Put(revision, prev)
            }
            Some(Request::RequestDeleteRange(r)) => {
                let gone = write.delete(&Span::new(&r.key, &r.range_end));
                let deleted = i64::try_from(gone.len()).expect("few keys");
                let prevs = if r.prev_kv { gone } else { Vec::new() };
                OpAnswer::Delete(write.sees(), deleted, prevs)
            }
            Some(Request::RequestTxn(t)) => {
                let path = nested.next().expect("one for each");
                OpAnswer::Txn(path.succeeded, run(write, compact, t, path)?)
            }
            None => OpAnswer::Empty,
        });
    }
    Ok(answers)
}

/// Carries a put out that was checked; returns its revision and the pair before, when asked for.
pub(super) fn put(
    write: &mut Write<'_>,
    request: &PutRequest,
) -> Result<(i64, Option<KeyValue>), Refusal> {
    let before = write.now(&request.key);
    let (mut value, mut lease) = (request.value.clone(), request.lease);
    if request.ignore_value {
        value = before.clone().ok_or(Refusal::KeyNotFound)?.value;
    }
    if request.ignore_lease {
        lease = before.clone().ok_or(Refusal::KeyNotFound)?.lease;
    }
    let revision = write.put(&request.key, value, lease);
    Ok((revision, before.filter(|_| request.prev_kv)))
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::DeleteRangeRequest;

    use super::*;

    fn keys() -> Keys {
        let mut keys = Keys::default();
        for (key, value) in [("a", "1"), ("b", "2")] {
            let mut write = keys.write();
            write.put(&key.into(), value.into(), 0);
            write.finish();
        }
        keys
    }

    fn put_op(key: &'static str, value: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: key.into(),
            value: value.into(),
            prev_kv: true,
            ..Default::default()
        }))
    }

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn range_op(key: &'static str, revision: i64) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: key.into(),
            revision,
            ..Default::default()
        }))
    }

    fn delete_op(key: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            ..Default::default()
        }))
    }

    fn success(ops: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success: ops,
            ..Default::default()
        }
    }

    fn value_of(op: &OpAnswer) -> Option<&[u8]> {
        match op {
            OpAnswer::Range(answer) => answer.kvs.first().map(|kv| &kv.value[..]),
            _ => None,
        }
    }

    #[test]
    fn later_operations_see_earlier_ones_unless_they_name_the_revision_before() {
        let mut keys = keys();
        let txn = success(vec![
            range_op("a", 0),
            put_op("a", "x"),
            range_op("a", 0),
            range_op("a", 3),
            delete_op("nothing"),
        ]);
        let answer = execute(&mut keys, -1, &txn, |_| false).unwrap();
        assert_eq!((answer.revision, answer.succeeded), (4, true));
        assert_eq!(value_of(&answer.ops[0]), Some(&b"1"[..]));
        assert_eq!(value_of(&answer.ops[2]), Some(&b"x"[..]));
        assert_eq!(value_of(&answer.ops[3]), Some(&b"1"[..]));
        assert_eq!(answer.ops[4], OpAnswer::Delete(4, 0, vec![]));
        let OpAnswer::Range(first) = &answer.ops[0] else {
            panic!()
        };
        assert_eq!(first.revision, 3);
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut keys = keys();
        let mut refused = |ops: Vec<RequestOp>, compact| {
            execute(&mut keys, compact, &success(ops), |_| false).unwrap_err()
        };
        let ahead = vec![put_op("a", "x"), range_op("a", 4)];
        assert_eq!(refused(ahead, -1), Refusal::FutureRevision);
        assert_eq!(refused(vec![range_op("a", -1)], 0), Refusal::Compacted);
        let with_lease = PutRequest {
            key: "z".into(),
            lease: 5,
            ignore_value: true,
            ..Default::default()
        };
        let lease = op(Request::RequestPut(with_lease.clone()));
        assert_eq!(
            refused(vec![delete_op("a"), lease], -1),
            Refusal::LeaseNotFound
        );
        let keep = op(Request::RequestPut(PutRequest {
            key: "a".into(),
            lease: 0,
            ..with_lease
        }));
        assert_eq!(
            refused(vec![delete_op("a"), keep], -1),
            Refusal::KeyNotFound
        );
        assert_eq!(keys.revision(), 3);
        assert!(keys.at(b"a", 9).is_some());
    }

    #[test]
    fn compares_follow_the_table() {
        let keys = keys();
        let compare = |key: &'static str, result, target, target_union| {
            let compare = Compare {
                result,
                target,
                key: key.into(),
                target_union,
                ..Default::default()
            };
            holds(&keys, keys.revision(), &compare)
        };
        let value = |value: &'static str| Some(TargetUnion::Value(value.into()));
        assert!(compare("a", 0, 3, value("1")) && !compare("a", 3, 3, value("1")));
        assert!(compare("a", 1, 3, value("0")) && compare("a", 2, 3, value("2")));
        // An absent key is 0 in numbers and equal to no value.
        assert!(compare("z", 0, 1, Some(TargetUnion::CreateRevision(0))));
        assert!(!compare("z", 3, 3, value("x")) && !compare("z", 0, 3, None));
        // The wrong kind of the right side counts as 0; unknown numbers hold.
        assert!(compare("a", 1, 0, value("x")) && compare("a", 9, 0, None));
        assert!(compare("a", 0, 9, None) && !compare("a", 3, 9, None));
        let both = Compare {
            result: 2,
            target: 2,
            key: "a".into(),
            range_end: "c".into(),
            target_union: Some(TargetUnion::ModRevision(3)),
        };
        assert!(!holds(&keys, keys.revision(), &both) && holds(&keys, 2, &both));
    }

    #[test]
    fn nested_compares_see_the_state_before() {
        let mut keys = keys();
        let nested = TxnRequest {
            compare: vec![Compare {
                result: 0,
                target: 3,
                key: "a".into(),
                target_union: Some(TargetUnion::Value("1".into())),
                ..Default::default()
            }],
            success: vec![put_op("b", "y")],
            failure: vec![put_op("c", "z")],
        };
        let txn = success(vec![put_op("a", "x"), op(Request::RequestTxn(nested))]);
        let answer = execute(&mut keys, -1, &txn, |_| false).unwrap();
        let OpAnswer::Txn(true, ops) = &answer.ops[1] else {
            panic!("{answer:?}")
        };
        let OpAnswer::Put(4, Some(prev)) = &ops[0] else {
            panic!("{ops:?}")
        };
        assert_eq!(prev.value, "2");
        assert_eq!(keys.changes_of(4).len(), 2);
    }

    #[test]
    fn reads_alone_check_revisions_of_the_branch_that_runs() {
        let txn = TxnRequest {
            success: vec![range_op("a", 2)],
            failure: vec![range_op("a", 99)],
            ..Default::default()
        };
        let answer = read_only(&keys(), 3, -1, &txn).unwrap();
        assert_eq!(value_of(&answer.ops[0]), Some(&b"1"[..]));
        let refused = read_only(&keys(), 3, 3, &txn).unwrap_err();
        assert_eq!(refused, Refusal::Compacted);
    }
}
