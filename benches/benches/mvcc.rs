//! The store: writes, reads at a revision, counting and restoring.
//!
//! `cargo bench -p quorate-benches --bench mvcc`. Figures are the engine thread's own work: nothing here waits for the log,
//! and batches that are applied wait for no flush. Where an iteration does several operations, `thrpt` counts operations.
//! The database is made in the directory of `TMPDIR`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use criterion::{criterion_group, criterion_main};
use quorate_backend::{ApplyTxn, Backend};
use quorate_disk::RealDisk;
use quorate_mvcc::{Options, Reader, Store};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use tempfile::TempDir;

/// As the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Values that are written, but for the million.
const VALUE_BYTES: usize = 256;
/// Values of the million keys that are counted.
const COUNTED_VALUE_BYTES: usize = 16;
/// Keys that exist before the first write that is measured.
const WRITTEN_KEYS: usize = 100_000;
/// Writes to a store before the next one is made, which bounds memory.
const ROUND_PUTS: usize = 200_000;
/// Most bytes of events kept: few, so that old ones are forgotten while new ones come, as in a long run.
const EVENT_LOG_BYTES: usize = 8 << 20;
/// Keys that are read; two versions of each fit into the cache of values.
const READ_KEYS: usize = 50_000;
/// Keys that are counted.
const COUNTED_KEYS: usize = 1_000_000;
/// Keys of the store that is restored.
const RESTORED_KEYS: usize = 200_000;
/// Puts of one transaction.
const TXN_PUTS: usize = 16;
/// Puts to a batch where nothing is measured.
const FILL_BATCH: usize = 1_000;

/// A store on a file of its own.
struct Bed {
    store: Store,
    backend: Backend,
    /// Of the newest batch, as in a log.
    index: u64,
    value: Bytes,
    dir: TempDir,
}

impl Bed {
    fn new(value_bytes: usize) -> Bed {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let backend = open(&dir, quorate_backend::Options::default());
        Bed {
            store: restore(&backend),
            backend,
            index: 0,
            value: vec![b'v'; value_bytes].into(),
            dir,
        }
    }

    /// Makes a store with the even ones of twice as many keys, put in scattered order.
    fn filled(keys: usize, value_bytes: usize) -> Bed {
        let mut bed = Bed::new(value_bytes);
        bed.fill(keys);
        bed
    }

    fn fill(&mut self, keys: usize) {
        for first in (0..keys).step_by(FILL_BATCH) {
            let puts = self.puts(first..first + FILL_BATCH, |nth| even(nth, keys));
            self.put_all(&puts);
        }
    }

    fn puts(
        &self,
        nths: impl Iterator<Item = usize>,
        number: impl Fn(usize) -> usize,
    ) -> Vec<PutRequest> {
        let put = |nth| PutRequest {
            key: key(number(nth)),
            value: self.value.clone(),
            ..PutRequest::default()
        };
        nths.map(put).collect()
    }

    /// Applies and publishes one batch, and returns how long that took.
    fn apply(&mut self, work: impl FnOnce(&mut Store, &mut ApplyTxn)) -> Duration {
        self.index += 1;
        let start = Instant::now();
        let mut txn = self.backend.begin_apply(self.index, 1);
        work(&mut self.store, &mut txn);
        txn.commit(self.index);
        self.store.publish();
        start.elapsed()
    }

    fn put_all(&mut self, puts: &[PutRequest]) -> Duration {
        self.apply(|store, txn| {
            for put in puts {
                let result = store.put(txn, put, |_| false);
                assert!(result.is_ok());
            }
        })
    }

    /// Brings everything to the file, so that values come from there.
    fn flush(&self) {
        let job = self.backend.seal().expect("there is work to flush");
        job.run().expect("the disk works");
    }

    /// Reads all that will be read, so that it is cached if it is to be.
    fn warm(&self, old: i64) {
        for revision in [old, 0] {
            let request = RangeRequest {
                revision,
                ..range_request(0, 2 * READ_KEYS)
            };
            let result = self.store.reader().range(&request);
            let result = result.expect("the revision is there");
            assert_eq!(result.kvs.len(), READ_KEYS);
        }
    }

    /// Opens the file again, without a cache of values.
    fn without_value_cache(self) -> Bed {
        let Bed {
            store,
            backend,
            index,
            value,
            dir,
        } = self;
        drop((store, backend));
        let options = quorate_backend::Options {
            value_cache_bytes: 0,
            ..quorate_backend::Options::default()
        };
        let backend = open(&dir, options);
        Bed {
            store: restore(&backend),
            backend,
            index,
            value,
            dir,
        }
    }
}

fn open(dir: &TempDir, options: quorate_backend::Options) -> Backend {
    let path = dir.path().join("db");
    Backend::open(Arc::new(RealDisk), &path, options).expect("the directory is writable")
}

fn restore(backend: &Backend) -> Store {
    let options = Options {
        event_log_bytes_max: EVENT_LOG_BYTES,
        ..Options::default()
    };
    let (store, _) = Store::restore(backend, options).expect("the database is whole");
    store
}

/// Returns a key of 32 bytes; keys are in the order of their numbers.
fn key(number: usize) -> Bytes {
    format!("/bench/keys/{number:020}").into()
}

/// Visits each number below a count whose only prime factors are 2, 5 and 7 once, far from the one before.
fn scatter(nth: usize, count: usize) -> usize {
    nth % count * 618_033 % count
}

fn even(nth: usize, count: usize) -> usize {
    2 * scatter(nth, count)
}

fn odd(nth: usize, count: usize) -> usize {
    even(nth, count) + 1
}

/// Asks for the keys from one number to another, exclusive.
fn range_request(from: usize, to: usize) -> RangeRequest {
    RangeRequest {
        key: key(from),
        range_end: key(to),
        ..RangeRequest::default()
    }
}

/// Hands out a filled store, and a new one when so many puts went into it that memory would grow.
struct Round {
    bed: Bed,
    puts: usize,
}

impl Round {
    fn new() -> Round {
        Round {
            bed: Bed::filled(WRITTEN_KEYS, VALUE_BYTES),
            puts: 0,
        }
    }

    /// Returns the requests of the next batch; `number` makes the key's number of how many puts came before.
    fn next(&mut self, batch: usize, number: impl Fn(usize) -> usize) -> Vec<PutRequest> {
        if self.puts + batch > ROUND_PUTS {
            *self = Round::new();
        }
        let nths = self.puts..self.puts + batch;
        self.puts += batch;
        self.bed.puts(nths, number)
    }
}

fn put_batches(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    batch: usize,
    number: fn(usize) -> usize,
) {
    let mut round = Round::new();
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(BenchmarkId::new(name, batch), |bencher| {
        bencher.iter_custom(|iterations| {
            let batches = (0..iterations).map(|_| {
                let puts = round.next(batch, number);
                round.bed.put_all(&puts)
            });
            batches.sum()
        });
    });
}

/// The whole way of a put through the engine's thread but for raft and the answer: begin, index, record, commit, publish.
fn put(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mvcc_put_in_batches_of");
    for batch in [1, 64] {
        put_batches(&mut group, "new_key", batch, |nth| odd(nth, ROUND_PUTS));
        put_batches(&mut group, "overwrite", batch, |nth| {
            even(nth, WRITTEN_KEYS)
        });
    }
    group.finish();
}

fn txn(criterion: &mut Criterion) {
    let mut round = Round::new();
    let mut group = criterion.benchmark_group("mvcc_txn");
    group.throughput(Throughput::Elements(TXN_PUTS as u64));
    group.bench_function("of_16_puts", |bencher| {
        bencher.iter_custom(|iterations| {
            let batches = (0..iterations).map(|_| {
                let puts = round.next(TXN_PUTS, |nth| even(nth, WRITTEN_KEYS));
                let ops = puts.into_iter().map(|put| RequestOp {
                    request: Some(Request::RequestPut(put)),
                });
                let request = TxnRequest {
                    success: ops.collect(),
                    ..TxnRequest::default()
                };
                round.bed.apply(|store, txn| {
                    let result = store.txn(txn, &request, |_| false);
                    assert!(result.is_ok());
                })
            });
            batches.sum()
        });
    });
    group.finish();
}

/// Reads with requests that are made before the clock runs, and checks how many pairs each gives.
fn read(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    reader: &Reader,
    keys: usize,
    request: impl Fn(usize) -> RangeRequest,
) {
    let mut nth = 0;
    group.throughput(Throughput::Elements(keys as u64));
    group.bench_function(id, |bencher| {
        bencher.iter_batched_ref(
            || {
                nth += 1;
                request(nth)
            },
            |request| {
                let result = reader.range(request).expect("the revision is there");
                assert_eq!(result.kvs.len(), keys);
                result
            },
            BatchSize::NumIterations(if keys == 1 { 256 } else { 1 }),
        );
    });
}

/// Gets of one key; where its value comes from is in the name.
fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mvcc_get");
    let mut get = |name: &str, bed: &Bed, revision: i64| {
        let request = |nth| RangeRequest {
            // In the order neither of keys nor of revisions.
            key: key(even(scatter(nth, READ_KEYS), READ_KEYS)),
            revision,
            ..RangeRequest::default()
        };
        let id = BenchmarkId::from_parameter(name);
        read(&mut group, id, &bed.store.reader(), 1, request);
    };
    let mut bed = Bed::filled(READ_KEYS, VALUE_BYTES);
    let old = bed.store.current_revision();
    bed.fill(READ_KEYS);
    get("current_revision_unflushed", &bed, 0);
    bed.flush();
    bed.warm(old);
    get("current_revision_cached", &bed, 0);
    get("old_revision_cached", &bed, old);
    let bed = bed.without_value_cache();
    bed.warm(old);
    get("current_revision_from_page", &bed, 0);
    get("old_revision_from_page", &bed, old);
}

fn range(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mvcc_range");
    let mut bed = Bed::filled(READ_KEYS, VALUE_BYTES);
    let old = bed.store.current_revision();
    bed.fill(READ_KEYS);
    bed.flush();
    bed.warm(old);
    let reader = bed.store.reader();
    for keys in [1_000, 10_000] {
        let mut range = |name: &str, revision: i64, keys_only: bool| {
            let request = |nth| {
                let from = even(nth, READ_KEYS - keys);
                RangeRequest {
                    revision,
                    keys_only,
                    ..range_request(from, from + 2 * keys)
                }
            };
            read(
                &mut group,
                BenchmarkId::new(name, keys),
                &reader,
                keys,
                request,
            );
        };
        range("current_revision", 0, false);
        range("old_revision", old, false);
        range("keys_only", 0, true);
    }
    group.finish();
}

fn count(criterion: &mut Criterion) {
    let bed = Bed::filled(COUNTED_KEYS, COUNTED_VALUE_BYTES);
    let reader = bed.store.reader();
    let current = bed.store.current_revision();
    let mut group = criterion.benchmark_group("mvcc_count_of_1m_keys");
    for (name, revision, to) in [
        ("all", 0, COUNTED_KEYS),
        ("half", 0, COUNTED_KEYS / 2),
        ("half_at_recent_revision", current - 1_000, COUNTED_KEYS / 2),
        ("half_at_old_revision", current - 100_000, COUNTED_KEYS / 2),
    ] {
        let request = RangeRequest {
            revision,
            count_only: true,
            ..range_request(0, 2 * to)
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let result = reader.range(&request).expect("the revision is there");
                assert!(result.kvs.is_empty());
                result.count
            });
        });
    }
    group.finish();
}

fn restoring(criterion: &mut Criterion) {
    let bed = Bed::filled(RESTORED_KEYS, VALUE_BYTES);
    bed.flush();
    let mut group = criterion.benchmark_group("mvcc_restore");
    group.sample_size(10);
    group.throughput(Throughput::Elements(RESTORED_KEYS as u64));
    group.bench_function("200k_keys", |bencher| {
        bencher.iter_custom(|iterations| {
            let restores = (0..iterations).map(|_| {
                let start = Instant::now();
                let store = restore(&bed.backend);
                let taken = start.elapsed();
                assert_eq!(store.reader().keys_total(), RESTORED_KEYS);
                taken
            });
            restores.sum()
        });
    });
    group.finish();
}

criterion_group!(benches, put, txn, get, range, count, restoring);
criterion_main!(benches);
