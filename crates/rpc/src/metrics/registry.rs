//! All that a scrape shows.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::checks::{Check, HealthCounters};
use super::{MetricKind, Text, ThreadMetrics};
use crate::method::Method;
use crate::status::Code;

/// Writes its metrics into a scrape.
type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

/// The metrics of the process: those of the connection threads, and those of whoever adds a source.
#[derive(Default)]
pub struct Registry {
    threads: Vec<Arc<ThreadMetrics>>,
    sources: Vec<Source>,
    scrapes: AtomicU64,
    health: HealthCounters,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("threads", &self.threads.len())
            .field("sources", &self.sources.len())
            .finish()
    }
}

impl Registry {
    /// Makes a registry for so many connection threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| Arc::default()).collect(),
            ..Self::default()
        }
    }

    /// Adds metrics that are kept elsewhere; they are written in the order of their addition.
    pub fn add_source(&mut self, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.sources.push(Box::new(source));
    }

    /// Returns a thread's counters.
    ///
    /// # Panics
    ///
    /// When there is no such thread.
    pub fn thread(&self, index: usize) -> Arc<ThreadMetrics> {
        self.threads[index].clone()
    }

    /// Writes everything as text and counts the scrape.
    pub fn scrape(&self) -> String {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed);
        let mut text = Text::default();
        self.write_grpc(&mut text);
        self.write_network(&mut text);
        self.write_watch(&mut text);
        self.health.write(&mut text);
        for source in &self.sources {
            source(&mut text);
        }
        text.metric(
            "promhttp_metric_handler_requests_in_flight",
            MetricKind::Gauge,
            "Current number of scrapes being served.",
        )
        .sample(&[], 1);
        text.metric(
            "promhttp_metric_handler_requests_total",
            MetricKind::Counter,
            "Total number of scrapes by HTTP status code.",
        )
        .sample(&[("code", "200")], scrapes)
        .sample(&[("code", "500")], 0)
        .sample(&[("code", "503")], 0);
        text.finish()
    }

    /// Counts a request of `/health`.
    pub(crate) fn count_health(&self, is_ok: bool) {
        self.health.health(is_ok);
    }

    /// Counts the run of a check.
    pub(crate) fn count_check(&self, check: Check, is_ok: bool) {
        self.health.check(check, is_ok);
    }

    fn sum(&self, of: impl Fn(&ThreadMetrics) -> u64) -> u64 {
        self.threads.iter().map(|thread| of(thread)).sum()
    }

    fn write_grpc(&self, text: &mut Text) {
        fn labels(method: Method) -> [(&'static str, &'static str); 3] {
            [
                ("grpc_method", method.name()),
                ("grpc_service", method.service()),
                ("grpc_type", method.kind().label()),
            ]
        }
        let help =
            "Total number of RPCs completed on the server, regardless of success or failure.";
        text.metric("grpc_server_handled_total", MetricKind::Counter, help);
        for method in Method::ALL {
            for code in Code::ALL {
                let [name, service, kind] = labels(*method);
                let value = self.sum(|t| t.handled_total(*method, code));
                text.sample(&[("grpc_code", code.name()), name, service, kind], value);
            }
        }
        let help = "Total number of RPC stream messages received on the server.";
        text.metric("grpc_server_msg_received_total", MetricKind::Counter, help);
        for method in Method::ALL {
            text.sample(&labels(*method), self.sum(|t| t.received_total(*method)));
        }
        let help = "Total number of gRPC stream messages sent by the server.";
        text.metric("grpc_server_msg_sent_total", MetricKind::Counter, help);
        for method in Method::ALL {
            text.sample(&labels(*method), self.sum(|t| t.sent_total(*method)));
        }
        text.metric(
            "grpc_server_started_total",
            MetricKind::Counter,
            "Total number of RPCs started on the server.",
        );
        for method in Method::ALL {
            text.sample(&labels(*method), self.sum(|t| t.started_total(*method)));
        }
    }

    fn write_watch(&self, text: &mut Text) {
        let [streams, watchers, slow, pending] =
            self.threads
                .iter()
                .map(|t| t.watch())
                .fold([0; 4], |mut sum, thread| {
                    for (sum, value) in sum.iter_mut().zip(thread) {
                        *sum += value;
                    }
                    sum
                });
        let help = "Total number of pending events to be sent.";
        text.simple(
            "etcd_debugging_mvcc_pending_events_total",
            MetricKind::Gauge,
            help,
            pending,
        );
        let help = "Total number of unsynced slow watchers.";
        text.simple(
            "etcd_debugging_mvcc_slow_watcher_total",
            MetricKind::Gauge,
            help,
            slow,
        );
        let help = "Total number of watch streams.";
        text.simple(
            "etcd_debugging_mvcc_watch_stream_total",
            MetricKind::Gauge,
            help,
            streams,
        );
        text.simple(
            "etcd_debugging_mvcc_watcher_total",
            MetricKind::Gauge,
            "Total number of watchers.",
            watchers,
        );
    }

    fn write_network(&self, text: &mut Text) {
        let help = "The total number of bytes received from grpc clients.";
        let received = self.sum(|t| t.bytes_total().0);
        text.simple(
            "etcd_network_client_grpc_received_bytes_total",
            MetricKind::Counter,
            help,
            received,
        );
        let help = "The total number of bytes sent to grpc clients.";
        let sent = self.sum(|t| t.bytes_total().1);
        text.simple(
            "etcd_network_client_grpc_sent_bytes_total",
            MetricKind::Counter,
            help,
            sent,
        );
        let mut versions: std::collections::BTreeMap<Box<str>, [u64; 2]> =
            std::collections::BTreeMap::new();
        for (version, [unary, stream]) in self.threads.iter().flat_map(|t| t.client_requests()) {
            let counts = versions.entry(version).or_default();
            counts[0] += unary;
            counts[1] += stream;
        }
        let help = "The total number of client requests per client version.";
        text.metric(
            "etcd_server_client_requests_total",
            MetricKind::Counter,
            help,
        );
        for (version, [unary, stream]) in &versions {
            for (kind, count) in [("stream", stream), ("unary", unary)] {
                if *count > 0 {
                    text.sample(&[("client_api_version", version), ("type", kind)], *count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::ClientApiVersion;

    #[test]
    fn threads_are_summed_and_every_method_is_there_from_the_start() {
        let registry = Registry::new(2);
        for thread in 0..2 {
            registry.thread(thread).started(Method::KvPut);
            registry.thread(thread).handled(Method::KvPut, Code::Ok);
            registry
                .thread(thread)
                .client_request(true, &ClientApiVersion::Known("3.7".into()));
        }
        let text = registry.scrape();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has(
            "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2",
        );
        has(
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2",
        );
        has(
            "grpc_server_handled_total{grpc_code=\"DataLoss\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
        );
        has("etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"stream\"} 2");
    }
}
