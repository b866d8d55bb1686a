//! The hub over the real store: what a stand-in might get wrong about history, previous pairs and compaction.

use bytes::Bytes;
use quorate_disk::CrashPolicy;
use quorate_mvcc::{
    CompactionJob, Progress, Reader, StreamId, WatchCreate, WatchHub, WatchOptions,
};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};

use crate::harness::{Db, op, small, txn};
use crate::watch_model::{KEYS, Random};
use crate::watch_store::{Client, TestStore, Write};

/// The real store, and the stand-in that remembers all that ever happened to it.
struct Pair {
    db: Db,
    mirror: TestStore,
    hub: WatchHub<Reader>,
    streams: Vec<(StreamId, Client)>,
    jobs: Vec<CompactionJob>,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let db = Db::new(small());
        let options = WatchOptions {
            seed,
            outbox_bytes_per_watcher: 2000,
            stretch_rows: 4,
            stretches_kept: usize::from(seed.is_multiple_of(2)),
            ..WatchOptions::default()
        };
        let mut hub = WatchHub::new(db.reader(), options);
        let streams = (0..3)
            .map(|_| (hub.open_stream(0), Client::default()))
            .collect();
        Pair {
            db,
            mirror: TestStore::new(0),
            hub,
            streams,
            jobs: Vec::new(),
        }
    }

    fn write(&mut self, random: &mut Random) {
        let mut writes = Vec::new();
        let mut ops = Vec::new();
        for key in KEYS {
            if !random.one_in(4) {
                continue;
            }
            let key = Bytes::from_static(key.as_bytes());
            if random.one_in(3) {
                ops.push(op(Request::RequestDeleteRange(DeleteRangeRequest {
                    key: key.clone(),
                    ..Default::default()
                })));
                writes.push(Write::Delete(key));
            } else {
                let value: Bytes = vec![b'v'; random.below(60)].into();
                let put = PutRequest {
                    key: key.clone(),
                    value: value.clone(),
                    ..Default::default()
                };
                ops.push(op(Request::RequestPut(put)));
                writes.push(Write::Put(key, value));
            }
        }
        let revision = self.db.txn(&txn(ops)).unwrap().revision;
        assert_eq!(self.mirror.commit(writes), revision);
    }

    fn create(&mut self, random: &mut Random) {
        let current = usize::try_from(self.mirror.revision()).unwrap();
        let request = WatchCreate {
            key: random.pick(&KEYS).as_bytes().into(),
            range_end: random.pick(&["", "\0", "b", "c"]).as_bytes().into(),
            start_revision: i64::try_from(random.below(current + 3)).unwrap(),
            prev_kv: random.one_in(2),
            ..WatchCreate::default()
        };
        let (id, client) = &mut self.streams[random.below(3)];
        client.asked.push_back(request.clone());
        self.hub.create(*id, request);
    }

    fn compact(&mut self, random: &mut Random) {
        let (low, current) = (self.mirror.compacted().max(0), self.mirror.revision());
        if low < current {
            let above =
                i64::try_from(random.below(usize::try_from(current - low).unwrap())).unwrap();
            self.jobs.push(self.db.compact(low + 1 + above).unwrap());
            self.mirror.compact(low + 1 + above);
        }
    }

    /// Lets the oldest compaction remove some rows.
    fn compact_further(&mut self) {
        self.db.flush();
        if let Some(job) = self.jobs.first_mut()
            && matches!(job.step().unwrap(), Progress::Done(_))
        {
            self.jobs.remove(0);
        }
    }

    /// Goes on with a copy of the store, as after a snapshot was installed.
    fn restore(&mut self) {
        self.jobs.clear();
        self.db.flush();
        self.db = Db::open(self.db.disk.crash(&CrashPolicy::KeepNone), small());
        self.hub.restored(self.db.reader());
    }

    fn settle(&mut self) {
        loop {
            let mut has_more = self.hub.advance().unwrap();
            for (id, client) in &mut self.streams {
                let responses = self.hub.take(*id, 1 << 20);
                has_more |= !responses.is_empty();
                responses
                    .iter()
                    .for_each(|response| client.receive(&self.mirror, response));
            }
            if !has_more {
                break;
            }
        }
        for (_, client) in &mut self.streams {
            client.check_complete(&self.mirror);
        }
    }
}

#[test]
fn watchers_of_the_real_store_lose_repeat_and_reorder_nothing() {
    let mut compacted = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut pair = Pair::new(seed);
        for _ in 0..200 {
            match random.below(16) {
                0..6 => pair.write(&mut random),
                6..9 => {
                    pair.hub.advance().unwrap();
                }
                9 | 10 => pair.create(&mut random),
                11 | 12 => {
                    let (id, client) = &mut pair.streams[random.below(3)];
                    let responses = pair.hub.take(*id, 500);
                    responses
                        .iter()
                        .for_each(|response| client.receive(&pair.mirror, response));
                    pair.hub.request_progress(*id);
                }
                13 if random.one_in(4) => pair.compact(&mut random),
                14 => pair.compact_further(),
                15 if random.one_in(10) => pair.settle(),
                15 if random.one_in(10) => pair.restore(),
                _ => {}
            }
        }
        pair.settle();
        let watchers = pair
            .streams
            .iter()
            .flat_map(|(_, client)| client.watchers.values());
        compacted += watchers.filter(|seen| seen.compacted).count();
    }
    assert!(compacted > 20, "{compacted} compacted watchers");
}

#[test]
fn a_hub_can_be_moved_to_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<WatchHub>();
}
