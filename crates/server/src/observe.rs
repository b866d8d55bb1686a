//! What operators and tools see of the server: the metrics' sources, lines about what is slow, the metrics listeners.
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::{Handles, Stopwatch};
use quorate_rpc::{
    Clock, Mailboxes, Measuring, MetricsDoor, Registry, Report, ServiceOptions, Services, Stop,
    Text,
};

use crate::config::{Config, GoDuration, Metrics as MetricsFlag};
use crate::log::{Level, Logger, Record};
use crate::metrics::{Metrics, ProcessSource, open_file_limit, stopwatch_ns};
use crate::version;

/// Makes the registry of everything that is measured, for so many threads of the front door.
pub(crate) fn registry(
    config: &Config,
    logger: &Logger,
    metrics: &Metrics,
    handles: &Handles,
    threads: usize,
) -> Registry {
    let sink = logger.clone();
    let measuring = Measuring {
        times_calls: config.metrics == MetricsFlag::Extensive,
        reports_calls: config.log.level == Level::Debug,
        slow_call: config.warning_unary_request_duration,
        slow_read: config.warning_apply_duration,
        reporter: Box::new(move |report| {
            if let Some(record) = line(report) {
                sink.write(&record);
            }
        }),
    };
    let mut registry = Registry::measuring(threads, measuring);
    let metrics = metrics.clone();
    registry.add_source(move |text| metrics.render(text));
    let version = version::ETCD_VERSION.to_owned();
    registry.add_source(quorate_rpc::member_source(handles.clone(), version));
    let process = ProcessSource::new();
    registry.add_source(move |text| process.render(text));
    let gates = config.feature_gates.clone();
    registry.add_source(move |text: &mut Text| {
        text.known("etcd_server_feature_enabled");
        for (name, stage, is_enabled) in gates.stages() {
            text.sample(&[("name", name), ("stage", stage)], u64::from(is_enabled));
        }
    });
    add_variables(&mut registry, handles.clone());
    registry
}

/// Adds what `/debug/vars` shows. Source: etcd v3.7.1 server/etcdserver/raft.go, metrics.go; Go's expvar.
fn add_variables(registry: &mut Registry, handles: Handles) {
    registry.add_variable("cmdline", || {
        let args: Vec<String> = std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        serde_json::Value::from(args).to_string()
    });
    registry.add_variable("file_descriptor_limit", || open_file_limit().to_string());
    // Nothing here collects garbage; the metrics say what memory there is.
    registry.add_variable("memstats", || "{}".to_owned());
    registry.add_variable("raft.status", move || {
        let view = &handles.view;
        let state = if view.leader() == view.member_id() {
            "StateLeader"
        } else {
            "StateFollower"
        };
        serde_json::json!({
            "id": view.member_id().to_string(),
            "term": view.term(),
            "commit": view.committed(),
            "lead": view.leader().to_string(),
            "raftState": state,
            "applied": view.applied(),
        })
        .to_string()
    });
}

/// Returns the clock that a member measures its own work with.
pub(crate) fn stopwatch(config: &Config) -> Stopwatch {
    let slow = config.warning_apply_duration.as_nanos();
    Stopwatch {
        now_ns: stopwatch_ns,
        slow_apply_ns: u64::try_from(slow).unwrap_or(u64::MAX),
    }
}

/// Returns the line of a report. Source: etcd v3.7.1 server/etcdserver/txn/util.go, v3rpc/interceptor.go.
fn line(report: Report) -> Option<Record> {
    Some(match report {
        Report::SlowCall {
            took,
            method,
            request_count,
            request_bytes,
            response_count,
            response_bytes,
            request,
            is_routine,
        } => {
            let level = if is_routine {
                Level::Debug
            } else {
                Level::Warn
            };
            Record::new(level, "request stats")
                .time("start time", started_micros(took))
                .text("time spent", GoDuration::from(took).to_string())
                .text("remote", "No remote client info.")
                .text("response type", method)
                .int("request count", request_count)
                .int("request size", request_bytes)
                .int("response count", response_count)
                .int("response size", response_bytes)
                .text("request content", request)
        }
        Report::SlowRead {
            took,
            expected,
            prefix,
            request,
            response,
            error,
        } => slow_apply(
            GoDuration::from(took),
            GoDuration::from(expected),
            prefix,
            request,
            response,
            error,
        ),
        _ => return None,
    })
}

/// Returns the line about a read or a request that took too long.
fn slow_apply(
    took: GoDuration,
    expected: GoDuration,
    prefix: &str,
    request: String,
    response: String,
    error: Option<String>,
) -> Record {
    let record = Record::new(Level::Warn, "apply request took too long")
        .text("took", took.to_string())
        .text("expected-duration", expected.to_string())
        .text("prefix", prefix)
        .text("request", request)
        .text("response", response);
    match error {
        Some(error) => record.text("error", error),
        None => record,
    }
}

/// Returns when something began that took so long until now, in microseconds since 1970.
fn started_micros(took: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let started = now.unwrap_or_default().saturating_sub(took);
    u64::try_from(started.as_micros()).unwrap_or(u64::MAX)
}

/// The open metrics listeners.
pub(crate) struct MetricsServer {
    stop: Stop,
    thread: JoinHandle<()>,
}

impl MetricsServer {
    /// Serves metrics and health on the listeners, by a thread that the engine knows under the number `thread`.
    ///
    /// # Errors
    ///
    /// When the sockets or the thread cannot be had.
    pub(crate) fn start(
        listeners: Vec<TcpListener>,
        thread: usize,
        handles: &Handles,
        mailboxes: &Mailboxes,
        registry: &Arc<Registry>,
        clock: Clock,
        options: ServiceOptions,
    ) -> std::io::Result<Option<Self>> {
        if listeners.is_empty() {
            return Ok(None);
        }
        for listener in &listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(address = %address, "serving metrics");
            }
        }
        let (door, stop) = MetricsDoor::new(listeners, clock)?;
        let (handles, mailboxes, registry) = (handles.clone(), mailboxes.clone(), registry.clone());
        let serve = move || {
            let services = || Services::new(thread, handles, mailboxes, registry, clock, options);
            if let Err(e) = door.run(services) {
                tracing::error!(error = %e, "the metrics listener ended");
            }
        };
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(serve)?;
        Ok(Some(Self { stop, thread }))
    }

    /// Closes the listeners and waits for the thread.
    pub(crate) fn close(self) {
        self.stop.stop();
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fields_for_test;

    fn text(record: &Record) -> String {
        let mut fields = fields_for_test();
        record.write_fields(&mut fields);
        format!("{{{}}}", fields.into_text())
    }

    #[test]
    fn slow_calls_and_slow_reads_make_etcds_lines() {
        let call = Report::SlowCall {
            took: Duration::from_millis(301),
            method: "/etcdserverpb.KV/Range",
            request_count: 0,
            request_bytes: 5,
            response_count: 2,
            response_bytes: 40,
            request: "key:\"k\"".to_owned(),
            is_routine: false,
        };
        let record = line(call).unwrap();
        assert_eq!(
            (record.level, &*record.message),
            (Level::Warn, "request stats")
        );
        let fields: serde_json::Value = serde_json::from_str(&text(&record)).unwrap();
        assert_eq!(fields["time spent"], "301ms");
        assert_eq!(fields["response type"], "/etcdserverpb.KV/Range");
        assert_eq!(fields["response count"], 2);
        assert!(fields["start time"].as_str().unwrap().ends_with('Z'));

        let read = Report::SlowRead {
            took: Duration::from_millis(150),
            expected: Duration::from_millis(100),
            prefix: "read-only range ",
            request: "key:\"k\"".to_owned(),
            response: "range_response_count:2 size:40".to_owned(),
            error: None,
        };
        assert_eq!(
            text(&line(read).unwrap()),
            r#"{"took":"150ms","expected-duration":"100ms","prefix":"read-only range ","request":"key:\"k\"","response":"range_response_count:2 size:40"}"#
        );
    }
}
