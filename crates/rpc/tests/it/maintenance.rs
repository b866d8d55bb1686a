//! Everything else: maintenance, members, health, reflection, and what is not built.
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use quorate_proto::grpc::reflection::v1 as reflection;
use quorate_rpc::{DefragmentLog, DefragmentNews, ServiceOptions};

use crate::echo::{connect, run};
use crate::http1::exchange;
use crate::member::{Client, MEMBER, Served, refused};

#[test]
fn status_members_and_hashes_are_told() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        client.put("a", "1").await.unwrap();
        let status: pb::StatusResponse = client
            .call("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {})
            .await
            .unwrap();
        assert_eq!(
            (&*status.version, status.leader, status.db_size_quota),
            ("3.7.1", MEMBER, 2 << 30)
        );
        assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 1);
        assert!(status.errors.is_empty(), "{:?}", status.errors);
        assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0);
        let list = pb::MemberListRequest { linearizable: true };
        let members: pb::MemberListResponse = client
            .call("/etcdserverpb.Cluster/MemberList", &list)
            .await
            .unwrap();
        assert_eq!((members.members.len(), members.members[0].id), (1, MEMBER));
        assert_eq!(members.header.unwrap().revision, 0);
        let ask = pb::HashKvRequest { revision: 0 };
        let hash: pb::HashKvResponse = client
            .call("/etcdserverpb.Maintenance/HashKV", &ask)
            .await
            .unwrap();
        assert_eq!(
            (
                hash.hash_revision,
                hash.compact_revision,
                hash.header.unwrap().revision
            ),
            (2, -1, 2)
        );
        let hash: pb::HashResponse = client
            .call("/etcdserverpb.Maintenance/Hash", &pb::HashRequest {})
            .await
            .unwrap();
        assert_eq!(hash.header.unwrap().revision, 2);
        let compact = pb::CompactionRequest {
            revision: 2,
            physical: true,
        };
        client
            .call::<pb::CompactionResponse>("/etcdserverpb.KV/Compact", &compact)
            .await
            .unwrap();
        let ask = pb::HashKvRequest { revision: 1 };
        let gone = client
            .call::<pb::HashKvResponse>("/etcdserverpb.Maintenance/HashKV", &ask)
            .await;
        assert_eq!(
            gone,
            Err(refused(
                11,
                "etcdserver: mvcc: required revision has been compacted"
            ))
        );
    });
}

#[test]
fn health_and_reflection_are_served() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let check = |service: &str| HealthCheckRequest {
            service: service.to_owned(),
        };
        let health: HealthCheckResponse = client
            .call("/grpc.health.v1.Health/Check", &check(""))
            .await
            .unwrap();
        assert_eq!(health.status, 1);
        let unknown = client
            .call::<HealthCheckResponse>("/grpc.health.v1.Health/Check", &check("x"))
            .await;
        assert_eq!(unknown, Err(refused(5, "unknown service")));
        let mut watch = client.open("/grpc.health.v1.Health/Watch").await;
        watch.send(&check(""));
        watch.finish();
        assert_eq!(watch.next::<HealthCheckResponse>().await.unwrap().status, 1);
        let mut stream = client
            .open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            .await;
        let list =
            reflection::server_reflection_request::MessageRequest::ListServices(String::new());
        stream.send(&reflection::ServerReflectionRequest {
            host: "h".into(),
            message_request: Some(list),
        });
        let answer: reflection::ServerReflectionResponse = stream.next().await.unwrap();
        let Some(reflection::server_reflection_response::MessageResponse::ListServicesResponse(
            list,
        )) = answer.message_response
        else {
            panic!("no list of services")
        };
        assert!(list.service.iter().any(|s| s.name == "etcdserverpb.KV"));
    });
}

/// Puts 4 MB, deletes all of it, and compacts.
async fn fill_and_delete(client: &Client) {
    for key in 0..200 {
        let value = "v".repeat(20_000);
        client.put(&format!("k{key}"), &value).await.unwrap();
    }
    let everything = pb::DeleteRangeRequest {
        key: b"k".to_vec().into(),
        range_end: b"l".to_vec().into(),
        prev_kv: false,
    };
    let deleted: pb::DeleteRangeResponse = client
        .call("/etcdserverpb.KV/DeleteRange", &everything)
        .await
        .unwrap();
    assert_eq!(deleted.deleted, 200);
    let revision = deleted.header.unwrap().revision;
    let compact = pb::CompactionRequest {
        revision,
        physical: true,
    };
    client
        .call::<pb::CompactionResponse>("/etcdserverpb.KV/Compact", &compact)
        .await
        .unwrap();
}

#[test]
fn a_defragmentation_gives_back_what_was_deleted() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let options = ServiceOptions {
        defragment_log: DefragmentLog(Some(Arc::new(move |news| log.lock().push(news.clone())))),
        unhealthy_while_defragmenting: true,
        ..ServiceOptions::default()
    };
    let served = Served::with(0, options);
    run(async {
        let client = served.client().await;
        fill_and_delete(&client).await;
        let status = async || -> pb::StatusResponse {
            client
                .call("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {})
                .await
                .unwrap()
        };
        let before = status().await;
        assert!(before.db_size > 4_000_000, "{}", before.db_size);
        assert!(before.db_size_in_use < 200_000, "{}", before.db_size_in_use);
        let answer: pb::DefragmentResponse = client
            .call(
                "/etcdserverpb.Maintenance/Defragment",
                &pb::DefragmentRequest {},
            )
            .await
            .unwrap();
        assert_eq!(answer.header, None);
        let after = status().await;
        assert_eq!(after.db_size, after.db_size_in_use);
        client.put("again", "1").await.unwrap();
        let health: HealthCheckResponse = client
            .call(
                "/grpc.health.v1.Health/Check",
                &HealthCheckRequest::default(),
            )
            .await
            .unwrap();
        assert_eq!(health.status, 1);
        let told = told.lock().clone();
        let [
            DefragmentNews::Started(sizes),
            DefragmentNews::Finished { what, .. },
        ] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!(*sizes, what.before);
        assert!(what.copied && what.after.file_bytes * 4 < what.before.file_bytes);
        let mut socket = tokio::net::TcpStream::connect(served.addr).await.unwrap();
        let metrics = exchange(&mut socket, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(metrics.contains("etcd_disk_backend_defrag_duration_seconds_count 1\n"));
        assert!(metrics.contains("etcd_disk_defrag_inflight 0\n"));
    });
}

#[test]
fn what_does_not_exist_says_so() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let sold = client.call::<pb::DefragmentResponse>(
            "/etcdserverpb.Maintenance/Sell",
            &pb::DefragmentRequest {},
        );
        let text = "unknown method Sell for service etcdserverpb.Maintenance";
        assert_eq!(sold.await, Err(refused(12, text)));
        let _ = connect(served.addr).await;
    });
}

#[test]
fn pages_are_those_of_etcd() {
    let served = Served::start();
    run(async {
        let _client = served.client().await;
        let mut socket = tokio::net::TcpStream::connect(served.addr).await.unwrap();
        let mut get = async |path: &str| {
            exchange(
                &mut socket,
                &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
            )
            .await
        };
        let health = get("/health").await;
        assert!(
            health.starts_with("HTTP/1.1 200 OK\r\n")
                && health.ends_with(r#"{"health":"true","reason":""}"#),
            "{health}"
        );
        let version = get("/version").await;
        assert!(
            version.ends_with(r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#),
            "{version}"
        );
        assert!(get("/livez").await.ends_with("\r\n\r\nok\n"));
        let verbose = get("/readyz?verbose&exclude=non_learner").await;
        assert!(
            verbose.ends_with(
                "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n"
            ),
            "{verbose}"
        );
        assert!(
            get("/readyz/non_learner?verbose")
                .await
                .ends_with("[+]non_learner ok\nok\n")
        );
        for path in [
            "/",
            "/nope",
            "/livez/",
            "/livez/non_learner",
            "/v3/kv/range",
        ] {
            let missing = get(path).await;
            assert!(
                missing.starts_with("HTTP/1.1 404 Not Found\r\n"),
                "{path}: {missing}"
            );
            assert!(
                missing.ends_with("404 page not found\n"),
                "{path}: {missing}"
            );
        }
    });
}

#[test]
fn metrics_are_shown_and_other_methods_refused() {
    let served = Served::start();
    run(async {
        let _client = served.client().await;
        let mut socket = tokio::net::TcpStream::connect(served.addr).await.unwrap();
        let mut get = async |path: &str| {
            exchange(
                &mut socket,
                &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
            )
            .await
        };
        assert!(get("/health").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let metrics = get("/metrics").await;
        for line in [
            "etcd_server_has_leader 1",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1",
            "etcd_server_health_success 1",
            "etcd_server_id{server_id=\"11\"} 1",
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
        }
        let refused = exchange(
            &mut socket,
            "POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        assert!(
            refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
            "{refused}"
        );
        assert!(
            refused.contains("allow: GET\r\n") && refused.ends_with("Method Not Allowed\n"),
            "{refused}"
        );
    });
}
