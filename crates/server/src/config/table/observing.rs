//! Flags of logs, metrics, profiles and traces.

use super::{Effect, Flag, Kind, flag};
use crate::config::effect;

#[rustfmt::skip]
pub(super) const MONITORING: &[Flag] = &[
    flag("enable-pprof", Kind::Bool, "false",
        Effect::Accepted("the profiles that etcd serves are those of the Go runtime, which is not in here"),
        "Serves profiles of the Go runtime under /debug/pprof."),
    flag("metrics", Kind::Text, "basic", Effect::Built,
        "basic, or extensive for times of calls too."),
    flag("listen-metrics-urls", Kind::Urls, "", Effect::BuiltFor(effect::urls_are_http, "http URLs"),
        "Where else to listen for metrics and health."),
];

#[rustfmt::skip]
pub(super) const LOGGING: &[Flag] = &[
    flag("logger", Kind::Text, "zap", Effect::Built,
        "zap: lines of etcd's shape."),
    flag("log-outputs", Kind::Set, "default", Effect::BuiltFor(effect::outputs_are_files, "default, stderr, stdout and files"),
        "Where to log: default (the standard error), stderr, stdout, files."),
    flag("log-level", Kind::Text, "info", Effect::Built,
        "Least level logged: debug, info, warn, error, panic or fatal."),
    flag("log-format", Kind::Text, "json", Effect::Built,
        "json or console."),
    flag("enable-log-rotation", Kind::Bool, "false", Effect::Built,
        "Starts a new log file from time to time; needs exactly one file in --log-outputs."),
    flag("log-rotation-config-json", Kind::Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        Effect::Built,
        "When to start a new log file and how many to keep."),
    flag("warning-unary-request-duration", Kind::Duration, "300ms", Effect::Built,
        "Time above which a call is logged as slow (0: 300ms)."),
];

const NO_TRACING: &str = "it concerns --enable-distributed-tracing alone, which is not built yet";

#[rustfmt::skip]
pub(super) const TRACING: &[Flag] = &[
    flag("enable-distributed-tracing", Kind::Bool, "false", Effect::NotBuilt,
        "Sends traces of requests to a collector."),
    flag("distributed-tracing-address", Kind::Text, "localhost:4317", Effect::Accepted(NO_TRACING),
        "Address of the collector."),
    flag("distributed-tracing-service-name", Kind::Text, "etcd", Effect::Accepted(NO_TRACING),
        "Service name in traces, the same for all members."),
    flag("distributed-tracing-instance-id", Kind::Text, "", Effect::Accepted(NO_TRACING),
        "Instance in traces, different for all members."),
    flag("distributed-tracing-sampling-rate", Kind::Int, "0", Effect::Accepted(NO_TRACING),
        "Requests traced of a million."),
];
