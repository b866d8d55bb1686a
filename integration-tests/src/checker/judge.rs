//! The walk through the history, revision by revision.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::evaluate::{Given, evaluate, says_changed};
use super::leases::{check_leases, check_ties};
use super::order::{Sightings, check_members, check_time};
use super::record::{Call, Hash, Op, Reading, Recording, Reply, Request, Txn};
use super::state::{Change, State};
use super::truth::Truth;
use super::watches::{check_watches, compactions};

/// Violations kept; the rest is counted.
const KEPT_MAX: usize = 12;
/// Characters kept of the text of one.
const TEXT_MAX: usize = 900;
/// What the error for a revision that is gone says.
const COMPACTED: &str = "required revision has been compacted";

/// What was broken; the table in the module's documentation says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Revisions follow each other without a gap.
    Dense,
    /// Members show the same.
    Members,
    /// Acknowledged writes are there, whole.
    Lost,
    /// Answers are those of the state at their revision.
    Answer,
    /// Nothing took effect twice, or unasked.
    Duplicate,
    /// The order of revisions agrees with the order in time.
    Order,
    /// Serializable reads of a member do not go back.
    Backwards,
    /// Watches are complete and in order.
    Watch,
    /// Leases live as long as promised.
    Lease,
    /// Only what was compacted is refused as compacted.
    Compacted,
    /// Hashes are equal.
    Hash,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What was found.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// What the check of a recording came to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The first broken promises, none when all held.
    pub violations: Vec<Violation>,
    /// How many there were.
    pub violation_count: usize,
    /// The last revision.
    pub revisions: i64,
    /// Requests held against the history, of all kinds.
    pub calls: usize,
    /// Writes that were acknowledged, all of them found.
    pub acknowledged: usize,
    /// Requests without an answer that took effect.
    pub unanswered_done: usize,
    /// Requests without an answer that did not, or only read.
    pub unanswered_not_done: usize,
    /// Linearizable reads, and writes that changed nothing.
    pub linearizable_reads: usize,
    /// Serializable reads.
    pub serializable_reads: usize,
    /// Watches, each from creation to the end of a stream.
    pub watches: usize,
    /// Events that they brought.
    pub events: usize,
    /// Leases whose end deleted keys.
    pub leases_ended: usize,
}

/// Where the request of a call has its place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere, as far as is known.
    Free,
    /// It is the writer of this revision.
    Write(i64),
    /// Behind this revision and before the next.
    Read(i64),
    /// A serializable read of this revision.
    Local(i64),
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    kept: Vec<Violation>,
    count: usize,
}

impl Complaints {
    pub(super) fn add(&mut self, rule: Rule, text: String) {
        self.count += 1;
        // One of each kind at least, however many there are of another.
        let is_new = self.kept.iter().all(|violation| violation.rule != rule);
        if self.kept.len() < KEPT_MAX || is_new {
            let text = text.chars().take(TEXT_MAX).collect();
            self.kept.push(Violation { rule, text });
        }
    }
}

/// Checks a recording.
#[must_use]
pub fn check(recording: &Recording) -> Verdict {
    let mut complaints = Complaints::default();
    let truth = Truth::new(&recording.watches, &mut complaints);
    let sightings = Sightings::of_all(recording);
    let mut walk = Walk::new(recording, &truth, &sightings, complaints);
    walk.place_answers();
    walk.walk();
    walk.check_refused();
    let Walk {
        places,
        ended,
        mut complaints,
        unanswered_done,
        ..
    } = walk;
    check_time(recording, &sightings, &places, &mut complaints);
    check_members(recording, &places, &mut complaints);
    check_watches(
        &recording.calls,
        &recording.watches,
        &truth,
        &mut complaints,
    );
    check_leases(recording, &sightings, &ended, &mut complaints);
    check_ties(recording, &ended, ties(&truth), &mut complaints);
    check_hashes(&recording.hashes, &mut complaints);
    let mut verdict = figures(recording, &places);
    verdict.revisions = truth.last();
    verdict.leases_ended = ended.len();
    verdict.unanswered_done = unanswered_done;
    verdict.unanswered_not_done -= unanswered_done;
    verdict.acknowledged -= unanswered_done;
    verdict.violation_count = complaints.count;
    verdict.violations = complaints.kept;
    verdict
}

/// Revisions and leases of puts that have one.
fn ties(truth: &Truth) -> impl Iterator<Item = (i64, i64)> {
    truth.revisions().flat_map(|revision| {
        let lease_of = move |change: &Change| match change {
            Change::Put(kv) if kv.lease != 0 => Some((revision, kv.lease)),
            _ => None,
        };
        truth.changes(revision).filter_map(lease_of)
    })
}

struct Walk<'a> {
    recording: &'a Recording,
    truth: &'a Truth,
    sightings: &'a Sightings,
    complaints: Complaints,
    places: Vec<Place>,
    /// The call that was answered with each revision.
    owners: BTreeMap<i64, usize>,
    /// The calls to hold against the state at each revision.
    reads: BTreeMap<i64, Vec<usize>>,
    /// Who asked for each value to be put.
    askers: BTreeMap<Bytes, usize>,
    /// Calls without an answer that may have deleted something and put nothing.
    deleters: Vec<usize>,
    /// Leases and the revisions that deleted their keys.
    ended: Vec<(i64, i64)>,
    unanswered_done: usize,
}

impl<'a> Walk<'a> {
    fn new(
        recording: &'a Recording,
        truth: &'a Truth,
        sightings: &'a Sightings,
        complaints: Complaints,
    ) -> Walk<'a> {
        Walk {
            recording,
            truth,
            sightings,
            complaints,
            places: vec![Place::Free; recording.calls.len()],
            owners: BTreeMap::new(),
            reads: BTreeMap::new(),
            askers: BTreeMap::new(),
            deleters: Vec::new(),
            ended: Vec::new(),
            unanswered_done: 0,
        }
    }

    /// Puts every call where its answer says it belongs.
    fn place_answers(&mut self) {
        for (number, call) in self.recording.calls.iter().enumerate() {
            let Request::Keys(txn) = &call.request else {
                continue;
            };
            for value in values(txn) {
                if self.askers.insert(value.clone(), number).is_some() {
                    let text = format!("two requests put the value {value:?}: {call:?}");
                    self.complaints.add(Rule::Duplicate, text);
                }
            }
            match &call.reply {
                Reply::Done(answer) if says_changed(&answer.results) => {
                    self.places[number] = Place::Write(answer.revision);
                    if let Some(other) = self.owners.insert(answer.revision, number) {
                        let other = &self.recording.calls[other];
                        let text = format!("one revision for two writes: {call:?} and {other:?}");
                        self.complaints.add(Rule::Duplicate, text);
                    }
                }
                Reply::Done(answer) => {
                    let is_local = only_reads(txn) && txn.reading == Reading::Serializable;
                    self.places[number] = match is_local {
                        true => Place::Local(answer.revision),
                        false => Place::Read(answer.revision),
                    };
                    let at = if txn.at > 0 { txn.at } else { answer.revision };
                    self.reads.entry(at).or_default().push(number);
                }
                Reply::Unknown(_) if values(txn).next().is_none() && !only_reads(txn) => {
                    self.deleters.push(number);
                }
                Reply::Unknown(_) | Reply::Refused(_) => {}
            }
        }
    }

    /// Goes from revision to revision with the state in hand.
    fn walk(&mut self) {
        let mut state = State::default();
        self.check_reads(&state, 1);
        for revision in self.truth.revisions() {
            self.check_writer(&state, revision);
            for change in self.truth.changes(revision) {
                state.apply(change);
            }
            self.check_reads(&state, revision);
        }
        let last = self.truth.last();
        for (revision, number) in std::mem::take(&mut self.owners) {
            if revision > last || revision < 2 {
                let call = &self.recording.calls[number];
                let text =
                    format!("acknowledged at {revision}, and the history ends at {last}: {call:?}");
                self.complaints.add(Rule::Lost, text);
            }
        }
        for (revision, numbers) in std::mem::take(&mut self.reads) {
            let call = &self.recording.calls[numbers[0]];
            let text = format!(
                "answered from revision {revision}, and the history ends at {last}: {call:?}"
            );
            self.complaints.add(Rule::Answer, text);
        }
    }

    fn check_reads(&mut self, state: &State, revision: i64) {
        for number in self.reads.remove(&revision).unwrap_or_default() {
            let call = &self.recording.calls[number];
            let (Request::Keys(txn), Some(answer)) = (&call.request, call.reply.answer()) else {
                continue;
            };
            let given = evaluate(state, revision, txn);
            let is_right = given.changes.is_empty()
                && given.succeeded == answer.succeeded
                && given.results == answer.results
                && revision <= answer.revision;
            if !is_right {
                let text = format!("at revision {revision} it is {given:?}, not as in {call:?}");
                self.complaints.add(Rule::Answer, text);
            }
        }
    }

    fn check_writer(&mut self, state: &State, revision: i64) {
        let owner = self.owners.get(&revision).copied();
        let Some(number) = owner else {
            return self.find_writer(state, revision);
        };
        let call = &self.recording.calls[number];
        let (Request::Keys(txn), Some(answer)) = (&call.request, call.reply.answer()) else {
            return;
        };
        let given = evaluate(state, revision, txn);
        if !self.is_done_by(revision, &given) {
            let found: Vec<_> = self.truth.changes(revision).collect();
            let text =
                format!("revision {revision} is {found:?}, and was acknowledged for {call:?}");
            self.complaints.add(Rule::Lost, text);
        } else if given.succeeded != answer.succeeded || given.results != answer.results {
            let text = format!("before revision {revision} it is {given:?}, not as in {call:?}");
            self.complaints.add(Rule::Answer, text);
        }
    }

    fn is_done_by(&self, revision: i64, given: &Given) -> bool {
        self.truth.changes(revision).eq(given.changes.iter())
    }

    /// Finds who wrote a revision that nobody had an answer for.
    fn find_writer(&mut self, state: &State, revision: i64) {
        if let Some(lease) = self.ended_lease(state, revision) {
            self.ended.push((lease, revision));
            return;
        }
        let put = self
            .truth
            .changes(revision)
            .find_map(|change| match change {
                Change::Put(kv) => Some(&kv.value),
                Change::Delete(_) => None,
            });
        let found = match put {
            Some(value) => self.asker_of(value, revision),
            None => self.take_deleter(state, revision),
        };
        let Some(number) = found else {
            return;
        };
        let call = &self.recording.calls[number];
        let Request::Keys(txn) = &call.request else {
            return;
        };
        let given = evaluate(state, revision, txn);
        if !self.is_done_by(revision, &given) {
            let text = format!(
                "revision {revision} is not the whole of what was asked, {given:?}: {call:?}"
            );
            self.complaints.add(Rule::Lost, text);
        }
        self.places[number] = Place::Write(revision);
        self.unanswered_done += 1;
    }

    /// The lease whose keys, all of them and no others, a revision deletes.
    fn ended_lease(&self, state: &State, revision: i64) -> Option<i64> {
        let mut changes = self.truth.changes(revision).peekable();
        let lease = state.get(changes.peek()?.key())?.lease;
        let is_delete = |change: &&Change| matches!(change, Change::Delete(_));
        let mut deleted: Vec<&Bytes> = Vec::new();
        for change in changes {
            if !is_delete(&change) {
                return None;
            }
            deleted.push(change.key());
        }
        deleted.sort();
        (lease != 0 && state.of_lease(lease).eq(deleted)).then_some(lease)
    }

    /// The call without an answer that asked for a value, unless it may not have been done.
    fn asker_of(&mut self, value: &Bytes, revision: i64) -> Option<usize> {
        let Some(number) = self.askers.get(value).copied() else {
            let text = format!("nobody asked for revision {revision}, which puts {value:?}");
            self.complaints.add(Rule::Duplicate, text);
            return None;
        };
        let call = &self.recording.calls[number];
        let what = match (&call.reply, self.places[number]) {
            (Reply::Unknown(_), Place::Free) => return Some(number),
            (Reply::Unknown(_), _) => "was done twice",
            (Reply::Done(_), _) => "was acknowledged with another answer",
            (Reply::Refused(_), _) => "was refused",
        };
        let text = format!("revision {revision} is the doing of a call that {what}: {call:?}");
        self.complaints.add(Rule::Duplicate, text);
        None
    }

    /// A call without an answer that deletes just this. Those that began too late for the revision are kept for later ones, and of
    /// the rest it does not matter which is taken: whatever fits here fits later too.
    fn take_deleter(&mut self, state: &State, revision: i64) -> Option<usize> {
        let fits = |number: &usize| {
            let call = &self.recording.calls[*number];
            let Request::Keys(txn) = &call.request else {
                return false;
            };
            self.sightings.before(call.begun_us) < revision
                && self.is_done_by(revision, &evaluate(state, revision, txn))
        };
        let Some(place) = self.deleters.iter().position(fits) else {
            let found: Vec<_> = self.truth.changes(revision).collect();
            let text = format!("nobody asked for revision {revision}, which is {found:?}");
            self.complaints.add(Rule::Duplicate, text);
            return None;
        };
        Some(self.deleters.swap_remove(place))
    }

    /// Reads may be refused as compacted when somebody had asked for that.
    fn check_refused(&mut self) {
        let compactions = compactions(&self.recording.calls);
        for call in &self.recording.calls {
            let (Request::Keys(txn), Reply::Refused(text)) = (&call.request, &call.reply) else {
                continue;
            };
            let asked =
                |(begun, revision): &(u64, i64)| *begun < call.ended_us && *revision > txn.at;
            if text.contains(COMPACTED) && !compactions.iter().any(asked) {
                self.complaints
                    .add(Rule::Compacted, format!("nobody asked for that: {call:?}"));
            }
        }
    }
}

/// Every value that a transaction may put.
fn values(txn: &Txn) -> impl Iterator<Item = &Bytes> {
    txn.then
        .iter()
        .chain(&txn.otherwise)
        .filter_map(|op| match op {
            Op::Put { value, .. } => Some(value),
            _ => None,
        })
}

fn only_reads(txn: &Txn) -> bool {
    let mut ops = txn.then.iter().chain(&txn.otherwise);
    ops.all(|op| matches!(op, Op::Range(_)))
}

fn check_hashes(hashes: &[Hash], complaints: &mut Complaints) {
    let mut first: BTreeMap<(i64, i64), &Hash> = BTreeMap::new();
    for hash in hashes {
        let same = first.entry((hash.revision, hash.compacted)).or_insert(hash);
        if same.hash != hash.hash {
            complaints.add(Rule::Hash, format!("{same:?} and {hash:?}"));
        }
    }
}

fn figures(recording: &Recording, places: &[Place]) -> Verdict {
    let count = |is: fn(&Place) -> bool| places.iter().filter(|place| is(place)).count();
    let messages = recording.watches.iter().flat_map(|watch| &watch.messages);
    let is_unknown = |call: &&Call| matches!(call.reply, Reply::Unknown(_));
    Verdict {
        calls: recording.calls.len(),
        acknowledged: count(|place| matches!(place, Place::Write(_))),
        unanswered_not_done: recording.calls.iter().filter(is_unknown).count(),
        linearizable_reads: count(|place| matches!(place, Place::Read(_))),
        serializable_reads: count(|place| matches!(place, Place::Local(_))),
        watches: recording.watches.len(),
        events: messages.map(|message| message.events.len()).sum(),
        ..Verdict::default()
    }
}
