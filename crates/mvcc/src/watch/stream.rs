use std::collections::{BTreeMap, VecDeque};

use super::encode::EventBatch;
use super::message::{StreamId, WatchResponse};
use super::options::WatchOptions;
use super::slab::Slab;

/// The streams of a hub and what is queued on them.
#[derive(Debug)]
pub(super) struct Streams {
    streams: Slab<Stream>,
    limits: Limits,
    generation: u32,
    /// Streams that got output since they were last reported.
    ready: Vec<u32>,
    /// Whether a stream has become half full since this was last asked.
    crowded: bool,
    /// Events queued on all streams.
    pub(super) pending_events: usize,
    /// Bytes queued on all streams, shared ones counted wherever they are queued.
    pub(super) pending_bytes: usize,
    /// Events taken off the queues.
    pub(super) events_sent: u64,
    /// Responses ever queued.
    pub(super) responses_queued: u64,
    /// Streams that are not closed.
    pub(super) open: usize,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    fragment_bytes: usize,
    bytes_per_watcher: usize,
    bytes_max: usize,
}

/// One client stream: its watchers by number, and a queue of responses.
///
/// **Invariant:** `outbox_bytes <= limit_bytes`, but for a single response with events, and for answers to requests:
/// the caller takes no requests while the stream is full.
#[derive(Debug)]
pub(super) struct Stream {
    generation: u32,
    pub(super) open: bool,
    ready: bool,
    /// Whether the outbox is more than half full.
    crowded: bool,
    outbox_bytes: usize,
    limit_bytes: usize,
    outbox: VecDeque<WatchResponse>,
    pub(super) watchers: BTreeMap<i64, u32>,
    /// Watchers that wait for the stream to drain, first come first.
    pub(super) blocked: BTreeMap<u64, u32>,
    /// Watchers that want periodic progress, by number.
    pub(super) notified: BTreeMap<i64, u32>,
    /// How many watchers asked for a start revision that was not reached then, by that revision.
    ahead: BTreeMap<i64, usize>,
    next_watch_id: i64,
    /// Lagging and blocked watchers.
    pub(super) unsynced: usize,
    /// Watchers overtaken by a compaction and not cancelled yet.
    pub(super) compacted: usize,
    pub(super) tick_at_ms: u64,
    pub(super) tick_period_ms: u64,
    /// Whether a round of periodic progress is under way.
    pub(super) in_round: bool,
}

/// What became of events offered to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// They are queued, or the stream is closed and needs none.
    Queued,
    /// The stream is full; nothing was queued.
    Full,
}

/// Room for this many responses is kept in an empty outbox.
const OUTBOX_KEPT: usize = 16;

impl Streams {
    pub(super) fn new(options: &WatchOptions) -> Streams {
        Streams {
            streams: Slab::new(),
            limits: Limits {
                fragment_bytes: options.fragment_bytes,
                bytes_per_watcher: options.outbox_bytes_per_watcher,
                bytes_max: options.outbox_bytes_max,
            },
            generation: 0,
            ready: Vec::new(),
            crowded: false,
            pending_events: 0,
            pending_bytes: 0,
            events_sent: 0,
            responses_queued: 0,
            open: 0,
        }
    }

    pub(super) fn open(&mut self, tick_at_ms: u64, tick_period_ms: u64) -> StreamId {
        self.generation = self.generation.wrapping_add(1);
        self.open += 1;
        let slot = self.streams.insert(Stream {
            generation: self.generation,
            open: true,
            ready: false,
            crowded: false,
            outbox_bytes: 0,
            limit_bytes: self.limits.bytes_per_watcher.min(self.limits.bytes_max),
            outbox: VecDeque::new(),
            watchers: BTreeMap::new(),
            blocked: BTreeMap::new(),
            notified: BTreeMap::new(),
            ahead: BTreeMap::new(),
            next_watch_id: 0,
            unsynced: 0,
            compacted: 0,
            tick_at_ms,
            tick_period_ms,
            in_round: false,
        });
        StreamId {
            slot,
            generation: self.generation,
        }
    }

    /// Returns the number of a stream that is still open.
    pub(super) fn resolve(&self, id: StreamId) -> Option<u32> {
        let stream = self.streams.get(id.slot)?;
        (stream.open && stream.generation == id.generation).then_some(id.slot)
    }

    /// Drops what is queued; the stream takes nothing any more.
    pub(super) fn close(&mut self, at: u32) {
        let stream = &mut self.streams[at];
        stream.open = false;
        self.open -= 1;
        let events: usize = stream
            .outbox
            .iter()
            .map(|response| response.events.len())
            .sum();
        self.pending_events -= events;
        self.pending_bytes -= stream.outbox_bytes;
        stream.outbox = VecDeque::new();
    }

    /// Frees a closed stream that has no watchers left.
    pub(super) fn remove(&mut self, at: u32) {
        self.streams.remove(at);
    }

    pub(super) fn at(&self, at: u32) -> &Stream {
        &self.streams[at]
    }

    pub(super) fn at_mut(&mut self, at: u32) -> &mut Stream {
        &mut self.streams[at]
    }

    /// Enters a watcher under its number.
    pub(super) fn add_watcher(&mut self, at: u32, watch_id: i64, watcher: u32) {
        let stream = &mut self.streams[at];
        stream.watchers.insert(watch_id, watcher);
        stream.limit_bytes = self.limits.of(stream.watchers.len());
    }

    /// Strikes a watcher out.
    pub(super) fn remove_watcher(&mut self, at: u32, watch_id: i64) {
        let stream = &mut self.streams[at];
        stream.watchers.remove(&watch_id);
        stream.notified.remove(&watch_id);
        stream.limit_bytes = self.limits.of(stream.watchers.len());
    }

    /// Queues a response whatever room there is.
    pub(super) fn push(&mut self, at: u32, response: WatchResponse) {
        let stream = &mut self.streams[at];
        if !stream.open {
            return;
        }
        self.responses_queued += 1;
        self.pending_events += response.events.len();
        self.pending_bytes += response.queued_bytes();
        stream.outbox_bytes += response.queued_bytes();
        stream.outbox.push_back(response);
        if !stream.ready {
            stream.ready = true;
            self.ready.push(at);
        }
        if !stream.crowded && stream.outbox_bytes > stream.limit_bytes / 2 {
            stream.crowded = true;
            self.crowded = true;
        }
    }

    /// Queues events for a watcher if there is room for them; in parts if they are large and it may be so.
    pub(super) fn send(
        &mut self,
        at: u32,
        watch_id: i64,
        fragment: bool,
        revision: i64,
        events: &EventBatch,
    ) -> Sent {
        let stream = &self.streams[at];
        if !stream.open {
            return Sent::Queued;
        }
        let response = WatchResponse {
            watch_id,
            revision,
            ..WatchResponse::default()
        };
        let bytes = response.queued_bytes() + events.bytes().len();
        if !stream.outbox.is_empty() && stream.outbox_bytes + bytes > stream.limit_bytes {
            return Sent::Full;
        }
        if fragment && events.is_larger_than(self.limits.fragment_bytes) {
            let parts = events.fragments(self.limits.fragment_bytes);
            let last = parts.len() - 1;
            for (number, events) in parts.into_iter().enumerate() {
                self.push(
                    at,
                    WatchResponse {
                        fragment: number < last,
                        events,
                        ..response.clone()
                    },
                );
            }
        } else {
            self.push(
                at,
                WatchResponse {
                    events: events.clone(),
                    ..response
                },
            );
        }
        Sent::Queued
    }

    /// Returns whether a stream has become half full since the last call: a good moment to let streams drain.
    pub(super) fn take_crowded(&mut self) -> bool {
        std::mem::take(&mut self.crowded)
    }

    /// Returns the streams that got output since the last call.
    pub(super) fn take_ready(&mut self) -> Vec<StreamId> {
        let mut ready = Vec::with_capacity(self.ready.len());
        for at in self.ready.drain(..) {
            // The stream may be closed, and another one may have its place.
            let Some(stream) = self.streams.get_mut(at) else {
                continue;
            };
            if std::mem::take(&mut stream.ready) && stream.open {
                ready.push(StreamId {
                    slot: at,
                    generation: stream.generation,
                });
            }
        }
        ready
    }

    /// Moves responses to `out` until they have `bytes_max` bytes; one at least, if there is one.
    pub(super) fn take(&mut self, at: u32, bytes_max: usize, out: &mut Vec<WatchResponse>) {
        let stream = &mut self.streams[at];
        let mut bytes = 0;
        while let Some(response) = stream.outbox.front() {
            let next = response.queued_bytes();
            if bytes > 0 && bytes + next > bytes_max {
                break;
            }
            bytes += next;
            self.pending_events -= response.events.len();
            self.events_sent += response.events.len() as u64;
            out.extend(stream.outbox.pop_front());
        }
        self.pending_bytes -= bytes;
        stream.outbox_bytes -= bytes;
        stream.crowded = stream.outbox_bytes > stream.limit_bytes / 2;
        if stream.outbox.is_empty() {
            stream.outbox.shrink_to(OUTBOX_KEPT);
        } else if !stream.ready {
            stream.ready = true;
            self.ready.push(at);
        }
    }
}

impl Limits {
    fn of(self, watchers: usize) -> usize {
        self.bytes_per_watcher
            .saturating_mul(watchers.max(1))
            .min(self.bytes_max)
    }
}

impl Stream {
    /// Returns whether another response would be within the limit.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.is_empty() || self.outbox_bytes + size_of::<WatchResponse>() <= self.limit_bytes
    }

    /// Returns whether the queue is at most half full, so that blocked watchers may go on.
    pub(super) fn has_drained(&self) -> bool {
        !self.crowded
    }

    /// Chooses the number of a new watcher: the wanted one if it is free, or the next free one when 0 is wanted.
    ///
    /// Source: etcd v3.7.1 `server/storage/mvcc/watcher.go` `watchStream.Watch`.
    pub(super) fn choose_watch_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.watchers.contains_key(&wanted)).then_some(wanted);
        }
        while self.watchers.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        Some(self.next_watch_id - 1)
    }

    /// Notes a watcher whose start revision is not reached.
    pub(super) fn start_ahead(&mut self, start_revision: i64) {
        *self.ahead.entry(start_revision).or_default() += 1;
    }

    /// Forgets what was noted of a watcher that goes.
    pub(super) fn forget_ahead(&mut self, start_revision: i64, live: i64) {
        if let Some(count) = self.ahead.get_mut(&start_revision) {
            *count -= 1;
            if *count == 0 || start_revision <= live {
                self.ahead.remove(&start_revision);
            }
        }
    }

    /// Returns whether every watcher has reached its start revision.
    pub(super) fn has_started(&mut self, live: i64) -> bool {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > live {
                return false;
            }
            entry.remove();
        }
        true
    }
}
