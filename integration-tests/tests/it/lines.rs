//! What the server writes for operators, and how it ends.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};
use std::{fs, thread};

use quorate_integration_tests::{Binary, Client, Site};
use quorate_proto::etcdserverpb::{
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use serde_json::Value;

/// How long a line may take from its cause to the file.
const SETTLE: Duration = Duration::from_secs(30);
/// The signal that asks for an end.
const TERMINATED: i32 = 15;

/// Returns the first line with a message, as soon as it is there.
fn line(site: &Site, message: &str) -> Value {
    let deadline = Instant::now() + SETTLE;
    loop {
        let log = site.log();
        let found = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["msg"] == message);
        match found {
            Some(line) => return line,
            None if Instant::now() > deadline => panic!("no line {message:?} in\n{log}"),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

async fn put_and_get(client: &Client) {
    let put = PutRequest {
        key: "a".into(),
        value: "secret".into(),
        ..PutRequest::default()
    };
    let _: PutResponse = client.call("KV/Put", put).await.unwrap();
    let range = RangeRequest {
        key: "a".into(),
        ..RangeRequest::default()
    };
    let _: RangeResponse = client.call("KV/Range", range).await.unwrap();
}

#[tokio::test]
async fn slow_and_failed_requests_are_told_of_and_values_are_not() {
    let limits = [
        "--warning-unary-request-duration=1ns",
        "--warning-apply-duration=1ns",
    ];
    let site = Site::new(&Binary::quorate().unwrap())
        .unwrap()
        .with_args(&limits);
    let _server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    put_and_get(&client).await;
    let revoke = LeaseRevokeRequest { id: 9 };
    let refused: Result<LeaseRevokeResponse, _> = client.call("Lease/LeaseRevoke", revoke).await;
    assert!(refused.is_err());
    let stats = line(&site, "request stats");
    assert_eq!(stats["level"], "warn");
    assert_eq!(stats["response type"], "/etcdserverpb.KV/Put");
    assert_eq!(stats["request content"], "key:\"a\" value_size:6");
    let slow = line(&site, "apply request took too long");
    assert_eq!(slow["expected-duration"], "1ns");
    for key in ["took", "prefix", "request", "response"] {
        assert!(slow[key].is_string(), "{slow}");
    }
    let deadline = Instant::now() + SETTLE;
    while !site.log().contains("read-only range ") || !site.log().contains("lease not found") {
        assert!(Instant::now() < deadline, "{}", site.log());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!site.log().contains("secret"));
}

#[tokio::test]
async fn sigterm_ends_the_process_by_the_signal_and_loose_permissions_are_warned_about() {
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    fs::create_dir(site.data_dir()).unwrap();
    fs::set_permissions(site.data_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    put_and_get(&client).await;
    let status = server.terminate().unwrap();
    assert_eq!(status.signal(), Some(TERMINATED), "{status}");
    assert_eq!(
        line(&site, "Initialize and start etcd server")["dir-type"],
        "empty"
    );
    let warning = line(&site, "check file permission");
    assert!(
        warning["error"].as_str().unwrap().contains("drwxr-xr-x"),
        "{warning}"
    );
    assert_eq!(
        line(&site, "received signal; shutting down")["signal"],
        "terminated"
    );
    assert_eq!(line(&site, "closed etcd server")["name"], "default");
    let _again = site.start().unwrap();
    assert_eq!(
        line(&site, "server has already been initialized")["dir-type"],
        "member"
    );
}

#[tokio::test]
async fn metrics_listeners_serve_metrics_and_health_alone() {
    let port = quorate_integration_tests::free_port();
    let url = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
    let site = Site::new(&Binary::quorate().unwrap())
        .unwrap()
        .with_args(&[&url]);
    let _server = site.start().unwrap();
    let endpoint = format!("127.0.0.1:{port}");
    let metrics = crate::metrics::get(&endpoint, "/metrics");
    assert!(
        metrics.contains("\netcd_server_has_leader 1\n"),
        "{metrics}"
    );
    assert!(crate::metrics::get(&endpoint, "/health").contains("\"health\":\"true\""));
    assert!(crate::metrics::get(&endpoint, "/version").contains(" 404 "));
}

#[test]
fn logs_are_put_aside_when_they_have_grown_and_bad_outputs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("etcd.log");
    fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let output = format!("--log-outputs=stderr,{}", file.display());
    let args = [
        "--enable-log-rotation",
        "--log-rotation-config-json={\"maxsize\":1}",
        &output,
    ];
    let site = Site::new(&Binary::quorate().unwrap())
        .unwrap()
        .with_args(&args);
    let mut server = site.start().unwrap();
    server.terminate().unwrap();
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "one is put aside"
    );
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("ready to serve client requests")
    );

    let missing = ["--log-outputs=/does/not/exist/etcd.log"];
    let site = Site::new(&Binary::quorate().unwrap())
        .unwrap()
        .with_args(&missing);
    let (status, text) = site.start_refused().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("open sink"), "{text}");
}
