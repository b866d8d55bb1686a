//! What goes through, and what is refused with which words.
use bytes::Bytes;
use http::Request;
use quorate_rpc::{Code, Method, Options};

use crate::echo::{Door, call, collect, connect, framed, post, run, sized, unary, until};

const RANGE: &str = "/etcdserverpb.KV/Range";

#[test]
fn unary_call_is_answered_and_counted() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let called = unary(&client, RANGE, b"hello").await;
        assert_eq!(called.value(), "hello");
        assert_eq!(called.head.headers()["content-type"], "application/grpc");
        assert_eq!(
            unary(&client, "/etcdserverpb.KV/Txn", b"later")
                .await
                .value(),
            "later"
        );
    });
    let metrics = door.registry.thread(0);
    assert_eq!(metrics.started_total(Method::KvRange), 1);
    assert_eq!(metrics.handled_total(Method::KvRange, Code::Ok), 1);
    assert_eq!(metrics.bytes_total().0, 10);
}

#[test]
fn many_calls_at_once_get_their_own_answers() {
    let door = Door::open(Options {
        threads: 2,
        ..Options::default()
    });
    run(async {
        let (client, _) = connect(door.addr).await;
        let calls: Vec<_> = (0..500)
            .map(|n| {
                let client = client.clone();
                tokio::task::spawn_local(async move {
                    let path = if n % 2 == 0 {
                        RANGE
                    } else {
                        "/etcdserverpb.KV/Txn"
                    };
                    assert_eq!(
                        unary(&client, path, format!("{n}").as_bytes())
                            .await
                            .value(),
                        format!("{n}")
                    );
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    });
}

#[test]
fn message_in_many_pieces_is_put_together_and_answered_before_half_close() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let mut client = client.ready().await.unwrap();
        let (response, mut send) = client
            .send_request(post(RANGE).body(()).unwrap(), false)
            .unwrap();
        for byte in framed(b"pieces").chunks(1) {
            send.send_data(Bytes::copy_from_slice(byte), false).unwrap();
            tokio::task::yield_now().await;
        }
        // The sending side is still open: the first message is all that a unary call waits for.
        assert_eq!(
            collect(response.await.unwrap()).await.unwrap().value(),
            "pieces"
        );
    });
}

#[test]
fn large_messages_pass_both_ways() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let large: Vec<u8> = (0..1_500_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        assert_eq!(unary(&client, RANGE, &large).await.value(), large);
        for len in [
            0, 1, 255, 256, 2_047, 2_048, 2_049, 16_384, 70_000, 9_000_000,
        ] {
            assert_eq!(
                unary(&client, "/etcdserverpb.KV/Put", &sized(len))
                    .await
                    .value()
                    .len(),
                len
            );
        }
    });
}

/// A request, and the HTTP status, gRPC code and text of its refusal.
type Refusal = (Request<()>, Option<Bytes>, u16, u8, &'static str);

fn refuses(cases: Vec<Refusal>) {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        for (request, body, http_status, code, text) in cases {
            let called = call(&client, request, body).await.unwrap();
            assert_eq!(called.head.status(), http_status, "{text}");
            assert_eq!(called.status(), (code, text.to_owned()));
        }
        // The connection is as good as ever.
        assert_eq!(unary(&client, RANGE, b"still").await.value(), "still");
    });
}

fn plain(request: http::request::Builder) -> Request<()> {
    request.body(()).unwrap()
}

/// A call of `path` whose body is whole.
fn path(path: &str, text: &'static str) -> Refusal {
    (plain(post(path)), Some(framed(b"x")), 200, 12, text)
}

/// A range with another header.
fn header(
    request: http::request::Builder,
    http_status: u16,
    code: u8,
    text: &'static str,
) -> Refusal {
    (plain(request), Some(framed(b"x")), http_status, code, text)
}

/// A call with these bytes as its body.
fn body(path: &str, bytes: Option<&[u8]>, code: u8, text: &'static str) -> Refusal {
    (
        plain(post(path)),
        bytes.map(Bytes::copy_from_slice),
        200,
        code,
        text,
    )
}

#[test]
fn headers_are_refused_with_the_words_of_grpc_go() {
    let range = || Request::post(format!("http://test{RANGE}"));
    let get =
        Request::get(format!("http://test{RANGE}")).header("content-type", "application/grpc");
    refuses(vec![
        path("/a.B/C", "unknown service a.B"),
        path(
            "/etcdserverpb.KV/Nope",
            "unknown method Nope for service etcdserverpb.KV",
        ),
        path("/Range", "malformed method name: \"/Range\""),
        header(range(), 415, 3, "invalid gRPC request content-type \"\""),
        header(
            range().header("content-type", "text/plain"),
            415,
            3,
            "invalid gRPC request content-type \"text/plain\"",
        ),
        (
            plain(get),
            None,
            405,
            13,
            "Received a HEADERS frame with :method \"GET\" which should be POST",
        ),
        header(
            post(RANGE).header("grpc-timeout", "5x"),
            400,
            13,
            "malformed grpc-timeout: transport: timeout unit is not recognized: \"5x\"",
        ),
        header(
            post(RANGE).header("grpc-timeout", "0S"),
            200,
            4,
            "context deadline exceeded",
        ),
        header(
            post(RANGE).header("grpc-encoding", "snappy"),
            200,
            12,
            "grpc: Decompressor is not installed for grpc-encoding \"snappy\"",
        ),
        header(
            post(RANGE).header("authorization", "Bearer bad"),
            200,
            16,
            "etcdserver: invalid auth token",
        ),
    ]);
}

#[test]
fn bodies_are_refused_with_the_words_of_grpc_go() {
    const STREAM: &str = "/etcdserverpb.KV/RangeStream";
    let two = [framed(b"1"), framed(b"2")].concat();
    refuses(vec![
        body(
            RANGE,
            Some(&[1, 0, 0, 0, 1, 7]),
            13,
            "grpc: compressed flag set with identity or empty encoding",
        ),
        body(
            RANGE,
            Some(&[9, 0, 0, 0, 1, 7]),
            13,
            "grpc: received unexpected payload format 9",
        ),
        body(
            RANGE,
            Some(&[0, 0xff, 0xff, 0xff, 0xff]),
            8,
            "grpc: received message larger than max (4294967295 vs. 2097152)",
        ),
        body(RANGE, None, 2, "EOF"),
        body(RANGE, Some(&[0, 0, 0]), 2, "unexpected EOF"),
        body(
            "/etcdserverpb.Watch/Watch",
            Some(&[0]),
            13,
            "unexpected EOF",
        ),
        body(
            STREAM,
            None,
            13,
            "cardinality violation: received no request message from non-client-streaming RPC",
        ),
        body(
            STREAM,
            Some(&two),
            13,
            "cardinality violation: received multiple request messages for non-client-streaming RPC",
        ),
    ]);
}

#[test]
fn packed_requests_are_understood_as_by_etcd() {
    // `gzip -c` of `packed`.
    const PACKED: &[u8] = &[
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x2b, 0x48, 0x4c, 0xce, 0x4e,
        0x4d, 0x01, 0x00, 0x10, 0xb4, 0xf6, 0x21, 0x06, 0x00, 0x00, 0x00,
    ];
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let mut body = framed(PACKED).to_vec();
        body[0] = 1;
        let request = post(RANGE)
            .header("grpc-encoding", "gzip")
            .body(())
            .unwrap();
        let called = call(&client, request, Some(body.into())).await.unwrap();
        assert_eq!(called.value(), "packed");
        let request = post(RANGE)
            .header("grpc-encoding", "gzip")
            .body(())
            .unwrap();
        let called = call(&client, request, Some(framed(b"plain")))
            .await
            .unwrap();
        assert_eq!(called.value(), "plain");
    });
}

#[test]
fn deadline_ends_a_call_that_waits_and_a_stream() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        for path in [
            "/etcdserverpb.Lease/LeaseGrant",
            "/etcdserverpb.Watch/Watch",
        ] {
            let mut ready = client.clone().ready().await.unwrap();
            let request = post(path).header("grpc-timeout", "60m").body(()).unwrap();
            let (response, mut send) = ready.send_request(request, false).unwrap();
            send.send_data(framed(b"x"), false).unwrap();
            let called = collect(response.await.unwrap()).await.unwrap();
            assert_eq!(
                called.status(),
                (4, "context deadline exceeded".to_owned()),
                "{path}"
            );
        }
        until("the handlers are gone", || {
            door.seen.alive.load(std::sync::atomic::Ordering::SeqCst) == 0
        })
        .await;
    });
}

#[test]
fn stream_echoes_and_ends_with_the_client() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let body = [framed(b"a"), framed(b""), framed(b"ccc")].concat();
        let called = call(
            &client,
            post("/etcdserverpb.Watch/Watch").body(()).unwrap(),
            Some(body.into()),
        )
        .await
        .unwrap();
        assert_eq!(called.status(), (0, String::new()));
        let values: Vec<u8> = called
            .data
            .iter()
            .copied()
            .filter(|b| b.is_ascii_lowercase())
            .collect();
        assert_eq!(values, b"accc");
    });
}

#[test]
fn stop_ends_conversations_at_once_and_lets_other_calls_end() {
    let door = Door::open(Options {
        drain_ms: 10_000,
        ..Options::default()
    });
    run(async {
        let (client, ended) = connect(door.addr).await;
        let mut ready = client.clone().ready().await.unwrap();
        let request = post("/etcdserverpb.KV/Txn").body(()).unwrap();
        let (unary, mut send_unary) = ready.send_request(request, false).unwrap();
        send_unary
            .send_data(framed(b"after")[..3].to_vec().into(), false)
            .unwrap();
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut send) = ready
            .send_request(post("/etcdserverpb.Watch/Watch").body(()).unwrap(), false)
            .unwrap();
        send.send_data(framed(b"before"), false).unwrap();
        let mut response = response.await.unwrap();
        assert!(response.body_mut().data().await.unwrap().is_ok());
        door.begin_stop();
        // Nobody says that the stream is over but the server.
        let called = collect(response).await.unwrap();
        let stopped = (14, "etcdserver: server stopped".to_owned());
        assert_eq!(called.status(), stopped);
        assert_eq!(door.seen.alive.load(std::sync::atomic::Ordering::SeqCst), 0);
        send_unary
            .send_data(framed(b"after")[3..].to_vec().into(), true)
            .unwrap();
        let called = collect(unary.await.unwrap()).await.unwrap();
        assert_eq!(called.value(), "after");
        until("the connection is closed", || ended.take().is_some()).await;
    });
    let before = std::time::Instant::now();
    drop(door);
    assert!(
        before.elapsed().as_millis() < 5_000,
        "nothing was left to wait for"
    );
}

#[test]
fn stop_cuts_calls_that_do_not_end() {
    let door = Door::open(Options {
        drain_ms: 50,
        ..Options::default()
    });
    run(async {
        let (client, ended) = connect(door.addr).await;
        let pending = client.clone();
        let call = tokio::task::spawn_local(async move {
            call(
                &pending,
                post("/etcdserverpb.Lease/LeaseGrant").body(()).unwrap(),
                Some(framed(b"x")),
            )
            .await
        });
        until("the handler runs", || {
            door.seen.alive.load(std::sync::atomic::Ordering::SeqCst) == 1
        })
        .await;
        door.begin_stop();
        assert!(call.await.unwrap().is_err());
        until("the connection is closed", || ended.take().is_some()).await;
    });
    drop(door);
}

#[test]
fn stop_does_not_wait_for_work_that_nobody_waits_for() {
    let door = Door::open(Options {
        drain_ms: 20,
        ..Options::default()
    });
    let seen = door.seen.clone();
    let gate = seen.gate.lock();
    run(async {
        let (client, ended) = connect(door.addr).await;
        let pending = client.clone();
        let call = tokio::task::spawn_local(async move {
            let request = post("/etcdserverpb.Lease/LeaseRevoke").body(()).unwrap();
            call(&pending, request, Some(framed(b"x"))).await
        });
        until("the work is under way", || {
            door.seen.alive.load(std::sync::atomic::Ordering::SeqCst) == 1
        })
        .await;
        door.begin_stop();
        assert!(call.await.unwrap().is_err());
        until("the connection is closed", || ended.take().is_some()).await;
    });
    drop(door);
    drop(gate);
}
