//! Counters of the links, and a copy of them for whoever shows them.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quorate_proto::MemberId;

/// First bucket and number of buckets of round-trip times; each is twice the one before.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/metrics.go `rttSec`.
const ROUND_TRIP_BUCKETS: (f64, usize) = (0.0001, 16);

/// The same of snapshots.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/metrics.go `snapshotSendSeconds`.
const SNAPSHOT_BUCKETS: (f64, usize) = (0.1, 10);

/// Most senders that are counted under a name of their own.
const NAMED_MAX: usize = 64;

/// A histogram with exponential buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending, with the observations up to each that are above the one before.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all observations in seconds.
    pub sum_s: f64,
    /// Number of all observations, those above the last bound too.
    pub count: u64,
}

impl Histogram {
    fn new((first, count): (f64, usize)) -> Self {
        let bounds = std::iter::successors(Some(first), |bound| Some(bound * 2.0));
        Self {
            buckets: bounds.take(count).map(|bound| (bound, 0)).collect(),
            sum_s: 0.0,
            count: 0,
        }
    }

    fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.sum_s += seconds;
        self.count += 1;
        if let Some((_, hits)) = self.buckets.iter_mut().find(|(bound, _)| seconds <= *bound) {
            *hits += 1;
        }
    }
}

/// What is known of one peer. The comments name etcd's metrics; labels `To`, `From` and `Remote` are [`PeerMetrics::id`].
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    /// The peer; id 0 stands for senders that are not known.
    pub id: MemberId,
    /// Whether it is a peer now: `etcd_network_known_peers`.
    pub known: bool,
    /// Whether a link to it works: `etcd_network_active_peers`.
    pub active: bool,
    /// Streams that the peer has open and into which we write: 2 when all is well.
    pub streams_open: usize,
    /// `etcd_network_disconnected_peers_total`
    pub disconnected: u64,
    /// `etcd_network_peer_sent_bytes_total`
    pub sent_bytes: u64,
    /// `etcd_network_peer_received_bytes_total`
    pub received_bytes: u64,
    /// `etcd_network_peer_sent_failures_total`
    pub sent_failures: u64,
    /// `etcd_network_peer_received_failures_total`
    pub received_failures: u64,
    /// `etcd_network_peer_round_trip_time_seconds`
    pub round_trip_time: Histogram,
    /// `etcd_network_snapshot_send_success`
    pub snapshots_sent: u64,
    /// `etcd_network_snapshot_send_failures`
    pub snapshot_send_failures: u64,
    /// `etcd_network_snapshot_send_inflights_total`
    pub snapshots_being_sent: u64,
    /// `etcd_network_snapshot_send_total_duration_seconds`
    pub snapshot_send_time: Histogram,
    /// `etcd_network_snapshot_receive_success`
    pub snapshots_received: u64,
    /// `etcd_network_snapshot_receive_failures`
    pub snapshot_receive_failures: u64,
    /// `etcd_network_snapshot_receive_inflights_total`
    pub snapshots_being_received: u64,
    /// `etcd_network_snapshot_receive_total_duration_seconds`
    pub snapshot_receive_time: Histogram,
    /// Smoothed round-trip time of the probes, once one was answered.
    pub smoothed_round_trip: Option<Duration>,
    /// How far the peer's clock is ahead of ours, in nanoseconds, half the round trip taken off.
    pub clock_difference_ns: Option<i64>,
    /// Whether the last probe was answered.
    pub probe_is_healthy: bool,
}

/// How a peer stands now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) known: bool,
    pub(crate) active: bool,
    pub(crate) streams_open: usize,
}

/// Counters of one peer.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) disconnected: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_failures: Counter,
    pub(crate) received_failures: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshot_send_failures: Counter,
    pub(crate) snapshots_being_sent: Gauge,
    pub(crate) snapshots_received: Counter,
    pub(crate) snapshot_receive_failures: Counter,
    pub(crate) snapshots_being_received: Gauge,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    round_trip: Histogram,
    snapshot_send: Histogram,
    snapshot_receive: Histogram,
    smoothed_round_trip: Option<Duration>,
    clock_difference_ns: Option<i64>,
    probe_is_healthy: bool,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of something there are now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(counters: &Arc<Counters>, which: fn(&Counters) -> &Gauge) -> GaugeGuard {
        which(counters).0.fetch_add(1, Ordering::Relaxed);
        GaugeGuard(Arc::clone(counters), which)
    }
}

/// Counts down when dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Arc<Counters>, fn(&Counters) -> &Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        (self.1)(&self.0).0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    fn new() -> Self {
        Self {
            disconnected: Counter::default(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            sent_failures: Counter::default(),
            received_failures: Counter::default(),
            snapshots_sent: Counter::default(),
            snapshot_send_failures: Counter::default(),
            snapshots_being_sent: Gauge::default(),
            snapshots_received: Counter::default(),
            snapshot_receive_failures: Counter::default(),
            snapshots_being_received: Gauge::default(),
            times: Mutex::new(Times {
                round_trip: Histogram::new(ROUND_TRIP_BUCKETS),
                snapshot_send: Histogram::new(SNAPSHOT_BUCKETS),
                snapshot_receive: Histogram::new(SNAPSHOT_BUCKETS),
                smoothed_round_trip: None,
                clock_difference_ns: None,
                probe_is_healthy: false,
            }),
        }
    }

    pub(crate) fn snapshot_was_sent(&self, took: Duration) {
        self.snapshots_sent.add(1);
        self.times.lock().snapshot_send.observe(took);
    }

    pub(crate) fn snapshot_was_received(&self, took: Duration) {
        self.snapshots_received.add(1);
        self.times.lock().snapshot_receive.observe(took);
    }

    /// Takes a probe's round trip and clock difference; a probe that failed has none.
    ///
    /// Source: xiang90/probing status.go `record`: the smoothed time moves by an eighth.
    pub(crate) fn probe_ended(&self, result: Option<(Duration, i64)>) {
        let mut times = self.times.lock();
        times.probe_is_healthy = result.is_some();
        let Some((round_trip, clock_difference_ns)) = result else {
            return;
        };
        times.round_trip.observe(round_trip);
        let smoothed = times.smoothed_round_trip;
        times.smoothed_round_trip =
            Some(smoothed.map_or(round_trip, |old| (old * 7 + round_trip) / 8));
        times.clock_difference_ns = Some(clock_difference_ns);
    }

    pub(crate) fn read(&self, id: MemberId, standing: Standing) -> PeerMetrics {
        let times = self.times.lock();
        PeerMetrics {
            id,
            known: standing.known,
            active: standing.active,
            streams_open: standing.streams_open,
            disconnected: self.disconnected.value(),
            sent_bytes: self.sent_bytes.value(),
            received_bytes: self.received_bytes.value(),
            sent_failures: self.sent_failures.value(),
            received_failures: self.received_failures.value(),
            round_trip_time: times.round_trip.clone(),
            snapshots_sent: self.snapshots_sent.value(),
            snapshot_send_failures: self.snapshot_send_failures.value(),
            snapshots_being_sent: self.snapshots_being_sent.0.load(Ordering::Relaxed),
            snapshot_send_time: times.snapshot_send.clone(),
            snapshots_received: self.snapshots_received.value(),
            snapshot_receive_failures: self.snapshot_receive_failures.value(),
            snapshots_being_received: self.snapshots_being_received.0.load(Ordering::Relaxed),
            snapshot_receive_time: times.snapshot_receive.clone(),
            smoothed_round_trip: times.smoothed_round_trip,
            clock_difference_ns: times.clock_difference_ns,
            probe_is_healthy: times.probe_is_healthy,
        }
    }
}

/// The counters of all peers there ever were: a peer that comes back goes on counting.
#[derive(Debug)]
pub(crate) struct Registry {
    by_id: RwLock<BTreeMap<MemberId, Arc<Counters>>>,
    nobody: Arc<Counters>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            by_id: RwLock::new(BTreeMap::new()),
            nobody: Arc::new(Counters::new()),
        }
    }

    /// Returns a peer's counters, made if need be.
    pub(crate) fn of_peer(&self, id: MemberId) -> Arc<Counters> {
        let mut by_id = self.by_id.write();
        if by_id.len() >= NAMED_MAX && !by_id.contains_key(&id) {
            return Arc::clone(&self.nobody);
        }
        Arc::clone(by_id.entry(id).or_insert_with(|| Arc::new(Counters::new())))
    }

    /// Returns the counters of whoever claims to have sent something; strangers share one set.
    pub(crate) fn of_sender(&self, id: Option<MemberId>) -> Arc<Counters> {
        let known = id.and_then(|id| self.by_id.read().get(&id).cloned());
        known.unwrap_or_else(|| Arc::clone(&self.nobody))
    }

    /// Reads all, with what is said of how each stands now.
    pub(crate) fn read(&self, standing: impl Fn(MemberId) -> Standing) -> Vec<PeerMetrics> {
        let mut all: Vec<PeerMetrics> = Vec::new();
        for (id, counters) in &*self.by_id.read() {
            all.push(counters.read(*id, standing(*id)));
        }
        all.push(self.nobody.read(MemberId(0), Standing::default()));
        all
    }
}
