//! The counters of one connection thread.
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::metadata::ClientApiVersion;
use crate::method::Method;
use crate::status::Code;

/// How many client API versions are counted apart; the rest are counted as `unknown`.
///
/// Differs from etcd: it keeps every text a client sends.
const API_VERSIONS_MAX: usize = 64;

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// Adds without a locked instruction: there is one writer.
    fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one gRPC method.
#[derive(Debug, Default)]
struct PerMethod {
    started: Counter,
    handled: [Counter; Code::ALL.len()],
    received: Counter,
    sent: Counter,
}

/// A client API version and how many unary calls and streams named it.
type VersionCount = (Box<str>, [u64; 2]);

/// What one connection thread has counted.
#[derive(Debug)]
pub struct ThreadMetrics {
    methods: Box<[PerMethod]>,
    received_bytes: Counter,
    sent_bytes: Counter,
    versions: Mutex<Vec<VersionCount>>,
    /// Streams, watchers, slow watchers and pending events of the thread's watch hub.
    watch: [AtomicU64; 4],
}

impl Default for ThreadMetrics {
    fn default() -> Self {
        Self {
            methods: Method::ALL.iter().map(|_| PerMethod::default()).collect(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            versions: Mutex::default(),
            watch: Default::default(),
        }
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl ThreadMetrics {
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

    /// Shows what the thread's watch hub holds.
    pub(crate) fn show_watch(&self, stats: quorate_mvcc::WatchStats) {
        let values = [
            stats.streams,
            stats.watchers,
            stats.slow_watchers,
            stats.pending_events,
        ];
        for (slot, value) in self.watch.iter().zip(values) {
            slot.store(wide(value), Ordering::Relaxed);
        }
    }

    /// Returns streams, watchers, slow watchers and pending events of the thread's watch hub.
    pub(crate) fn watch(&self) -> [u64; 4] {
        std::array::from_fn(|at| self.watch[at].load(Ordering::Relaxed))
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
}
