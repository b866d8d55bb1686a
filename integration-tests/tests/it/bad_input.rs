//! Clients that are wrong, hostile or slow: a clear error, the server serves on, its memory stays.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use quorate_integration_tests::{Binary, Client, Random, Server, Site};
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    request_op,
};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use crate::raw::{RawCodec, assert_serves, call_headers, connect, frame, preface, send};

/// What a test may make the server grow by, in bytes.
const GROWTH_MAX_BYTES: u64 = 300 << 20;

/// Runs a test against the server under test and, where one is at hand, a real etcd; afterwards the server must serve.
macro_rules! against_servers {
    ($($test:ident)*) => {$(
        #[tokio::test]
        async fn $test() {
            let mut binaries = vec![Binary::quorate().unwrap()];
            binaries.extend(Binary::reference().unwrap());
            for binary in binaries {
                let site = Site::new(&binary).unwrap();
                let mut server = site.start().unwrap();
                checks::$test(&site, &server).await;
                assert_serves(&site.endpoint()).await;
                assert!(!site.log().contains("panic"), "{}", site.log());
                server.kill().unwrap();
            }
        }
    )*};
}

against_servers! {
    garbage_on_the_port_harms_nobody
    http_that_is_not_grpc_is_answered_or_refused
    malformed_messages_are_refused_by_every_method
    unknown_fields_and_methods_are_told_apart
    oversize_requests_are_refused
    frames_that_lie_about_their_length_are_refused
    absurd_numbers_are_answered
    transactions_too_wide_or_too_deep_are_refused
    half_closed_streams_go_on_or_end
    a_stream_of_nonsense_watches_is_answered
    a_slow_watcher_delays_nobody
    rapid_resets_do_not_exhaust_the_server
    abandoned_calls_leave_nothing_behind
}

async fn client(site: &Site) -> Client {
    Client::connect(&site.endpoint()).await.unwrap()
}

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest {
        key: Bytes::from(key.to_owned()),
        value: value.into(),
        ..PutRequest::default()
    }
}

async fn raw(client: &Client, path: &str, body: &[u8]) -> Result<Bytes, Status> {
    client
        .unary(
            path,
            Bytes::copy_from_slice(body),
            RawCodec,
            MetadataMap::new(),
        )
        .await
}

fn watch(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}

fn create(key: &'static str, id: i64, start_revision: i64) -> WatchRequest {
    watch(RequestUnion::CreateRequest(WatchCreateRequest {
        key: key.into(),
        watch_id: id,
        start_revision,
        ..WatchCreateRequest::default()
    }))
}

/// The next answer; a server that says nothing for long has failed.
async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(Duration::from_secs(10), stream.message())
        .await
        .expect("the server says nothing")
}

mod checks {
    use super::*;

    pub(crate) async fn garbage_on_the_port_harms_nobody(site: &Site, server: &Server) {
        let before = server.resident_bytes().unwrap();
        let mut random = Random::new(1);
        for round in 0..60 {
            let mut stream = connect(&site.endpoint());
            let len = usize::try_from(random.below(3_000)).unwrap();
            let mut bytes: Vec<u8> = (0..len).map(|_| random.number().to_le_bytes()[0]).collect();
            match round % 4 {
                // After a good beginning, too.
                0 => bytes.splice(0..0, preface()).for_each(drop),
                1 => bytes.splice(0..0, preface()[..12].to_vec()).for_each(drop),
                2 => bytes
                    .splice(0..0, b"GET /health HTTP/1.1\r\n".to_vec())
                    .for_each(drop),
                _ => {}
            }
            send(&mut stream, &bytes);
        }
        // The beginning of a TLS handshake, and nothing at all.
        send(
            &mut connect(&site.endpoint()),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        );
        drop(connect(&site.endpoint()));
        assert!(server.resident_bytes().unwrap() < before + GROWTH_MAX_BYTES);
    }

    pub(crate) async fn http_that_is_not_grpc_is_answered_or_refused(site: &Site, _: &Server) {
        for request in [
            "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
            "BREW /etcdserverpb.KV/Range HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ] {
            let answer = send(&mut connect(&site.endpoint()), request.as_bytes());
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.starts_with("HTTP/1.1 "),
                "{request:?} is answered with {answer:?}"
            );
        }
        let long = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(4 << 20));
        let answer = send(&mut connect(&site.endpoint()), long.as_bytes());
        assert!(
            !answer.starts_with(b"HTTP/1.1 200"),
            "a header of 4 MiB is taken"
        );
    }

    /// Every method of one request, each with bodies that are no message.
    pub(crate) async fn malformed_messages_are_refused_by_every_method(site: &Site, _: &Server) {
        let client = client(site).await;
        let kv = ["Range", "Put", "DeleteRange", "Txn", "Compact"];
        let lease = ["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive"];
        let auth = [
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserDelete",
            "RoleAdd",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ];
        let maintenance = ["Alarm", "HashKV"];
        let services = [
            ("KV", &kv[..]),
            ("Lease", &lease),
            ("Auth", &auth),
            ("Maintenance", &maintenance),
        ];
        // A field cut short, an overlong varint, a length beyond the end, field number 0.
        let bodies: [&[u8]; 4] = [
            b"\x0a",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\xff\x01abc",
            b"\x00\x00",
        ];
        for (service, methods) in services {
            for method in methods {
                for body in bodies {
                    let path = format!("/etcdserverpb.{service}/{method}");
                    let error = raw(&client, &path, body).await.unwrap_err();
                    assert_eq!(
                        error.code(),
                        Code::Internal,
                        "{path} with {body:?}: {error}"
                    );
                }
            }
        }
    }

    pub(crate) async fn unknown_fields_and_methods_are_told_apart(site: &Site, _: &Server) {
        let client = client(site).await;
        let mut body = put("a", b"1".to_vec()).encode_to_vec();
        // Field 1000 as a varint and field 1001 as bytes.
        body.extend(b"\xc0\x3e\x05\xca\x3e\x03xyz");
        raw(&client, "/etcdserverpb.KV/Put", &body).await.unwrap();
        for path in ["/etcdserverpb.KV/Steal", "/nobody.Knows/This", "/"] {
            let error = raw(&client, path, b"").await.unwrap_err();
            assert_eq!(error.code(), Code::Unimplemented, "{path}: {error}");
        }
    }

    pub(crate) async fn oversize_requests_are_refused(site: &Site, server: &Server) {
        let client = client(site).await;
        let before = server.resident_bytes().unwrap();
        let too_large: Status = client
            .call::<_, PutResponse>("KV/Put", put("big", vec![0; 1_600_000]))
            .await
            .unwrap_err();
        assert_eq!(
            (too_large.code(), too_large.message()),
            (Code::InvalidArgument, "etcdserver: request is too large")
        );
        for bytes in [2 << 20, 16 << 20, 64 << 20] {
            let error = client
                .call::<_, PutResponse>("KV/Put", put("big", vec![0; bytes]))
                .await
                .unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        }
        let _: PutResponse = client
            .call("KV/Put", put("fits", vec![0; 1_500_000]))
            .await
            .unwrap();
        assert!(server.resident_bytes().unwrap() < before + GROWTH_MAX_BYTES);
    }

    pub(crate) async fn frames_that_lie_about_their_length_are_refused(site: &Site, _: &Server) {
        let headers = frame(0x1, 0x4, 1, &call_headers("/etcdserverpb.KV/Range"));
        // More than follows, 4 GiB, and a compressed message that nobody announced.
        for message in [
            &b"\0\0\0\0\x64abc"[..],
            b"\0\xff\xff\xff\xffabc",
            b"\x01\0\0\0\x03abc",
            b"\x07\0\0\0\x00",
        ] {
            let mut stream = connect(&site.endpoint());
            let mut bytes = preface();
            bytes.extend(&headers);
            bytes.extend(frame(0x0, 0x1, 1, message));
            send(&mut stream, &bytes);
        }
        // A frame larger than allowed, one on stream 0, one with an even number, one that continues nothing.
        for bad in [
            frame(0x0, 0, 1, &[0; 100_000]),
            frame(0x1, 0x4, 0, &[0x83]),
            frame(0x1, 0x4, 2, &[0x83]),
            frame(0x9, 0x4, 1, &[]),
        ] {
            let mut bytes = preface();
            bytes.extend(bad);
            send(&mut connect(&site.endpoint()), &bytes);
        }
    }

    pub(crate) async fn absurd_numbers_are_answered(site: &Site, _: &Server) {
        let client = client(site).await;
        let _: PutResponse = client
            .call("KV/Put", put("a", b"1".to_vec()))
            .await
            .unwrap();
        for number in [i64::MIN, -1, i64::MAX] {
            let range = RangeRequest {
                key: "a".into(),
                limit: number,
                min_mod_revision: number,
                max_create_revision: number,
                ..RangeRequest::default()
            };
            let _: RangeResponse = client.call("KV/Range", range).await.unwrap();
            let at = RangeRequest {
                key: "a".into(),
                revision: number,
                ..RangeRequest::default()
            };
            let answer: Result<RangeResponse, Status> = client.call("KV/Range", at).await;
            assert_eq!(answer.is_err(), number == i64::MAX, "{answer:?}");
            let ttl: Result<LeaseTimeToLiveResponse, Status> = client
                .call(
                    "Lease/LeaseTimeToLive",
                    LeaseTimeToLiveRequest {
                        id: number,
                        keys: true,
                    },
                )
                .await;
            assert_eq!(ttl.unwrap().ttl, -1);
        }
        let bad_sort = RangeRequest {
            key: "a".into(),
            sort_order: 77,
            sort_target: -5,
            ..RangeRequest::default()
        };
        let error = client
            .call::<_, RangeResponse>("KV/Range", bad_sort)
            .await
            .unwrap_err();
        assert_eq!(error.message(), "etcdserver: invalid sort option");
        let future = CompactionRequest {
            revision: i64::MAX,
            physical: true,
        };
        let error = client
            .call::<_, CompactionResponse>("KV/Compact", future)
            .await
            .unwrap_err();
        assert_eq!(
            error.message(),
            "etcdserver: mvcc: required revision is a future revision"
        );
        let eternal = LeaseGrantRequest {
            ttl: i64::MAX,
            id: 0,
        };
        let error = client
            .call::<_, LeaseGrantResponse>("Lease/LeaseGrant", eternal)
            .await
            .unwrap_err();
        assert_eq!(error.message(), "etcdserver: too large lease TTL");
    }

    pub(crate) async fn transactions_too_wide_or_too_deep_are_refused(site: &Site, _: &Server) {
        let client = client(site).await;
        let op = |n: usize| RequestOp {
            request: Some(request_op::Request::RequestPut(put(
                &format!("k{n}"),
                Vec::new(),
            ))),
        };
        let wide = TxnRequest {
            success: (0..100_000).map(op).collect(),
            ..TxnRequest::default()
        };
        let error = client
            .call::<_, TxnResponse>("KV/Txn", wide)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error.code(),
                Code::InvalidArgument | Code::ResourceExhausted
            ),
            "{error}"
        );
        let wide = TxnRequest {
            success: (0..129).map(op).collect(),
            ..TxnRequest::default()
        };
        let error = client
            .call::<_, TxnResponse>("KV/Txn", wide)
            .await
            .unwrap_err();
        assert_eq!(
            error.message(),
            "etcdserver: too many operations in txn request"
        );
        // Transactions in transactions: each level is one operation of the level above.
        let mut body = Vec::new();
        for _ in 0..20_000 {
            let mut op = vec![0x22];
            prost::encoding::encode_varint(u64::try_from(body.len()).unwrap(), &mut op);
            op.append(&mut body);
            body.push(0x12);
            prost::encoding::encode_varint(u64::try_from(op.len()).unwrap(), &mut body);
            body.append(&mut op);
        }
        // Refused or carried out, but not the end of the server.
        let _ = raw(&client, "/etcdserverpb.KV/Txn", &body).await;
    }

    pub(crate) async fn half_closed_streams_go_on_or_end(site: &Site, _: &Server) {
        let client = client(site).await;
        let (requests, mut answers) = client
            .stream::<_, WatchResponse>("Watch/Watch", create("a", 0, 0))
            .await
            .unwrap();
        assert!(next(&mut answers).await.unwrap().unwrap().created);
        drop(requests);
        // A watch goes on when its requests have ended, renewing does not.
        let _: PutResponse = client
            .call("KV/Put", put("a", b"1".to_vec()))
            .await
            .unwrap();
        assert_eq!(next(&mut answers).await.unwrap().unwrap().events.len(), 1);
        let first = LeaseKeepAliveRequest { id: 5 };
        let (requests, mut answers) = client
            .stream::<_, LeaseKeepAliveResponse>("Lease/LeaseKeepAlive", first)
            .await
            .unwrap();
        assert_eq!(next(&mut answers).await.unwrap().unwrap().ttl, 0);
        drop(requests);
        assert!(
            next(&mut answers).await.unwrap().is_none(),
            "renewing goes on"
        );
        // The connection itself half closed, in the middle of a call.
        let mut bytes = preface();
        bytes.extend(frame(
            0x1,
            0x4,
            1,
            &call_headers("/etcdserverpb.Watch/Watch"),
        ));
        for _ in 0..50 {
            let mut stream = connect(&site.endpoint());
            send(&mut stream, &bytes);
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }

    pub(crate) async fn a_stream_of_nonsense_watches_is_answered(site: &Site, _: &Server) {
        let client = client(site).await;
        let (requests, mut answers) = client
            .stream::<_, WatchResponse>("Watch/Watch", create("a", 7, 0))
            .await
            .unwrap();
        assert_eq!(next(&mut answers).await.unwrap().unwrap().watch_id, 7);
        requests.send(create("a", 7, 0)).await.unwrap();
        let twice = next(&mut answers).await.unwrap().unwrap();
        assert!(
            twice.created && twice.canceled && twice.watch_id == -1,
            "{twice:?}"
        );
        requests
            .send(watch(RequestUnion::CancelRequest(WatchCancelRequest {
                watch_id: 99,
            })))
            .await
            .unwrap();
        requests.send(WatchRequest::default()).await.unwrap();
        requests.send(create("a", 0, i64::MAX)).await.unwrap();
        assert!(next(&mut answers).await.unwrap().unwrap().created);
        for _ in 0..500 {
            requests
                .send(watch(RequestUnion::ProgressRequest(
                    WatchProgressRequest {},
                )))
                .await
                .unwrap();
        }
        for n in 0..2_000 {
            requests.send(create("a", 1_000 + n, 0)).await.unwrap();
        }
        let mut created = 0;
        while created < 2_000 {
            let answer = next(&mut answers).await.unwrap().unwrap();
            created += i32::from(answer.created);
        }
        let _: PutResponse = client
            .call("KV/Put", put("a", b"1".to_vec()))
            .await
            .unwrap();
        let mut events = 0;
        while events < 2_001 {
            events += next(&mut answers).await.unwrap().unwrap().events.len();
        }
    }

    pub(crate) async fn a_slow_watcher_delays_nobody(site: &Site, server: &Server) {
        let mut open = Vec::new();
        for _ in 0..20 {
            // A connection each: what one does not read must not hold up another.
            let slow = client(site).await;
            let (requests, mut answers) = slow
                .stream::<_, WatchResponse>("Watch/Watch", create("a", 0, 0))
                .await
                .unwrap();
            assert!(next(&mut answers).await.unwrap().unwrap().created);
            open.push((requests, answers));
        }
        let before = server.resident_bytes().unwrap();
        let writer = client(site).await;
        // Nobody reads 20 times 60 MB.
        for n in 0_u32..60 {
            let begun = Instant::now();
            let value = n.to_be_bytes().repeat(250_000);
            let _: PutResponse = writer.call("KV/Put", put("a", value)).await.unwrap();
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "a put took {:?}",
                begun.elapsed()
            );
        }
        let grown = server.resident_bytes().unwrap().saturating_sub(before);
        assert!(
            grown < 2 * GROWTH_MAX_BYTES,
            "the server grew by {grown} bytes"
        );
        let (_, answers) = open.first_mut().unwrap();
        let first = next(answers).await.unwrap().unwrap();
        assert_eq!(
            first.events[0].kv.as_ref().unwrap().mod_revision,
            2,
            "the slow watcher misses its first event"
        );
    }

    pub(crate) async fn rapid_resets_do_not_exhaust_the_server(site: &Site, server: &Server) {
        let before = server.resident_bytes().unwrap();
        let headers = call_headers("/etcdserverpb.KV/Range");
        for _ in 0..5 {
            let mut stream = connect(&site.endpoint());
            let mut bytes = preface();
            for n in 0_u32..4_000 {
                bytes.extend(frame(0x1, 0x4, 2 * n + 1, &headers));
                bytes.extend(frame(0x3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
            }
            send(&mut stream, &bytes);
        }
        // Floods of settings and pings.
        for flood in [frame(0x4, 0, 0, &[]), frame(0x6, 0, 0, &[0; 8])] {
            let mut bytes = preface();
            bytes.extend(flood.repeat(20_000));
            send(&mut connect(&site.endpoint()), &bytes);
        }
        assert!(server.resident_bytes().unwrap() < before + GROWTH_MAX_BYTES);
    }

    pub(crate) async fn abandoned_calls_leave_nothing_behind(site: &Site, server: &Server) {
        let client = client(site).await;
        let _: PutResponse = client
            .call("KV/Put", put("a", vec![1; 100_000]))
            .await
            .unwrap();
        let before = server.resident_bytes().unwrap();
        let mut random = Random::new(3);
        for _ in 0..500 {
            let range = RangeRequest {
                key: "a".into(),
                ..RangeRequest::default()
            };
            let call = client.call::<_, RangeResponse>("KV/Range", range);
            let _ = tokio::time::timeout(
                random.between(Duration::ZERO, Duration::from_millis(1)),
                call,
            )
            .await;
            let call = client.call::<_, PutResponse>("KV/Put", put("b", vec![2; 1_000]));
            let _ = tokio::time::timeout(
                random.between(Duration::ZERO, Duration::from_millis(1)),
                call,
            )
            .await;
            let stream = client.stream::<_, WatchResponse>("Watch/Watch", create("a", 0, 0));
            let _ = tokio::time::timeout(
                random.between(Duration::ZERO, Duration::from_millis(1)),
                stream,
            )
            .await;
        }
        assert!(server.resident_bytes().unwrap() < before + GROWTH_MAX_BYTES);
    }
}
