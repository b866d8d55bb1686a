//! Keep-alive from both sides.
use std::time::Duration;

use quorate_rpc::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::echo::{Door, collect, connect, framed, post, run, sized, unary, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// The frames in some bytes: kind, flags, payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(9) {
        let len =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            break;
        };
        frames.push((header[3], header[4], payload.to_vec()));
        bytes = rest;
    }
    frames
}

#[test]
fn ping_flood_is_sent_away_with_the_reason_that_clients_look_for() {
    let door = Door::open(Options::default());
    run(async {
        let mut socket = TcpStream::connect(door.addr).await.unwrap();
        socket
            .write_all(&[PREFACE, &SETTINGS].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        for _ in 0..4 {
            // The last may meet a closed socket.
            let _ = socket.write_all(&PING).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer))
            .await
            .unwrap();
        let frames = frames(&answer);
        let (_, _, payload) = frames
            .iter()
            .find(|(kind, ..)| *kind == 7)
            .expect("a GOAWAY");
        assert_eq!(payload[4..8], [0, 0, 0, 0xb], "ENHANCE_YOUR_CALM");
        assert_eq!(&payload[8..], b"too_many_pings");
        assert_eq!(
            frames
                .iter()
                .filter(|(kind, flags, _)| (*kind, *flags) == (6, 1))
                .count(),
            3
        );
        let (other, _) = connect(door.addr).await;
        assert_eq!(
            unary(&other, "/etcdserverpb.KV/Range", b"fine")
                .await
                .value(),
            "fine"
        );
    });
}

#[test]
fn pings_are_in_turn_while_an_answer_is_still_on_its_way() {
    let door = Door::open(Options {
        keepalive_min_ms: 50,
        ..Options::default()
    });
    run(async {
        let socket = TcpStream::connect(door.addr).await.unwrap();
        let (client, mut connection) = h2::client::Builder::new()
            .initial_window_size(100)
            .handshake::<_, bytes::Bytes>(socket)
            .await
            .unwrap();
        let mut pings = connection.ping_pong().unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut ready = client.clone().ready().await.unwrap();
        let request = post("/etcdserverpb.KV/Put").body(()).unwrap();
        let (response, mut send) = ready.send_request(request, false).unwrap();
        send.send_data(framed(&sized(10_000)), true).unwrap();
        let response = response.await.unwrap();
        // The handler is done, but its answer does not fit the window.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(80)).await;
            pings.ping(h2::Ping::opaque()).await.unwrap();
        }
        assert!(!connection.is_finished());
        let called = collect(response).await.unwrap();
        assert_eq!(called.value().len(), 10_000);
    });
}

#[test]
fn settings_flood_is_closed() {
    let door = Door::open(Options::default());
    run(async {
        let mut socket = TcpStream::connect(door.addr).await.unwrap();
        socket.write_all(PREFACE).await.unwrap();
        let flood = SETTINGS.repeat(100);
        let closed = async {
            loop {
                if socket.write_all(&flood).await.is_err() {
                    return;
                }
                let mut sink = [0; 4096];
                while let Ok(read) = socket.try_read(&mut sink) {
                    if read == 0 {
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed)
            .await
            .expect("it is closed");
    });
}

#[test]
fn silent_connection_is_pinged_and_closed_when_it_does_not_answer() {
    let options = Options {
        keepalive_interval_ms: 100,
        keepalive_timeout_ms: 100,
        ..Options::default()
    };
    let door = Door::open(options);
    run(async {
        let mut socket = TcpStream::connect(door.addr).await.unwrap();
        socket
            .write_all(&[PREFACE, &SETTINGS].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(
            frames(&answer)
                .iter()
                .any(|(kind, flags, _)| (*kind, *flags) == (6, 0)),
            "it was pinged first"
        );
    });
}

#[test]
fn connection_that_answers_pings_stays() {
    let options = Options {
        keepalive_interval_ms: 100,
        keepalive_timeout_ms: 300,
        ..Options::default()
    };
    let door = Door::open(options);
    run(async {
        let (client, ended) = connect(door.addr).await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(ended.take().is_none());
        assert_eq!(
            unary(&client, "/etcdserverpb.KV/Range", b"here")
                .await
                .value(),
            "here"
        );
        drop(client);
        until("the client leaves", || ended.take().is_some()).await;
    });
}
