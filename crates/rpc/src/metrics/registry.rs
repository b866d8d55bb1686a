//! All that a scrape shows.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::checks::{Check, HealthCounters};
use super::counters::{Holdings, REQUEST_KINDS, StreamApi, request_kind_name};
use super::histogram::Times;
use super::maintenance::Maintenance;
use super::report::Measuring;
use super::{Text, ThreadMetrics, standing};
use crate::method::Method;
use crate::status::Code;

/// Writes its metrics into a scrape.
type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

/// Returns a value as JSON.
type Variable = Box<dyn Fn() -> String + Send + Sync>;

/// The metrics of the process: those of the connection threads, and those of whoever adds a source.
#[derive(Default)]
pub struct Registry {
    measuring: Arc<Measuring>,
    threads: Vec<Arc<ThreadMetrics>>,
    sources: Vec<Source>,
    variables: Vec<(&'static str, Variable)>,
    scrapes: AtomicU64,
    health: HealthCounters,
    maintenance: Maintenance,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("measuring", &self.measuring)
            .field("threads", &self.threads.len())
            .field("sources", &self.sources.len())
            .finish_non_exhaustive()
    }
}

fn labels(method: Method) -> [(&'static str, &'static str); 3] {
    [
        ("grpc_method", method.name()),
        ("grpc_service", method.service()),
        ("grpc_type", method.kind().label()),
    ]
}

/// Methods that are counted: etcd does not count those of reflection, which it has not.
fn methods() -> impl Iterator<Item = Method> {
    let is_counted = |method: &Method| !method.service().starts_with("grpc.reflection");
    Method::ALL.iter().copied().filter(is_counted)
}

impl Registry {
    /// Makes a registry for so many connection threads.
    pub fn new(threads: usize) -> Self {
        Self::measuring(threads, Measuring::default())
    }

    /// Makes a registry for so many connection threads, which measure and report as told.
    pub fn measuring(threads: usize, measuring: Measuring) -> Self {
        let measuring = Arc::new(measuring);
        let thread = |_| Arc::new(ThreadMetrics::new(measuring.clone()));
        Self {
            threads: (0..threads).map(thread).collect(),
            measuring,
            ..Self::default()
        }
    }

    /// Adds metrics that are kept elsewhere.
    pub fn add_source(&mut self, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.sources.push(Box::new(source));
    }

    /// Adds a variable to `/debug/vars`; `value` gives it as JSON.
    pub fn add_variable(
        &mut self,
        name: &'static str,
        value: impl Fn() -> String + Send + Sync + 'static,
    ) {
        self.variables.push((name, Box::new(value)));
        self.variables.sort_by_key(|(name, _)| *name);
    }

    /// Writes the variables as a JSON object, as Go's expvar does.
    pub(crate) fn variables(&self) -> String {
        let lines: Vec<String> = self
            .variables
            .iter()
            .map(|(name, value)| format!("\"{name}\": {}", value()))
            .collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }

    /// Returns a thread's counters.
    ///
    /// # Panics
    ///
    /// When there is no such thread.
    pub fn thread(&self, index: usize) -> Arc<ThreadMetrics> {
        self.threads[index].clone()
    }

    /// Returns how many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Returns where maintenance of the store is measured.
    pub fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    /// Writes everything as text and counts the scrape.
    pub fn scrape(&self) -> String {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed);
        let mut text = Text::default();
        self.write_grpc(&mut text);
        self.write_network(&mut text);
        self.write_requests(&mut text);
        self.write_watch(&mut text);
        self.health.write(&mut text);
        self.maintenance.write(&mut text);
        for source in &self.sources {
            source(&mut text);
        }
        standing::write(&mut text);
        text.known("promhttp_metric_handler_requests_in_flight")
            .sample(&[], 1);
        text.known("promhttp_metric_handler_requests_total")
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

    /// Sums a histogram of all threads.
    fn times<'a, const N: usize>(
        &'a self,
        of: impl Fn(&'a ThreadMetrics) -> &'a Times<N>,
    ) -> super::HistogramSnapshot {
        Times::sum(self.threads.iter().map(|thread| of(thread)))
    }

    fn write_grpc(&self, text: &mut Text) {
        text.known("grpc_server_handled_total");
        for method in methods() {
            for code in Code::ALL {
                let [name, service, kind] = labels(method);
                let value = self.sum(|t| t.handled_total(method, code));
                text.sample(&[("grpc_code", code.name()), name, service, kind], value);
            }
        }
        text.known("grpc_server_msg_received_total");
        for method in methods() {
            text.sample(&labels(method), self.sum(|t| t.received_total(method)));
        }
        text.known("grpc_server_msg_sent_total");
        for method in methods() {
            text.sample(&labels(method), self.sum(|t| t.sent_total(method)));
        }
        text.known("grpc_server_started_total");
        for method in methods() {
            text.sample(&labels(method), self.sum(|t| t.started_total(method)));
        }
        if self.measuring.times_calls {
            text.known("grpc_server_handling_seconds");
            for method in methods() {
                text.histogram(&labels(method), &self.times(|t| t.times_of(method)));
            }
        }
    }

    /// Writes the times of requests; kinds that never came are left out, as in etcd.
    fn write_requests(&self, text: &mut Text) {
        text.known("etcd_server_request_duration_seconds");
        for kind in 0..REQUEST_KINDS {
            for is_ok in [false, true] {
                let times = self.times(|t| t.requests_of(kind, is_ok));
                if times.count > 0 {
                    let success = if is_ok { "true" } else { "false" };
                    let labels = [("success", success), ("type", request_kind_name(kind))];
                    text.histogram(&labels, &times);
                }
            }
        }
        text.known("etcd_server_range_duration_seconds");
        for (at, success) in ["false", "true"].iter().enumerate() {
            let times = self.times(|t| &t.ranges[at]);
            if times.count > 0 {
                text.histogram(&[("success", success)], &times);
            }
        }
        let [ranges, txns, slow] = [0, 1, 2].map(|at| self.sum(|t| t.reads_total()[at]));
        text.add("etcd_mvcc_range_total", ranges);
        text.add("etcd_mvcc_txn_total", txns);
        text.add("etcd_server_slow_apply_total", slow);
        text.known("etcd_network_server_stream_failures_total");
        for (api, name) in [
            (StreamApi::LeaseKeepAlive, "lease-keepalive"),
            (StreamApi::Watch, "watch"),
        ] {
            for (is_send, kind) in [(false, "receive"), (true, "send")] {
                let failures = self.sum(|t| t.stream_failures_of(api, is_send));
                if failures > 0 {
                    text.sample(&[("API", name), ("Type", kind)], failures);
                }
            }
        }
    }

    fn write_watch(&self, text: &mut Text) {
        let mut sum = Holdings::default();
        for thread in &self.threads {
            let one = thread.holdings();
            sum.streams += one.streams;
            sum.watchers += one.watchers;
            sum.slow_watchers += one.slow_watchers;
            sum.pending_events += one.pending_events;
            sum.events_sent += one.events_sent;
            sum.tasks += one.tasks;
        }
        for (name, value) in [
            (
                "etcd_debugging_mvcc_pending_events_total",
                sum.pending_events,
            ),
            ("etcd_debugging_mvcc_slow_watcher_total", sum.slow_watchers),
            ("etcd_debugging_mvcc_watch_stream_total", sum.streams),
            ("etcd_debugging_mvcc_watcher_total", sum.watchers),
            ("etcd_debugging_mvcc_events_total", sum.events_sent),
        ] {
            text.known(name).sample(&[], value);
        }
        // The nearest thing to goroutines: tasks, and the threads that whoever knows of them adds.
        text.add("go_goroutines", sum.tasks);
        let prefix = "etcd_debugging_server_watch_send_loop";
        for (name, times) in [
            ("control_stream", self.times(|t| &t.watch_sends.control)),
            ("progress", self.times(|t| &t.watch_sends.progress)),
            ("watch_stream", self.times(|t| &t.watch_sends.events)),
        ] {
            text.known(&format!("{prefix}_{name}_duration_seconds"))
                .histogram(&[], &times);
        }
        text.known(&format!("{prefix}_watch_stream_duration_per_event_seconds"))
            .histogram(&[], &self.times(|t| &t.watch_sends.per_event));
    }

    fn write_network(&self, text: &mut Text) {
        let received = self.sum(|t| t.bytes_total().0);
        text.known("etcd_network_client_grpc_received_bytes_total")
            .sample(&[], received);
        let sent = self.sum(|t| t.bytes_total().1);
        text.known("etcd_network_client_grpc_sent_bytes_total")
            .sample(&[], sent);
        let mut versions: BTreeMap<Box<str>, [u64; 2]> = BTreeMap::new();
        for (version, [unary, stream]) in self.threads.iter().flat_map(|t| t.client_requests()) {
            let counts = versions.entry(version).or_default();
            counts[0] += unary;
            counts[1] += stream;
        }
        text.known("etcd_server_client_requests_total");
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
    use std::time::Duration;

    use quorate_core::KeyWork;

    use super::super::counters::Read;
    use super::*;
    use crate::metadata::ClientApiVersion;

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }

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
        for line in [
            "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2",
            "grpc_server_handled_total{grpc_code=\"DataLoss\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"stream\"} 2",
        ] {
            has(&text, line);
        }
        assert!(!text.contains("grpc_server_handling_seconds"));
        assert!(!text.contains("grpc.reflection"));
    }

    #[test]
    fn times_of_calls_are_shown_when_they_are_kept() {
        let registry = Registry::measuring(
            1,
            Measuring {
                times_calls: true,
                ..Measuring::default()
            },
        );
        has(
            &registry.scrape(),
            "grpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
        );
    }

    #[test]
    fn variables_are_one_json_object() {
        let mut registry = Registry::new(1);
        registry.add_variable("file_descriptor_limit", || "7".to_owned());
        registry.add_variable("cmdline", || "[\"a\"]".to_owned());
        assert_eq!(
            registry.variables(),
            "{\n\"cmdline\": [\"a\"],\n\"file_descriptor_limit\": 7\n}\n"
        );
    }

    #[test]
    fn reads_and_requests_are_shown_by_kind() {
        let registry = Registry::new(2);
        let work = KeyWork {
            ranges: 2,
            ..KeyWork::default()
        };
        for thread in 0..2 {
            let thread = registry.thread(thread);
            thread.range(true, Duration::from_micros(50));
            assert!(!thread.read(Read::Range, true, Duration::from_micros(50), work));
        }
        assert!(
            registry
                .thread(1)
                .read(Read::Txn, false, Duration::from_secs(1), work)
        );
        registry
            .thread(0)
            .replicated(0, true, Duration::from_millis(3));
        registry.thread(0).stream_failed(StreamApi::Watch, true);
        let text = registry.scrape();
        for line in [
            "etcd_mvcc_range_total 6",
            "etcd_mvcc_txn_total 3",
            "etcd_server_slow_apply_total 1",
            "etcd_server_range_duration_seconds_bucket{success=\"true\",le=\"0.0001\"} 2",
            "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Range\"} 2",
            "etcd_server_request_duration_seconds_count{success=\"false\",type=\"ReadonlyTxn\"} 1",
            "etcd_server_request_duration_seconds_bucket{success=\"true\",type=\"Put\",le=\"0.004\"} 1",
            "etcd_network_server_stream_failures_total{API=\"watch\",Type=\"send\"} 1",
        ] {
            has(&text, line);
        }
        assert!(
            !text.contains("type=\"Txn\""),
            "what never came is left out"
        );
    }
}
