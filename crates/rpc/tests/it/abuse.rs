//! Clients that mean harm or are broken: nothing panics, memory stays bounded, others are served.
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use quorate_rpc::{Code, Method, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::echo::{Door, call, connect, framed, post, run, sized, unary, until};

const RANGE: &str = "/etcdserverpb.KV/Range";

#[test]
fn garbage_on_the_port_is_closed_and_harms_nobody() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let garbage: Vec<Vec<u8>> = vec![
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            vec![0; 100],
            b"GET / HTTP/9.9\r\n\r\n".to_vec(),
            b"nonsense\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
            [&preface[..], &[0xff; 64]].concat(),
            // A DATA frame on stream 0, a HEADERS frame on an even stream, a frame longer than is allowed.
            [
                &preface[..],
                &[0, 0, 0, 4, 0, 0, 0, 0, 0],
                &[0, 0, 1, 0, 0, 0, 0, 0, 0, 7],
            ]
            .concat(),
            [
                &preface[..],
                &[0, 0, 0, 4, 0, 0, 0, 0, 0],
                &[0, 0, 1, 1, 5, 0, 0, 0, 2, 0x82],
            ]
            .concat(),
            [
                &preface[..],
                &[0, 0, 0, 4, 0, 0, 0, 0, 0],
                &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
            ]
            .concat(),
        ];
        for bytes in garbage {
            let mut socket = tokio::net::TcpStream::connect(door.addr).await.unwrap();
            socket.write_all(&bytes).await.unwrap();
            let mut answer = Vec::new();
            // It is closed, by an end or by a reset, without waiting for more.
            let closed =
                tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer))
                    .await;
            assert!(
                closed.is_ok(),
                "still open after {:?}",
                &bytes[..bytes.len().min(30)]
            );
        }
        assert_eq!(unary(&client, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn half_a_greeting_waits_without_harm_and_goes_with_its_socket() {
    let door = Door::open(Options::default());
    run(async {
        let mut sockets = Vec::new();
        for cut in [0, 1, 5, 12, 20] {
            let mut socket = tokio::net::TcpStream::connect(door.addr).await.unwrap();
            socket
                .write_all(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..cut])
                .await
                .unwrap();
            sockets.push(socket);
        }
        let (client, _) = connect(door.addr).await;
        assert_eq!(unary(&client, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn reset_drops_the_handler_and_counts_as_canceled() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        for path in [
            "/etcdserverpb.Lease/LeaseGrant",
            "/etcdserverpb.Watch/Watch",
        ] {
            let mut ready = client.clone().ready().await.unwrap();
            let (_response, mut send) = ready
                .send_request(post(path).body(()).unwrap(), false)
                .unwrap();
            send.send_data(framed(b"x"), false).unwrap();
            until("the handler runs", || {
                door.seen.alive.load(Ordering::SeqCst) == 1
            })
            .await;
            send.send_reset(Reason::CANCEL);
            until("the handler is dropped", || {
                door.seen.alive.load(Ordering::SeqCst) == 0
            })
            .await;
        }
    });
    let metrics = door.registry.thread(0);
    assert_eq!(metrics.handled_total(Method::LeaseGrant, Code::Canceled), 1);
    assert_eq!(metrics.handled_total(Method::WatchWatch, Code::Canceled), 1);
}

#[test]
fn rapid_resets_neither_grow_nor_starve() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        for _ in 0..20_000 {
            let Ok(mut ready) = client.clone().ready().await else {
                break;
            };
            let request = post("/etcdserverpb.Lease/LeaseGrant").body(()).unwrap();
            let Ok((_response, mut send)) = ready.send_request(request, false) else {
                break;
            };
            let _ = send.send_data(framed(b"x"), false);
            send.send_reset(Reason::CANCEL);
        }
        let (other, _) = connect(door.addr).await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
        until("no handler is left", || {
            door.seen.alive.load(Ordering::SeqCst) == 0
        })
        .await;
    });
}

#[test]
fn closed_socket_drops_every_handler() {
    let door = Door::open(Options::default());
    run(async {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let (client, _) = connect(door.addr).await;
            for _ in 0..50 {
                let pending = client.clone();
                clients.push(tokio::task::spawn_local(async move {
                    let request = post("/etcdserverpb.Lease/LeaseGrant").body(()).unwrap();
                    let _ = call(&pending, request, Some(framed(b"x"))).await;
                }));
            }
        }
        until("all run", || door.seen.alive.load(Ordering::SeqCst) == 150).await;
    });
    // The runtime of the clients is gone, and their sockets with it.
    run(until("all are dropped", || {
        door.seen.alive.load(Ordering::SeqCst) == 0
    }));
}

#[test]
fn stream_to_a_slow_reader_waits_at_its_limit() {
    let limit = 256 * 1024;
    let door = Door::open(Options {
        stream_unsent_max_bytes: limit,
        ..Options::default()
    });
    run(async {
        let (client, _) = connect(door.addr).await;
        let mut ready = client.clone().ready().await.unwrap();
        let request = post("/etcdserverpb.KV/RangeStream").body(()).unwrap();
        let (response, mut send) = ready.send_request(request, false).unwrap();
        send.send_data(framed(b"go"), true).unwrap();
        let mut response = response.await.unwrap();
        // The client opens its window by what it reads, and reads nothing: 64 KiB go out, the limit waits here.
        let mut last = 0;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            last = door.seen.streamed.load(Ordering::SeqCst);
        }
        assert!(
            last * 16 * 1024 <= limit + 64 * 1024 + 32 * 1024,
            "{last} messages were sent"
        );
        assert!(last > 0);
        // Once it reads, it flows.
        let mut read = 0;
        while read < 2_000_000 {
            let data = response.body_mut().data().await.unwrap().unwrap();
            read += data.len();
            response
                .body_mut()
                .flow_control()
                .release_capacity(data.len())
                .unwrap();
        }
        assert!(door.seen.streamed.load(Ordering::SeqCst) > last);
    });
}

#[test]
fn connection_that_does_not_read_its_answers_gets_no_new_calls() {
    let limit = 4 * 1024 * 1024;
    let door = Door::open(Options {
        connection_unsent_max_bytes: limit,
        ..Options::default()
    });
    run(async {
        let (client, _) = connect(door.addr).await;
        let mut responses = Vec::new();
        for _ in 0..200 {
            let mut ready = client.clone().ready().await.unwrap();
            let request = post("/etcdserverpb.KV/Put").body(()).unwrap();
            let (response, mut send) = ready.send_request(request, false).unwrap();
            send.send_data(framed(&sized(1_000_000)), true).unwrap();
            responses.push(response);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let handled = door.seen.unary.load(Ordering::SeqCst);
        assert!(
            (1..=6).contains(&handled),
            "{handled} calls were handled, 1 MB each"
        );
        // Another connection is not touched by it.
        let (other, _) = connect(door.addr).await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
        // All are answered once the client reads.
        let reads: Vec<_> = responses
            .into_iter()
            .map(|response| {
                tokio::task::spawn_local(async move {
                    let called = crate::echo::collect(response.await.unwrap()).await.unwrap();
                    assert_eq!(called.value().len(), 1_000_000);
                })
            })
            .collect();
        for read in reads {
            read.await.unwrap();
        }
    });
}

#[test]
fn streams_to_a_slow_reader_share_the_limit_of_their_connection() {
    let limit = 512 * 1024;
    let door = Door::open(Options {
        connection_unsent_max_bytes: limit,
        ..Options::default()
    });
    run(async {
        let (client, _) = connect(door.addr).await;
        let mut responses = Vec::new();
        for _ in 0..200 {
            let mut ready = client.clone().ready().await.unwrap();
            let request = post("/etcdserverpb.KV/RangeStream").body(()).unwrap();
            let (response, mut send) = ready.send_request(request, false).unwrap();
            send.send_data(framed(b"go"), true).unwrap();
            responses.push(response);
        }
        until("some are served", || {
            door.seen.streamed.load(Ordering::SeqCst) > 20
        })
        .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sent = door.seen.streamed.load(Ordering::SeqCst) * 16 * 1024;
        // What the windows took besides: each stream's, and the connection's.
        assert!(sent <= limit + 64 * 1024 + 32 * 1024, "{sent} bytes");
        let (other, _) = connect(door.addr).await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
        // Once it reads, everyone who is served goes on, and those held back get their turn.
        let reads = responses.into_iter().map(|response| {
            tokio::task::spawn_local(async move {
                let mut response = response.await.unwrap();
                let mut read = 0;
                while read < 300_000 {
                    let data = response.body_mut().data().await.unwrap().unwrap();
                    read += data.len();
                    let flow = response.body_mut().flow_control();
                    flow.release_capacity(data.len()).unwrap();
                }
            })
        });
        for read in reads.collect::<Vec<_>>() {
            read.await.unwrap();
        }
    });
}

#[test]
fn calls_that_are_held_back_are_bounded_and_their_client_is_cut() {
    let door = Door::open(Options {
        connection_unsent_max_bytes: 256 * 1024,
        ..Options::default()
    });
    run(async {
        let (client, ended) = connect(door.addr).await;
        let mut ready = client.clone().ready().await.unwrap();
        let request = post("/etcdserverpb.KV/Put").body(()).unwrap();
        let (_unread, mut send) = ready.send_request(request, false).unwrap();
        send.send_data(framed(&sized(500_000)), true).unwrap();
        until("it is answered", || {
            door.seen.unary.load(Ordering::SeqCst) == 1
        })
        .await;
        // 10 MB of headers, once decoded.
        let mut held = Vec::new();
        for _ in 0..200 {
            let Ok(mut ready) = client.clone().ready().await else {
                break;
            };
            let large = post(RANGE).header("x-large", "v".repeat(50_000));
            match ready.send_request(large.body(()).unwrap(), true) {
                Ok(call) => held.push(call),
                Err(_) => break,
            }
            tokio::task::yield_now().await;
        }
        until("it is cut", || ended.take().is_some()).await;
        assert_eq!(door.seen.unary.load(Ordering::SeqCst), 1);
        let (other, _) = connect(door.addr).await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn while_memory_is_short_those_who_take_nothing_are_cut_and_nobody_else() {
    let door = Door::open(Options {
        thread_unsent_max_bytes: 1024 * 1024,
        stall_ms: 50,
        ..Options::default()
    });
    run(async {
        let (idle, idle_ended) = connect(door.addr).await;
        let (client, ended) = connect(door.addr).await;
        let mut ready = client.clone().ready().await.unwrap();
        let request = post("/etcdserverpb.KV/Put").body(()).unwrap();
        let (_unread, mut send) = ready.send_request(request, false).unwrap();
        send.send_data(framed(&sized(900_000)), true).unwrap();
        until("it is cut", || ended.take().is_some()).await;
        assert!(idle_ended.take().is_none());
        assert_eq!(unary(&idle, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn calls_beyond_the_thread_s_limit_are_refused() {
    let door = Door::open(Options {
        thread_streams_max: 2,
        ..Options::default()
    });
    run(async {
        let mut held = Vec::new();
        for _ in 0..2 {
            let (client, _) = connect(door.addr).await;
            let mut ready = client.clone().ready().await.unwrap();
            let request = post("/etcdserverpb.Watch/Watch").body(()).unwrap();
            held.push((ready.send_request(request, false).unwrap(), client));
        }
        until("both run", || door.seen.alive.load(Ordering::SeqCst) == 2).await;
        let (other, _) = connect(door.addr).await;
        let refused = (8, "etcdserver: too many open streams".to_owned());
        assert_eq!(unary(&other, RANGE, b"x").await.status(), refused);
        held.clear();
        until("both are gone", || {
            door.seen.alive.load(Ordering::SeqCst) == 0
        })
        .await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn unfinished_messages_are_bounded_together() {
    let door = Door::open(Options {
        thread_unfinished_max_bytes: 1_000_000,
        ..Options::default()
    });
    run(async {
        let (client, _) = connect(door.addr).await;
        let mut streams = Vec::new();
        let mut responses = Vec::new();
        for _ in 0..40 {
            let mut ready = client.clone().ready().await.unwrap();
            let (response, mut send) = ready
                .send_request(post(RANGE).body(()).unwrap(), false)
                .unwrap();
            let mut part = framed(&vec![1; 1_000_000]).to_vec();
            part.truncate(60_000);
            send.send_data(part.into(), false).unwrap();
            streams.push(send);
            responses.push(tokio::task::spawn_local(async move {
                crate::echo::collect(response.await.unwrap())
                    .await
                    .unwrap()
                    .status()
            }));
        }
        let refused = (8, "etcdserver: too many unfinished requests".to_owned());
        until("some are refused", || {
            responses.iter().filter(|r| r.is_finished()).count() >= 20
        })
        .await;
        for response in responses {
            if response.is_finished() {
                assert_eq!(response.await.unwrap(), refused);
            } else {
                response.abort();
            }
        }
        drop(streams);
        let (other, _) = connect(door.addr).await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn streams_beyond_the_limit_wait_or_are_refused() {
    let door = Door::open(Options {
        max_concurrent_streams: 2,
        ..Options::default()
    });
    run(async {
        let (client, _) = connect(door.addr).await;
        assert_eq!(unary(&client, RANGE, b"settle").await.value(), "settle");
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut ready = client.clone().ready().await.unwrap();
            held.push(
                ready
                    .send_request(
                        post("/etcdserverpb.Lease/LeaseGrant").body(()).unwrap(),
                        false,
                    )
                    .unwrap(),
            );
            held.last_mut()
                .unwrap()
                .1
                .send_data(framed(b"x"), false)
                .unwrap();
        }
        until("both run", || door.seen.alive.load(Ordering::SeqCst) == 2).await;
        let third = client.clone();
        let third =
            tokio::task::spawn_local(async move { unary(&third, RANGE, b"third").await.value() });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            !third.is_finished(),
            "the client was told of the limit and waits"
        );
        held.pop().unwrap().1.send_reset(Reason::CANCEL);
        assert_eq!(third.await.unwrap(), Bytes::from_static(b"third"));
    });
}

#[test]
fn header_that_is_too_large_is_refused() {
    let door = Door::open(Options::default());
    run(async {
        let (client, _) = connect(door.addr).await;
        let request = post(RANGE)
            .header("x-large", "v".repeat(300_000))
            .body(())
            .unwrap();
        let refused = match call(&client, request, Some(framed(b"x"))).await {
            Ok(called) => called.head.status() == 431,
            Err(_) => true,
        };
        assert!(refused);
        let (other, _) = connect(door.addr).await;
        assert_eq!(unary(&other, RANGE, b"fine").await.value(), "fine");
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_one_to_close() {
    let door = Door::open(Options {
        max_connections: 1,
        ..Options::default()
    });
    run(async {
        let (first, _) = connect(door.addr).await;
        assert_eq!(unary(&first, RANGE, b"one").await.value(), "one");
        let (second, _) = connect(door.addr).await;
        let waiting =
            tokio::task::spawn_local(async move { unary(&second, RANGE, b"two").await.value() });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), Bytes::from_static(b"two"));
    });
}
