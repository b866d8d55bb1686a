//! The rules between flags. Source: etcd v3.7.1 server/embed/config.go `Validate`; the first failing rule wins.

use super::error::Error;
use super::feature_gates::Gate;
use super::flag_set::FlagSet;
use super::go::GoDuration;
use super::url::{self, Url};
use crate::log::{Level, Record};

/// Largest election timeout in milliseconds.
const ELECTION_MS_MAX: u64 = 50_000;

/// The error of listeners for clients that nobody is told of.
pub(crate) const UNSET_ADVERTISE_CLIENT_URLS: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// Checks the rules that hold for any build.
///
/// # Errors
///
/// The first broken rule, in etcd's words.
pub(crate) fn check(
    flags: &FlagSet,
    from_file: bool,
    notices: &mut Vec<Record>,
) -> Result<(), Error> {
    check_urls(flags)?;
    check_bootstrap(flags)?;
    check_times(flags)?;
    // A file that gives listeners alone keeps the default of what is advertised.
    if !from_file
        && flags.is_given("listen-client-urls")
        && !flags.is_given("advertise-client-urls")
    {
        return invalid(UNSET_ADVERTISE_CLIENT_URLS);
    }
    match flags.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return invalid("undefined auto-compaction-mode"),
        other => return invalid(format!("unknown auto-compaction-mode {other:?}")),
    }
    let rate = flags.int("distributed-tracing-sampling-rate");
    if flags.switch("enable-distributed-tracing") && !(0..=1_000_000).contains(&rate) {
        let wanted = if rate < 0 {
            "positive"
        } else {
            "less than 1000000"
        };
        return invalid(format!(
            "distributed tracing configurition is not valid: (tracing sampling rate must be {wanted})"
        ));
    }
    check_gates(flags, notices)?;
    let period = flags.nanos("compact-hash-check-time");
    if period <= 0 {
        let period = GoDuration::from_nanos(period);
        return invalid(format!(
            "--compact-hash-check-time must be >0 (set to {period})"
        ));
    }
    if flags.urls("listen-client-http-urls").is_empty() {
        notices.push(Record::new(
            Level::Warn,
            "Running http and grpc server on single port. This is not recommended for production.",
        ));
    }
    if flags.is_default("name") {
        notices.push(
            Record::new(
                Level::Warn,
                "it isn't recommended to use default name, please set a value for --name. Note that etcd might run \
                 into issue when multiple members have the same default name",
            )
            .text("name", flags.text("name")),
        );
    }
    check_tls(flags)
}

fn invalid(message: impl Into<String>) -> Result<(), Error> {
    Err(Error::Invalid(message.into()))
}

fn check_urls(flags: &FlagSet) -> Result<(), Error> {
    for name in [
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "listen-metrics-urls",
    ] {
        for url in flags.urls(name) {
            url.check_bindable().map_err(Error::Invalid)?;
        }
    }
    let advertised = |name, wanted| {
        let urls: &[Url] = flags.urls(name);
        urls.iter()
            .try_for_each(Url::check_advertisable)
            .map_err(|error| {
                Error::Invalid(format!(
                    "--{name} {:?} must be {wanted} ({error})",
                    url::join(urls)
                ))
            })
    };
    advertised("initial-advertise-peer-urls", "\"host:port\"")?;
    advertised(
        "advertise-client-urls",
        "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
    )
}

fn check_bootstrap(flags: &FlagSet) -> Result<(), Error> {
    let state = flags.text("initial-cluster-state");
    if !matches!(state, "new" | "existing") {
        return invalid(format!("unexpected clusterState {state:?}"));
    }
    let endpoints = flags.list("discovery-endpoints");
    let ways = [
        !flags.text("initial-cluster").is_empty(),
        !flags.text("discovery-srv").is_empty(),
        !endpoints.is_empty(),
    ];
    if ways.into_iter().filter(|&way| way).count() > 1 {
        return invalid(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        );
    }
    if flags.text("discovery-token").is_empty() != endpoints.is_empty() {
        return invalid("both --discovery-token and --discovery-endpoints must be set");
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return invalid("--discovery-endpoints must not contain empty endpoints");
    }
    Ok(())
}

fn check_times(flags: &FlagSet) -> Result<(), Error> {
    let (heartbeat, election) = (
        flags.uint("heartbeat-interval"),
        flags.uint("election-timeout"),
    );
    if heartbeat == 0 {
        return invalid(format!(
            "--heartbeat-interval must be >0 (set to {heartbeat}ms)"
        ));
    }
    if election == 0 {
        return invalid(format!(
            "--election-timeout must be >0 (set to {election}ms)"
        ));
    }
    if heartbeat.saturating_mul(5) > election {
        return invalid(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_MS_MAX {
        return invalid(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        ));
    }
    Ok(())
}

fn check_gates(flags: &FlagSet, notices: &mut Vec<Record>) -> Result<(), Error> {
    let gates = flags.gates();
    if gates.is_enabled(Gate::LeaseCheckpoint) && !gates.is_enabled(Gate::LeaseCheckpointPersist) {
        notices.push(Record::new(
            Level::Warn,
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate \
             LeaseCheckpointPersist",
        ));
    }
    gates.check().map_err(Error::Invalid)
}

fn check_tls(flags: &FlagSet) -> Result<(), Error> {
    let version = |name: &str| match flags.text(name) {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(12)),
        "TLS1.3" => Ok(Some(13)),
        other => Err(Error::Invalid(format!(
            "unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"
        ))),
    };
    let (min, max) = (version("tls-min-version")?, version("tls-max-version")?);
    if max.is_some_and(|max| min.is_some_and(|min| min > max)) {
        return invalid(format!(
            "min version ({}) is greater than max version ({})",
            flags.text("tls-min-version"),
            flags.text("tls-max-version")
        ));
    }
    if min == Some(13) && !flags.list("cipher-suites").is_empty() {
        return invalid("cipher suites cannot be configured when only TLS1.3 is enabled");
    }
    Ok(())
}
