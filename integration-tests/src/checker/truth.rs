//! What each revision did, as watches of every key show it.

use std::collections::BTreeMap;

use super::judge::{Complaints, Rule};
use super::record::{Event, KeyRange, Kv, Watch};
use super::state::{Change, State};

/// A change and what was there before.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) change: Change,
    pub(super) previous: Option<Kv>,
}

/// Every revision from 2 on, in order.
#[derive(Debug, Default)]
pub(super) struct Truth {
    revisions: Vec<Vec<Step>>,
}

/// The revision of an empty store; the first write gets the one after it.
const FIRST: i64 = 1;

impl Truth {
    /// Puts together what the watches of every key saw.
    pub(super) fn new(watches: &[Watch], complaints: &mut Complaints) -> Truth {
        let mut seen: BTreeMap<i64, (usize, Vec<Change>)> = BTreeMap::new();
        for (number, watch) in watches.iter().enumerate() {
            if watch.range != KeyRange::all() {
                continue;
            }
            for (revision, changes) in by_revision(watch) {
                match seen.get(&revision) {
                    None => {
                        seen.insert(revision, (number, changes));
                    }
                    Some((other, first)) if *first != changes => complaints.add(
                        Rule::Members,
                        format!(
                            "revision {revision} on member {} is {changes:?}, on member {} it is {first:?}",
                            watch.member, watches[*other].member
                        ),
                    ),
                    Some(_) => {}
                }
            }
        }
        Truth::dense(seen, complaints)
    }

    fn dense(seen: BTreeMap<i64, (usize, Vec<Change>)>, complaints: &mut Complaints) -> Truth {
        let mut truth = Truth::default();
        let mut state = State::default();
        for (revision, (_, changes)) in seen {
            let expected = truth.last() + 1;
            if revision != expected {
                let text = format!("nobody saw revision {expected}, the next seen is {revision}");
                complaints.add(Rule::Dense, text);
                // What comes behind a hole cannot be judged.
                break;
            }
            let steps = changes.into_iter().map(|change| {
                let previous = state.get(change.key()).cloned();
                state.apply(&change);
                Step { change, previous }
            });
            truth.revisions.push(steps.collect());
        }
        truth
    }

    /// The last revision.
    pub(super) fn last(&self) -> i64 {
        FIRST + i64::try_from(self.revisions.len()).unwrap_or(i64::MAX - FIRST)
    }

    /// What a revision did, nothing where it does not exist.
    pub(super) fn at(&self, revision: i64) -> &[Step] {
        let place = usize::try_from(revision - FIRST - 1).ok();
        place
            .and_then(|place| self.revisions.get(place))
            .map_or(&[], Vec::as_slice)
    }

    /// The changes of a revision.
    pub(super) fn changes(&self, revision: i64) -> impl Iterator<Item = &Change> {
        self.at(revision).iter().map(|step| &step.change)
    }

    /// Every revision.
    pub(super) fn revisions(&self) -> impl Iterator<Item = i64> + use<> {
        FIRST + 1..=self.last()
    }
}

/// An event without what it says about the key before.
pub(super) fn change_of(event: &Event) -> Change {
    if event.is_put {
        Change::Put(event.kv.clone())
    } else {
        Change::Delete(event.kv.key.clone())
    }
}

fn by_revision(watch: &Watch) -> BTreeMap<i64, Vec<Change>> {
    let mut revisions: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    for event in watch.messages.iter().flat_map(|message| &message.events) {
        let changes = revisions.entry(event.kv.modified).or_default();
        changes.push(change_of(event));
    }
    revisions
}
