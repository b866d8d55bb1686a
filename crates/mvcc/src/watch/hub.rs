use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::catch_up::Turns;
use super::group::{Flavour, Groups};
use super::history::{History, StretchCache};
use super::interval_tree::split_mix;
use super::message::{StreamId, WatchCreate, WatchResponse};
use super::options::WatchOptions;
use super::progress::Round;
use super::slab::Slab;
use super::stream::Streams;
use super::watcher::{State, Watcher};
use crate::{Error, KeyRange, Reader};

/// The watchers of one thread's streams: requests go in, responses come out, and the hub's cursors do the rest.
///
/// Single-threaded and deterministic. The owner calls [`advance`](WatchHub::advance) when the store has published, when
/// a stream was given a request or has drained, and after [`tick`](WatchHub::tick), again as long as it says so;
/// between the calls it sends what [`take_ready`](WatchHub::take_ready) and [`take`](WatchHub::take) give. Every call
/// does a bounded amount of work; the smallest unit is one revision for all who watch it.
///
/// A stream queues a bounded number of bytes. When it is full, its watchers keep only their cursors and go on from the
/// log or the store when it has drained. Answers to requests are queued always: the owner takes no further requests
/// from a client while [`has_room`](WatchHub::has_room) is false.
///
/// ```
/// # use std::{path::Path, sync::Arc};
/// # use quorate_backend::Backend;
/// # use quorate_disk::SimDisk;
/// # use quorate_mvcc::{Options, Store, WatchCreate, WatchHub, WatchOptions};
/// # use quorate_proto::etcdserverpb::PutRequest;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let backend = Backend::open(Arc::new(SimDisk::new(1)), Path::new("db"), quorate_backend::Options::default())?;
/// # let (mut store, _leases) = Store::restore(&backend, Options::default())?;
/// let mut hub = WatchHub::new(store.reader(), WatchOptions::default());
/// let stream = hub.open_stream(0);
/// hub.create(stream, WatchCreate { key: "greeting".into(), ..Default::default() });
///
/// # let mut txn = backend.begin_apply(1, 1);
/// # let put = PutRequest { key: "greeting".into(), value: "hello".into(), ..Default::default() };
/// store.put(&mut txn, &put, |_lease| false)?;
/// # txn.commit(0);
/// store.publish();
///
/// while hub.advance()? {}
/// assert_eq!(hub.take_ready(), [stream]);
/// let responses = hub.take(stream, 1 << 20);
/// assert!(responses[0].created);
/// assert_eq!((responses[1].watch_id, responses[1].revision, responses[1].events.len()), (0, 2, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WatchHub<H = Reader> {
    pub(super) source: H,
    pub(super) options: WatchOptions,
    /// Synced watchers were sent every event up to this revision.
    ///
    /// **Invariant:** at most the log's last revision.
    pub(super) live: i64,
    pub(super) streams: Streams,
    pub(super) watchers: Slab<Watcher>,
    pub(super) groups: Groups,
    /// Watchers that wait for a revision, by it.
    pub(super) future: BTreeSet<(i64, u32)>,
    /// Watchers that need history and whose streams have room, by the first revision they need.
    ///
    /// **Invariant:** that revision is at most `live`.
    pub(super) lagging: BTreeSet<(i64, u32)>,
    /// Lagging and blocked watchers.
    pub(super) unsynced: usize,
    pub(super) turns: Turns,
    pub(super) stretches: StretchCache,
    pub(super) rounds: VecDeque<Round>,
    /// When each stream's next round of periodic progress is due, in milliseconds.
    ticks: BTreeSet<(u64, u32)>,
    /// Closed streams whose watchers are not removed yet.
    closing: VecDeque<u32>,
    pub(super) tickets: u64,
    random: u64,
}

/// What a hub holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchStats {
    /// Open streams.
    pub streams: usize,
    /// Watchers, those overtaken by a compaction and not yet cancelled included.
    pub watchers: usize,
    /// Watchers that are behind.
    pub slow_watchers: usize,
    /// Events queued on streams.
    pub pending_events: usize,
    /// Bytes queued on streams; bytes that streams share are counted for each.
    pub pending_bytes: usize,
    /// Events taken off the queues since the hub was made.
    pub events_sent: u64,
}

/// Reason of a create request with a negative start revision.
///
/// Source: etcd v3.7.1 `api/v3rpc/rpctypes/error.go` `ErrCompacted`.
const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";
/// Source: etcd v3.7.1 `server/storage/mvcc/watcher.go` `ErrEmptyWatcherRange`.
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// Source: etcd v3.7.1 `server/storage/mvcc/watcher.go` `ErrWatcherDuplicateID`.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// Most steps a request makes to hand out what was published before it.
const REQUEST_STEPS_MAX: usize = 16;
/// Most watchers of a stream that go on when it has drained.
const WOKEN_MAX: usize = 1024;

impl<H: History> WatchHub<H> {
    /// Makes a hub without streams.
    pub fn new(source: H, options: WatchOptions) -> WatchHub<H> {
        WatchHub {
            live: source.event_log().last_revision(),
            streams: Streams::new(&options),
            watchers: Slab::new(),
            groups: Groups::new(options.seed),
            future: BTreeSet::new(),
            lagging: BTreeSet::new(),
            unsynced: 0,
            turns: Turns::default(),
            stretches: StretchCache::default(),
            rounds: VecDeque::new(),
            ticks: BTreeSet::new(),
            closing: VecDeque::new(),
            tickets: 0,
            random: options.seed,
            source,
            options,
        }
    }

    /// Adds a stream, whose rounds of periodic progress are counted from now on.
    pub fn open_stream(&mut self, now_ms: u64) -> StreamId {
        let interval_ms = self
            .options
            .progress_interval_ms
            .max(WatchOptions::PROGRESS_INTERVAL_MS_MIN);
        // Up to a tenth more, so that the streams of a restarted client do not fall in step.
        let period_ms = interval_ms + split_mix(&mut self.random) % (interval_ms / 10).max(1);
        let stream = self.streams.open(now_ms + period_ms, period_ms);
        self.ticks.insert((now_ms + period_ms, stream.slot));
        stream
    }

    /// Drops a stream with its watchers and what is queued on it. Calls that name it afterwards do nothing.
    pub fn close_stream(&mut self, stream: StreamId) {
        let Some(at) = self.streams.resolve(stream) else {
            return;
        };
        self.ticks.remove(&(self.streams.at(at).tick_at_ms, at));
        self.rounds.retain(|round| round.stream != at);
        self.streams.close(at);
        self.closing.push_back(at);
    }

    /// Makes a watcher, or refuses it, and queues the answer. Events follow it.
    ///
    /// The caller checks the permission to read the range first, but only if `start_revision` is not negative, which is
    /// refused before anything else; see [`refuse`](WatchHub::refuse).
    pub fn create(&mut self, stream: StreamId, request: WatchCreate) {
        let Some(at) = self.streams.resolve(stream) else {
            return;
        };
        let start_revision = request.start_revision;
        if start_revision < 0 {
            return self.push_refusal(at, NEGATIVE_START.into());
        }
        let key = if request.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            request.key
        };
        let range = KeyRange::from_wire(&key, &request.range_end);
        if range.is_empty() {
            return self.push_refusal(at, EMPTY_RANGE.into());
        }
        let Some(watch_id) = self.streams.at_mut(at).choose_watch_id(request.watch_id) else {
            return self.push_refusal(at, DUPLICATE_ID.into());
        };
        let flavour = Flavour {
            prev_kv: request.prev_kv,
            no_put: request.no_put,
            no_delete: request.no_delete,
        };
        let current = self.source.event_log().last_revision();
        let next = if start_revision == 0 {
            current + 1
        } else {
            start_revision
        };
        if self.watchers.len() == 0 {
            // What came before the first watcher need not be gone through for it.
            self.live = current;
        }
        let watcher = self.watchers.insert(Watcher {
            watch_id,
            stream: at,
            variant: self.groups.enter(&range, flavour),
            start_revision,
            fragment: request.fragment,
            notify: request.progress_notify,
            quiet: true,
            // Out of place until `place` below.
            state: State::Compacted,
        });
        self.streams.add_watcher(at, watch_id, watcher);
        if request.progress_notify {
            self.streams.at_mut(at).notified.insert(watch_id, watcher);
        }
        let response = WatchResponse {
            watch_id,
            revision: current,
            created: true,
            ..WatchResponse::default()
        };
        self.streams.push(at, response);
        if start_revision > self.live {
            self.streams.at_mut(at).start_ahead(start_revision);
        }
        self.place(watcher, next);
        let compact_revision = self.source.compact_revision();
        if start_revision > 0 && start_revision < compact_revision {
            self.cancel_as_compacted(watcher, compact_revision);
        }
    }

    /// Queues the answer to a create request that the caller does not permit.
    pub fn refuse(&mut self, stream: StreamId, reason: String) {
        if let Some(at) = self.streams.resolve(stream) {
            self.push_refusal(at, reason.into());
        }
    }

    /// Removes a watcher and queues the answer, behind the events published before. An unknown number is ignored.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        let Some(at) = self.streams.resolve(stream) else {
            return;
        };
        let Some(&watcher) = self.streams.at(at).watchers.get(&watch_id) else {
            return;
        };
        self.deliver_published();
        self.remove_watcher(watcher);
        let revision = self.source.event_log().last_revision();
        let response = WatchResponse {
            watch_id,
            revision,
            canceled: true,
            ..WatchResponse::default()
        };
        self.streams.push(at, response);
    }

    /// Queues how far the stream's watchers are, behind the events published before. Nothing is queued, now or later,
    /// when there is no watcher, when one of them is not synced or has not reached its start revision, or when the
    /// stream is full.
    pub fn request_progress(&mut self, stream: StreamId) {
        let Some(at) = self.streams.resolve(stream) else {
            return;
        };
        self.deliver_published();
        self.answer_progress(at);
    }

    /// Starts the rounds of periodic progress that are due.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some(&(due_ms, at)) = self.ticks.first() {
            if due_ms > now_ms {
                break;
            }
            self.ticks.pop_first();
            let stream = self.streams.at_mut(at);
            // Rounds missed are not made up for.
            let missed = (now_ms - due_ms) / stream.tick_period_ms;
            stream.tick_at_ms = due_ms + (missed + 1) * stream.tick_period_ms;
            self.ticks.insert((stream.tick_at_ms, at));
            if !stream.notified.is_empty() && !stream.in_round {
                stream.in_round = true;
                self.rounds.push_back(Round {
                    stream: at,
                    after: None,
                });
            }
        }
    }

    /// Returns when [`tick`](WatchHub::tick) has something to do next, in milliseconds.
    pub fn next_tick_ms(&self) -> Option<u64> {
        self.ticks.first().map(|&(due_ms, _)| due_ms)
    }

    /// Takes all watchers a bounded step further and returns whether there is more to do right away.
    ///
    /// # Errors
    /// When the backend cannot be read. No watcher was moved past what could not be read; a later call tries again.
    pub fn advance(&mut self) -> Result<bool, Error> {
        self.step_live()?;
        self.step_catch_up()?;
        self.step_progress();
        self.step_close();
        Ok(self.live < self.source.event_log().last_revision()
            || !self.lagging.is_empty()
            || !self.rounds.is_empty()
            || !self.closing.is_empty())
    }

    /// Returns the streams that got output, or kept some in [`take`](WatchHub::take), since the last call.
    pub fn take_ready(&mut self) -> Vec<StreamId> {
        self.streams.take_ready()
    }

    /// Takes responses off a stream's queue, as many as `bytes_max` allows but one at least if there is one. Watchers
    /// that waited for room go on with the next [`advance`](WatchHub::advance).
    pub fn take(&mut self, stream: StreamId, bytes_max: usize) -> Vec<WatchResponse> {
        let mut out = Vec::new();
        if let Some(at) = self.streams.resolve(stream) {
            self.streams.take(at, bytes_max, &mut out);
            self.wake(at);
        }
        out
    }

    /// Returns how many responses were queued on streams since the hub was made.
    pub fn responses_queued(&self) -> u64 {
        self.streams.responses_queued
    }

    /// Returns whether the stream's queue has room; no requests should be taken from a client whose stream has none.
    pub fn has_room(&self, stream: StreamId) -> bool {
        self.streams
            .resolve(stream)
            .is_some_and(|at| self.streams.at(at).has_room())
    }

    /// Goes on with another store after a snapshot was installed. Watchers keep their cursors: what the new store knows
    /// beyond them is history to them, and nothing before them is sent again.
    pub fn restored(&mut self, source: H) {
        self.source = source;
        self.stretches.clear();
        self.rebase(self.source.event_log().last_revision());
    }

    /// Returns what the hub holds.
    pub fn stats(&self) -> WatchStats {
        WatchStats {
            streams: self.streams.open,
            watchers: self.watchers.len(),
            slow_watchers: self.unsynced,
            pending_events: self.streams.pending_events,
            pending_bytes: self.streams.pending_bytes,
            events_sent: self.streams.events_sent,
        }
    }

    fn push_refusal(&mut self, at: u32, reason: Cow<'static, str>) {
        let response = WatchResponse {
            watch_id: WatchResponse::NO_WATCH_ID,
            revision: self.source.event_log().last_revision(),
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..WatchResponse::default()
        };
        self.streams.push(at, response);
    }

    /// Hands synced watchers what was published before the request at hand, so that its answer comes behind it.
    fn deliver_published(&mut self) {
        let published = self.source.event_log().last_revision();
        for _ in 0..REQUEST_STEPS_MAX {
            // A failure is met again, and reported, by the next `advance`.
            if self.live >= published || self.step_live().is_err() {
                return;
            }
        }
    }

    /// Lets watchers of a stream that has drained go on.
    fn wake(&mut self, at: u32) {
        if !self.streams.at(at).has_drained() {
            return;
        }
        for _ in 0..WOKEN_MAX {
            let Some((_, &watcher)) = self.streams.at(at).blocked.first_key_value() else {
                return;
            };
            let next = self.unplace(watcher);
            self.place(watcher, next);
        }
    }

    /// Removes watchers of closed streams.
    fn step_close(&mut self) {
        for _ in 0..self.options.watchers_per_step {
            let Some(&at) = self.closing.front() else {
                return;
            };
            match self.streams.at(at).watchers.first_key_value() {
                Some((_, &watcher)) => self.remove_watcher(watcher),
                None => {
                    self.streams.remove(at);
                    self.closing.pop_front();
                }
            }
        }
    }

    fn remove_watcher(&mut self, watcher: u32) {
        self.unplace(watcher);
        let watcher = self.watchers.remove(watcher);
        self.groups.leave(watcher.variant);
        self.streams
            .remove_watcher(watcher.stream, watcher.watch_id);
        self.streams
            .at_mut(watcher.stream)
            .forget_ahead(watcher.start_revision, self.live);
    }
}
