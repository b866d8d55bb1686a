//! A stand-in for the store, in memory, and clients that check what a hub tells them against all that ever happened.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_mvcc::{
    Error, EventKind, EventLog, EventRecord, History, KeyRange, Revision, RevisionEvents,
    WatchCreate, WatchResponse,
};
use quorate_proto::etcdserverpb;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

/// One write of a revision.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

/// An event as a client that asks for previous pairs sees it when nothing is compacted.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) revision: i64,
    pub(crate) event: Event,
}

/// A store that watchers read: the log, and rows that a compaction removes. Clones share it.
#[derive(Clone)]
pub(crate) struct TestStore {
    log: Arc<EventLog>,
    inner: Rc<Inner>,
}

struct Inner {
    /// What the backend has, by revision.
    rows: RefCell<BTreeMap<i64, Vec<EventRecord>>>,
    /// Everything that ever happened, whatever was compacted.
    happened: RefCell<Vec<Happened>>,
    pairs: RefCell<BTreeMap<Bytes, KeyValue>>,
    compact_revision: Cell<i64>,
    /// A compaction that runs, rows and all, the next time the backend is read, between opening and reading.
    compact_in_read: Cell<Option<i64>>,
    fails: Cell<bool>,
    rows_read: Cell<usize>,
    value_reads: Cell<usize>,
}

impl TestStore {
    pub(crate) fn new(log_bytes_max: usize) -> TestStore {
        let inner = Inner {
            rows: RefCell::default(),
            happened: RefCell::default(),
            pairs: RefCell::default(),
            compact_revision: Cell::new(-1),
            compact_in_read: Cell::new(None),
            fails: Cell::new(false),
            rows_read: Cell::new(0),
            value_reads: Cell::new(0),
        };
        TestStore {
            log: Arc::new(EventLog::new(1, log_bytes_max)),
            inner: Rc::new(inner),
        }
    }

    /// Makes the store that a snapshot of this one, with further revisions, is restored to: they are in no log.
    pub(crate) fn snapshot(&self, further: Vec<Vec<Write>>, log_bytes_max: usize) -> TestStore {
        let inner = Inner {
            rows: RefCell::new(self.inner.rows.borrow().clone()),
            happened: RefCell::new(self.inner.happened.borrow().clone()),
            pairs: RefCell::new(self.inner.pairs.borrow().clone()),
            compact_revision: self.inner.compact_revision.clone(),
            compact_in_read: Cell::new(None),
            fails: Cell::new(false),
            rows_read: Cell::new(0),
            value_reads: Cell::new(0),
        };
        let mut store = TestStore {
            log: Arc::new(EventLog::new(self.revision(), 0)),
            inner: Rc::new(inner),
        };
        for writes in further {
            store.commit(writes);
        }
        store.log = Arc::new(EventLog::new(store.revision(), log_bytes_max));
        store
    }

    pub(crate) fn revision(&self) -> i64 {
        self.log.last_revision()
    }

    pub(crate) fn put(&self, key: &str, value: &str) -> i64 {
        self.commit(vec![Write::Put(
            key.to_owned().into(),
            value.to_owned().into(),
        )])
    }

    pub(crate) fn delete(&self, key: &str) -> i64 {
        self.commit(vec![Write::Delete(key.to_owned().into())])
    }

    /// Does the writes in one revision, at most one a key; a deletion of an absent key is none. Returns the revision.
    pub(crate) fn commit(&self, writes: Vec<Write>) -> i64 {
        let main = self.revision() + 1;
        let mut events = Vec::new();
        for write in writes {
            let sub = i64::try_from(events.len()).unwrap();
            let Some((record, event)) = self.write(Revision { main, sub }, write) else {
                continue;
            };
            events.push(record);
            self.inner.happened.borrow_mut().push(Happened {
                revision: main,
                event,
            });
        }
        if events.is_empty() {
            return main - 1;
        }
        self.inner.rows.borrow_mut().insert(main, events.clone());
        self.log
            .append(vec![Arc::new(RevisionEvents { main, events })]);
        main
    }

    /// Changes the pairs and returns what is stored of it and what watchers see.
    fn write(&self, revision: Revision, write: Write) -> Option<(EventRecord, Event)> {
        let main = revision.main;
        let mut pairs = self.inner.pairs.borrow_mut();
        let (kind, kv, stored, prev_kv) = match write {
            Write::Put(key, value) => {
                let old = pairs.get(&key).cloned();
                let (create_revision, version) = old
                    .as_ref()
                    .map_or((main, 1), |old| (old.create_revision, old.version + 1));
                let kv = KeyValue {
                    key,
                    create_revision,
                    mod_revision: main,
                    version,
                    value,
                    lease: 0,
                };
                pairs.insert(kv.key.clone(), kv.clone());
                (EventType::Put, kv.clone(), kv, old)
            }
            Write::Delete(key) => {
                let old = pairs.remove(&key)?;
                let stored = KeyValue {
                    key,
                    ..KeyValue::default()
                };
                (
                    EventType::Delete,
                    KeyValue {
                        mod_revision: main,
                        ..stored.clone()
                    },
                    stored,
                    Some(old),
                )
            }
        };
        let record = EventRecord {
            kind: if kind == EventType::Put {
                EventKind::Put
            } else {
                EventKind::Delete
            },
            key: kv.key.clone(),
            record: stored.encode_to_vec().into(),
            revision,
            create_revision: kv.create_revision,
        };
        Some((
            record,
            Event {
                r#type: kind.into(),
                kv: Some(kv),
                prev_kv,
            },
        ))
    }

    /// Moves the compact revision; rows stay until [`TestStore::scrub`].
    pub(crate) fn compact(&self, revision: i64) {
        assert!(revision > self.inner.compact_revision.get() && revision <= self.revision());
        self.inner.compact_revision.set(revision);
    }

    /// Moves the compact revision beyond the log, as another thread sees it in the middle of a publication.
    pub(crate) fn compact_ahead_of_log(&self, revision: i64) {
        assert!(revision > self.revision());
        self.inner.compact_revision.set(revision);
    }

    /// Removes the rows that the compact revision gives up: of each key all but the newest up to it, and that one too if
    /// it is a tombstone below it.
    pub(crate) fn scrub(&self) {
        let compact = self.inner.compact_revision.get();
        let mut newest: BTreeMap<Bytes, i64> = BTreeMap::new();
        let mut rows = self.inner.rows.borrow_mut();
        for (&main, events) in rows.range(..=compact) {
            newest.extend(events.iter().map(|event| (event.key.clone(), main)));
        }
        for (&main, events) in rows.range_mut(..=compact) {
            events.retain(|event| {
                newest[&event.key] == main && (event.kind == EventKind::Put || main == compact)
            });
        }
        rows.retain(|_, events| !events.is_empty());
    }

    /// Lets a compaction run to its end inside the next read of the backend.
    pub(crate) fn compact_in_next_read(&self, revision: i64) {
        self.inner.compact_in_read.set(Some(revision));
    }

    /// Lets a compaction that waits for a read of the backend happen without one.
    pub(crate) fn history_probe(&self) {
        if let Some(revision) = self.inner.compact_in_read.take() {
            self.compact(revision);
        }
    }

    /// Lets reads of the backend fail, or work again.
    pub(crate) fn fail_reads(&self, fails: bool) {
        self.inner.fails.set(fails);
    }

    pub(crate) fn rows_read(&self) -> usize {
        self.inner.rows_read.get()
    }

    pub(crate) fn value_reads(&self) -> usize {
        self.inner.value_reads.get()
    }

    pub(crate) fn happened(&self) -> Vec<Happened> {
        self.inner.happened.borrow().clone()
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.inner.compact_revision.get()
    }
}

impl History for TestStore {
    fn event_log(&self) -> &EventLog {
        &self.log
    }

    fn compact_revision(&self) -> i64 {
        self.inner.compact_revision.get()
    }

    fn history(
        &self,
        from: i64,
        to: i64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<RevisionEvents>>, Error> {
        if self.inner.fails.get() {
            return Err(Error::Poisoned);
        }
        if let Some(revision) = self.inner.compact_in_read.take() {
            self.compact(revision);
            self.scrub();
        }
        let (mut rows, mut bytes) = (0, 0);
        let mut out = Vec::new();
        for (&main, events) in self.inner.rows.borrow().range(from..to) {
            rows += events.len();
            bytes += events.iter().map(|event| event.record.len()).sum::<usize>();
            if !out.is_empty() && (rows > rows_max || bytes > bytes_max) {
                break;
            }
            self.inner
                .rows_read
                .set(self.inner.rows_read.get() + events.len());
            out.push(Arc::new(RevisionEvents {
                main,
                events: events.clone(),
            }));
        }
        Ok(out)
    }

    fn value_before(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, Error> {
        self.inner.value_reads.set(self.inner.value_reads.get() + 1);
        if self.inner.fails.get() {
            return Err(Error::Poisoned);
        }
        if revision - 1 < self.compact_revision() {
            return Ok(None);
        }
        let rows = self.inner.rows.borrow();
        let newest = rows
            .range(..revision)
            .rev()
            .flat_map(|(_, events)| events)
            .find(|event| event.key == key);
        Ok(newest
            .filter(|event| event.kind == EventKind::Put)
            .map(|event| event.record.clone()))
    }
}

/// What one watcher was told so far, from the client's side.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) request: WatchCreate,
    pub(crate) created_at: i64,
    /// Events that are due to it, oldest first, with what it asked for only.
    received: usize,
    /// No event up to here is missing.
    pub(crate) complete_to: i64,
    partial: bool,
    last_revision: i64,
    pub(crate) had_events: bool,
    pub(crate) compacted: bool,
}

/// A client of one stream: checks each response against what happened.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) watchers: BTreeMap<i64, Seen>,
    /// Create requests sent and not answered.
    pub(crate) asked: VecDeque<WatchCreate>,
    pub(crate) refused: Vec<String>,
    pub(crate) cancelled: Vec<i64>,
    pub(crate) progress: Vec<i64>,
}

impl Seen {
    pub(crate) fn events_due(&self, happened: &[Happened]) -> Vec<Happened> {
        let request = &self.request;
        let key = if request.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            request.key.clone()
        };
        let range = KeyRange::from_wire(&key, &request.range_end);
        let start = if request.start_revision == 0 {
            self.created_at + 1
        } else {
            request.start_revision
        };
        let is_due = |happened: &&Happened| {
            let is_put = happened.event.r#type() == EventType::Put;
            happened.revision >= start
                && range.contains(&happened.event.kv.as_ref().unwrap().key)
                && !(is_put && request.no_put || !is_put && request.no_delete)
        };
        happened.iter().filter(is_due).cloned().collect()
    }

    /// Checks that nothing up to a revision is missing.
    fn is_complete_to(&self, happened: &[Happened], revision: i64) -> bool {
        self.events_due(happened)
            .get(self.received)
            .is_none_or(|next| next.revision > revision)
    }
}

impl Client {
    /// Takes one response in.
    pub(crate) fn receive(&mut self, store: &TestStore, response: &WatchResponse) {
        let happened = store.happened();
        assert!(
            response.revision <= store.revision(),
            "{response:?} comes from the future"
        );
        if response.created {
            let request = self.asked.pop_front().expect("an answer has a question");
            if response.canceled {
                assert_eq!(response.watch_id, -1);
                self.refused.push(response.cancel_reason.to_string());
                return;
            }
            let complete_to = match request.start_revision {
                0 => response.revision,
                start_revision => start_revision - 1,
            };
            let seen = Seen {
                request,
                created_at: response.revision,
                received: 0,
                complete_to,
                partial: false,
                last_revision: 0,
                had_events: false,
                compacted: false,
            };
            assert!(
                self.watchers.insert(response.watch_id, seen).is_none(),
                "watch id {} twice",
                response.watch_id
            );
            return;
        }
        if response.canceled {
            if response.compact_revision == 0 {
                self.watchers
                    .remove(&response.watch_id)
                    .expect("a cancelled watcher was there");
                self.cancelled.push(response.watch_id);
                return;
            }
            let seen = self
                .watchers
                .get_mut(&response.watch_id)
                .expect("a compacted watcher was there");
            assert_eq!(response.revision, 0);
            assert!(response.compact_revision <= store.compacted());
            assert!(
                response.compact_revision > seen.complete_to + 1,
                "{seen:?} is cancelled by {response:?}"
            );
            assert!(!seen.compacted && !seen.partial);
            seen.compacted = true;
            return;
        }
        if response.events.is_empty() {
            assert!(!response.fragment);
            self.receive_progress(&happened, response);
            return;
        }
        self.receive_events(store, &happened, response);
    }

    fn receive_progress(&mut self, happened: &[Happened], response: &WatchResponse) {
        self.progress.push(response.revision);
        let is_whole_stream = response.watch_id == -1 && !self.watchers.contains_key(&-1);
        let told: Vec<&mut Seen> = if is_whole_stream {
            self.watchers.values_mut().collect()
        } else {
            vec![
                self.watchers
                    .get_mut(&response.watch_id)
                    .expect("progress has a watcher"),
            ]
        };
        for seen in told {
            assert!(
                !seen.compacted && !seen.partial,
                "{seen:?} is told of progress"
            );
            assert!(
                seen.is_complete_to(happened, response.revision),
                "{seen:?} lacks events up to {response:?}"
            );
            assert!(
                response.revision >= seen.request.start_revision,
                "{seen:?} has not started at {response:?}"
            );
            seen.complete_to = seen.complete_to.max(response.revision);
        }
    }

    fn receive_events(
        &mut self,
        store: &TestStore,
        happened: &[Happened],
        response: &WatchResponse,
    ) {
        let seen = self
            .watchers
            .get_mut(&response.watch_id)
            .expect("events have a watcher");
        assert!(!seen.compacted, "events after {seen:?} was cancelled");
        assert!(seen.request.fragment || !response.fragment);
        let due = seen.events_due(happened);
        let events = decode(response);
        assert_eq!(events.len(), response.events.len());
        for (position, got) in events.into_iter().enumerate() {
            let want = &due
                .get(seen.received)
                .unwrap_or_else(|| panic!("{got:?} is one too many for {seen:?}"));
            let mut wanted = want.event.clone();
            if !seen.request.prev_kv
                || (got.prev_kv.is_none() && want.revision <= store.compacted())
            {
                wanted.prev_kv = None;
            }
            assert_eq!(got, wanted, "event {} of {seen:?}", seen.received);
            assert!(response.revision >= want.revision);
            let is_continued = position > 0 || seen.partial;
            assert!(
                is_continued || want.revision > seen.last_revision,
                "revision {} is torn",
                want.revision
            );
            seen.last_revision = want.revision;
            seen.received += 1;
        }
        seen.had_events = true;
        seen.partial = response.fragment;
        let is_whole = due
            .get(seen.received)
            .is_none_or(|next| next.revision > seen.last_revision);
        assert!(
            seen.partial || is_whole,
            "revision {} is torn",
            seen.last_revision
        );
        seen.complete_to = seen
            .complete_to
            .max(seen.last_revision - i64::from(!is_whole));
    }

    /// Checks that every watcher was told everything.
    pub(crate) fn check_complete(&mut self, store: &TestStore) {
        let happened = store.happened();
        let current = store.revision();
        for seen in self.watchers.values_mut().filter(|seen| !seen.compacted) {
            assert!(
                seen.is_complete_to(&happened, current),
                "{seen:?} lacks events up to {current}"
            );
            assert!(!seen.partial);
            seen.complete_to = current;
        }
        assert!(self.asked.is_empty());
    }
}

/// Decodes the events of a response.
pub(crate) fn decode(response: &WatchResponse) -> Vec<Event> {
    etcdserverpb::WatchResponse::decode(response.events.bytes().clone())
        .unwrap()
        .events
}
