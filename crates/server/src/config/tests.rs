use proptest::prelude::*;
use proptest::sample::select;

use super::flag::{Flag, Kind, Value, Yaml};
use super::flag_set::{FlagSet, Parsed, variable_name};
use super::*;
use crate::log::{Format, Level, Output, Record};

/// Names, types and defaults of all flags.
const GOLDEN: &str = include_str!("tests/flags.txt");
/// The sample file that etcd 3.7.1 comes with, without its comments.
const SAMPLE: &str = include_str!("tests/sample.yml");

fn args(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn load_with(args: &[&str], variables: &[(&str, &str)]) -> Loaded {
    let args = ["quorate"].iter().chain(args).map(|arg| (*arg).into());
    load(
        args,
        variables.iter().map(|(k, v)| ((*k).into(), (*v).into())),
    )
}

fn config(args: &[&str]) -> (Config, Vec<Record>) {
    match load_with(args, &[]) {
        Loaded::Start { config, notices } => (*config, notices),
        Loaded::Exit(exit) => panic!("{args:?}: {exit:?}"),
    }
}

fn exit(args: &[&str], variables: &[(&str, &str)]) -> Exit {
    match load_with(args, variables) {
        Loaded::Start { .. } => panic!("{args:?} {variables:?} starts"),
        Loaded::Exit(exit) => exit,
    }
}

/// Returns all that an exit says, on whatever way.
fn words(exit: &Exit) -> String {
    format!("{}{:?}", exit.stderr, exit.notices)
}

fn with_file<T>(text: &str, then: impl FnOnce(&str) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yml");
    std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes()).unwrap();
    then(&format!("--config-file={}", path.display()))
}

#[test]
fn every_flag_of_etcd_is_known_with_its_type_and_default() {
    let rows: Vec<Vec<&str>> = GOLDEN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.splitn(3, ' ').collect())
        .collect();
    for row in &rows {
        let flag = table::find(row[0]).unwrap_or_else(|| panic!("{} is missing", row[0]));
        let fits = match row[1] {
            "str" => matches!(flag.kind, Kind::Text | Kind::Gates),
            "bool" => flag.kind == Kind::Bool,
            "int" | "int64" => flag.kind == Kind::Int,
            "uint" | "uint64" => flag.kind == Kind::Uint,
            "uint32" => flag.kind == Kind::Uint32,
            "dur" => flag.kind == Kind::Duration,
            "urls" => matches!(flag.kind, Kind::Urls | Kind::Origins),
            "strs" => matches!(flag.kind, Kind::List | Kind::Set),
            "enum" => matches!(flag.kind, Kind::OneOf(_) | Kind::ManyOf(_)),
            other => panic!("type {other}"),
        };
        assert!(fits, "{row:?} is {:?}", flag.kind);
        let default = flag.kind.parse(row.get(2).unwrap_or(&""), None).unwrap();
        assert_eq!(FlagSet::new().value(flag.name), &default, "{}", flag.name);
    }
    let known = table::SECTIONS
        .iter()
        .map(|section| section.flags.len())
        .sum::<usize>();
    assert_eq!(known, rows.len(), "and no other");
}

#[test]
fn names_are_unique_and_every_flag_is_in_the_help() {
    let mut names: Vec<&str> = table::all().map(|flag| flag.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    let help = help::flags();
    for flag in table::SECTIONS.iter().flat_map(|section| section.flags) {
        assert!(
            help.contains(&format!("\n  --{} '{}'\n    ", flag.name, flag.default)),
            "{}",
            flag.name
        );
        assert!(
            flag.help.ends_with('.') && flag.help.len() > 10,
            "{}",
            flag.name
        );
    }
}

#[test]
fn the_command_line_follows_gos_grammar() {
    for (text, name, expected) in [
        ("-name a", "name", "a"),
        ("--name a", "name", "a"),
        ("-name=a", "name", "a"),
        ("--name=a=b", "name", "a=b"),
        ("--name=", "name", ""),
        ("--name --pre-vote", "name", "--pre-vote"),
        ("--name a --name b", "name", "b"),
        ("--pre-vote=false", "pre-vote", "false"),
        ("--pre-vote=F --pre-vote", "pre-vote", "true"),
        ("--force-new-cluster", "force-new-cluster", "true"),
        ("--snapshot-count 0x10", "snapshot-count", "16"),
        ("--backend-batch-limit -5", "backend-batch-limit", "-5"),
        (
            "--grpc-keepalive-interval 1m0s",
            "grpc-keepalive-interval",
            "1m0s",
        ),
        ("--v --vv=3 -force --name x", "name", "x"),
        (
            "--listen-client-urls=http://b:1,http://a:1",
            "listen-client-urls",
            "http://a:1,http://b:1",
        ),
        (
            "--listen-client-urls=",
            "listen-client-urls",
            "http://localhost:2379",
        ),
        ("--cipher-suites b,a", "cipher-suites", "b,a"),
        ("--log-outputs b,a,b", "log-outputs", "a,b"),
        (
            "--feature-gates LeaseCheckpoint=1 --feature-gates AllBeta=0",
            "feature-gates",
            "AllBeta=false,FastLeaseKeepAlive=false,LeaseCheckpoint=true,TxnModeWriteWithSharedBuffer=false",
        ),
        ("--name a --", "name", "a"),
    ] {
        let mut flags = FlagSet::new();
        assert_eq!(flags.parse_args(&args(text)), Ok(Parsed::Flags), "{text}");
        assert_eq!(flags.value(name).to_string(), expected, "{text}");
    }
}

/// A command line and the first line of the answer.
#[rustfmt::skip]
const WRONG_USAGE: &[(&str, &str)] = &[
    ("--nope", "flag provided but not defined: -nope"),
    ("--discovery=x", "flag provided but not defined: -discovery"),
    ("--experimental-enable-lease-checkpoint", "flag provided but not defined: -experimental-enable-lease-checkpoint"),
    ("--max-wals=x", "invalid value \"x\" for flag -max-wals: parse error"),
    ("--heartbeat-interval=-3", "invalid value \"-3\" for flag -heartbeat-interval: parse error"),
    ("--backend-batch-limit=99999999999999999999", "invalid value \"99999999999999999999\" for flag -backend-batch-limit: value out of range"),
    ("--max-concurrent-streams=99999999999", "invalid value \"99999999999\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"99999999999\": value out of range"),
    ("--backend-batch-interval=3", "invalid value \"3\" for flag -backend-batch-interval: parse error"),
    ("--pre-vote=maybe", "invalid boolean value \"maybe\" for -pre-vote: parse error"),
    ("--name", "flag needs an argument: -name"),
    ("---x", "bad flag syntax: ---x"),
    ("--=x", "bad flag syntax: --=x"),
    ("-=x", "bad flag syntax: -=x"),
    ("--initial-cluster-state=foo", "invalid value \"foo\" for flag -initial-cluster-state: invalid value"),
    ("--v2-deprecation=not-yet", "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\""),
    ("--feature-gates=a", "invalid value \"a\" for flag -feature-gates: missing bool value for a"),
    ("--feature-gates=X=true", "invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X"),
    ("--listen-client-urls=http://foo", "invalid value \"http://foo\" for flag -listen-client-urls: URL address does not have the form \"host:port\": http://foo"),
    ("--cors=x", "invalid value \"x\" for flag -cors: URL scheme must be http, https, unix, or unixs: x"),
];

#[test]
fn wrong_usage_is_refused_in_the_words_of_go() {
    for &(text, message) in WRONG_USAGE {
        let args = args(text);
        let exit = exit(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert_eq!(
            (exit.code, exit.stderr.lines().next()),
            (2, Some(message)),
            "{text}"
        );
        assert!(
            exit.stderr.contains("Usage:") && exit.stdout.is_empty() && exit.notices.is_empty()
        );
    }
}

#[test]
fn help_and_version_print_and_end_well() {
    for flag in ["-h", "--help", "-help", "--h"] {
        let exit = exit(&[flag, "--nope"], &[]);
        assert_eq!(exit.code, 0);
        assert!(
            exit.stdout.contains("--snapshot-catchup-entries") && exit.stderr.starts_with("Usage:")
        );
    }
    let exit = exit(&["--version"], &[("ETCD_NAME", "x")]);
    let lines: Vec<&str> = exit.stdout.lines().collect();
    assert_eq!(
        (exit.code, lines.len(), lines[0]),
        (0, 4, "etcd Version: 3.7.1")
    );
    for (line, start) in lines.iter().zip([
        "etcd Version: ",
        "Git SHA: ",
        "Go Version: ",
        "Go OS/Arch: ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
}

/// A command line and what the answer holds.
#[rustfmt::skip]
const BROKEN_RULES: &[(&str, &str)] = &[
    ("x", "\"x\" is not a valid flag"),
    ("--name a -- b", "\"b\" is not a valid flag"),
    ("gateway start", "\"gateway\" is not built yet"),
    ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
    ("--logger=x", "unknown logger option \"x\""),
    ("--log-outputs=default,a", "multi logoutput for \"default\" is not supported yet"),
    ("--log-level=foo", "unrecognized level: \"foo\""),
    ("--log-format=x", "unknown log format: x, supported values json, console"),
    ("--enable-log-rotation", "--log-outputs requires a single file path"),
    ("--enable-log-rotation --log-outputs=a --log-rotation-config-json={", "improperly formatted log rotation config"),
    ("--enable-log-rotation --log-outputs=a --log-rotation-config-json={\"maxsize\":\"a\"}", "invalid log rotation config"),
    ("--enable-log-rotation --log-outputs=a --log-rotation-config-json={\"compress\":true}", "\"compress\" set, which is not built yet"),
    ("--discovery-fallback=proxy", "v2 proxy is deprecated"),
    ("--listen-peer-urls=http://a.b:1", "expected IP in URL for binding (http://a.b:1)"),
    ("--listen-metrics-urls=http://a.b:1", "expected IP in URL for binding (http://a.b:1)"),
    ("--advertise-client-urls=http://:22", "--advertise-client-urls \"http://:22\" must be in the format \"host:port\""),
    ("--initial-advertise-peer-urls=http://:22", "must be \"host:port\" (unexpected empty host (http://:22))"),
    ("--discovery-srv=a --initial-cluster=a=http://b:1", "multiple discovery or bootstrap flags are set"),
    ("--discovery-token=a", "both --discovery-token and --discovery-endpoints must be set"),
    ("--discovery-token=a --discovery-endpoints=b,", "must not contain empty endpoints"),
    ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
    ("--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"),
    ("--election-timeout=1", "--election-timeout[1ms] should be at least as 5 times as --heartbeat-interval[100ms]"),
    ("--heartbeat-interval=18446744073709551615", "should be at least as 5 times"),
    ("--election-timeout=50001", "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
    ("--listen-client-urls=http://127.0.0.1:1", "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
    ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
    ("--auto-compaction-mode=x", "unknown auto-compaction-mode \"x\""),
    ("--auto-compaction-retention=x", "error parsing CompactionRetention"),
    ("--feature-gates=LeaseCheckpointPersist=true", "requires enabling feature gate LeaseCheckpoint"),
    ("--compact-hash-check-time=0", "--compact-hash-check-time must be >0 (set to 0s)"),
    ("--tls-min-version=TLS1.1", "unexpected TLS version \"TLS1.1\""),
    ("--tls-min-version=TLS1.3 --tls-max-version=TLS1.2", "min version (TLS1.3) is greater than max version (TLS1.2)"),
    ("--tls-min-version=TLS1.3 --cipher-suites=a", "cipher suites cannot be configured when only TLS1.3 is enabled"),
    ("--auth-token=foo", "auth: invalid auth options"),
    ("--auth-token=simple,a", "auth: invalid auth options"),
    ("--enable-distributed-tracing --distributed-tracing-sampling-rate=-1", "tracing sampling rate must be positive"),
    ("--config-file=/does/not/exist", "open /does/not/exist: "),
];

#[test]
fn broken_rules_are_refused_in_etcds_words() {
    for &(text, needle) in BROKEN_RULES {
        let args = args(text);
        let exit = exit(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert_eq!(exit.code, 1, "{text}");
        let is_told = |notice: &Record| {
            (notice.message(), notice.level()) == ("failed to verify flags", Level::Warn)
        };
        assert!(exit.notices.iter().any(is_told), "{text}: {}", words(&exit));
        assert!(
            words(&exit).replace("\\\"", "\"").contains(needle),
            "{text}: {}",
            words(&exit)
        );
    }
}

#[test]
fn a_flag_that_is_not_built_is_refused_by_name() {
    let value_of = |flag: &Flag| match flag.kind {
        Kind::Bool => (flag.default == "false").to_string(),
        Kind::Uint | Kind::Int => "7".to_owned(),
        Kind::Duration => "7s".to_owned(),
        Kind::Urls => "https://127.0.0.1:7".to_owned(),
        Kind::Gates => "PriorityRequest=true".to_owned(),
        Kind::Origins => "http://a:1".to_owned(),
        _ if flag.name == "auth-token" => "jwt,pub-key=a,sign-method=RS256".to_owned(),
        _ if flag.name == "log-outputs" => "systemd/journal".to_owned(),
        _ => "x".to_owned(),
    };
    let mut refused = 0;
    for flag in table::SECTIONS.iter().flat_map(|section| section.flags) {
        let mut flags = FlagSet::new();
        let text = value_of(flag);
        flags
            .parse_args(&[format!("--{}={text}", flag.name)])
            .unwrap_or(Parsed::Flags);
        let checked = effect::check(&flags, &mut Vec::new());
        if matches!(
            flag.effect,
            flag::Effect::NotBuilt | flag::Effect::BuiltFor(..)
        ) {
            let message = checked.unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("--{} is set to ", flag.name)),
                "{message}"
            );
            assert!(message.contains("not built yet"), "{message}");
            refused += 1;
        } else {
            assert_eq!(checked, Ok(()), "{}", flag.name);
        }
    }
    assert!(refused > 40);
    let exit = exit(&["--cert-file=x"], &[]);
    assert!(
        exit.code == 1 && words(&exit).contains("--cert-file is set to"),
        "{}",
        words(&exit)
    );
}

#[test]
fn a_flag_without_an_effect_says_so() {
    let (config, notices) = config(&["--enable-pprof", "--downgrade-check-time=7s"]);
    let said = |name: &str| {
        let message = format!("--{name} has no effect");
        let mut notices = notices.iter();
        notices.any(|n| n.level() == Level::Warn && n.message() == message)
    };
    assert!(said("enable-pprof") && !said("downgrade-check-time"));
    assert_eq!(
        config.downgrade_check_time,
        std::time::Duration::from_secs(7)
    );
}

#[test]
fn variables_set_what_flags_leave_unset() {
    let Loaded::Start { config, notices } = load_with(
        &["--name=a"],
        &[
            ("ETCD_SNAPSHOT_COUNT", "0x20"),
            ("ETCD_PRE_VOTE", "f"),
            ("ETCD_WAL_DIR", ""),
            ("ETCD_FOO", "1"),
            ("ETCD_VERSION", "3"),
            ("ETCD_UNSUPPORTED_ARCH", "x"),
            ("HOME", "/x"),
            ("ETCDCTL_API", "3"),
        ],
    ) else {
        panic!("it starts")
    };
    assert_eq!(
        (config.snapshot_count, config.pre_vote, config.wal_dir),
        (32, false, None)
    );
    let said: Vec<&str> = notices.iter().map(Record::message).collect();
    assert_eq!(
        said.iter()
            .filter(|m| **m == "recognized and used environment variable")
            .count(),
        2
    );
    assert_eq!(
        said.iter()
            .filter(|m| **m == "unrecognized environment variable")
            .count(),
        3
    );
    assert!(said.contains(&"cannot set special environment variable"));
}

#[test]
fn variables_that_contradict_or_do_not_parse_are_fatal() {
    for (given, variables, needle) in [
        (
            &["--name=a"][..],
            &[("ETCD_NAME", "a")][..],
            "conflicting environment variable is shadowed by corresponding command-line flag",
        ),
        (
            &["--name=a"],
            &[("ETCD_NAME", "")],
            "conflicting environment variable",
        ),
        (
            &[],
            &[("ETCD_MAX_WALS", "x")],
            "invalid value \"x\" for ETCD_MAX_WALS: parse error",
        ),
        (
            &[],
            &[("ETCD_PRE_VOTE", "x")],
            "invalid value \"x\" for ETCD_PRE_VOTE: parse error",
        ),
        (
            &[],
            &[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")],
            "--advertise-client-urls is required",
        ),
        (&[], &[("ETCD_CERT_FILE", "x")], "--cert-file is set to"),
        (
            &[],
            &[("ETCD_CONFIG_FILE", "/does/not/exist")],
            "open /does/not/exist",
        ),
    ] {
        let exit = exit(given, variables);
        assert_eq!(exit.code, 1);
        assert!(
            words(&exit).replace("\\\"", "\"").contains(needle),
            "{variables:?}: {}",
            words(&exit)
        );
    }
}

#[test]
fn a_file_hides_flags_and_variables() {
    let text = "name: f\nlisten-client-urls: http://127.0.0.1:7\nmax-snapshots: 5\nv2-deprecation: whatever\n";
    with_file(text, |flag| {
        let Loaded::Start { config, notices } =
            load_with(&["--name=a", flag], &[("ETCD_NAME", "b")])
        else {
            panic!("it starts")
        };
        assert_eq!(config.name, "f");
        assert_eq!(
            config.advertise_client_urls[0].as_str(),
            "http://localhost:2379"
        );
        assert_eq!(config.initial_cluster, "f=http://localhost:2380");
        let said: Vec<&str> = notices.iter().map(Record::message).collect();
        assert!(said[0].starts_with("loaded server configuration"));
        assert!(said.iter().any(|m| {
            m.starts_with("--max-snapshots is deprecated in 3.6 and will be decommissioned")
        }));
        assert!(said.iter().any(|m| {
            m.starts_with("--v2-deprecation is deprecated and scheduled for removal in v3.8")
        }));
        assert_eq!(
            exit(&[flag, "--nope"], &[]).code,
            2,
            "flags are parsed all the same"
        );
    });
    for (text, needle) in [
        ("heartbeat-interval: 0", "--heartbeat-interval must be >0"),
        ("initial-cluster-state: foo", "unexpected clusterState"),
        (
            "client-transport-security: {auto-tls: true}",
            "--auto-tls is set to",
        ),
        (
            "client-transport-security: {Cert-File: a}",
            "--cert-file is set to",
        ),
        (
            "discovery-config: {token: a}",
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            "discovery-config: {token: a, client: {endpoints: [b]}}",
            "--discovery-token is set to",
        ),
        (
            "socket-options: {reuse-port: true}",
            "--socket-reuse-port is set to",
        ),
    ] {
        let exit = with_file(text, |flag| exit(&[flag], &[]));
        assert_eq!(exit.code, 1);
        assert!(words(&exit).contains(needle), "{text}: {}", words(&exit));
    }
}

#[test]
fn a_file_leaves_the_timeouts_of_links_to_the_command_line() {
    with_file("raft-read-timeout: 9s", |flag| {
        let given = ["--raft-read-timeout=2s", "--raft-write-timeout=3s", flag];
        let variables = [("ETCD_RAFT_READ_TIMEOUT", "8s")];
        let read = |args: &[&str]| match load_with(args, &variables) {
            Loaded::Start { config, .. } => {
                let links = config.links;
                (links.read_timeout.as_secs(), links.write_timeout.as_secs())
            }
            Loaded::Exit(exit) => panic!("{exit:?}"),
        };
        assert_eq!(read(&given), (2, 3));
        assert_eq!(read(&[flag]), (5, 5));
    });
}

#[test]
fn the_sample_file_of_etcd_starts_a_member() {
    with_file(SAMPLE, |flag| {
        let (config, _) = config(&[flag]);
        assert_eq!(config.data_dir.to_str(), Some("default.etcd"));
        assert!(!config.strict_reconfig_check);
        assert_eq!(config.log.level, Level::Debug);
        assert_eq!(
            config.auto_compaction,
            AutoCompaction::Periodic(std::time::Duration::from_secs(3600))
        );
    });
}

#[test]
fn zero_means_the_default_where_etcd_says_so() {
    let (config, _) = config(&[
        "--backend-batch-limit=0",
        "--watch-progress-notify-interval=1ms",
        "--warning-unary-request-duration=0",
        "--max-snapshots=0",
        "--grpc-keepalive-timeout=0",
        "--bcrypt-cost=99",
        "--compaction-sleep-interval=-1s",
        "--auth-token=",
    ]);
    assert_eq!(config.backend_batch_limit, 10_000);
    assert_eq!(config.backend_batch_interval.as_millis(), 100);
    assert_eq!(
        (
            config.compaction_batch_limit,
            config.compaction_sleep_interval.as_millis()
        ),
        (1000, 0)
    );
    assert_eq!(config.watch_progress_notify_interval.as_millis(), 100);
    assert_eq!(config.warning_unary_request_duration.as_millis(), 300);
    assert_eq!((config.max_snapshots, config.max_wals), (None, Some(5)));
    assert_eq!((config.grpc_keepalive, config.bcrypt_cost), (None, 10));
    assert_eq!(config.auth_token, AuthToken::Disabled);
}

#[test]
fn outputs_and_levels_are_read() {
    let (config, _) = config(&[
        "--log-outputs=stdout,b.log,stderr",
        "--log-level=WARN",
        "--log-format=console",
    ]);
    assert_eq!(
        config.log.outputs,
        [Output::Stderr, Output::Stdout, Output::File("b.log".into())]
    );
    assert_eq!(
        (config.log.level, config.log.format),
        (Level::Warn, Format::Console)
    );
    let (nowhere, _) = self::config(&["--log-outputs=/dev/null,a"]);
    assert!(nowhere.log.outputs.is_empty());
}

#[test]
fn a_listener_on_any_address_advertises_the_machine() {
    let (config, notices) = config(&["--listen-peer-urls=http://0.0.0.0:4", "--name=n"]);
    let url = config.initial_advertise_peer_urls[0].as_str();
    // A machine without a route keeps the default.
    if notices
        .iter()
        .any(|notice| notice.message() == "detected default host for advertise")
    {
        assert!(
            url.ends_with(":4") && !url.contains("localhost") && !url.contains("0.0.0.0"),
            "{url}"
        );
    } else {
        assert_eq!(url, "http://localhost:2380");
    }
    assert_eq!(config.initial_cluster, format!("n={url}"));
}

#[test]
fn the_initial_cluster_is_checked() {
    let bootstrap = |args: &[&str]| {
        config(args)
            .0
            .bootstrap()
            .map_err(|error| error.to_string())
    };
    let alone = bootstrap(&["--initial-cluster-token=t"]).unwrap();
    assert_eq!(
        (alone.members["default"][0].as_str(), alone.token.as_str()),
        ("http://localhost:2380", "t")
    );
    assert!(!alone.joins && alone.members.len() == 1);
    let three = "--initial-cluster=default=http://localhost:2380,b=http://b:1,c=http://c:1";
    assert_eq!(bootstrap(&[three]).unwrap().members.len(), 3);
    // One that joins has told the cluster its URLs before: they are not compared again.
    let joins = bootstrap(&[
        "--initial-cluster=default=http://h:1,b=http://b:1",
        "--initial-cluster-state=existing",
    ]);
    assert!(joins.unwrap().joins);
    assert!(bootstrap(&["--name=n"]).is_ok());
    let peer = "--initial-advertise-peer-urls=http://127.0.0.1:2,http://127.0.0.1:1";
    assert!(
        bootstrap(&[
            peer,
            "--initial-cluster=default=http://127.0.0.1:1,default=http://127.0.0.1:2"
        ])
        .is_ok()
    );
    for (args, needle) in [
        (
            &["--initial-cluster=a=http://127.0.0.1:2380"][..],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (&["--initial-cluster="], "couldn't find local name"),
        (
            &["--initial-cluster=default=http://127.0.0.1:2381"],
            "--initial-cluster has default=http://127.0.0.1:2381 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: ",
        ),
        (
            &[peer, "--initial-cluster=default=http://127.0.0.1:1"],
            "--initial-advertise-peer-urls has http://127.0.0.1:2 but missing from --initial-cluster=default=http://127.0.0.1:1",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "has duplicate url",
        ),
        (
            &["--initial-cluster=default"],
            "error setting up initial cluster: URL scheme",
        ),
    ] {
        let error = bootstrap(args).unwrap_err();
        assert!(error.contains(needle), "{args:?}: {error}");
    }
}

#[test]
fn the_start_line_shows_what_tools_look_for() {
    let (config, notices) = config(&["--snapshot-catchup-entries=1000", "--v2-deprecation=gone"]);
    let mut fields = crate::log::fields_for_test();
    config.start_line(false).write_fields(&mut fields);
    let text = fields.into_text();
    for needle in [
        "\"snapshot-catchup-entries\":1000,",
        "\"v2-deprecation\":\"write-only\"",
        "\"etcd-version\":\"3.7.1\"",
    ] {
        assert!(text.contains(needle), "{text}");
    }
    assert!(notices.iter().any(|notice| notice.message() == "Running: "));
}

/// Makes a flag and a text that is of its kind.
fn any_setting() -> impl Strategy<Value = (&'static Flag, String)> {
    let flags: Vec<&'static Flag> = table::SECTIONS
        .iter()
        .flat_map(|section| section.flags)
        .collect();
    select(flags).prop_flat_map(|flag| (Just(flag), any_text(flag.kind)))
}

fn any_text(kind: Kind) -> BoxedStrategy<String> {
    let url = (
        select(vec!["http", "https", "unix"]),
        "[a-z0-9.]{1,8}",
        any::<u16>(),
    )
        .prop_map(|(scheme, host, port)| format!("{scheme}://{host}:{port}"));
    match kind {
        Kind::Text => "[ -~é]{0,12}".boxed(),
        Kind::Bool => select(vec!["true", "false", "1", "0", "T", "F"])
            .prop_map(str::to_owned)
            .boxed(),
        Kind::Int => any::<i64>().prop_map(|n| n.to_string()).boxed(),
        Kind::Uint => any::<u64>().prop_map(|n| format!("{n:#x}")).boxed(),
        Kind::Uint32 => any::<u32>().prop_map(|n| n.to_string()).boxed(),
        Kind::Duration => any::<i64>()
            .prop_map(|n| GoDuration::from_nanos(n).to_string())
            .boxed(),
        Kind::Urls | Kind::Origins => proptest::collection::vec(url, 1..4)
            .prop_map(|urls| urls.join(","))
            .boxed(),
        Kind::List | Kind::Set => proptest::collection::vec("[a-z*/.]{1,6}", 1..4)
            .prop_map(|l| l.join(","))
            .boxed(),
        Kind::OneOf(words) | Kind::ManyOf(words) => {
            select(words.to_vec()).prop_map(str::to_owned).boxed()
        }
        Kind::Gates => proptest::collection::vec(
            (
                select(vec!["AllAlpha", "AllBeta", "LeaseCheckpoint"]),
                any::<bool>(),
            ),
            1..3,
        )
        .prop_map(|gates| {
            gates
                .iter()
                .map(|(name, state)| format!("{name}={state}"))
                .collect::<Vec<_>>()
                .join(",")
        })
        .boxed(),
        Kind::Legacy => Just(String::new()).boxed(),
    }
}

/// Prints a value as the file holds it.
fn yaml_of(flag: &Flag, value: &Value) -> Option<serde_json::Value> {
    let json = match value {
        Value::Bool(state) => (*state).into(),
        Value::Int(number) | Value::Duration(number) => (*number).into(),
        Value::Uint(number) => (*number).into(),
        Value::List(list)
            if flag.kind != Kind::Origins && !matches!(flag.yaml, Yaml::CommaString) =>
        {
            list.clone().into()
        }
        other => other.to_string().into(),
    };
    let path: Vec<&str> = match flag.yaml {
        Yaml::Absent => return None,
        Yaml::At(path) => path.split('.').collect(),
        _ => vec![flag.name],
    };
    Some(
        path.iter()
            .rev()
            .fold(json, |inner, key| serde_json::json!({ *key: inner })),
    )
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_same_flags(settings in proptest::collection::vec(any_setting(), 0..12)) {
        let mut first = FlagSet::new();
        let given: Vec<String> = settings.iter().map(|(flag, text)| format!("--{}={text}", flag.name)).collect();
        prop_assert_eq!(first.parse_args(&given), Ok(Parsed::Flags));
        let names: Vec<&'static str> = table::all().map(|flag| flag.name).filter(|name| first.is_given(name)).collect();
        let printed: Vec<String> = names.iter().map(|name| format!("-{name}={}", first.value(name))).collect();
        let mut second = FlagSet::new();
        prop_assert_eq!(second.parse_args(&printed), Ok(Parsed::Flags));
        prop_assert_eq!(&second, &first);

        let variables: Vec<(String, String)> = names
            .iter()
            .map(|name| (variable_name(name), first.value(name).to_string()))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let mut third = FlagSet::new();
        prop_assert_eq!(third.read_environment(&variables, &mut Vec::new()), Ok(()));
        for name in names.iter().filter(|name| !first.value(name).to_string().is_empty()) {
            prop_assert_eq!(third.value(name), first.value(name));
        }
    }

    #[test]
    fn a_file_says_the_same_as_a_flag((flag, text) in any_setting()) {
        let mut first = FlagSet::new();
        prop_assert_eq!(first.parse_args(&[format!("--{}={text}", flag.name)]), Ok(Parsed::Flags));
        let value = first.value(flag.name);
        let has_rules = ["v2-deprecation", "self-signed-cert-validity", "initial-cluster"].contains(&flag.name);
        if let Some(document) = yaml_of(flag, value).filter(|_| !has_rules) {
            let mut second = FlagSet::new();
            prop_assert_eq!(yaml::read(&document.to_string(), &mut second), Ok(()));
            prop_assert_eq!(second.value(flag.name), value);
        }
    }

    #[test]
    fn no_input_panics(words in proptest::collection::vec("[-=a-z0-9:/,.é]{0,20}", 0..6), file in "[-: \\[\\]{}a-z0-9\n&*!|>'\"é]{0,80}") {
        let mut flags = FlagSet::new();
        let _ = flags.parse_args(&words);
        let _ = yaml::read(&file, &mut FlagSet::new());
    }
}
