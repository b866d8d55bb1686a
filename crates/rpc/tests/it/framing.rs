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

#[test]
fn refusals_have_the_words_of_grpc_go() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let message = Some(framed(b"x"));
        let cases: Vec<(Request<()>, Option<Bytes>, u16, u8, &str)> = vec![
            (
                post("/a.B/C").body(()).unwrap(),
                message.clone(),
                200,
                12,
                "unknown service a.B",
            ),
            (
                post("/etcdserverpb.KV/Nope").body(()).unwrap(),
                message.clone(),
                200,
                12,
                "unknown method Nope for service etcdserverpb.KV",
            ),
            (
                post("/Range").body(()).unwrap(),
                message.clone(),
                200,
                12,
                "malformed method name: \"/Range\"",
            ),
            (
                Request::post(format!("http://test{RANGE}"))
                    .body(())
                    .unwrap(),
                message.clone(),
                415,
                3,
                "invalid gRPC request content-type \"\"",
            ),
            (
                Request::post(format!("http://test{RANGE}"))
                    .header("content-type", "text/plain")
                    .body(())
                    .unwrap(),
                message.clone(),
                415,
                3,
                "invalid gRPC request content-type \"text/plain\"",
            ),
            (
                Request::get(format!("http://test{RANGE}"))
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap(),
                None,
                405,
                13,
                "Received a HEADERS frame with :method \"GET\" which should be POST",
            ),
            (
                post(RANGE).header("grpc-timeout", "5x").body(()).unwrap(),
                message.clone(),
                400,
                13,
                "malformed grpc-timeout: transport: timeout unit is not recognized: \"5x\"",
            ),
            (
                post(RANGE).header("grpc-timeout", "0S").body(()).unwrap(),
                message.clone(),
                200,
                4,
                "context deadline exceeded",
            ),
            (
                post(RANGE)
                    .header("grpc-encoding", "gzip")
                    .body(())
                    .unwrap(),
                message.clone(),
                200,
                12,
                "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
            ),
            (
                post(RANGE).body(()).unwrap(),
                Some(Bytes::from_static(&[1, 0, 0, 0, 1, 7])),
                200,
                13,
                "grpc: compressed flag set with identity or empty encoding",
            ),
            (
                post(RANGE).body(()).unwrap(),
                Some(Bytes::from_static(&[9, 0, 0, 0, 1, 7])),
                200,
                13,
                "grpc: received unexpected payload format 9",
            ),
            (
                post(RANGE).body(()).unwrap(),
                Some(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])),
                200,
                8,
                "grpc: received message larger than max (4294967295 vs. 2097152)",
            ),
            (post(RANGE).body(()).unwrap(), None, 200, 2, "EOF"),
            (
                post(RANGE).body(()).unwrap(),
                Some(Bytes::from_static(&[0, 0, 0])),
                200,
                2,
                "unexpected EOF",
            ),
            (
                post("/etcdserverpb.Watch/Watch").body(()).unwrap(),
                Some(Bytes::from_static(&[0])),
                200,
                13,
                "unexpected EOF",
            ),
            (
                post("/etcdserverpb.KV/RangeStream").body(()).unwrap(),
                None,
                200,
                13,
                "cardinality violation: received no request message from non-client-streaming RPC",
            ),
            (
                post("/etcdserverpb.KV/RangeStream").body(()).unwrap(),
                Some([framed(b"1"), framed(b"2")].concat().into()),
                200,
                13,
                "cardinality violation: received multiple request messages for non-client-streaming RPC",
            ),
            (
                post(RANGE)
                    .header("authorization", "Bearer bad")
                    .body(())
                    .unwrap(),
                message,
                200,
                16,
                "etcdserver: invalid auth token",
            ),
        ];
        for (request, body, http_status, code, text) in cases {
            let called = call(&client, request, body).await.unwrap();
            assert_eq!(called.head.status(), http_status, "{text}");
            assert_eq!(called.status(), (code, text.to_owned()));
        }
        // The connection is as good as ever.
        assert_eq!(unary(&client, RANGE, b"still").await.value(), "still");
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
fn stop_lets_calls_end_and_then_returns() {
    let door = Door::open(Options {
        drain_ms: 10_000,
        ..Options::default()
    });
    run(async {
        let (client, ended) = connect(door.addr).await;
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut send) = ready
            .send_request(post("/etcdserverpb.Watch/Watch").body(()).unwrap(), false)
            .unwrap();
        send.send_data(framed(b"before"), false).unwrap();
        let mut response = response.await.unwrap();
        assert!(response.body_mut().data().await.unwrap().is_ok());
        door.begin_stop();
        send.send_data(framed(b"after"), true).unwrap();
        let called = collect(response).await.unwrap();
        assert_eq!(called.status(), (0, String::new()));
        assert!(called.data.ends_with(b"after"));
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
