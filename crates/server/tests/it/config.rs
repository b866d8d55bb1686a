use std::process::{Command, Output};

fn quorate(args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Returns the lines of the log, each of which must be a JSON object of zap's shape.
fn log_lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let parse = |line: &str| {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for key in ["level", "ts", "caller", "msg"] {
            assert!(line[key].is_string(), "{line}");
        }
        line
    };
    text.lines().map(parse).collect()
}

#[test]
fn version_has_four_lines() {
    let output = quorate(&["--version"], &[("ETCD_NAME", "a")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(
        text.starts_with("etcd Version: 3.7.1\nGit SHA: ") && text.lines().count() == 4,
        "{text}"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_the_usage() {
    for (args, first) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["--name"], "flag needs an argument: -name"),
        (
            &["--v2-deprecation", "not-yet"],
            "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
        ),
    ] {
        let output = quorate(args, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), text.lines().next()),
            (Some(2), Some(first))
        );
        assert!(text.contains("\nUsage:\n"));
    }
}

#[test]
fn a_configuration_that_is_refused_ends_with_1_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data_flag = format!("--data-dir={}", data.display());
    for (args, variables, needle) in [
        (
            &["--heartbeat-interval=0"][..],
            &[][..],
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            &["--cert-file=a", "--key-file=b"],
            &[],
            "--cert-file is set to \"a\", which is not built yet",
        ),
        (
            &["--discovery-srv=example.org"],
            &[],
            "--discovery-srv is set to \"example.org\"",
        ),
        (
            &[
                "--listen-client-urls=https://127.0.0.1:0",
                "--advertise-client-urls=https://127.0.0.1:0",
            ],
            &[],
            "--listen-client-urls",
        ),
        (
            &["--initial-cluster-state=existing"],
            &[],
            "cannot fetch cluster info from peer urls",
        ),
        (
            &["--initial-cluster=a=http://localhost:1"],
            &[],
            "couldn't find local name \"default\"",
        ),
        (
            &["--name=a"],
            &[("ETCD_NAME", "b")],
            "conflicting environment variable is shadowed",
        ),
        (
            &[],
            &[("ETCD_MAX_WALS", "x")],
            "invalid value \"x\" for ETCD_MAX_WALS: parse error",
        ),
        (
            &[],
            &[("ETCD_CONFIG_FILE", "/does/not/exist.yml")],
            "open /does/not/exist.yml",
        ),
    ] {
        let args: Vec<&str> = [data_flag.as_str()]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let output = quorate(&args, variables);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let lines = log_lines(&output);
        let said = |line: &serde_json::Value| {
            line["error"]
                .as_str()
                .is_some_and(|error| error.contains(needle))
        };
        assert!(lines.iter().any(said), "{args:?}: {lines:?}");
        assert!(!data.exists(), "{args:?}");
    }
}
