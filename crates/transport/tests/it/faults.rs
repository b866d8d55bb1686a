//! Links that break, stall and lie.
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use quorate_transport::{Config, ImageFile, ImageStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::member::{
    TestMember, append, config, image, message, runtime, set_link_timeouts, snapshot, wait,
    wait_for_links,
};
use crate::proxy::{Proxy, Weather};

/// Two members, one of which reaches the other through a proxy each way.
struct Pair {
    runtime: Runtime,
    one: TestMember,
    two: TestMember,
    /// What two serves, as one sees it, and the other way round.
    proxies: [Proxy; 2],
}

impl Pair {
    fn start(set: impl Fn(&mut Config)) -> Self {
        let runtime = runtime();
        let start = |id| {
            let mut config = config(id);
            set(&mut config);
            TestMember::start(&runtime, config)
        };
        let (one, two) = (start(1), start(2));
        let proxies = [
            Proxy::start(&runtime, &two.url),
            Proxy::start(&runtime, &one.url),
        ];
        one.add_at(2, &proxies[0].url);
        two.add_at(1, &proxies[1].url);
        wait_for_links(&runtime, &[&one, &two]);
        Self {
            runtime,
            one,
            two,
            proxies,
        }
    }

    fn set(&self, weather: Weather) {
        self.proxies.iter().for_each(|proxy| proxy.set(weather));
    }

    /// Waits until messages of both kinds pass both ways, which raft would repeat too.
    fn wait_for_messages(&self, mark: u64) {
        wait(&self.runtime, "messages pass again", || {
            for (from, to) in [(&self.one, &self.two), (&self.two, &self.one)] {
                from.transport.send(vec![
                    message(MessageType::MsgHeartbeat, from.id, to.id, mark),
                    append(from.id, to.id, mark, Bytes::from_static(b"x")),
                ]);
            }
            [&self.one, &self.two].into_iter().all(|member| {
                member.heard(|h| h.messages.iter().filter(|m| m.index() == mark).count()) >= 2
            })
        });
    }

    /// Waits until the first member has heard that its dials succeeded: the second one's streams are open a moment before.
    fn wait_until_active(&self) {
        wait(&self.runtime, "peer is active", || {
            self.one.transport.active_since(MemberId(2)).is_some()
        });
    }

    /// Everything that arrived was sent like that.
    fn assert_all_true(&self, sent: impl Fn(u64) -> Bytes) {
        for member in [&self.one, &self.two] {
            for heard in member.heard(|h| h.messages.clone()) {
                assert_eq!(heard.to(), member.id);
                if let Some(entry) = heard.entries.first() {
                    let data = entry.data.clone().unwrap();
                    let is_mark = data[..] == b"x"[..];
                    assert!(is_mark || data == sent(heard.index()), "{}", heard.index());
                }
            }
        }
    }
}

#[test]
fn links_come_back_after_every_weather() {
    let pair = Pair::start(|config| set_link_timeouts(config, Duration::from_millis(600)));
    let weathers = [
        Weather::Swallow,
        Weather::Stuck,
        Weather::Slow(Duration::from_millis(10)),
        Weather::Spoil(40),
    ];
    for (mark, weather) in (1..).zip(weathers) {
        pair.set(weather);
        let until = std::time::Instant::now() + Duration::from_secs(1);
        wait(&pair.runtime, "bad weather passes", || {
            pair.one
                .transport
                .send(vec![append(1, 2, 0, Bytes::from(image(0, 3000)))]);
            std::time::Instant::now() >= until
        });
        pair.set(Weather::Fair);
        pair.wait_for_messages(mark);
    }
    for mark in 10..13 {
        pair.proxies.iter().for_each(Proxy::cut);
        pair.wait_for_messages(mark);
    }
    pair.assert_all_true(|index| Bytes::from(image(index, 3000)));
    assert!(pair.one.metrics(2).disconnected > 0);
}

#[test]
fn closed_network_makes_peers_inactive_and_reports_them_unreachable() {
    let pair = Pair::start(|_| {});
    pair.wait_until_active();
    pair.proxies.iter().for_each(|proxy| proxy.close(true));
    wait(&pair.runtime, "peer is inactive and unreachable", || {
        pair.one
            .transport
            .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 0)]);
        pair.one.transport.active_since(MemberId(2)).is_none()
            && pair.one.heard(|h| h.unreachable.contains(&2))
            && pair.one.metrics(2).sent_failures > 0
            && pair.one.metrics(2).streams_open == 0
            && pair.two.metrics(1).streams_open == 0
    });
    pair.proxies.iter().for_each(|proxy| proxy.close(false));
    pair.wait_for_messages(5);
    pair.wait_until_active();
}

/// Streams that work are not opened again, so nothing but what they carry can tell.
#[test]
fn a_link_whose_streams_work_is_active_again_after_something_else_failed() {
    let pair = Pair::start(|config| set_link_timeouts(config, Duration::from_secs(1)));
    pair.wait_until_active();
    let since = pair.one.transport.active_since(MemberId(2)).unwrap();
    *pair.one.images.missing.lock().unwrap() = 1;
    *pair.one.images.bytes.lock().unwrap() = 1_000;
    pair.one.transport.send(vec![snapshot(1, 2, 3)]);
    wait(&pair.runtime, "the snapshot fails", || {
        pair.one.heard(|h| h.snapshots_sent == [(2, false)])
    });
    wait(&pair.runtime, "peer is active anew", || {
        let now = pair.one.transport.active_since(MemberId(2));
        now.is_some_and(|now| now > since)
    });
}

#[test]
fn changed_and_lost_bytes_never_become_messages() {
    // faults.md N4: bytes changed on the wire between members.
    let pair = Pair::start(|_| {});
    let data = |index: u64| Bytes::from(image(index, 5000));
    for round in 0..30_u64 {
        let weather = [
            Weather::Spoil(usize::try_from(round % 7 + 1).unwrap() * 1777),
            Weather::Swallow,
            Weather::Fair,
        ][usize::try_from(round % 3).unwrap()];
        pair.set(weather);
        let batch = (0..20).map(|at| append(1, 2, round * 20 + at, data(round * 20 + at)));
        pair.one.transport.send(batch.collect());
        let until = std::time::Instant::now() + Duration::from_millis(20);
        wait(&pair.runtime, "a moment passes", || {
            std::time::Instant::now() >= until
        });
    }
    pair.set(Weather::Fair);
    pair.wait_for_messages(1 << 40);
    pair.assert_all_true(data);
}

#[test]
fn urls_of_a_peer_are_tried_in_turn_and_changed() {
    let runtime = runtime();
    let (one, two) = (
        TestMember::start(&runtime, config(1)),
        TestMember::start(&runtime, config(2)),
    );
    let urls = ["http://127.0.0.1:1".to_owned(), two.url.clone()];
    one.transport.add_peer(MemberId(2), &urls).unwrap();
    two.add_at(1, "http://127.0.0.1:1");
    wait(&runtime, "second URL works", || {
        two.metrics(1).streams_open == 2
    });
    let right = std::slice::from_ref(&one.url);
    two.transport.update_peer(MemberId(1), right).unwrap();
    wait(&runtime, "new URL works", || {
        one.metrics(2).streams_open == 2
    });
    assert!(two.transport.add_peer(MemberId(3), &[]).is_err());
    let three = TestMember::start(&runtime, config(3));
    three.add(&two);
    let right = std::slice::from_ref(&three.url);
    two.transport.update_peer(MemberId(3), right).unwrap();
    wait(&runtime, "member without a URL is reached at last", || {
        two.metrics(3).streams_open == 2 && three.metrics(2).streams_open == 2
    });
    assert!(
        two.transport
            .update_peer(MemberId(1), &["nonsense".to_owned()])
            .is_err()
    );
}

#[test]
fn full_receiver_is_counted_and_refused_by_post() {
    let runtime = runtime();
    let (one, two) = (
        TestMember::start(&runtime, config(1)),
        TestMember::start(&runtime, config(2)),
    );
    two.heard(|h| h.room = Some(0));
    two.transport
        .add_remote(MemberId(1), std::slice::from_ref(&one.url))
        .unwrap();
    one.transport
        .add_remote(MemberId(2), std::slice::from_ref(&two.url))
        .unwrap();
    wait(&runtime, "post is refused", || {
        one.transport
            .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 0)]);
        one.heard(|h| h.unreachable.contains(&2))
    });
    one.add(&two);
    two.add(&one);
    wait_for_links(&runtime, &[&one, &two]);
    let refused = two.metrics(1).received_failures;
    wait(&runtime, "message is counted", || {
        one.transport
            .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 0)]);
        two.metrics(1).received_failures > refused
    });
    assert_eq!(two.heard(|h| h.messages.len()), 0);
}

#[test]
fn peer_that_does_not_read_costs_bounded_memory_and_is_reported() {
    let pair = Pair::start(|config| set_link_timeouts(config, Duration::from_secs(2)));
    pair.proxies[1].set(Weather::Stuck);
    let large = Bytes::from(vec![7; 1 << 20]);
    let dropped = || pair.one.metrics(2).sent_failures;
    // The proxy in front of one carries the streams that two opened, and takes nothing.
    wait(&pair.runtime, "messages are dropped", || {
        let batch = (0..100).map(|index| append(1, 2, index, large.clone()));
        pair.one.transport.send(batch.collect());
        dropped() > 0
    });
    assert!(pair.one.heard(|h| h.unreachable.contains(&2)));
    pair.proxies[1].set(Weather::Fair);
    pair.wait_for_messages(1 << 40);
}

#[test]
fn silent_and_half_open_connections_are_closed() {
    let runtime = runtime();
    let mut config = config(1);
    config.read_timeout = Duration::from_millis(200);
    // Were this the one that ends silence, it would not within the test's time.
    config.write_timeout = crate::PATIENCE * 10;
    let member = TestMember::start(&runtime, config);
    let head = "POST /raft HTTP/1.1\r\nHost: x\r\nX-Server-From: 2\r\nX-Server-Version: 3.7.1\r\n\
                X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: c1\r\nContent-Length: 100\r\n\r\nhalf";
    for begin in [
        "",
        "GET /raft/pro",
        head,
        "\0\u{1}\u{2}garbage\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        let address = member.url.strip_prefix("http://").unwrap().to_owned();
        let closing = runtime.spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(begin.as_bytes()).unwrap();
            let mut answer = Vec::new();
            socket.set_read_timeout(Some(crate::PATIENCE)).unwrap();
            // A reset is an end as well.
            match socket.read_to_end(&mut answer) {
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            }
        });
        assert!(runtime.block_on(closing).unwrap(), "{begin:?}");
    }
    assert_eq!(member.heard(|h| h.messages.len()), 0);
}

/// A disk that is full after some bytes.
struct SmallDisk {
    room: usize,
    left_behind: Arc<AtomicUsize>,
}

struct SmallFile(usize, Arc<AtomicUsize>);

impl ImageStore for SmallDisk {
    fn create(&self) -> io::Result<Box<dyn ImageFile>> {
        self.left_behind.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(SmallFile(
            self.room,
            Arc::clone(&self.left_behind),
        )))
    }
}

impl ImageFile for SmallFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(())
    }

    fn keep(self: Box<Self>, _: u64) -> io::Result<PathBuf> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl Drop for SmallFile {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn full_disk_refuses_a_snapshot_and_keeps_nothing() {
    let runtime = runtime();
    for room in [100_000, 1 << 30] {
        let left_behind = Arc::new(AtomicUsize::new(0));
        let disk = SmallDisk {
            room,
            left_behind: Arc::clone(&left_behind),
        };
        let one = TestMember::start(&runtime, config(1));
        let two = TestMember::start_with(&runtime, config(2), Some(Arc::new(disk)));
        one.add(&two);
        *one.images.bytes.lock().unwrap() = 1_000_000;
        one.transport.send(vec![snapshot(1, 2, 3)]);
        wait(&runtime, "failure is reported", || {
            one.heard(|h| h.snapshots_sent == [(2, false)])
        });
        wait(&runtime, "nothing is left", || {
            left_behind.load(Ordering::Relaxed) == 0
        });
        assert_eq!(two.heard(|h| h.snapshots.len()), 0);
        assert_eq!(one.metrics(2).snapshot_send_failures, 1);
        assert!(one.heard(|h| h.unreachable.contains(&2)));
    }
}

#[test]
fn snapshots_that_break_off_or_change_leave_nothing_behind() {
    for checksums in [true, false] {
        let pair = Pair::start(|config| {
            config.checksums = checksums;
            config.snapshot_timeout = Duration::from_millis(500);
        });
        let (one, two) = (&pair.one, &pair.two);
        let bytes = 2_000_000;
        *one.images.bytes.lock().unwrap() = bytes;
        let mut failures = 0;
        let mut fail = |what: &str, spoil: &dyn Fn()| {
            one.heard(|h| h.snapshots_sent.clear());
            one.transport.send(vec![snapshot(1, 2, 3)]);
            spoil();
            wait(&pair.runtime, what, || {
                one.heard(|h| h.snapshots_sent == [(2, false)])
            });
            pair.set(Weather::Fair);
            failures += 1;
            assert_eq!(one.metrics(2).snapshot_send_failures, failures);
            wait(&pair.runtime, "nothing is left", || two.files().is_empty());
            assert_eq!(two.heard(|h| h.snapshots.len()), 0, "{what}");
        };
        for missing in [-1, 1, -1_000_000, 1_000_000] {
            *one.images.missing.lock().unwrap() = missing;
            fail("length was a lie", &|| {});
        }
        *one.images.missing.lock().unwrap() = 0;
        fail("bytes vanish", &|| pair.set(Weather::Swallow));
        fail("nothing is taken", &|| pair.set(Weather::Stuck));
        if checksums {
            fail("bytes change", &|| pair.set(Weather::Spoil(7000)));
        }
        let of_nobody = snapshot(1, 9, 3);
        one.heard(|h| h.snapshots_sent.clear());
        one.transport.send(vec![of_nobody]);
        assert_eq!(one.heard(|h| h.snapshots_sent.clone()), [(9, false)]);

        one.heard(|h| h.snapshots_sent.clear());
        one.transport.send(vec![snapshot(1, 2, 4)]);
        wait(&pair.runtime, "a whole one arrives", || {
            one.heard(|h| h.snapshots_sent == [(2, true)])
        });
        let (_, path) = two.heard(|h| h.snapshots.pop()).unwrap();
        assert!(std::fs::read(path).unwrap() == image(4, bytes));
    }
}

#[test]
fn second_snapshot_to_a_peer_waits_for_the_first() {
    let runtime = runtime();
    let one = TestMember::start(&runtime, config(1));
    let two = TestMember::start(&runtime, config(2));
    one.add(&two);
    *one.images.bytes.lock().unwrap() = 1_000_000;
    let opening = one.images.opening.lock().unwrap();
    one.transport
        .send(vec![snapshot(1, 2, 3), snapshot(1, 2, 4)]);
    assert_eq!(one.heard(|h| h.snapshots_sent.clone()), [(2, false)]);
    drop(opening);
    wait(&runtime, "the first arrives", || {
        one.heard(|h| h.snapshots_sent.len() == 2)
    });
    assert_eq!(
        one.heard(|h| h.snapshots_sent.clone()),
        [(2, false), (2, true)]
    );
    assert_eq!(two.files(), ["0000000000000003.snap.db"]);
}

#[test]
fn cut_members_hear_nothing_of_each_other_until_mended() {
    let pair = Pair::start(|_| {});
    pair.one.transport.cut(MemberId(2));
    pair.one
        .transport
        .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 1)]);
    pair.two
        .transport
        .send(vec![message(MessageType::MsgHeartbeat, 2, 1, 1)]);
    let received = pair.one.metrics(2).received_bytes;
    wait(&pair.runtime, "message arrives and is dropped", || {
        pair.one.metrics(2).received_bytes > received
    });
    assert_eq!(pair.one.heard(|h| h.messages.len()), 0);
    assert_eq!(pair.two.heard(|h| h.messages.len()), 0);
    pair.one.transport.mend(MemberId(2));
    pair.wait_for_messages(2);
}

#[test]
fn stopped_transport_serves_and_sends_nothing() {
    let pair = Pair::start(|_| {});
    pair.two
        .transport
        .send(vec![message(MessageType::MsgHeartbeat, 2, 1, 77)]);
    pair.two.transport.stop();
    wait(
        &pair.runtime,
        "last message arrives and the peer is gone",
        || {
            pair.one
                .heard(|h| h.messages.iter().any(|m| m.index() == 77))
                && pair.one.transport.active_since(MemberId(2)).is_none()
                && pair.one.metrics(2).streams_open == 0
        },
    );
    assert!(
        pair.two
            .transport
            .add_peer(MemberId(3), &["http://127.0.0.1:1".to_owned()])
            .is_err()
    );
    pair.two
        .transport
        .send(vec![message(MessageType::MsgHeartbeat, 2, 1, 78)]);
    assert_eq!(pair.two.transport.active_peers(), 0);
}

/// Answers posted messages, but for proposals: it reads them and closes the connection. Notes the kind of each.
async fn take_posts(listener: TcpListener, kinds: Arc<Mutex<Vec<MessageType>>>) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let kinds = Arc::clone(&kinds);
        tokio::spawn(async move {
            while let Some((line, body)) = read_request(&mut socket).await {
                let mut status = "404 Not Found";
                if line.starts_with("POST /raft ") {
                    let kind = Message::decode(&body[..]).unwrap().r#type();
                    kinds.lock().unwrap().push(kind);
                    if kind == MessageType::MsgProp {
                        return;
                    }
                    status = "204 No Content";
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Reads a request's first line and body; `None` when there is none.
async fn read_request(socket: &mut tokio::net::TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    socket.read_exact(&mut body).await.ok()?;
    Some((head.lines().next().unwrap().to_owned(), body))
}

#[test]
fn proposal_whose_answer_is_lost_is_not_posted_again() {
    let runtime = runtime();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(take_posts(listener, Arc::clone(&kinds)));
    let member = TestMember::start(&runtime, config(1));
    member.add_at(2, &url);
    let count = |kind| {
        let kinds = kinds.lock().unwrap();
        kinds.iter().filter(|other| **other == kind).count()
    };
    for round in 0..20 {
        // So that a connection is there that was used before.
        let beats = count(MessageType::MsgHeartbeat);
        member
            .transport
            .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 1)]);
        wait(&runtime, "a heartbeat is posted", || {
            count(MessageType::MsgHeartbeat) > beats
        });
        member
            .transport
            .send(vec![message(MessageType::MsgProp, 1, 2, 1)]);
        wait(&runtime, "the proposal is posted", || {
            count(MessageType::MsgProp) > round
        });
    }
    let beats = count(MessageType::MsgHeartbeat);
    for _ in 0..4 {
        member
            .transport
            .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 1)]);
    }
    wait(&runtime, "heartbeats are posted", || {
        count(MessageType::MsgHeartbeat) >= beats + 4
    });
    assert_eq!(count(MessageType::MsgProp), 20, "each proposal once");
}
