//! What a member made durable must be there when it starts again.
use std::collections::BTreeMap;

use quorate_core::LogStart;
use quorate_wal::{Batch, HardState};

/// What the log of one member holds durably: entries, term and vote.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    /// Terms by index.
    terms: BTreeMap<u64, u64>,
    mark: u64,
    hard_state: HardState,
    /// The last vote that others were told of: its term, and who got it.
    told: (u64, u64),
    /// Appended, but not asked to be durable.
    unsynced: Vec<Batch>,
    /// From here on an unfinished write may have replaced what was there.
    doubtful_from: Option<u64>,
}

impl Durable {
    /// Takes batches that the log has appended; says whether they are durable.
    pub(crate) fn appended(&mut self, batches: &[Batch]) -> bool {
        let is_synced = batches.iter().any(|b| b.must_sync || b.snapshot.is_some());
        self.unsynced.extend_from_slice(batches);
        if is_synced {
            for batch in std::mem::take(&mut self.unsynced) {
                self.take(&batch);
            }
        }
        is_synced
    }

    fn take(&mut self, batch: &Batch) {
        if let Some(mark) = batch.snapshot {
            self.mark = self.mark.max(mark.index);
            if self.terms.get(&mark.index) != Some(&mark.term) {
                // The log begins anew behind it, unless it goes on there.
                self.terms.clear();
            }
            self.terms = self.terms.split_off(&(mark.index + 1));
        }
        if let Some(first) = batch.entries.first() {
            self.terms.split_off(&first.index);
            let entries = batch.entries.iter().map(|e| (e.index, e.term));
            self.terms.extend(entries);
        }
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
    }

    /// Takes that others are told of a vote; says what is wrong with it.
    pub(crate) fn voted(&mut self, term: u64, candidate: u64) -> Option<String> {
        let (before, other) = self.told;
        if term == before && candidate != other {
            return Some(format!(
                "votes for {candidate:x} in term {term}, in which it voted for {other:x}"
            ));
        }
        self.told = self.told.max((term, candidate));
        None
    }

    /// Takes that the process ended with these batches on their way.
    pub(crate) fn interrupt(&mut self, writing: &[Batch]) {
        let open = self.unsynced.iter().chain(writing);
        let first = |b: &Batch| {
            let mark = b.snapshot.map(|m| m.index.min(self.mark + 1));
            let entry = b.entries.first().map(|e| e.index);
            mark.into_iter().chain(entry).min()
        };
        self.doubtful_from = open.filter_map(first).min();
        self.unsynced.clear();
    }

    /// Compares with what a start found; says what is missing.
    pub(crate) fn compare(&self, log: &LogStart) -> Option<String> {
        let doubtful_from = self.doubtful_from.unwrap_or(u64::MAX);
        if log.snapshot.index < self.mark {
            return Some(format!(
                "the log begins at {}, but the mark of snapshot {} was durable",
                log.snapshot.index, self.mark
            ));
        }
        let found: BTreeMap<u64, u64> = log.entries.iter().map(|e| (e.index, e.term)).collect();
        for (index, term) in self.terms.range(log.snapshot.index + 1..) {
            if *index >= doubtful_from {
                break;
            }
            if found.get(index) != Some(term) {
                return Some(format!(
                    "entry {index} of term {term} was durable, but the log holds {:?} there and ends at {:?}",
                    found.get(index),
                    log.entries.last().map(|e| e.index)
                ));
            }
        }
        let (before, now) = (self.hard_state, log.hard_state);
        let (term, vote) = self.told;
        if now.term < term || now.term == term && now.vote != vote {
            return Some(format!(
                "it told of its vote for {vote:x} in term {term}, but the log says vote {:x} in term {}",
                now.vote, now.term
            ));
        }
        let is_vote_lost = before.vote != 0 && before.vote != now.vote;
        if now.term < before.term || now.term == before.term && is_vote_lost {
            return Some(format!(
                "vote {:x} in term {} was durable, but the log says vote {:x} in term {}",
                before.vote, before.term, now.vote, now.term
            ));
        }
        None
    }

    /// Begins anew with what a start found, which is all durable.
    pub(crate) fn restart(&mut self, log: &LogStart) {
        *self = Self {
            terms: log.entries.iter().map(|e| (e.index, e.term)).collect(),
            mark: log.snapshot.index,
            hard_state: log.hard_state,
            told: self.told,
            unsynced: Vec::new(),
            doubtful_from: None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_wal::Entry;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            kind: 0,
            data: bytes::Bytes::new(),
        }
    }

    fn batch(entries: &[(u64, u64)], term: u64, vote: u64) -> Batch {
        Batch {
            entries: entries.iter().map(|(i, t)| entry(*i, *t)).collect(),
            hard_state: Some(HardState {
                term,
                vote,
                commit: 0,
            }),
            must_sync: true,
            ..Batch::default()
        }
    }

    fn log(entries: &[(u64, u64)], term: u64, vote: u64) -> LogStart {
        LogStart {
            entries: entries.iter().map(|(i, t)| entry(*i, *t)).collect(),
            hard_state: HardState {
                term,
                vote,
                commit: 0,
            },
            ..LogStart::default()
        }
    }

    #[test]
    fn a_lost_entry_a_lost_vote_and_an_overwritten_entry_are_told_apart() {
        let mut durable = Durable::default();
        durable.appended(&[batch(&[(1, 1), (2, 1)], 1, 7)]);
        assert_eq!(durable.compare(&log(&[(1, 1), (2, 1), (3, 1)], 1, 7)), None);
        assert!(durable.compare(&log(&[(1, 1)], 1, 7)).is_some());
        assert!(durable.compare(&log(&[(1, 1), (2, 1)], 1, 0)).is_some());
        assert_eq!(durable.compare(&log(&[(1, 1), (2, 1)], 2, 0)), None);
        durable.interrupt(&[batch(&[(2, 3)], 3, 0)]);
        assert_eq!(durable.compare(&log(&[(1, 1), (2, 3)], 3, 0)), None);
        assert!(durable.compare(&log(&[], 3, 0)).is_some());
    }

    #[test]
    fn a_vote_that_others_know_of_is_neither_changed_nor_forgotten() {
        let mut durable = Durable::default();
        assert_eq!(durable.voted(2, 7), None);
        assert_eq!(durable.voted(2, 7), None);
        assert_eq!(durable.compare(&log(&[], 2, 7)), None);
        assert_eq!(durable.compare(&log(&[], 3, 0)), None);
        assert!(durable.compare(&log(&[], 2, 0)).is_some());
        assert!(durable.compare(&log(&[], 1, 7)).is_some());
        durable.restart(&log(&[], 2, 7));
        assert!(durable.voted(2, 8).is_some());
        assert_eq!(durable.voted(3, 8), None);
    }
}
