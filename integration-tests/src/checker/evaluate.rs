//! What a transaction gives on a state.

use super::record::{Comparison, Kv, Op, OpResult, Relation, Txn};
use super::state::{Change, Draft, State};

/// What a transaction gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) succeeded: bool,
    pub(super) results: Vec<OpResult>,
    pub(super) changes: Vec<Change>,
}

/// Carries out `txn` on `state` as the writer of `revision`.
pub(super) fn evaluate(state: &State, revision: i64, txn: &Txn) -> Given {
    let succeeded = txn.conditions.iter().all(|c| holds(state, c));
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let mut draft = Draft::new(state);
    let results = branch
        .iter()
        .map(|op| carry_out(&mut draft, revision, op))
        .collect();
    Given {
        succeeded,
        results,
        changes: draft.changes,
    }
}

fn holds(state: &State, comparison: &Comparison) -> bool {
    let relates = |relation: &Relation, found: std::cmp::Ordering| match relation {
        Relation::Equal => found.is_eq(),
        Relation::NotEqual => found.is_ne(),
        Relation::Greater => found.is_gt(),
        Relation::Less => found.is_lt(),
    };
    match comparison {
        Comparison::Version(key, relation, wanted) => {
            let found = state.get(key).map_or(0, |kv| kv.version);
            relates(relation, found.cmp(wanted))
        }
        Comparison::Modified(key, relation, wanted) => {
            let found = state.get(key).map_or(0, |kv| kv.modified);
            relates(relation, found.cmp(wanted))
        }
        Comparison::Value(key, relation, wanted) => state
            .get(key)
            .is_some_and(|kv| relates(relation, kv.value.cmp(wanted))),
    }
}

fn carry_out(draft: &mut Draft<'_>, revision: i64, op: &Op) -> OpResult {
    match op {
        Op::Put {
            key,
            value,
            lease,
            previous,
        } => {
            let before = draft.get(key).cloned();
            let kv = Kv {
                key: key.clone(),
                value: value.clone(),
                created: before.as_ref().map_or(revision, |kv| kv.created),
                modified: revision,
                version: before.as_ref().map_or(1, |kv| kv.version + 1),
                lease: *lease,
            };
            draft.add(Change::Put(kv));
            OpResult::Put(before.filter(|_| *previous))
        }
        Op::Delete { range, previous } => {
            let before = draft.range(range);
            for kv in &before {
                draft.add(Change::Delete(kv.key.clone()));
            }
            let count = i64::try_from(before.len()).unwrap_or(i64::MAX);
            OpResult::Delete(count, if *previous { before } else { Vec::new() })
        }
        Op::Range(range) => OpResult::Range(draft.range(range)),
    }
}

/// Whether an answer says that something was changed.
pub(super) fn says_changed(results: &[OpResult]) -> bool {
    results.iter().any(|result| match result {
        OpResult::Put(_) => true,
        OpResult::Delete(count, _) => *count > 0,
        OpResult::Range(_) => false,
    })
}
