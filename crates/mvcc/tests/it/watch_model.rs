//! Random lives of a hub against all that happened: nothing lost, nothing twice, nothing out of order, progress true.

use bytes::Bytes;
use quorate_mvcc::{StreamId, WatchCreate, WatchHub, WatchOptions};

use crate::watch_store::{Client, TestStore, Write};

pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub(crate) fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

pub(crate) const KEYS: [&str; 7] = ["a", "a\0", "aa", "ab", "b", "ba", "c"];
const ENDS: [&str; 8] = ["", "", "", "\0", "ab", "b", "c", "d"];

struct Life {
    random: Random,
    store: TestStore,
    hub: WatchHub<TestStore>,
    streams: Vec<(StreamId, Client)>,
    now_ms: u64,
    log_bytes_max: usize,
    rounds: usize,
    compacted: usize,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = Random(seed);
        let log_bytes_max = *random.pick(&[0, 600, 3000, 1 << 20]);
        let options = WatchOptions {
            fragment_bytes: *random.pick(&[1, 200, 400, 1 << 20]),
            progress_interval_ms: 1000,
            seed,
            outbox_bytes_per_watcher: *random.pick(&[0, 300, 2000, 1 << 20]),
            outbox_bytes_max: *random.pick(&[300, 5000, 1 << 20]),
            live_revisions_per_step: *random.pick(&[1, 3, 256]),
            live_batch_bytes: *random.pick(&[0, 500, 1 << 20]),
            stretch_rows: *random.pick(&[1, 5, 1000]),
            stretch_bytes: *random.pick(&[1, 300, 1 << 20]),
            stretches_kept: *random.pick(&[0, 1, 8]),
            watchers_per_step: *random.pick(&[1, 2, 4096]),
            batch_revisions_max: *random.pick(&[1, 2, 1000]),
            batch_bytes: *random.pick(&[1, 200, 1 << 20]),
        };
        let store = TestStore::new(log_bytes_max);
        let hub = WatchHub::new(store.clone(), options);
        Life {
            random,
            store,
            hub,
            streams: Vec::new(),
            now_ms: 0,
            log_bytes_max,
            rounds: 0,
            compacted: 0,
        }
    }

    fn writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for key in KEYS {
            if self.random.one_in(4) {
                let value = vec![b'v'; self.random.below(60)];
                let key = Bytes::from_static(key.as_bytes());
                writes.push(if self.random.one_in(3) {
                    Write::Delete(key)
                } else {
                    Write::Put(key, value.into())
                });
            }
        }
        writes
    }

    fn create(&mut self) -> WatchCreate {
        let current = self.store.revision();
        let start_revision = match self.random.below(8) {
            0..3 => 0,
            3 => -1,
            4 => current + 1 + i64::try_from(self.random.below(4)).unwrap(),
            _ => 1 + i64::try_from(self.random.below(usize::try_from(current).unwrap())).unwrap(),
        };
        WatchCreate {
            key: if self.random.one_in(10) {
                Bytes::new()
            } else {
                self.random.pick(&KEYS).as_bytes().into()
            },
            range_end: self.random.pick(&ENDS).as_bytes().into(),
            start_revision,
            progress_notify: self.random.one_in(3),
            no_put: self.random.one_in(6),
            no_delete: self.random.one_in(6),
            prev_kv: self.random.one_in(2),
            watch_id: if self.random.one_in(4) {
                i64::try_from(self.random.below(5)).unwrap() - 1
            } else {
                0
            },
            fragment: self.random.one_in(2),
        }
    }

    fn step(&mut self) {
        let stream = self.random.below(self.streams.len());
        match self.random.below(20) {
            0..5 => {
                let writes = self.writes();
                self.store.commit(writes);
            }
            5..9 => {
                self.hub.advance().unwrap();
            }
            9..12 => self.take(stream),
            12 | 13 if !self.streams.is_empty() => {
                let request = self.create();
                self.streams[stream].1.asked.push_back(request.clone());
                self.hub.create(self.streams[stream].0, request);
            }
            14 if !self.streams.is_empty() => {
                self.hub.cancel(
                    self.streams[stream].0,
                    i64::try_from(self.random.below(6)).unwrap() - 1,
                );
            }
            15 if !self.streams.is_empty() => self.hub.request_progress(self.streams[stream].0),
            16 => {
                self.now_ms += u64::try_from(self.random.below(500)).unwrap();
                self.hub.tick(self.now_ms);
            }
            17 if self.random.one_in(2) => self.compact(),
            18 => self.open_or_close(stream),
            19 if self.random.one_in(8) => self.settle(),
            19 if self.random.one_in(12) => {
                let further = (0..self.random.below(4)).map(|_| self.writes()).collect();
                self.store = self.store.snapshot(further, self.log_bytes_max);
                self.hub.restored(self.store.clone());
            }
            _ => {}
        }
    }

    fn compact(&mut self) {
        let (low, current) = (self.store.compacted().max(0), self.store.revision());
        if low < current {
            let above =
                i64::try_from(self.random.below(usize::try_from(current - low).unwrap())).unwrap();
            if self.random.one_in(4) {
                self.store.compact_in_next_read(low + 1 + above);
                self.hub.advance().unwrap();
                // Unless that read the backend, the compaction happens now.
                self.store.history_probe();
            } else {
                self.store.compact(low + 1 + above);
            }
        }
        if self.random.one_in(2) {
            self.store.scrub();
        }
    }

    fn open_or_close(&mut self, stream: usize) {
        if self.streams.len() < 3 {
            self.streams
                .push((self.hub.open_stream(self.now_ms), Client::default()));
        } else if self.random.one_in(5) {
            let (id, _) = self.streams.swap_remove(stream);
            self.hub.close_stream(id);
        }
    }

    fn take(&mut self, stream: usize) {
        if let Some((id, client)) = self.streams.get_mut(stream) {
            for response in self.hub.take(*id, self.random.below(1000)) {
                client.receive(&self.store, &response);
            }
        }
    }

    /// Lets everything through and checks that every watcher was told all.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20_000, "the hub does not come to rest");
            let has_more = self.hub.advance().unwrap();
            let ready = self.hub.take_ready();
            for (id, client) in &mut self.streams {
                // A stream that was never reported must have nothing.
                let responses = self.hub.take(*id, 1 << 20);
                for response in &responses {
                    client.receive(&self.store, response);
                }
            }
            if !has_more && ready.is_empty() {
                break;
            }
        }
        for (id, client) in &mut self.streams {
            assert!(self.hub.take(*id, usize::MAX).is_empty());
            client.check_complete(&self.store);
            self.compacted += client
                .watchers
                .values()
                .filter(|seen| seen.compacted)
                .count();
        }
        let stats = self.hub.stats();
        assert_eq!(
            (
                stats.pending_events,
                stats.pending_bytes,
                stats.slow_watchers
            ),
            (0, 0, 0)
        );
        assert_eq!(stats.streams, self.streams.len());
        assert_eq!(
            stats.watchers,
            self.streams
                .iter()
                .map(|(_, client)| client.watchers.len())
                .sum::<usize>()
        );
        self.rounds += 1;
    }
}

/// Lives one life and returns how many settled states were checked, and how many compacted watchers seen in them.
fn live(seed: u64, steps: usize) -> (usize, usize) {
    let mut life = Life::new(seed);
    for _ in 0..steps {
        life.step();
    }
    life.settle();
    (life.rounds, life.compacted)
}

#[test]
fn random_lives_lose_repeat_and_reorder_nothing() {
    let (mut rounds, mut compacted) = (0, 0);
    for seed in 0..600 {
        let lived = live(seed, 400);
        rounds += lived.0;
        compacted += lived.1;
    }
    assert!(
        rounds > 1500 && compacted > 300,
        "{rounds} settled states, {compacted} compacted watchers"
    );
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    let told = |seed| {
        let mut life = Life::new(seed);
        let mut told = Vec::new();
        for _ in 0..300 {
            life.step();
            if let Some((id, client)) = life.streams.first_mut() {
                for response in life.hub.take(*id, 1 << 20) {
                    client.receive(&life.store, &response);
                    told.push(response);
                }
            }
        }
        told
    };
    let first = told(5);
    assert!(first.len() > 20);
    assert_eq!(first, told(5));
}
