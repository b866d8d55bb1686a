//! What is known to have happened, settled after every restart.

use std::collections::BTreeMap;

use crate::failure::{Failure, Outcome};
use crate::history::{Changes, Log, State, apply, describe};

/// What the server held at the last look, and how many writes it was held against.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) state: State,
    /// The revision of the last look.
    pub(crate) revision: i64,
    /// Writes that were acknowledged, all of them found.
    pub(crate) acknowledged: u64,
    /// Writes without an answer that had happened.
    pub(crate) unanswered_kept: u64,
    /// Writes without an answer that had not.
    pub(crate) unanswered_lost: u64,
}

/// What writers know when the server is gone.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// The changes that an answer named this revision for.
    pub(crate) acknowledged: BTreeMap<i64, Changes>,
    /// The last write of each writer that has had no answer, by the writer's place.
    pub(crate) unanswered: BTreeMap<usize, Changes>,
}

impl Ledger {
    /// The ledger of an empty store.
    pub(crate) fn new() -> Ledger {
        Ledger {
            state: State::new(),
            revision: 1,
            acknowledged: 0,
            unanswered_kept: 0,
            unanswered_lost: 0,
        }
    }

    /// Takes the history from the last look up to `revision` in, gives the writers whose unanswered write had happened.
    ///
    /// # Errors
    /// A revision is missing, or is no write that was asked for, or not the whole of one; or an acknowledged write is missing.
    pub(crate) fn settle(
        &mut self,
        log: &Log,
        revision: i64,
        mut claims: Claims,
    ) -> Outcome<Vec<usize>> {
        let mut kept = Vec::new();
        for (at, changes) in log.iter() {
            let expected = self.revision + 1;
            if *at != expected {
                return Err(Failure::new(format!(
                    "revision {expected} is missing, the next is {at}"
                )));
            }
            match claims.acknowledged.remove(at) {
                Some(acknowledged) => self.check_whole(*at, &acknowledged, changes)?,
                None => kept.push(take_unanswered(*at, changes, &mut claims)?),
            }
            apply(&mut self.state, changes);
            self.revision = *at;
        }
        if self.revision != revision {
            return Err(Failure::new(format!(
                "the history ends at {}, the revision is {revision}",
                self.revision
            )));
        }
        if let Some((at, changes)) = claims.acknowledged.first_key_value() {
            let text = describe(changes);
            return Err(Failure::new(format!(
                "acknowledged at {at} but lost, the revision is {revision}: {text}"
            )));
        }
        self.unanswered_kept += count(kept.len());
        self.unanswered_lost += count(claims.unanswered.len());
        Ok(kept)
    }

    fn check_whole(&mut self, at: i64, acknowledged: &Changes, changes: &Changes) -> Outcome {
        self.acknowledged += 1;
        if acknowledged == changes {
            return Ok(());
        }
        let (want, got) = (describe(acknowledged), describe(changes));
        Err(Failure::new(format!(
            "revision {at} was acknowledged as {want} and is {got}"
        )))
    }
}

/// The writer whose unanswered write these changes are.
fn take_unanswered(at: i64, changes: &Changes, claims: &mut Claims) -> Outcome<usize> {
    let found = claims.unanswered.iter().find(|(_, c)| *c == changes);
    let Some(writer) = found.map(|(writer, _)| *writer) else {
        let text = describe(changes);
        return Err(Failure::new(format!(
            "revision {at} is no write that was asked for, or a part of one: {text}"
        )));
    };
    claims.unanswered.remove(&writer);
    Ok(writer)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_proto::mvccpb::{Event, KeyValue};

    use super::*;
    use crate::history::Held;

    fn changes(keys: &[&'static str]) -> Changes {
        let held = |value: &'static str| Held {
            value: Bytes::from(value),
            lease: 0,
        };
        keys.iter()
            .map(|key| (Bytes::from(*key), Some(held(key))))
            .collect()
    }

    /// A log in which each revision from 2 on puts these keys.
    fn log(revisions: &[(i64, &[&'static str])]) -> Log {
        let mut log = Log::default();
        for (revision, keys) in revisions {
            let event = |key: &&'static str| Event {
                kv: Some(KeyValue {
                    key: Bytes::from(*key),
                    value: Bytes::from(*key),
                    mod_revision: *revision,
                    ..KeyValue::default()
                }),
                ..Event::default()
            };
            log.add(keys.iter().map(event).collect()).unwrap();
        }
        log
    }

    fn claims() -> Claims {
        Claims {
            acknowledged: BTreeMap::from([(2, changes(&["a"])), (3, changes(&["b", "c"]))]),
            unanswered: BTreeMap::from([(0, changes(&["d", "e"])), (5, changes(&["f"]))]),
        }
    }

    fn settle(revisions: &[(i64, &[&'static str])], revision: i64) -> Outcome<Vec<usize>> {
        Ledger::new().settle(&log(revisions), revision, claims())
    }

    fn complaint(revisions: &[(i64, &[&'static str])], revision: i64) -> String {
        settle(revisions, revision).unwrap_err().to_string()
    }

    #[test]
    fn acknowledged_writes_stand_and_unanswered_ones_may() {
        assert_eq!(settle(&[(2, &["a"]), (3, &["b", "c"])], 3), Ok(vec![]));
        let mut ledger = Ledger::new();
        let history: &[(i64, &[&'static str])] =
            &[(2, &["a"]), (3, &["b", "c"]), (4, &["f"]), (5, &["d", "e"])];
        assert_eq!(ledger.settle(&log(history), 5, claims()), Ok(vec![5, 0]));
        assert_eq!((ledger.state.len(), ledger.revision), (6, 5));
        assert_eq!(
            (
                ledger.acknowledged,
                ledger.unanswered_kept,
                ledger.unanswered_lost
            ),
            (2, 2, 0)
        );
    }

    #[test]
    fn every_broken_promise_is_noticed() {
        assert!(complaint(&[(2, &["a"])], 2).starts_with("acknowledged at 3 but lost"));
        assert!(complaint(&[(3, &["b", "c"])], 3).starts_with("revision 2 is missing"));
        assert!(
            complaint(&[(2, &["a"]), (3, &["b"])], 3).starts_with("revision 3 was acknowledged as")
        );
        let half: &[(i64, &[&'static str])] = &[(2, &["a"]), (3, &["b", "c"]), (4, &["d"])];
        assert!(complaint(half, 4).starts_with("revision 4 is no write that was asked for"));
        let twice: &[(i64, &[&'static str])] =
            &[(2, &["a"]), (3, &["b", "c"]), (4, &["f"]), (5, &["f"])];
        assert!(complaint(twice, 5).starts_with("revision 5 is no write that was asked for"));
        assert!(
            complaint(&[(2, &["a"]), (3, &["b", "c"])], 4).starts_with("the history ends at 3")
        );
    }
}
