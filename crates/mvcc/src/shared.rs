use std::fmt;
use std::sync::atomic::AtomicI64;

use parking_lot::RwLock;
use quorate_backend::Backend;

use crate::hash::StoredHashes;
use crate::horizon::{Horizon, Pin};
use crate::index::KeyIndex;
use crate::view::{Stop, Values, View};
use crate::{Error, EventLog, Options};

/// What the writer and all readers share.
pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) options: Options,
    pub(crate) index: RwLock<KeyIndex>,
    pub(crate) horizon: Horizon,
    pub(crate) event_log: EventLog,
    pub(crate) hashes: StoredHashes,
    /// The newest compaction that ended, or that had ended at the restore; -1 when there was none.
    pub(crate) finished_compaction: AtomicI64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("horizon", &self.horizon)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Reads what the caller asks for, again with a pin when a compaction gets in between.
    pub(crate) fn read<R>(
        &self,
        read: impl Fn(&View<'_>, i64, i64) -> Result<R, Stop>,
    ) -> Result<R, Error> {
        let (current, compact) = (self.horizon.current(), self.horizon.compact());
        // The compact revision was read later, so it may lie above.
        if compact <= current {
            let view = self.view(&self.backend, Some(&self.horizon));
            match read(&view, current, compact) {
                Ok(result) => return Ok(result),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Overtaken) => {}
            }
        }
        self.read_pinned(|view, pin| read(view, pin.current, pin.compact))
    }

    /// Reads with a pin.
    pub(crate) fn read_pinned<R>(
        &self,
        read: impl FnOnce(&View<'_>, &Pin<'_>) -> Result<R, Stop>,
    ) -> Result<R, Error> {
        let pin = self.horizon.pin();
        let view = self.view(&self.backend, None);
        read(&view, &pin).map_err(Stop::into_error)
    }

    pub(crate) fn view<'a>(
        &'a self,
        values: &'a dyn Values,
        overtaken_by: Option<&'a Horizon>,
    ) -> View<'a> {
        View {
            index: &self.index,
            values,
            chunk_keys: self.options.index_chunk_keys,
            overtaken_by,
            budget: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::path::Path;
    use std::sync::Arc;

    use quorate_disk::SimDisk;
    use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};

    use super::*;
    use crate::range::{Counting, RangeResult, read};
    use crate::{CompactionJob, Progress, Store};

    /// A store whose keys `a` and `b` are put at each revision from 2 on, in turn.
    struct Busy {
        store: Store,
        index: u64,
    }

    impl Busy {
        fn new() -> Busy {
            let disk = Arc::new(SimDisk::new(1));
            let backend = Backend::open(disk, Path::new("db"), Default::default()).unwrap();
            let options = Options {
                index_chunk_keys: 1,
                ..Options::default()
            };
            let (store, _) = Store::restore(&backend, options).unwrap();
            let mut busy = Busy { store, index: 0 };
            busy.write(6);
            busy
        }

        fn apply<R>(
            &mut self,
            change: impl FnOnce(&mut Store, &mut quorate_backend::ApplyTxn) -> R,
        ) -> R {
            self.index += 1;
            let mut txn = self.store.shared().backend.begin_apply(self.index, 1);
            let result = change(&mut self.store, &mut txn);
            txn.commit(0);
            self.store.publish();
            result
        }

        fn write(&mut self, count: usize) {
            for _ in 0..count {
                let key = if self.store.current_revision() % 2 == 0 {
                    "a"
                } else {
                    "b"
                };
                let value = (self.store.current_revision() + 1).to_string();
                let put = PutRequest {
                    key: key.into(),
                    value: value.into(),
                    ..Default::default()
                };
                self.apply(|store, txn| store.put(txn, &put, |_| false))
                    .unwrap();
            }
        }

        fn compact(&mut self) -> CompactionJob {
            let current = self.store.current_revision();
            let job = self
                .apply(|store, txn| store.compact(txn, current))
                .unwrap();
            if let Some(flush) = self.store.shared().backend.seal() {
                flush.run().unwrap();
            }
            job
        }

        /// Writes on and compacts away all that was there.
        fn overtake(&mut self) {
            self.write(4);
            assert!(matches!(self.compact().run().unwrap(), Progress::Done(_)));
        }
    }

    fn all(revision: i64) -> RangeRequest {
        RangeRequest {
            key: "a".into(),
            range_end: "z".into(),
            revision,
            ..Default::default()
        }
    }

    fn revisions(result: &RangeResult) -> Vec<i64> {
        let parse = |kv| crate::record::Record::parse(kv).unwrap().mod_revision;
        result.kvs.iter().map(|kv| parse(kv)).collect()
    }

    #[test]
    fn a_read_of_now_that_is_overtaken_starts_anew_with_a_pin() {
        let busy = RefCell::new(Busy::new());
        let shared = Arc::clone(busy.borrow().store.shared());
        let attempts = Cell::new(0);
        let result = shared.read(|view, current, compact| {
            if attempts.replace(attempts.get() + 1) == 0 {
                busy.borrow_mut().overtake();
            }
            read(view, &all(0), current, compact, Counting::All)
        });
        let result = result.unwrap();
        assert_eq!(attempts.get(), 2);
        assert_eq!((result.revision, revisions(&result)), (11, vec![11, 10]));
    }

    #[test]
    fn a_read_of_the_past_that_is_overtaken_is_answered_as_compacted() {
        let busy = RefCell::new(Busy::new());
        let shared = Arc::clone(busy.borrow().store.shared());
        let first = Cell::new(true);
        let result = shared.read(|view, current, compact| {
            if first.replace(false) {
                busy.borrow_mut().overtake();
            }
            read(view, &all(5), current, compact, Counting::All)
        });
        assert!(matches!(result, Err(Error::Compacted)));
    }

    #[test]
    fn a_record_that_is_gone_when_it_is_fetched_says_that_the_read_was_overtaken() {
        let busy = RefCell::new(Busy::new());
        let shared = Arc::clone(busy.borrow().store.shared());
        let attempts = Cell::new(0);
        let revision = shared.read(|view, current, _| {
            let version = view.get(b"a", current)?.unwrap();
            if attempts.replace(attempts.get() + 1) == 0 {
                busy.borrow_mut().overtake();
            }
            // The cache of values may still know it, the next attempt reads what is there.
            view.record(version.revision).map(|_| version.revision.main)
        });
        assert!(matches!(
            (attempts.get(), revision.unwrap()),
            (1, 7) | (2, 11)
        ));
    }

    #[test]
    fn a_pinned_read_holds_a_compaction_back_and_finds_everything() {
        let busy = RefCell::new(Busy::new());
        let shared = Arc::clone(busy.borrow().store.shared());
        let job = RefCell::new(None);
        let result = shared.read_pinned(|view, pin| {
            busy.borrow_mut().write(4);
            let mut started = busy.borrow_mut().compact();
            assert_eq!(started.run().unwrap(), Progress::Blocked);
            *job.borrow_mut() = Some(started);
            let past = read(view, &all(4), pin.current, pin.compact, Counting::All)?;
            assert_eq!(revisions(&past), [3, 4]);
            read(view, &all(0), pin.current, pin.compact, Counting::All)
        });
        let result = result.unwrap();
        assert_eq!((result.revision, revisions(&result)), (7, vec![7, 6]));
        let mut job = job.into_inner().unwrap();
        assert!(matches!(job.run().unwrap(), Progress::Done(_)));
    }
}
