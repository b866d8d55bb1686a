//! What requests are answered, word for word, as etcd does it.
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use prost::Message as _;
use quorate_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, Member,
};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use quorate_proto::raftpb::MessageType;
use quorate_proto::{LeaseId, MemberId};
use quorate_transport::{Error, PeerClient, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use crate::PATIENCE;
use crate::member::{CLUSTER, TestMember, config, message, runtime, snapshot, wait};

/// Headers of a member of our cluster.
const SENDER: &str = "X-Server-From: 2\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: c1\r\n";

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn has(&self, header: &str) -> bool {
        let wanted = header.to_ascii_lowercase();
        self.head
            .lines()
            .any(|line| line.to_ascii_lowercase() == wanted)
    }
}

/// Sends bytes and reads one answer with its length, while the links work.
fn send_raw(runtime: &Runtime, member: &TestMember, request: &[u8]) -> Reply {
    let address = member.url.strip_prefix("http://").unwrap().to_owned();
    let request = request.to_vec();
    let asking = runtime.spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&request).unwrap();
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            if let Some(reply) = parse(&bytes) {
                return reply;
            }
            match socket.read(&mut piece).unwrap() {
                0 => panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)),
                count => bytes.extend_from_slice(&piece[..count]),
            }
        }
    });
    runtime.block_on(asking).unwrap()
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let body = bytes[end + 4..].to_vec();
    (body.len() >= length).then_some(Reply { status, head, body })
}

fn ask(runtime: &Runtime, member: &TestMember, line: &str, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let mut request =
        format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n")
            .into_bytes();
    request.extend_from_slice(body);
    send_raw(runtime, member, &request)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of requests")]
fn errors_are_etcds_status_and_text() {
    let runtime = runtime();
    let member = TestMember::start(&runtime, config(1));
    member.mouth.removed.lock().unwrap().insert(9);
    member.add_at(2, "http://127.0.0.1:1");
    let heartbeat = |from, to| message(MessageType::MsgHeartbeat, from, to, 0).encode_to_vec();
    let stranger = SENDER.replace(": c1", ": c2");
    let old = SENDER.replace("3.7.1", "2.3.0");
    let demanding = SENDER.replace("3.0.0", "3.8.0");
    let nameless = SENDER.replace("X-Server-Version: 3.7.1\r\n", "");
    let to_us = format!("{SENDER}X-Raft-To: 1\r\n");
    let to_another = format!("{SENDER}X-Raft-To: 3\r\n");
    let framed = |m: Vec<u8>| [(m.len() as u64).to_be_bytes().to_vec(), m].concat();
    let long = (65_u64 << 20).to_be_bytes().to_vec();
    let stray_snap = snapshot(2, 3, 5).encode_to_vec();
    let snap = snapshot(2, 1, 5).encode_to_vec();
    let removed_snap = snapshot(9, 1, 5).encode_to_vec();
    #[rustfmt::skip]
    let table: &[(&str, &str, Vec<u8>, u16, &str)] = &[
        ("GET /nothing", "", vec![], 404, "404 page not found\n"),
        ("GET /raftx", "", vec![], 404, "404 page not found\n"),
        ("GET /members/", "", vec![], 404, "404 page not found\n"),
        ("GET /members%2fhashkv", "", vec![], 404, "404 page not found\n"),
        ("POST /%6dembers", "", vec![], 405, "Method Not Allowed\n"),
        ("GET /raft/stream/m%65ssage/xyz", &to_us, vec![], 404, "invalid from\n"),
        ("GET /raft", SENDER, vec![], 405, "Method Not Allowed\n"),
        ("GET /raft/snapshot", SENDER, vec![], 405, "Method Not Allowed\n"),
        ("POST /raft/stream/message/2", SENDER, vec![], 405, "Method Not Allowed\n"),
        ("POST /raft", &stranger, heartbeat(2, 1), 412, "cluster ID mismatch\n"),
        ("POST /raft/snapshot", &stranger, vec![], 412, "cluster ID mismatch\n"),
        ("GET /raft/stream/message/2", &stranger, vec![], 412, "cluster ID mismatch\n"),
        ("POST /raft", "", heartbeat(2, 1), 412, "incompatible version\n"),
        ("POST /raft", &old, heartbeat(2, 1), 412, "incompatible version\n"),
        ("POST /raft", &demanding, heartbeat(2, 1), 412, "incompatible version\n"),
        ("GET /raft/stream/msgapp/2", &nameless, vec![], 412, "incompatible version\n"),
        ("GET /raft/stream/other/2", &to_us, vec![], 404, "invalid path\n"),
        ("GET /raft/stream/message/2/3", &to_us, vec![], 404, "invalid path\n"),
        ("GET /raft/stream/message/xyz", &to_us, vec![], 404, "invalid from\n"),
        ("GET /raft/stream/message/9", &to_us, vec![], 410, "removed member\n"),
        ("GET /raft/stream/message/8", &to_us, vec![], 404, "error sender not found\n"),
        ("GET /raft/stream/message/2", &to_another, vec![], 412, "to field mismatch\n"),
        ("POST /raft", SENDER, vec![0xff; 9], 400, "error unmarshalling raft message\n"),
        ("POST /raft", SENDER, heartbeat(9, 1), 500, "error processing raft message\n"),
        ("POST /raft", SENDER, heartbeat(2, 3), 500, "error processing raft message\n"),
        ("POST /raft", SENDER, heartbeat(2, 1), 204, ""),
        ("POST /raft/snapshot", SENDER, long, 400, "failed to decode raft message (rafthttp: error limit exceeded)\n"),
        ("POST /raft/snapshot", SENDER, vec![0, 0], 400, "failed to decode raft message (unexpected EOF)\n"),
        ("POST /raft/snapshot", SENDER, framed(heartbeat(2, 1)), 400, "wrong raft message type\n"),
        ("POST /raft/snapshot", SENDER, framed(removed_snap), 500, "failed to process raft message (cannot process message from removed member)\n"),
        ("POST /raft/snapshot", SENDER, framed(stray_snap), 500, "failed to process raft message (cannot process message to mismatch member)\n"),
        ("POST /raft/snapshot", SENDER, framed(snap), 500, "failed to save KV snapshot (no image)\n"),
        ("POST /members", "", vec![], 405, "Method Not Allowed\n"),
        ("GET /members/promote/1", "", vec![], 405, "Method Not Allowed\n"),
        ("POST /members/promote/0x1", "", vec![], 404, "member 0x1 not found in cluster\n"),
        ("POST /members/promote/", "", vec![], 404, "member  not found in cluster\n"),
        ("POST /members/hashkv", "", vec![], 405, "Method Not Allowed\n"),
        ("GET /members/hashkv", "X-Etcd-Cluster-ID: c2\r\n", b"{}".to_vec(), 412, "cluster ID mismatch\n"),
        ("GET /members/hashkv", "", b"no".to_vec(), 400, "error unmarshalling request\n"),
        ("GET /leases", "", vec![], 405, "Method Not Allowed\n"),
        ("POST /leases", "", vec![0; (64 << 10) + 1], 413, "request body too large\n"),
        ("POST /leases", "", vec![0xff], 400, "error unmarshalling request\n"),
        ("POST /leases", "", LeaseKeepAliveRequest { id: 8 }.encode_to_vec(), 404, "lease not found\n"),
        ("POST /leases/internal", "", vec![], 400, "error unmarshalling request\n"),
        ("POST /downgrade/enabled", "", vec![], 405, "Method Not Allowed\n"),
        ("POST /version", "", vec![], 405, "Method Not Allowed\n"),
    ];
    for (line, headers, body, status, text) in table {
        let reply = ask(&runtime, &member, line, headers, body);
        assert_eq!(
            (reply.status, reply.text()),
            (*status, *text),
            "{line} {headers}"
        );
        let is_plain = text.ends_with('\n');
        assert_eq!(
            reply.has("X-Content-Type-Options: nosniff"),
            is_plain,
            "{line}"
        );
        assert_eq!(
            reply.has("Content-Type: text/plain; charset=utf-8"),
            is_plain,
            "{line}"
        );
        let is_closed = *status == 413 || text.starts_with("error processing");
        assert_eq!(reply.has("Connection: close"), is_closed, "{line}");
        let is_stream = line.starts_with("GET /raft/stream/");
        assert_eq!(reply.has("X-Server-Version: 3.7.1"), is_stream, "{line}");
        let says_cluster = is_stream || (line.starts_with("POST /raft") && *status != 405);
        assert!(
            !says_cluster || reply.has("X-Etcd-Cluster-Id: c1"),
            "{line}"
        );
    }
    let allow = ask(&runtime, &member, "GET /raft", SENDER, &[]);
    assert!(allow.has("Allow: POST"), "{allow:?}");
    assert!(
        !ask(&runtime, &member, "GET /leases", "", &[])
            .head
            .contains("llow:")
    );
    assert_eq!(member.files(), Vec::<String>::new());
    assert_eq!(member.heard(|h| h.messages.len()), 1);
    assert_eq!(member.metrics(2).received_failures, 0);
    assert_eq!(member.metrics(0).received_failures, 3);
}

#[test]
fn refusals_of_the_member_are_told_in_etcds_words() {
    let runtime = runtime();
    let member = TestMember::start(&runtime, config(1));
    member.mouth.leases.lock().unwrap().insert(7, 10);
    let renew = LeaseKeepAliveRequest { id: 7 }.encode_to_vec();
    let describe = LeaseInternalRequest {
        lease_time_to_live_request: Some(LeaseTimeToLiveRequest { id: 7, keys: true }),
    };
    let describe = describe.encode_to_vec();
    let other = Refusal::Other("etcdserver: request timed out".to_owned());
    let internal = "{\"message\":\"Internal Server Error\"}";
    #[rustfmt::skip]
    let table: &[(&str, &[u8], Refusal, u16, &str)] = &[
        ("POST /members/promote/5", b"", Refusal::MemberNotFound, 404, "membership: ID not found\n"),
        ("POST /members/promote/5", b"", Refusal::NotLearner, 412, "membership: can only promote a learner member\n"),
        ("POST /members/promote/5", b"", Refusal::LearnerNotReady, 412, "etcdserver: can only promote a learner member which is in sync with leader\n"),
        ("POST /members/promote/5", b"", other.clone(), 500, internal),
        ("POST /leases", &renew, Refusal::NotCaughtUp, 408, "waiting for node to catch up its applied index has timed out\n"),
        ("POST /leases", &renew, Refusal::NotPrimary, 400, "not a primary lessor\n"),
        ("POST /leases/internal", &describe, Refusal::NotPrimary, 500, "not a primary lessor\n"),
        ("POST /leases/internal", &describe, Refusal::NotCaughtUp, 408, "waiting for node to catch up its applied index has timed out\n"),
        ("GET /members/hashkv", b"{\"revision\":3}", Refusal::Compacted, 400, "mvcc: required revision has been compacted\n"),
        ("GET /members/hashkv", b"{}", Refusal::FutureRevision, 400, "mvcc: required revision is a future revision\n"),
        ("GET /downgrade/enabled", b"", other.clone(), 500, "failed linearized read: etcdserver: request timed out\n"),
    ];
    for (line, body, refusal, status, text) in table {
        *member.mouth.refusal.lock().unwrap() = Some(refusal.clone());
        let reply = ask(&runtime, &member, line, "", body);
        assert_eq!(
            (reply.status, reply.text()),
            (*status, *text),
            "{line} {refusal:?}"
        );
    }
    *member.mouth.refusal.lock().unwrap() = None;
    let reply = ask(&runtime, &member, "POST /leases", "", &renew);
    assert!(reply.has("Content-Type: application/protobuf"));
    let answer = LeaseKeepAliveResponse::decode(&reply.body[..]).unwrap();
    assert_eq!((answer.id, answer.ttl), (7, 10));
    let reply = ask(&runtime, &member, "POST /leases/internal", "", &describe);
    let answer = LeaseInternalResponse::decode(&reply.body[..]).unwrap();
    assert_eq!(answer.lease_time_to_live_response.unwrap().granted_ttl, 10);
    let reply = ask(&runtime, &member, "GET /downgrade/enabled", "", &[]);
    assert_eq!((reply.status, reply.text()), (200, "true"));
    let reply = ask(&runtime, &member, "GET /version", "", &[]);
    let versions = "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"unknown\"}";
    assert_eq!(reply.text(), versions);
    assert!(reply.has("Content-Type: application/json"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "every question once")]
fn questions_and_answers_meet() {
    let runtime = runtime();
    let member = TestMember::start(&runtime, config(1));
    let known = Member {
        id: 1,
        name: "one".to_owned(),
        peer_ur_ls: vec![member.url.clone()],
        ..Member::default()
    };
    *member.mouth.members.lock().unwrap() = vec![known.clone()];
    member.mouth.leases.lock().unwrap().insert(-7, 10);
    let client = PeerClient::new(Duration::from_secs(10), None);
    // The first URL leads nowhere.
    let urls = ["http://127.0.0.1:1".to_owned(), member.url.clone()];
    runtime.block_on(async {
        let members = client.members(&urls, PATIENCE).await.unwrap();
        assert_eq!(members, (CLUSTER, vec![known.clone()]));
        let promoted = client
            .promote(&urls, MemberId(5), Some("tok.en"), PATIENCE)
            .await;
        assert_eq!(promoted.unwrap(), [known]);
        let versions = client.versions(&urls, PATIENCE).await.unwrap();
        assert_eq!(
            (versions.server.as_str(), versions.storage),
            ("3.7.1", None)
        );
        let hash = client.hash_kv(&urls, CLUSTER, 9, PATIENCE).await.unwrap();
        assert_eq!(
            (hash.hash, hash.hash_revision, hash.revision),
            (0xffff_fff0, 9, 10)
        );
        assert_eq!(
            client
                .renew_lease(&urls, LeaseId(-7), PATIENCE)
                .await
                .unwrap(),
            10
        );
        let lease = client
            .time_to_live(&urls, LeaseId(-7), true, PATIENCE)
            .await
            .unwrap();
        assert_eq!(
            (lease.ttl_s, lease.granted_ttl_s, lease.keys.len()),
            (3, 10, 1)
        );
        assert!(client.downgrade_enabled(&urls, PATIENCE).await.unwrap());
        let gone = client.renew_lease(&urls, LeaseId(1), PATIENCE).await;
        assert!(
            matches!(gone, Err(Error::Refused(Refusal::LeaseNotFound))),
            "{gone:?}"
        );
    });
    assert_eq!(
        member.mouth.token.lock().unwrap().as_deref(),
        Some("tok.en")
    );
    for refusal in [
        Refusal::NotLearner,
        Refusal::LearnerNotReady,
        Refusal::Compacted,
        Refusal::FutureRevision,
        Refusal::NotPrimary,
        Refusal::NotCaughtUp,
    ] {
        *member.mouth.refusal.lock().unwrap() = Some(refusal.clone());
        let said = runtime.block_on(async {
            match refusal {
                Refusal::NotLearner | Refusal::LearnerNotReady => client
                    .promote(&urls, MemberId(5), None, PATIENCE)
                    .await
                    .err(),
                Refusal::Compacted | Refusal::FutureRevision => {
                    client.hash_kv(&urls, CLUSTER, 9, PATIENCE).await.err()
                }
                _ => client.renew_lease(&urls, LeaseId(-7), PATIENCE).await.err(),
            }
        });
        assert!(
            matches!(&said, Some(Error::Refused(heard)) if *heard == refusal),
            "{refusal:?} {said:?}"
        );
    }
    let calls_are_awaited_anywhere = member.transport.clone();
    *member.mouth.refusal.lock().unwrap() = None;
    let url = vec![member.url.clone()];
    let asking =
        runtime.spawn(async move { calls_are_awaited_anywhere.versions_of(url, PATIENCE).await });
    assert!(runtime.block_on(asking).unwrap().is_ok());
}

#[test]
fn unknown_sender_is_answered_by_post_until_it_is_known() {
    let runtime = runtime();
    let (one, two) = (
        TestMember::start(&runtime, config(1)),
        TestMember::start(&runtime, config(2)),
    );
    // Two knows of one, and dials it; one learns of two by that alone.
    two.add(&one);
    wait(&runtime, "answer reaches the unknown one", || {
        one.transport
            .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 4)]);
        two.heard(|h| h.messages.iter().any(|m| m.index() == 4))
    });
    assert_eq!(one.transport.active_since(MemberId(2)), None);
    one.add(&two);
    wait(&runtime, "both streams are open", || {
        one.metrics(2).streams_open == 2
    });
    assert_eq!(two.heard(|h| h.removed), 0);
}

#[test]
fn removed_member_is_told_by_stream_and_not_by_post() {
    let runtime = runtime();
    let one = TestMember::start(&runtime, config(1));
    one.mouth.removed.lock().unwrap().insert(2);
    let two = TestMember::start(&runtime, config(2));
    two.transport
        .add_remote(MemberId(1), std::slice::from_ref(&one.url))
        .unwrap();
    wait(&runtime, "a post fails", || {
        two.transport
            .send(vec![message(MessageType::MsgHeartbeat, 2, 1, 0)]);
        two.heard(|h| h.unreachable.contains(&1))
    });
    assert_eq!(two.heard(|h| h.removed), 0);
    two.add(&one);
    wait(&runtime, "member hears that it was removed", || {
        two.heard(|h| h.removed) > 0
    });
    assert_eq!(two.heard(|h| h.removed), 1);
    assert_eq!(one.heard(|h| h.messages.len()), 0);
}

#[test]
fn clients_are_sent_to_clean_paths_and_long_bodies_end_connections() {
    let runtime = runtime();
    let member = TestMember::start(&runtime, config(1));
    let reply = ask(&runtime, &member, "GET /a/../members?x=1&y", "", &[]);
    assert_eq!(
        (reply.status, reply.text()),
        (
            307,
            "<a href=\"/members?x=1&amp;y\">Temporary Redirect</a>.\n\n"
        )
    );
    assert!(reply.has("Location: /members?x=1&y"), "{reply:?}");
    assert!(reply.has("Content-Type: text/html; charset=utf-8"));
    let reply = ask(&runtime, &member, "POST /members/promote", "", &[]);
    assert_eq!((reply.status, reply.text()), (307, ""));
    assert!(reply.has("Location: /members/promote/"), "{reply:?}");
    assert!(!reply.head.contains("ontent-Type"), "{reply:?}");
    let refused = ask(&runtime, &member, "POST /leases", "", &vec![0; 70_000]);
    let line = "HTTP/1.1 413 Request Entity Too Large";
    assert!(refused.head.starts_with(line), "{refused:?}");
    let long = vec![0; 300_000];
    for (line, body, is_closed) in [
        ("GET /members", &long[..], true),
        ("POST /version", &long, true),
        ("GET /members", &long[..100_000], false),
        ("POST /members", &[], false),
    ] {
        let reply = ask(&runtime, &member, line, "", body);
        assert_eq!(reply.has("Connection: close"), is_closed, "{line}");
    }
}

#[test]
fn passing_on_what_a_removed_member_asked_ends_nobody() {
    let runtime = runtime();
    let one = TestMember::start(&runtime, config(1));
    one.mouth.removed.lock().unwrap().insert(9);
    let etcd = etcd_that_removed(&runtime);
    let two = TestMember::start(&runtime, config(2));
    for (id, url) in [(1, &one.url), (3, &etcd)] {
        let url = std::slice::from_ref(url);
        two.transport.add_remote(MemberId(id), url).unwrap();
        wait(&runtime, "the post is refused", || {
            two.transport
                .send(vec![message(MessageType::MsgProp, 9, id, 0)]);
            two.heard(|h| h.unreachable.contains(&id))
        });
    }
    assert_eq!(two.heard(|h| h.removed), 0);
    assert_eq!(one.heard(|h| h.messages.len()), 0);
    two.transport
        .send(vec![message(MessageType::MsgHeartbeat, 2, 3, 0)]);
    wait(&runtime, "its own messages are refused", || {
        two.heard(|h| h.removed) > 0
    });
}

/// Starts what answers every post as etcd does that knows the message's author as removed; returns its URL.
fn etcd_that_removed(runtime: &Runtime) -> String {
    const BODY: &str = "{\"message\":\"cannot process message from removed member\"}\n";
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length";
    let answer = format!("{head}: {}\r\n\r\n{BODY}", BODY.len());
    runtime.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            while !is_whole(&bytes) && socket.read_buf(&mut bytes).await.unwrap() > 0 {}
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

/// Says whether the bytes are a request with all its body.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    bytes.len() >= head.len() + 4 + length.unwrap_or(0)
}

#[test]
fn strangers_and_wrong_addresses_make_nobody_end_itself() {
    let runtime = runtime();
    let one = TestMember::start(&runtime, config(1));
    one.mouth.removed.lock().unwrap().insert(2);
    // Another cluster says 410 to one of our ids, and a member is reached at another one's address.
    let mut foreign = config(2);
    foreign.cluster_id.0 += 1;
    let two = TestMember::start(&runtime, foreign);
    two.add(&one);
    let three = TestMember::start(&runtime, config(3));
    three.add_at(4, &one.url);
    wait(&runtime, "posts fail", || {
        for (from, to) in [(&two, 1), (&three, 4)] {
            from.transport
                .send(vec![message(MessageType::MsgHeartbeat, from.id, to, 0)]);
        }
        two.heard(|h| h.unreachable.contains(&1)) && three.heard(|h| h.unreachable.contains(&4))
    });
    assert_eq!(two.heard(|h| h.removed) + three.heard(|h| h.removed), 0);
    assert_eq!(one.heard(|h| h.messages.len()), 0);
    assert!(two.metrics(1).sent_failures > 0);
}
