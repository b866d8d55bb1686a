//! Which entries the log holds, without their data.

use crate::SnapshotMark;

/// The entries behind the snapshot mark, as runs of one term each.
///
/// The writer and the reader keep one each and feed it the same records, so both agree on what the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    mark: SnapshotMark,
    /// **Invariant:** `mark.index < first <= next`; `first` is `mark.index + 1` unless older segments are missing.
    first: u64,
    next: u64,
    /// Index at which each run starts, and its term. **Invariant:** the first starts at `first` unless the span is empty.
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    index: u64,
    term: u64,
}

/// What a new entry or mark does to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The first so many stay, the others go.
    KeepFront(u64),
    /// The first so many go, the others stay.
    DropFront(u64),
}

/// An entry that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disorder {
    pub(crate) what: &'static str,
    pub(crate) bound: u64,
    pub(crate) found: u64,
}

impl Span {
    /// Starts with no entries: the next one is at `next`, which lies behind the mark.
    pub(crate) fn new(mark: SnapshotMark, next: u64) -> Span {
        Span {
            mark,
            first: next,
            next,
            runs: Vec::new(),
        }
    }

    pub(crate) fn mark(&self) -> SnapshotMark {
        self.mark
    }

    /// Returns the index of the first entry, or of the next one when there is none.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Returns the index of the next entry.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Adds an entry, which replaces what is at its index and behind.
    pub(crate) fn push(&mut self, index: u64, term: u64) -> Result<Effect, Disorder> {
        if index <= self.mark.index {
            return Err(Disorder {
                what: "entry is not behind the snapshot mark",
                bound: self.mark.index,
                found: index,
            });
        }
        if index > self.next || index == u64::MAX {
            return Err(Disorder {
                what: "entries have a gap",
                bound: self.next,
                found: index,
            });
        }
        // Before `first` lie only entries of segments that were released.
        self.first = self.first.min(index);
        let kept = index - self.first;
        while self.runs.last().is_some_and(|run| run.index >= index) {
            self.runs.pop();
        }
        if self.runs.last().is_none_or(|run| run.term != term) {
            self.runs.push(Run { index, term });
        }
        self.next = index + 1;
        Ok(Effect::KeepFront(kept))
    }

    /// Moves the mark. Entries behind it stay if the log holds the entry that it names, as raft does with its log.
    pub(crate) fn set_mark(&mut self, mark: SnapshotMark) -> Result<Effect, Disorder> {
        if mark.index < self.mark.index || mark.index == u64::MAX {
            return Err(Disorder {
                what: "snapshot mark goes back",
                bound: self.mark.index,
                found: mark.index,
            });
        }
        let agrees = if mark.index < self.first {
            mark.index + 1 == self.first || mark.index == self.mark.index
        } else {
            self.term_at(mark.index) == Some(mark.term)
        };
        let behind_all = mark.index < self.first && !agrees;
        self.mark = mark;
        if behind_all {
            // Entries between the mark and the first are missing; the reader reports that at the end if it stays so.
            return Ok(Effect::DropFront(0));
        }
        if !agrees {
            *self = Span::new(mark, mark.index + 1);
            return Ok(Effect::KeepFront(0));
        }
        let dropped = (mark.index + 1).saturating_sub(self.first);
        self.first += dropped;
        let stale = self.runs.partition_point(|run| run.index <= self.first);
        self.runs.drain(..stale.saturating_sub(1));
        if let Some(run) = self.runs.first_mut() {
            run.index = run.index.max(self.first);
        }
        if self.first == self.next {
            self.runs.clear();
        }
        Ok(Effect::DropFront(dropped))
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index < self.first || index >= self.next {
            return None;
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        self.runs.get(after.checked_sub(1)?).map(|run| run.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(index: u64, term: u64) -> SnapshotMark {
        SnapshotMark { index, term }
    }

    fn span(entries: &[(u64, u64)]) -> Span {
        let mut span = Span::new(mark(0, 0), 1);
        for (index, term) in entries {
            span.push(*index, *term).unwrap();
        }
        span
    }

    #[test]
    fn entry_replaces_its_index_and_all_behind() {
        let mut span = span(&[(1, 1), (2, 1), (3, 2), (4, 2)]);
        assert_eq!(span.push(3, 5), Ok(Effect::KeepFront(2)));
        assert_eq!(span.next(), 4);
        assert_eq!(span.term_at(2), Some(1));
        assert_eq!(span.term_at(3), Some(5));
        assert_eq!(span.term_at(4), None);
        assert_eq!(span.push(1, 6), Ok(Effect::KeepFront(0)));
        assert_eq!(span.term_at(1), Some(6));
    }

    #[test]
    fn gaps_and_entries_before_the_mark_are_refused() {
        let mut span = span(&[(1, 1), (2, 1)]);
        assert!(span.push(4, 1).is_err());
        span.set_mark(mark(1, 1)).unwrap();
        assert!(span.push(1, 1).is_err());
        assert!(span.set_mark(mark(0, 0)).is_err());
        assert!(span.push(2, 3).is_ok());
    }

    #[test]
    fn mark_inside_keeps_what_follows_only_if_the_term_agrees() {
        let mut kept = span(&[(1, 1), (2, 1), (3, 2), (4, 2)]);
        assert_eq!(kept.set_mark(mark(3, 2)), Ok(Effect::DropFront(3)));
        assert_eq!((kept.first(), kept.next()), (4, 5));
        assert_eq!(kept.term_at(4), Some(2));
        assert_eq!(kept.set_mark(mark(4, 2)), Ok(Effect::DropFront(1)));
        assert_eq!((kept.first(), kept.next()), (5, 5));
        let mut reset = span(&[(1, 1), (2, 1), (3, 2)]);
        assert_eq!(reset.set_mark(mark(2, 9)), Ok(Effect::KeepFront(0)));
        assert_eq!((reset.first(), reset.next()), (3, 3));
        let mut ahead = span(&[(1, 1)]);
        assert_eq!(ahead.set_mark(mark(10, 3)), Ok(Effect::KeepFront(0)));
        assert_eq!((ahead.first(), ahead.next()), (11, 11));
    }

    #[test]
    fn log_without_its_oldest_segments_starts_where_they_ended() {
        let mut span = Span::new(mark(5, 1), 20);
        span.push(20, 2).unwrap();
        assert_eq!(span.push(15, 3), Ok(Effect::KeepFront(0)));
        assert_eq!((span.first(), span.next()), (15, 16));
        assert_eq!(span.set_mark(mark(7, 1)), Ok(Effect::DropFront(0)));
        assert_eq!(span.first(), 15);
        assert_eq!(span.set_mark(mark(14, 1)), Ok(Effect::DropFront(0)));
        assert_eq!((span.first(), span.next()), (15, 16));
    }
}
