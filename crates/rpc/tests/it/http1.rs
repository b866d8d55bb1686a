//! HTTP/1.1 on the same port.
use quorate_rpc::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::echo::{Door, connect, run, unary};

pub(crate) async fn exchange(socket: &mut TcpStream, request: &str) -> String {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buf = [0; 1024];
    loop {
        let read = socket.read(&mut buf).await.unwrap();
        answer.extend_from_slice(&buf[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(read > 0, "closed: {text}");
            continue;
        };
        let len: usize = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "))
            .unwrap()
            .parse()
            .unwrap();
        if body.len() >= len || read == 0 {
            return text.into_owned();
        }
    }
}

#[test]
fn http1_and_grpc_share_the_port() {
    let door = Door::open(Options::default());
    run(async {
        let mut socket = TcpStream::connect(door.addr).await.unwrap();
        let request = "GET /health?serializable=true HTTP/1.1\r\nhost: x\r\n\r\n";
        let answer = exchange(&mut socket, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("GET /health serializable=true"),
            "{answer}"
        );
        // The connection is kept, and the first bytes may come one by one.
        for byte in "POST /version HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nh".bytes() {
            socket.write_all(&[byte]).await.unwrap();
        }
        assert!(exchange(&mut socket, "i").await.ends_with("POST /version "));
        let (client, _) = connect(door.addr).await;
        assert_eq!(
            unary(&client, "/etcdserverpb.KV/Range", b"both")
                .await
                .value(),
            "both"
        );
    });
}
