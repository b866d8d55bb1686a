use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::{EventRecord, RevisionEvents};

/// The events of the newest revisions, written by the store and read by every watch hub.
///
/// The store's thread appends when it publishes; each hub reads on from its own cursor. Older events are forgotten and
/// come from the backend, so the log bounds memory and never what a watcher can see.
///
/// **Invariant:** the revisions held are dense, and the newest is [`last_revision`](EventLog::last_revision) unless the
/// log is empty.
#[derive(Debug)]
pub struct EventLog {
    held: Mutex<Held>,
    /// The newest revision appended, so that a hub with nothing to do takes no lock.
    last: AtomicI64,
    bytes_max: usize,
    revisions_max: usize,
}

#[derive(Debug)]
struct Held {
    revisions: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// What the revision costs in memory, about.
    bytes: usize,
    revision: Arc<RevisionEvents>,
}

/// Most revisions held, whatever their size.
const REVISIONS_MAX: usize = 1 << 17;
/// What an event costs beside its record, in bytes.
const EVENT_OVERHEAD_BYTES: usize = size_of::<EventRecord>();
/// What a revision costs beside its events, in bytes.
const REVISION_OVERHEAD_BYTES: usize = size_of::<RevisionEvents>() + 3 * size_of::<usize>();

/// What [`EventLog::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRead {
    /// The events from the asked revision on were appended to the output; none when there are none yet.
    Read,
    /// The asked revision is older than the log; the backend has it, unless it is compacted.
    Forgotten,
}

impl EventLog {
    /// Makes an empty log behind the store's current revision.
    ///
    /// **Units**: `bytes_max` bounds the records held, in bytes, with what they cost beside their content.
    pub fn new(current_revision: i64, bytes_max: usize) -> EventLog {
        EventLog::with_revisions_max(current_revision, bytes_max, REVISIONS_MAX)
    }

    fn with_revisions_max(
        current_revision: i64,
        bytes_max: usize,
        revisions_max: usize,
    ) -> EventLog {
        EventLog {
            held: Mutex::new(Held {
                revisions: VecDeque::new(),
                bytes: 0,
            }),
            last: AtomicI64::new(current_revision),
            bytes_max,
            revisions_max,
        }
    }

    /// Adds the next revisions and forgets the oldest ones beyond the limits. The newest revision always stays.
    ///
    /// Readers of the store must see a revision before it is appended here: a client that is told of a change may read
    /// at once.
    ///
    /// # Panics
    /// When the revisions do not continue the log without a gap, or when one has no events.
    pub fn append(&self, revisions: Vec<Arc<RevisionEvents>>) {
        let Some(newest) = revisions.last() else {
            return;
        };
        let newest = newest.main;
        let mut forgotten = Vec::new();
        {
            let mut held = self.held.lock();
            for (next, revision) in (self.last_revision() + 1..).zip(revisions) {
                let main = revision.main;
                assert!(main == next, "revision {main} follows {}", next - 1);
                assert!(!revision.events.is_empty(), "revision {main} has no events");
                let bytes = bytes_of(&revision);
                held.bytes += bytes;
                held.revisions.push_back(Entry { bytes, revision });
            }
            while held.revisions.len() > 1
                && (held.bytes > self.bytes_max || held.revisions.len() > self.revisions_max)
            {
                let Some(oldest) = held.revisions.pop_front() else {
                    break;
                };
                held.bytes -= oldest.bytes;
                forgotten.push(oldest);
            }
            self.last.store(newest, Ordering::Release);
        }
        // Freeing the records may take a while, so it happens after the lock is gone.
        drop(forgotten);
    }

    /// Returns the newest revision appended, or the one the log began behind.
    pub fn last_revision(&self) -> i64 {
        self.last.load(Ordering::Acquire)
    }

    /// Returns the oldest revision held, or the next one to come when none is.
    pub fn first_revision(&self) -> i64 {
        let held = self.held.lock();
        held.revisions
            .front()
            .map_or_else(|| self.last_revision() + 1, |oldest| oldest.revision.main)
    }

    /// Appends to `out` the revisions from `from` to `to`, exclusive, as far as the limits go, but at least one if there
    /// is one.
    pub fn read(
        &self,
        from: i64,
        to: i64,
        revisions_max: usize,
        bytes_max: usize,
        out: &mut Vec<Arc<RevisionEvents>>,
    ) -> LogRead {
        let held = self.held.lock();
        let first = held
            .revisions
            .front()
            .map_or_else(|| self.last_revision() + 1, |oldest| oldest.revision.main);
        if from < first {
            return LogRead::Forgotten;
        }
        // A position outside the platform's addresses is one beyond the end.
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for entry in held.revisions.iter().skip(skip).take(revisions_max.max(1)) {
            let main = entry.revision.main;
            bytes += entry.bytes;
            if main >= to || (bytes > bytes_max && main > from) {
                break;
            }
            out.push(Arc::clone(&entry.revision));
        }
        LogRead::Read
    }
}

/// Returns what a revision costs in memory, about.
pub(crate) fn bytes_of(revision: &RevisionEvents) -> usize {
    let records: usize = revision
        .events
        .iter()
        .map(|event| event.record.len() + EVENT_OVERHEAD_BYTES)
        .sum();
    REVISION_OVERHEAD_BYTES + records
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_backend::Revision;

    use super::*;
    use crate::EventKind;

    fn revision(main: i64, record_len: usize) -> Arc<RevisionEvents> {
        let event = EventRecord {
            kind: EventKind::Put,
            key: Bytes::from_static(b"k"),
            record: Bytes::from(vec![0; record_len]),
            revision: Revision { main, sub: 0 },
            create_revision: main,
        };
        Arc::new(RevisionEvents {
            main,
            events: vec![event],
        })
    }

    fn read(
        log: &EventLog,
        from: i64,
        to: i64,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<i64>> {
        let mut out = Vec::new();
        match log.read(from, to, revisions_max, bytes_max, &mut out) {
            LogRead::Read => Some(out.iter().map(|revision| revision.main).collect()),
            LogRead::Forgotten => None,
        }
    }

    #[test]
    fn an_empty_log_has_only_the_future() {
        let log = EventLog::new(7, 1 << 20);
        assert_eq!((log.last_revision(), log.first_revision()), (7, 8));
        assert_eq!(read(&log, 8, 100, 10, 1000), Some(vec![]));
        assert_eq!(read(&log, 7, 100, 10, 1000), None);
    }

    #[test]
    fn reads_are_cut_at_the_end_the_count_and_the_bytes() {
        let log = EventLog::new(1, 1 << 20);
        log.append((2..10).map(|main| revision(main, 100)).collect());
        assert_eq!(read(&log, 2, 100, 100, 1 << 20), Some((2..10).collect()));
        assert_eq!(read(&log, 4, 6, 100, 1 << 20), Some(vec![4, 5]));
        assert_eq!(read(&log, 4, 100, 3, 1 << 20), Some(vec![4, 5, 6]));
        let one = bytes_of(&revision(2, 100));
        assert_eq!(read(&log, 4, 100, 100, 2 * one), Some(vec![4, 5]));
        assert_eq!(read(&log, 4, 100, 100, 1), Some(vec![4]), "one at least");
        assert_eq!(read(&log, i64::MAX, i64::MAX, 100, 1000), Some(vec![]));
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_either_limit() {
        let one = bytes_of(&revision(2, 100));
        let log = EventLog::new(1, 3 * one);
        log.append((2..10).map(|main| revision(main, 100)).collect());
        assert_eq!(log.first_revision(), 7);
        assert_eq!(read(&log, 6, 100, 100, 1 << 20), None);
        log.append(vec![revision(10, 1 << 20)]);
        assert_eq!(
            (log.first_revision(), log.last_revision()),
            (10, 10),
            "the newest stays whatever its size"
        );

        let log = EventLog::with_revisions_max(1, 1 << 20, 2);
        log.append((2..10).map(|main| revision(main, 100)).collect());
        assert_eq!(read(&log, 8, 100, 100, 1 << 20), Some(vec![8, 9]));
    }

    #[test]
    #[should_panic(expected = "revision 4 follows 2")]
    fn a_gap_is_refused() {
        let log = EventLog::new(1, 1 << 20);
        log.append(vec![revision(2, 1), revision(4, 1)]);
    }
}
