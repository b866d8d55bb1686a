//! Watch: what an event costs for each who gets it, a write for those who do not, and a watcher for coming.
//!
//! `cargo bench -p quorate-benches --bench watch`. The hubs read an event log that is fed by hand: the store's part of a write
//! is measured by `mvcc`. Encoding of responses around the shared events is the front door's and is not in these figures.
//! `thrpt` counts delivered events, writes or watchers, as the group says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use quorate_mvcc::{
    Error, EventKind, EventLog, EventRecord, History, Revision, RevisionEvents, StreamId,
    WatchCreate, WatchHub, WatchOptions,
};
use quorate_proto::mvccpb::KeyValue;

/// As the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Streams of the fan-out.
const STREAMS: usize = 10;
/// Watchers of the one key, on all streams together.
const FAN_OUT: usize = 1_000;
/// Watchers of keys that are not written.
const WATCHERS: usize = 100_000;
/// Writes between two turns of the hub where the number is not varied.
const WRITES: usize = 64;
/// Most bytes of events kept.
const EVENT_LOG_BYTES: usize = 8 << 20;
/// Most bytes taken off a stream at once.
const TAKE_BYTES: usize = 64 << 10;
const VALUE_BYTES: usize = 256;

/// A log of events with no store behind it; nobody lags so far behind that one is needed.
#[derive(Clone)]
struct Source(Arc<EventLog>);

impl Source {
    fn new() -> Source {
        Source(Arc::new(EventLog::new(1, EVENT_LOG_BYTES)))
    }

    /// Publishes puts of keys, each at a revision of its own.
    fn put(&self, keys: impl Iterator<Item = Bytes>) {
        let revision = |(main, key): (i64, Bytes)| {
            let pair = KeyValue {
                key: key.clone(),
                create_revision: 2,
                mod_revision: main,
                version: main - 1,
                value: vec![b'v'; VALUE_BYTES].into(),
                lease: 0,
            };
            let event = EventRecord {
                kind: EventKind::Put,
                key,
                record: pair.encode_to_vec().into(),
                revision: Revision { main, sub: 0 },
                create_revision: 2,
            };
            Arc::new(RevisionEvents {
                main,
                events: vec![event],
            })
        };
        let mains = self.0.last_revision() + 1..;
        self.0.append(mains.zip(keys).map(revision).collect());
    }
}

impl History for Source {
    fn event_log(&self) -> &EventLog {
        &self.0
    }

    fn compact_revision(&self) -> i64 {
        -1
    }

    fn history(
        &self,
        _: i64,
        _: i64,
        _: usize,
        _: usize,
    ) -> Result<Vec<Arc<RevisionEvents>>, Error> {
        unreachable!("the log has all that is asked for")
    }

    fn value_before(&self, _: &[u8], _: i64) -> Result<Option<Bytes>, Error> {
        unreachable!("no watcher wants the pair before")
    }
}

type Hub = WatchHub<Source>;
/// Makes the request of the watcher with a number.
type Create = fn(usize) -> WatchCreate;

fn hub(source: &Source) -> Hub {
    WatchHub::new(source.clone(), WatchOptions::default())
}

fn key(number: usize) -> Bytes {
    format!("/bench/keys/{number:020}").into()
}

/// Visits each number below a count whose only prime factors are 2 and 5 once, far from the one before.
fn scatter(nth: usize, count: usize) -> usize {
    nth % count * 618_033 % count
}

/// A watcher of one key.
fn single(number: usize) -> WatchCreate {
    WatchCreate {
        key: key(number),
        ..WatchCreate::default()
    }
}

/// A watcher of the keys that begin with one.
fn prefix(number: usize) -> WatchCreate {
    WatchCreate {
        key: key(number),
        range_end: key(number + 1),
        ..WatchCreate::default()
    }
}

/// Makes watchers, taking the answers when the stream asks for it.
fn create(hub: &mut Hub, stream: StreamId, requests: Vec<WatchCreate>) {
    for request in requests {
        if !hub.has_room(stream) {
            drain(hub);
        }
        hub.create(stream, request);
    }
    drain(hub);
}

/// Moves the hub on and takes all output, as a connection thread does; returns how many events there were.
fn drain(hub: &mut Hub) -> usize {
    let mut events = 0;
    loop {
        let more = hub.advance().expect("the log has all that is asked for");
        let ready = hub.take_ready();
        if ready.is_empty() && !more {
            return events;
        }
        for stream in ready {
            let responses = hub.take(stream, TAKE_BYTES);
            events += responses.iter().map(|r| r.events.len()).sum::<usize>();
        }
    }
}

/// Publishes writes and returns how long the hub takes to deal with them.
fn time_writes(
    source: &Source,
    hub: &mut Hub,
    keys: impl Iterator<Item = Bytes>,
    events: usize,
) -> Duration {
    source.put(keys);
    let start = Instant::now();
    let delivered = drain(hub);
    let taken = start.elapsed();
    assert_eq!(delivered, events);
    taken
}

/// 1,000 watchers of one key on ten streams: the cost of a delivered event, its response taken off the queue and let go.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch_fan_out_1000_events");
    for writes in [1, 16] {
        let source = Source::new();
        let mut hub = hub(&source);
        for _ in 0..STREAMS {
            let stream = hub.open_stream(0);
            let requests = vec![single(0); FAN_OUT / STREAMS];
            create(&mut hub, stream, requests);
        }
        let (key, events) = (key(0), FAN_OUT * writes);
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(BenchmarkId::new("writes_at_once", writes), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        let keys = std::iter::repeat_n(key.clone(), writes);
                        time_writes(&source, &mut hub, keys, events)
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// 100,000 watchers of keys or ranges of their own: the cost of a write, of 64 at once.
fn many_watchers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch_100k_watchers_write");
    group.throughput(Throughput::Elements(WRITES as u64));
    let kinds: [(&str, Create); 2] = [("keys", single), ("ranges", prefix)];
    for (kind, request) in kinds {
        let source = Source::new();
        let mut hub = hub(&source);
        let stream = hub.open_stream(0);
        // The odd ones, so that others lie between them.
        let requests = (0..WATCHERS).map(|n| request(2 * n + 1));
        create(&mut hub, stream, requests.collect());
        for (matching, events) in [("none", 0), ("one", WRITES)] {
            let mut nth = 0;
            group.bench_function(BenchmarkId::new(kind, matching), |bencher| {
                bencher.iter_custom(|iterations| {
                    let rounds = (0..iterations).map(|_| {
                        let nths = nth..nth + WRITES;
                        nth += WRITES;
                        let odd = usize::from(matching == "one");
                        let keys = nths.map(|nth| key(2 * scatter(nth, WATCHERS) + odd));
                        time_writes(&source, &mut hub, keys, events)
                    });
                    rounds.sum()
                });
            });
        }
    }
    group.finish();
}

/// Creation of 100,000 watchers on one stream, the answers taken.
fn creation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch_create_100k_on_one_stream");
    group.sample_size(10);
    group.throughput(Throughput::Elements(WATCHERS as u64));
    let kinds: [(&str, Create); 3] = [
        ("distinct_keys", single),
        ("distinct_ranges", prefix),
        ("same_key", |_| single(0)),
    ];
    for (kind, request) in kinds {
        group.bench_function(kind, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = (0..iterations).map(|_| {
                    let mut hub = hub(&Source::new());
                    let stream = hub.open_stream(0);
                    let requests = (0..WATCHERS).map(request).collect();
                    let start = Instant::now();
                    create(&mut hub, stream, requests);
                    let taken = start.elapsed();
                    assert_eq!(hub.stats().watchers, WATCHERS);
                    taken
                });
                rounds.sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out, many_watchers, creation);
criterion_main!(benches);
