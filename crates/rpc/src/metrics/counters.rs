//! The counters of one connection thread.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_core::{KeyWork, Request};

use super::histogram::{DEFAULT_BOUNDS, FINE_BOUNDS, MILLISECOND_BOUNDS, Times};
use super::report::{Measuring, Report};
use crate::clock::Clock;
use crate::metadata::ClientApiVersion;
use crate::method::Method;
use crate::status::Code;
use crate::thread::TICK_MS;

/// How many client API versions are counted apart; the rest are counted as `unknown`.
///
/// Differs from etcd: it keeps every text a client sends.
const API_VERSIONS_MAX: usize = 64;

/// A limit for slow calls from which on the coarse clock tells well enough, in milliseconds.
const COARSE_LIMIT_MS: u64 = 5 * TICK_MS;

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds without a locked instruction: there is one writer.
    pub(super) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counters of one gRPC method.
#[derive(Debug)]
struct PerMethod {
    started: Counter,
    handled: [Counter; Code::ALL.len()],
    received: Counter,
    sent: Counter,
    times: Times<11>,
}

impl PerMethod {
    fn new(_: &Method) -> Self {
        Self {
            started: Counter::default(),
            handled: Default::default(),
            received: Counter::default(),
            sent: Counter::default(),
            times: Times::new(&DEFAULT_BOUNDS),
        }
    }
}

/// A client API version and how many unary calls and streams named it.
type VersionCount = (Box<str>, [u64; 2]);

/// When a call began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallStart {
    coarse_ms: u64,
    /// Set when the call's time is wanted exactly.
    exact: Option<Instant>,
}

/// A kind of read that is answered from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Range,
    Txn,
}

impl Read {
    /// The number of the request's kind, behind those of replicated requests.
    fn kind(self) -> usize {
        match self {
            Self::Range => Request::OPS,
            Self::Txn => Request::OPS + 1,
        }
    }
}

/// How many kinds of requests are timed.
pub(super) const REQUEST_KINDS: usize = Request::OPS + 2;

/// Returns etcd's name of a kind of request.
///
/// Source: etcd v3.7.1 server/etcdserver/v3_server.go `Range`, `Txn`, `processInternalRaftRequestOnce`.
pub(super) fn request_kind_name(kind: usize) -> &'static str {
    if kind < Request::OPS {
        return Request::op_name(kind);
    }
    if kind == Read::Range.kind() {
        "Range"
    } else {
        "ReadonlyTxn"
    }
}

/// A stream whose failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamApi {
    Watch,
    LeaseKeepAlive,
}

/// Times of sending on watch streams. Source: etcd v3.7.1 server/etcdserver/api/v3rpc/metrics.go.
#[derive(Debug)]
pub(super) struct WatchSends {
    pub(super) control: Times<14>,
    pub(super) progress: Times<14>,
    pub(super) events: Times<14>,
    pub(super) per_event: Times<14>,
}

/// What was sent on a watch stream at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WatchSent {
    pub(crate) control: u64,
    pub(crate) progress: u64,
    pub(crate) responses: u64,
    pub(crate) events: u64,
}

/// What a thread's watch hub and runtime hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) streams: u64,
    pub(super) watchers: u64,
    pub(super) slow_watchers: u64,
    pub(super) pending_events: u64,
    pub(super) events_sent: u64,
    pub(super) tasks: u64,
}

/// What one connection thread has counted.
#[derive(Debug)]
pub struct ThreadMetrics {
    measuring: Arc<Measuring>,
    methods: Box<[PerMethod]>,
    received_bytes: Counter,
    sent_bytes: Counter,
    versions: Mutex<Vec<VersionCount>>,
    /// Times of requests by their kind, failures before successes.
    requests: Box<[[Times<14>; 2]]>,
    /// Times of ranges, failures before successes.
    pub(super) ranges: [Times<20>; 2],
    key_ranges: Counter,
    read_txns: Counter,
    slow_reads: Counter,
    /// Failures of watch streams and of lease streams; each to receive, to send.
    stream_failures: [[Counter; 2]; 2],
    pub(super) watch_sends: WatchSends,
    /// As [`Holdings`].
    holdings: [Counter; 6],
}

impl Default for ThreadMetrics {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl ThreadMetrics {
    pub(super) fn new(measuring: Arc<Measuring>) -> Self {
        let millis = || Times::new(&MILLISECOND_BOUNDS);
        Self {
            measuring,
            methods: Method::ALL.iter().map(PerMethod::new).collect(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            versions: Mutex::default(),
            requests: (0..REQUEST_KINDS).map(|_| [millis(), millis()]).collect(),
            ranges: [Times::new(&FINE_BOUNDS), Times::new(&FINE_BOUNDS)],
            key_ranges: Counter::default(),
            read_txns: Counter::default(),
            slow_reads: Counter::default(),
            stream_failures: Default::default(),
            watch_sends: WatchSends {
                control: millis(),
                progress: millis(),
                events: millis(),
                per_event: millis(),
            },
            holdings: Default::default(),
        }
    }

    pub(crate) fn started(&self, method: Method) {
        self.methods[method.index()].started.add(1);
    }

    pub(crate) fn handled(&self, method: Method, code: Code) {
        self.methods[method.index()].handled[usize::from(code.number())].add(1);
    }

    pub(crate) fn received(&self, method: Method, bytes: usize) {
        self.methods[method.index()].received.add(1);
        self.received_bytes.add(wide(bytes));
    }

    pub(crate) fn sent(&self, method: Method, messages: usize, bytes: usize) {
        self.methods[method.index()].sent.add(wide(messages));
        self.sent_bytes.add(wide(bytes));
    }

    /// Remembers when a call began: on the thread's coarse clock, which costs nothing, unless its time is kept or a limit
    /// is set that the coarse clock cannot tell.
    pub(crate) fn call_started(&self, coarse_ms: u64) -> CallStart {
        let measuring = &*self.measuring;
        let is_exact = measuring.times_calls
            || measuring.reports_calls
            || measuring.slow_call < Duration::from_millis(COARSE_LIMIT_MS);
        CallStart {
            coarse_ms,
            exact: is_exact.then(Instant::now),
        }
    }

    /// Counts the time of a call; gives it when it is to be reported.
    pub(crate) fn call_ended(
        &self,
        method: Method,
        start: CallStart,
        coarse_ms: u64,
        clock: Clock,
    ) -> Option<Duration> {
        let measuring = &*self.measuring;
        let took = match start.exact {
            Some(exact) => exact.elapsed(),
            None => {
                let roughly_ms = coarse_ms.saturating_sub(start.coarse_ms) + TICK_MS;
                if Duration::from_millis(roughly_ms) <= measuring.slow_call {
                    return None;
                }
                Duration::from_millis(clock.now_ms().saturating_sub(start.coarse_ms))
            }
        };
        if measuring.times_calls {
            self.methods[method.index()].times.observe(took);
        }
        (took > measuring.slow_call || measuring.reports_calls).then_some(took)
    }

    /// Hands over a report.
    pub(crate) fn report(&self, report: Report) {
        (self.measuring.reporter)(report);
    }

    /// Returns the limits for calls and for reads above which they are reported.
    pub(crate) fn limits(&self) -> (Duration, Duration) {
        (self.measuring.slow_call, self.measuring.slow_read)
    }

    /// Counts a replicated request and its time.
    pub(crate) fn replicated(&self, op: usize, is_ok: bool, took: Duration) {
        self.requests[op][usize::from(is_ok)].observe(took);
    }

    /// Counts a read from the store: the time of the whole call and the work. Says whether it was slow.
    pub(crate) fn read(&self, read: Read, is_ok: bool, took: Duration, work: KeyWork) -> bool {
        self.requests[read.kind()][usize::from(is_ok)].observe(took);
        self.key_ranges.add(work.ranges);
        self.read_txns.add(u64::from(work.is_txn()));
        let is_slow = took > self.measuring.slow_read;
        if is_slow {
            self.slow_reads.add(1);
        }
        is_slow
    }

    /// Counts the time that the store took for a range.
    pub(crate) fn range(&self, is_ok: bool, took: Duration) {
        self.ranges[usize::from(is_ok)].observe(took);
    }

    /// Counts a stream that failed for another reason than that its caller left.
    pub(crate) fn stream_failed(&self, api: StreamApi, is_send: bool) {
        let at = usize::from(api == StreamApi::LeaseKeepAlive);
        self.stream_failures[at][usize::from(is_send)].add(1);
    }

    /// Counts what was sent on a watch stream at one time; the time is shared out.
    pub(crate) fn watch_sent(&self, sent: WatchSent, took: Duration) {
        let sends = &self.watch_sends;
        let all = (sent.control + sent.progress + sent.responses).max(1);
        let share = |count: u64| took.mul_f64(super::text::wide(count) / super::text::wide(all));
        for (times, count) in [
            (&sends.control, sent.control),
            (&sends.progress, sent.progress),
            (&sends.events, sent.responses),
        ] {
            if count > 0 {
                times.observe_each(share(count), count);
            }
        }
        if sent.events > 0 {
            // One observation a response: the mean over its events, as etcd has it.
            let per_response = share(sent.responses)
                .mul_f64(super::text::wide(sent.responses) / super::text::wide(sent.events));
            sends.per_event.observe_each(per_response, sent.responses);
        }
    }

    /// Counts a call by its client's API version.
    pub(crate) fn client_request(&self, is_stream: bool, version: &ClientApiVersion) {
        let name = match version {
            ClientApiVersion::Known(name) => name,
            ClientApiVersion::Unknown | ClientApiVersion::Invalid => "unknown",
        };
        let mut versions = self.versions.lock();
        let known = versions.iter().position(|(v, _)| &**v == name);
        let at = known.unwrap_or_else(|| {
            let name = if versions.len() < API_VERSIONS_MAX {
                name
            } else {
                "unknown"
            };
            let again = versions.iter().position(|(v, _)| &**v == name);
            again.unwrap_or_else(|| {
                versions.push((name.into(), [0; 2]));
                versions.len() - 1
            })
        });
        versions[at].1[usize::from(is_stream)] += 1;
    }

    /// Shows what the thread's watch hub and runtime hold.
    pub(crate) fn show_holdings(&self, stats: quorate_mvcc::WatchStats, tasks: usize) {
        let values = [
            wide(stats.streams),
            wide(stats.watchers),
            wide(stats.slow_watchers),
            wide(stats.pending_events),
            stats.events_sent,
            wide(tasks),
        ];
        for (slot, value) in self.holdings.iter().zip(values) {
            slot.set(value);
        }
    }

    /// Returns what the thread's watch hub and runtime hold.
    pub(super) fn holdings(&self) -> Holdings {
        let [
            streams,
            watchers,
            slow_watchers,
            pending_events,
            events_sent,
            tasks,
        ] = std::array::from_fn(|at| self.holdings[at].get());
        Holdings {
            streams,
            watchers,
            slow_watchers,
            pending_events,
            events_sent,
            tasks,
        }
    }

    /// Returns how many calls of a method were started.
    pub fn started_total(&self, method: Method) -> u64 {
        self.methods[method.index()].started.get()
    }

    /// Returns how many calls of a method ended with a code.
    pub fn handled_total(&self, method: Method, code: Code) -> u64 {
        self.methods[method.index()].handled[usize::from(code.number())].get()
    }

    /// Returns how many messages of a method came in.
    pub fn received_total(&self, method: Method) -> u64 {
        self.methods[method.index()].received.get()
    }

    /// Returns how many messages of a method went out.
    pub fn sent_total(&self, method: Method) -> u64 {
        self.methods[method.index()].sent.get()
    }

    /// Returns the bytes of messages received and sent.
    pub fn bytes_total(&self) -> (u64, u64) {
        (self.received_bytes.get(), self.sent_bytes.get())
    }

    /// Returns the client API versions with their counts of unary calls and of streams.
    pub fn client_requests(&self) -> Vec<(Box<str>, [u64; 2])> {
        self.versions.lock().clone()
    }

    pub(super) fn times_of(&self, method: Method) -> &Times<11> {
        &self.methods[method.index()].times
    }

    pub(super) fn requests_of(&self, kind: usize, is_ok: bool) -> &Times<14> {
        &self.requests[kind][usize::from(is_ok)]
    }

    pub(super) fn stream_failures_of(&self, api: StreamApi, is_send: bool) -> u64 {
        let at = usize::from(api == StreamApi::LeaseKeepAlive);
        self.stream_failures[at][usize::from(is_send)].get()
    }

    /// Returns ranges of keys read, reads of more than one range, and slow reads.
    pub(super) fn reads_total(&self) -> [u64; 3] {
        [&self.key_ranges, &self.read_txns, &self.slow_reads].map(Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_beyond_the_limit_count_as_unknown() {
        let metrics = ThreadMetrics::default();
        for n in 0..1_000 {
            metrics.client_request(false, &ClientApiVersion::Known(format!("v{n}").into()));
        }
        let counts = metrics.client_requests();
        assert_eq!(counts.len(), API_VERSIONS_MAX + 1);
        assert_eq!(counts.iter().map(|(_, c)| c[0]).sum::<u64>(), 1_000);
        let unknown = counts.iter().find(|(v, _)| &**v == "unknown").unwrap();
        assert_eq!(unknown.1, [1_000 - wide(API_VERSIONS_MAX), 0]);
    }

    #[test]
    fn calls_within_the_limit_are_not_reported_and_read_no_clock() {
        let metrics = ThreadMetrics::default();
        let clock = Clock::start();
        let start = metrics.call_started(1_000);
        assert!(start.exact.is_none());
        assert_eq!(metrics.call_ended(Method::KvPut, start, 1_280, clock), None);
        assert_eq!(Times::sum([metrics.times_of(Method::KvPut)]).count, 0);
    }

    #[test]
    fn small_limits_are_told_exactly_and_times_are_kept_when_asked_for() {
        let metrics = ThreadMetrics::new(Arc::new(Measuring {
            times_calls: true,
            slow_call: Duration::from_nanos(1),
            ..Measuring::default()
        }));
        let start = metrics.call_started(1_000);
        std::hint::black_box(vec![0; 1_000]);
        let took = metrics.call_ended(Method::KvPut, start, 1_000, Clock::start());
        assert!(took.is_some_and(|took| took > Duration::from_nanos(1)));
        assert_eq!(Times::sum([metrics.times_of(Method::KvPut)]).count, 1);
    }

    #[test]
    fn the_time_of_a_send_is_shared_out() {
        let metrics = ThreadMetrics::default();
        let sent = WatchSent {
            control: 1,
            responses: 3,
            events: 6,
            ..WatchSent::default()
        };
        metrics.watch_sent(sent, Duration::from_millis(8));
        let sends = &metrics.watch_sends;
        let sum = |times: &Times<14>| Times::sum([times]).sum;
        assert!((sum(&sends.control) - 0.002).abs() < 1e-9);
        assert!((sum(&sends.events) - 0.006).abs() < 1e-9);
        assert!((sum(&sends.per_event) - 0.003).abs() < 1e-9);
        let count = |times: &Times<14>| Times::sum([times]).count;
        assert_eq!((count(&sends.events), count(&sends.progress)), (3, 0));
    }
}
