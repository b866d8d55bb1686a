//! What a member that stops, or whose log hangs, tells those who ask.
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tokio::net::TcpStream;

use crate::echo::{run, until};
use crate::http1::exchange;
use crate::member::{Served, refused};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

#[test]
fn watches_and_lease_streams_end_and_health_turns_while_what_was_asked_is_answered() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let mut watch = client.open("/etcdserverpb.Watch/Watch").await;
        let create = pb::WatchCreateRequest {
            key: "a".into(),
            ..Default::default()
        };
        watch.send(&pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        });
        let created: pb::WatchResponse = watch.next().await.unwrap();
        assert!(created.created);
        let mut leases = client.open("/etcdserverpb.Lease/LeaseKeepAlive").await;
        leases.send(&pb::LeaseKeepAliveRequest { id: 1 });
        let renewed: pb::LeaseKeepAliveResponse = leases.next().await.unwrap();
        assert_eq!(renewed.ttl, 0);
        let mut health = client.open("/grpc.health.v1.Health/Watch").await;
        health.send(&HealthCheckRequest::default());
        health.finish();
        let status: HealthCheckResponse = health.next().await.unwrap();
        assert_eq!(status.status, SERVING);

        // A put is under way: it waits for the log.
        let log = served.hang_log();
        let putting = client.clone();
        let put = tokio::task::spawn_local(async move { putting.put("a", "1").await });
        tokio::task::yield_now().await;
        let view = served.handles.view.clone();
        until("it is proposed", || view.appended() > view.committed()).await;

        served.begin_stop();
        let stopped = refused(14, "etcdserver: server stopped");
        let end = watch.next::<pb::WatchResponse>().await.unwrap_err();
        assert_eq!(end, stopped);
        let end = leases.next::<pb::LeaseKeepAliveResponse>().await;
        assert_eq!(end.unwrap_err(), stopped);
        let status: HealthCheckResponse = health.next().await.unwrap();
        assert_eq!(status.status, NOT_SERVING);
        assert_eq!(
            health.next::<HealthCheckResponse>().await.unwrap_err(),
            stopped
        );
        assert!(!put.is_finished());
        drop(log);
        assert_eq!(put.await.unwrap().unwrap().header.unwrap().revision, 2);
    });
}

#[test]
fn health_turns_red_while_the_log_hangs_and_green_again() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        client.put("a", "1").await.unwrap();
        let mut socket = TcpStream::connect(served.addr).await.unwrap();
        let mut ask = async |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            let answer = exchange(&mut socket, &request).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, body.to_owned())
        };
        let healthy = r#"{"health":"true","reason":""}"#;
        assert_eq!(ask("/health").await, (200, healthy.to_owned()));
        assert_eq!(ask("/readyz").await.0, 200);

        let log = served.hang_log();
        let putting = client.clone();
        let put = tokio::task::spawn_local(async move { putting.put("a", "2").await });
        tokio::task::yield_now().await;
        let view = served.handles.view.clone();
        until("it is proposed", || view.appended() > view.committed()).await;
        let (status, body) = ask("/health").await;
        let sick = r#"{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}"#;
        assert_eq!((status, body.trim_end()), (503, sick));
        let (status, body) = ask("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("[-]linearizable_read failed: etcdserver: request timed out\n"));
        assert!(body.contains("[+]serializable_read ok\n"));
        assert_eq!(ask("/livez").await.0, 200);
        drop(log);
        assert!(put.await.unwrap().is_ok());
        let mut asked = ask("/readyz").await;
        while asked.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            asked = ask("/readyz").await;
        }
        assert_eq!(ask("/health").await, (200, healthy.to_owned()));
    });
}
