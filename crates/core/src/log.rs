//! The part of the raft log that is kept in memory for replication, behind raft's storage trait.
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// The log's tail in memory: entries after `base`, whatever is durable or not.
///
/// The write-ahead log holds the same entries on disk; this copy serves raft, which reads the log while it replicates.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    /// Position before the first entry kept.
    base: Position,
    /// **Invariant:** `entries[i].index == base.index + 1 + i`.
    entries: VecDeque<Entry>,
    entry_bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    /// Where a snapshot for a follower may be taken; `None` while entries are applied or nothing was.
    snapshot_at: Option<Position>,
}

/// What an entry counts beside its data, in bytes.
const ENTRY_HEAD_BYTES: u64 = 24;

/// A place in the log: an index and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

impl Position {
    /// Returns the mark of a snapshot there.
    pub(crate) fn mark(self) -> quorate_wal::SnapshotMark {
        quorate_wal::SnapshotMark {
            index: self.index,
            term: self.term,
        }
    }
}

impl MemoryLog {
    /// Makes the log as recovered: `entries` follow `base` without a gap.
    pub(crate) fn new(
        base: Position,
        entries: Vec<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let mut log = Self {
            base,
            entries: VecDeque::new(),
            entry_bytes: 0,
            hard_state,
            conf_state,
            snapshot_at: None,
        };
        log.append(entries);
        log
    }

    /// Adds entries, replacing those at and after the first one's index.
    ///
    /// # Panics
    /// When there is a gap before the first entry, or it lies at or before the base: raft's promise is broken.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            assert!(
                entry.index > self.base.index,
                "entry {} is already compacted",
                entry.index
            );
            while self.last().index >= entry.index {
                let cut = self
                    .entries
                    .pop_back()
                    .expect("the last index is above the base");
                self.entry_bytes -= cut.data.len();
            }
            assert_eq!(entry.index, self.last().index + 1, "gap in the log");
            self.entry_bytes += entry.data.len();
            self.entries.push_back(entry);
        }
    }

    /// Drops entries up to and including `index`; nothing happens when they are gone already.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.base.index < index {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.entry_bytes -= entry.data.len();
            self.base = Position {
                index: entry.index,
                term: entry.term,
            };
        }
    }

    /// Returns the index up to which [`Self::compact`] must go to leave `bytes` of entries or `count` of them, the
    /// smaller of the two.
    pub(crate) fn compact_point(&self, applied: u64, count: u64, bytes: usize) -> u64 {
        let by_count = applied.saturating_sub(count);
        let mut kept = 0;
        let mut by_bytes = self.base.index;
        for entry in self.entries.iter().rev() {
            kept += entry.data.len();
            if kept > bytes {
                by_bytes = entry.index;
                break;
            }
        }
        by_count.max(by_bytes).min(applied)
    }

    /// Starts anew behind a received snapshot: nothing before it is known any more.
    pub(crate) fn restart(&mut self, base: Position, conf_state: ConfState) {
        self.base = base;
        self.entries.clear();
        self.entry_bytes = 0;
        self.conf_state = conf_state;
        self.snapshot_at = None;
    }

    /// Says up to where the stores are applied, and that they stay there; `None` while they are being moved on.
    ///
    /// **Invariant:** the configuration is the one at that position.
    pub(crate) fn set_snapshot_at(&mut self, applied: Option<Position>) {
        self.snapshot_at = applied;
    }

    /// Returns the entries kept up to an index, that one included.
    pub(crate) fn entries_until(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take_while(move |e| e.index <= index)
    }

    /// Returns the bytes of all entries kept.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |e| Position {
            index: e.index,
            term: e.term,
        })
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last().index + 1,
            "entries up to {high} asked of a log that ends earlier"
        );
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in (low..high).filter_map(|index| self.at(index)) {
            bytes += entry.data.len() as u64 + ENTRY_HEAD_BYTES;
            // At least one is asked for, however large it is.
            if bytes > limit && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        if index < self.base.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.at(index)
            .map(|e| e.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// Returns the position and configuration of the stores as they are; the image is added by those who send it.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let Some(at) = self
            .snapshot_at
            .filter(|at| at.index > 0 && at.index >= request_index)
        else {
            return Err(raft::Error::Store(
                StorageError::SnapshotTemporarilyUnavailable,
            ));
        };
        let mut metadata = SnapshotMetadata {
            index: at.index,
            term: at.term,
            ..SnapshotMetadata::default()
        };
        metadata.set_conf_state(self.conf_state.clone());
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(metadata);
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; 10].into(),
            ..Entry::default()
        }
    }

    fn log(last: u64) -> MemoryLog {
        let entries = (4..=last).map(|i| entry(i, 2)).collect();
        MemoryLog::new(
            Position { index: 3, term: 1 },
            entries,
            HardState::default(),
            ConfState::default(),
        )
    }

    #[test]
    fn conflicting_entries_replace_the_tail() {
        let mut log = log(9);
        log.append(vec![entry(6, 3)]);
        assert_eq!(log.last(), Position { index: 6, term: 3 });
        assert_eq!(log.term(5).unwrap(), 2);
        assert_eq!(log.entry_bytes, 30);
    }

    #[test]
    fn compaction_keeps_the_term_before_the_first_entry() {
        let mut log = log(9);
        log.compact(7);
        assert_eq!(log.first_index().unwrap(), 8);
        assert_eq!(log.term(7).unwrap(), 2);
        assert!(matches!(
            log.term(6),
            Err(raft::Error::Store(StorageError::Compacted))
        ));
        log.compact(100);
        assert_eq!(log.last(), Position { index: 9, term: 2 });
    }

    #[test]
    fn compact_point_is_bounded_by_count_bytes_and_applied() {
        let log = log(103);
        assert_eq!(log.compact_point(100, 40, usize::MAX), 60);
        assert_eq!(log.compact_point(100, 1000, 100), 93);
        assert_eq!(log.compact_point(50, 1000, 0), 50);
    }

    #[test]
    #[should_panic(expected = "gap in the log")]
    fn a_gap_is_refused() {
        log(9).append(vec![entry(11, 2)]);
    }
}
