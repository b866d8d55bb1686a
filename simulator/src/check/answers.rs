//! Answers of members against what the model says of their entries.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use quorate_core::{Applied, AuthAnswer, ChangeError, Error, Outcome as Told, Request};
use quorate_mvcc::{OpResult, RangeResult};
use quorate_proto::mvccpb::KeyValue;

use super::Violation;
use crate::model::{
    Answer, AuthReply, Model, OpAnswer, Outcome, RangeAnswer, Refusal, Step, TxnAnswer,
};

/// What an answer says about the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It was applied, and this came of it.
    Applied(Outcome),
    /// It never will be.
    Never(String),
    /// Nothing: it may have been applied, or may be yet, or not.
    Nothing(String),
}

/// Reads what a member answered.
///
/// # Errors
/// The answer cannot be right, whatever the log says.
pub fn read(told: &Told) -> Result<Said, Violation> {
    let broken = |text: String| Violation::new("answers make sense", text);
    match told {
        Told::Applied(applied) => {
            let answer = answer(applied).map_err(|e| broken(format!("{applied:?}: {e}")))?;
            Ok(Said::Applied(Ok(answer)))
        }
        Told::Failed(error) => said(error).ok_or_else(|| broken(format!("failed with {error:?}"))),
        other => Err(broken(format!("a proposal is answered by {other:?}"))),
    }
}

/// Reads why a member refused or failed; `None` when it must not have.
fn said(error: &Error) -> Option<Said> {
    if let Some(refusal) = refusal(error) {
        return Some(Said::Applied(Err(refusal)));
    }
    let text = error.to_string();
    match error {
        Error::TooManyRequests | Error::RequestTooLarge | Error::ProposalDropped => {
            Some(Said::Never(text))
        }
        Error::Mvcc(_) | Error::Lease(_) | Error::Auth(_) => None,
        _ => Some(Said::Nothing(text)),
    }
}

/// Reads a refusal that the log determines.
pub fn refusal(error: &Error) -> Option<Refusal> {
    use quorate_auth::Error as A;
    use quorate_lease::Error as L;
    use quorate_mvcc::Error as M;
    Some(match error {
        Error::Mvcc(M::KeyNotFound) => Refusal::KeyNotFound,
        Error::Mvcc(M::LeaseNotFound) | Error::Lease(L::NotFound) => Refusal::LeaseNotFound,
        Error::Mvcc(M::Compacted) => Refusal::Compacted,
        Error::Mvcc(M::FutureRevision) => Refusal::FutureRevision,
        Error::Lease(L::Exists) => Refusal::LeaseExists,
        Error::Lease(L::TtlTooLarge) => Refusal::TtlTooLarge,
        Error::NoSpace => Refusal::NoSpace,
        Error::Corrupt => Refusal::Corrupt,
        Error::Membership(ChangeError::IdRemoved | ChangeError::IdNotFound) => {
            Refusal::MemberNotFound
        }
        Error::Membership(ChangeError::IdExists) => Refusal::MemberExists,
        Error::Membership(ChangeError::PeerUrlExists) => Refusal::PeerUrlExists,
        Error::Membership(ChangeError::NotLearner) => Refusal::NotLearner,
        Error::Membership(ChangeError::TooManyLearners) => Refusal::TooManyLearners,
        Error::Auth(A::UserEmpty) => Refusal::UserEmpty,
        Error::Auth(A::RoleEmpty) => Refusal::RoleEmpty,
        Error::Auth(A::PermissionNotGiven) => Refusal::PermissionNotGiven,
        Error::Auth(A::InvalidAuthMgmt) => Refusal::InvalidAuthMgmt,
        Error::Auth(A::NoPasswordUser) => Refusal::NoPasswordUser,
        Error::Auth(A::AuthFailed) => Refusal::AuthFailed,
        Error::Auth(A::AuthNotEnabled) => Refusal::AuthNotEnabled,
        Error::Auth(A::InvalidAuthToken) => Refusal::InvalidAuthToken,
        Error::Auth(A::AuthOldRevision) => Refusal::AuthOldRevision,
        Error::Auth(A::PermissionDenied) => Refusal::PermissionDenied,
        Error::Auth(A::RootUserNotExist) => Refusal::RootUserNotExist,
        Error::Auth(A::RootRoleNotExist) => Refusal::RootRoleNotExist,
        Error::Auth(A::UserAlreadyExist) => Refusal::UserAlreadyExist,
        Error::Auth(A::UserNotFound) => Refusal::UserNotFound,
        Error::Auth(A::RoleAlreadyExist) => Refusal::RoleAlreadyExist,
        Error::Auth(A::RoleNotFound) => Refusal::RoleNotFound,
        Error::Auth(A::RoleNotGranted) => Refusal::RoleNotGranted,
        Error::Auth(A::PermissionNotGranted) => Refusal::PermissionNotGranted,
        _ => return None,
    })
}

fn answer(applied: &Applied) -> Result<Answer, String> {
    Ok(match applied {
        Applied::Put(result) => Answer::Put {
            revision: result.revision,
            prev: result.prev.as_ref().map(pair).transpose()?,
        },
        Applied::DeleteRange(result) => Answer::Delete {
            revision: result.revision,
            deleted: result.deleted,
            prevs: pairs(&result.prevs)?,
        },
        Applied::Txn(result) => Answer::Txn(txn_answer(result)?),
        Applied::Compaction { revision } => Answer::Compaction(*revision),
        Applied::LeaseGrant { id, ttl_s } => Answer::Grant {
            id: id.0,
            ttl_s: *ttl_s,
        },
        Applied::LeaseRevoke { revision } => Answer::Revoke(*revision),
        Applied::Alarm(alarms) => {
            let mut alarms: Vec<_> = alarms.iter().map(|a| (a.member_id, a.alarm)).collect();
            alarms.sort_unstable();
            Answer::Alarms(alarms)
        }
        Applied::Auth { revision, answer } => Answer::Auth {
            revision: *revision,
            reply: match answer {
                AuthAnswer::Done => AuthReply::Done,
                AuthAnswer::Status { enabled, revision } => AuthReply::Status(*enabled, *revision),
                AuthAnswer::Token(token) => AuthReply::Token(token.clone()),
                AuthAnswer::Names(names) => AuthReply::Names(names.clone()),
                AuthAnswer::Permissions(all) => AuthReply::Permissions(all.clone()),
            },
        },
        Applied::Done => Answer::Done,
    })
}

/// Reads the answer to a transaction.
///
/// # Errors
/// A pair in it is none.
pub fn txn_answer(result: &quorate_mvcc::TxnResult) -> Result<TxnAnswer, String> {
    Ok(TxnAnswer {
        revision: result.revision,
        succeeded: result.succeeded,
        ops: ops(&result.responses)?,
    })
}

fn ops(results: &[OpResult]) -> Result<Vec<OpAnswer>, String> {
    let one = |result: &OpResult| {
        Ok(match result {
            OpResult::Range(result) => OpAnswer::Range(range_answer(result)?),
            OpResult::Put { revision, prev } => {
                OpAnswer::Put(*revision, prev.as_ref().map(pair).transpose()?)
            }
            OpResult::Delete {
                revision,
                deleted,
                prevs,
            } => OpAnswer::Delete(*revision, *deleted, pairs(prevs)?),
            OpResult::Txn {
                succeeded,
                responses,
            } => OpAnswer::Txn(*succeeded, ops(responses)?),
            OpResult::Empty => OpAnswer::Empty,
        })
    };
    results.iter().map(one).collect()
}

/// Reads the answer to a range.
///
/// # Errors
/// A pair in it is none.
pub fn range_answer(result: &RangeResult) -> Result<RangeAnswer, String> {
    Ok(RangeAnswer {
        revision: result.revision,
        kvs: pairs(&result.kvs)?,
        more: result.more,
        count: result.count,
    })
}

fn pairs(records: &[Bytes]) -> Result<Vec<KeyValue>, String> {
    records.iter().map(pair).collect()
}

fn pair(record: &Bytes) -> Result<KeyValue, String> {
    KeyValue::decode(record.clone()).map_err(|e| e.to_string())
}

/// What was asked under a mark.
#[derive(Clone, Debug)]
struct Asked {
    what: Request,
    /// Entries that were committed before.
    after: u64,
}

/// What clients proposed, by mark, and what became of it.
#[derive(Debug, Default)]
pub struct Ledger {
    next_tag: u64,
    asked: BTreeMap<u64, Asked>,
    never: BTreeSet<u64>,
    /// Whether links may deliver a proposal twice.
    may_repeat: bool,
}

impl Ledger {
    /// Makes it; `may_repeat` says whether links may deliver a proposal twice.
    pub fn new(may_repeat: bool) -> Self {
        Self {
            may_repeat,
            ..Self::default()
        }
    }

    /// Begins a proposal; returns its mark.
    pub fn ask(&mut self, model: &Model, what: Request) -> u64 {
        self.next_tag += 1;
        let after = model.index();
        self.asked.insert(self.next_tag, Asked { what, after });
        self.next_tag
    }

    /// Describes what was asked under a mark.
    pub fn what(&self, tag: u64) -> String {
        let asked = self.asked.get(&tag);
        asked.map_or_else(|| "nothing".to_owned(), |asked| format!("{:?}", asked.what))
    }

    /// Says whether what was asked is answered only when what it compacts is gone from the disk, however long that takes.
    pub fn waits_for_compaction(&self, tag: u64) -> bool {
        let asked = self.asked.get(&tag);
        asked.is_some_and(|asked| matches!(&asked.what, Request::Compaction(r) if r.physical))
    }

    /// Looks at an entry that was committed.
    ///
    /// # Errors
    /// It is one that nobody asked for, or that was refused, or that was there already.
    pub fn committed(&self, model: &Model, step: &Step) -> Result<(), Violation> {
        let tag = step.proposer.tag;
        if tag == 0 {
            return Ok(());
        }
        let entry = step.index;
        if !self.asked.contains_key(&tag) {
            let text = format!("entry {entry} carries mark {tag}, which nobody was given");
            return Err(Violation::new("only what was asked is applied", text));
        }
        if self.never.contains(&tag) {
            let text = format!(
                "entry {entry} is {}, which was refused for good",
                self.what(tag)
            );
            return Err(Violation::new("what is refused is not applied", text));
        }
        if model.places(tag).len() > 1 && !self.may_repeat {
            let text = format!("{} is entry {:?}", self.what(tag), model.places(tag));
            return Err(Violation::new("applied once at most", text));
        }
        Ok(())
    }

    /// Holds an answer against the model; returns the entry that it rests on, if it was applied.
    ///
    /// # Errors
    /// It is not what must come of the entry, or there is no such entry.
    pub fn answered(
        &mut self,
        model: &Model,
        tag: u64,
        said: &Said,
    ) -> Result<Option<u64>, Violation> {
        let asked = self.asked.get(&tag);
        let got = match said {
            Said::Nothing(_) => return Ok(None),
            Said::Never(why) => {
                if let Some(place) = model.places(tag).first() {
                    let what = self.what(tag);
                    let text = format!("{what} is entry {place}, and was refused: {why}");
                    return Err(Violation::new("what is refused is not applied", text));
                }
                self.never.insert(tag);
                return Ok(None);
            }
            Said::Applied(outcome) => outcome,
        };
        let steps = model.places(tag).iter().filter_map(|at| model.step(*at));
        // Who got the first by a snapshot is answered at the second.
        let (first, mut all) = (steps.clone().next(), steps);
        let repeated = all.find(|step| self.may_repeat && step.outcome == *got);
        let Some(step) = repeated.or(first) else {
            let what = self.what(tag);
            let text = format!("{what} is answered by {got:?}, and no committed entry holds it");
            return Err(Violation::new("answers rest on committed entries", text));
        };
        if asked.is_none_or(|asked| step.index <= asked.after) {
            let what = self.what(tag);
            let text = format!(
                "{what} is entry {}, committed before it was asked",
                step.index
            );
            return Err(Violation::new("only what was asked is applied", text));
        }
        if *got != step.outcome {
            let what = self.what(tag);
            let text = format!(
                "{what} is entry {} and is answered by {got:?}; it must be {:?}",
                step.index, step.outcome
            );
            return Err(Violation::new("answers are the model's", text));
        }
        Ok(Some(step.index))
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::PutRequest;

    use super::*;
    use crate::model::{Entry, EntryKind, tagged};

    fn entry(index: u64, tag: u64) -> Entry {
        let put = PutRequest {
            key: "a".into(),
            ..Default::default()
        };
        let raw = tagged(&put, tag);
        let len = u8::try_from(raw.len()).unwrap();
        Entry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: [&[4 << 3 | 2, len], &raw[..]].concat().into(),
        }
    }

    fn put() -> Request {
        Request::Put(PutRequest::default())
    }

    fn put_at(revision: i64) -> Said {
        let prev = None;
        Said::Applied(Ok(Answer::Put { revision, prev }))
    }

    /// A model with one put under a mark, and the ledger that gave it.
    fn one_put() -> (Model, Ledger, u64) {
        let (mut model, mut ledger) = (Model::new(1, 1), Ledger::default());
        let tag = ledger.ask(&model, put());
        let step = model.apply(&entry(1, tag)).unwrap().clone();
        ledger.committed(&model, &step).unwrap();
        (model, ledger, tag)
    }

    #[test]
    fn the_right_answer_is_taken_and_any_other_refused() {
        let (model, mut ledger, tag) = one_put();
        assert_eq!(ledger.answered(&model, tag, &put_at(2)), Ok(Some(1)));
        let wrong = ledger.answered(&model, tag, &put_at(3)).unwrap_err();
        assert_eq!(wrong.check, "answers are the model's");
        let refused = Said::Applied(Err(Refusal::LeaseNotFound));
        assert!(ledger.answered(&model, tag, &refused).is_err());
        let unknown = Said::Nothing("request timed out".into());
        assert_eq!(ledger.answered(&model, tag, &unknown), Ok(None));
    }

    #[test]
    fn an_answer_without_an_entry_is_refused() {
        let (model, mut ledger, _) = one_put();
        let other = ledger.ask(&model, put());
        let wrong = ledger.answered(&model, other, &put_at(3)).unwrap_err();
        assert_eq!(wrong.check, "answers rest on committed entries");
    }

    #[test]
    fn what_was_refused_may_not_be_applied_later_or_before() {
        let (mut model, mut ledger, tag) = one_put();
        let never = Said::Never("too many requests".into());
        assert!(ledger.answered(&model, tag, &never).is_err());
        let other = ledger.ask(&model, put());
        assert_eq!(ledger.answered(&model, other, &never), Ok(None));
        let step = model.apply(&entry(2, other)).unwrap().clone();
        let wrong = ledger.committed(&model, &step).unwrap_err();
        assert_eq!(wrong.check, "what is refused is not applied");
    }

    #[test]
    fn nothing_is_applied_twice_or_unasked() {
        let (mut model, mut ledger, tag) = one_put();
        let step = model.apply(&entry(2, tag)).unwrap().clone();
        let wrong = ledger.committed(&model, &step).unwrap_err();
        assert_eq!(wrong.check, "applied once at most");
        ledger.may_repeat = true;
        assert_eq!(ledger.committed(&model, &step), Ok(()));
        let step = model.apply(&entry(3, 99)).unwrap().clone();
        let wrong = ledger.committed(&model, &step).unwrap_err();
        assert_eq!(wrong.check, "only what was asked is applied");
    }

    #[test]
    fn refusals_have_the_names_of_the_model() {
        let error = Error::Auth(quorate_auth::Error::AuthOldRevision);
        let old = Said::Applied(Err(Refusal::AuthOldRevision));
        assert_eq!(said(&error), Some(old));
        assert!(matches!(said(&Error::Timeout), Some(Said::Nothing(_))));
        assert!(matches!(
            said(&Error::ProposalDropped),
            Some(Said::Never(_))
        ));
        assert_eq!(said(&Error::Mvcc(quorate_mvcc::Error::Poisoned)), None);
    }
}
