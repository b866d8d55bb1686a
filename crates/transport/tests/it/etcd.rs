//! Against a real etcd 3.7.1, whose path is in `QUORATE_REFERENCE_ETCD`; skipped, and said so, without.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_proto::etcdserverpb::Member;
use quorate_proto::raftpb::{Message, MessageType};
use quorate_proto::{LeaseId, MemberId};
use quorate_transport::{Config, Error, PeerClient, Refusal};
use tokio::runtime::Runtime;

use crate::PATIENCE;
use crate::member::{TestMember, config, message, runtime, snapshot, wait};

/// Begin of a bbolt file's first meta page, behind the page's header.
const BBOLT_MAGIC: [u8; 4] = 0xed0c_daed_u32.to_le_bytes();

struct Etcd {
    child: Child,
    peer_url: String,
    client_address: String,
    log: Arc<Mutex<Vec<String>>>,
    _data: tempfile::TempDir,
}

impl Etcd {
    /// Starts an etcd beside the members given, or says that there is none to start.
    fn start(others: &[(&str, &str)], more: &[&str]) -> Option<Self> {
        Self::start_at(free_address(), others, more)
    }

    fn start_at(peer: String, others: &[(&str, &str)], more: &[&str]) -> Option<Self> {
        let Ok(program) = std::env::var("QUORATE_REFERENCE_ETCD") else {
            println!("SKIPPED: QUORATE_REFERENCE_ETCD names no etcd 3.7.1 to test against");
            return None;
        };
        let data = tempfile::tempdir().unwrap();
        let client = free_address();
        let peer_url = format!("http://{peer}");
        let client_url = format!("http://{client}");
        let mut cluster = format!("reference={peer_url}");
        for (name, url) in others {
            cluster.push_str(&format!(",{name}={url}"));
        }
        let mut child = Command::new(program)
            .args(["--name", "reference", "--logger", "zap"])
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--initial-cluster", &cluster])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, sink) = (
            BufReader::new(child.stderr.take().unwrap()),
            Arc::clone(&log),
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "the test reads a program's log meanwhile"
        )]
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        Some(Self {
            child,
            peer_url,
            client_address: client,
            log,
            _data: data,
        })
    }

    fn says(&self, text: &str) -> bool {
        self.log
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(text))
    }

    /// Complaints since the log's line `from`.
    fn complaints(&self, from: usize) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let is_complaint = |line: &&String| {
            line.contains("\"level\":\"warn\"") || line.contains("\"level\":\"error\"")
        };
        log[from..].iter().filter(is_complaint).cloned().collect()
    }

    fn log_lines(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Posts JSON to the client port and returns the answer, status and all.
    fn post(&self, path: &str, body: &str) -> Option<String> {
        let mut socket = TcpStream::connect(&self.client_address).ok()?;
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Waits for etcd's own list of members.
fn members(runtime: &Runtime, etcd: &Etcd) -> (quorate_proto::ClusterId, Vec<Member>) {
    let client = PeerClient::new(Duration::from_secs(1), None);
    let urls = [etcd.peer_url.clone()];
    let mut found = None;
    wait(runtime, "etcd lists its members", || {
        found = runtime_ask(&client, &urls);
        found.is_some()
    });
    found.unwrap()
}

/// Asks on a runtime of its own, because it is called from within another one's wait.
fn runtime_ask(
    client: &PeerClient,
    urls: &[String],
) -> Option<(quorate_proto::ClusterId, Vec<Member>)> {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let answered = runtime().block_on(client.members(urls, Duration::from_secs(1)));
            answered.ok().filter(|(_, members)| !members.is_empty())
        });
        asking.join().unwrap()
    })
}

/// Plays a follower that has everything it is sent, or nothing at all.
fn follow(us: &TestMember, has_all: bool) {
    let heard = us.heard(|h| std::mem::take(&mut h.messages));
    let answers = heard.into_iter().filter_map(|m| answer(us.id, &m, has_all));
    us.transport.send(answers.collect());
}

fn answer(us: u64, heard: &Message, has_all: bool) -> Option<Message> {
    let kind = match heard.r#type() {
        MessageType::MsgApp => MessageType::MsgAppResp,
        MessageType::MsgHeartbeat => MessageType::MsgHeartbeatResp,
        MessageType::MsgPreVote => MessageType::MsgPreVoteResp,
        MessageType::MsgVote => MessageType::MsgVoteResp,
        _ => return None,
    };
    let mut answer = message(kind, us, heard.from(), 0);
    answer.term = heard.term;
    answer.context = heard.context.clone();
    if kind == MessageType::MsgAppResp {
        let last = heard
            .entries
            .last()
            .map_or(heard.index(), |entry| entry.index());
        let is_refused = !has_all && heard.index() > 0;
        answer.index = Some(if is_refused { heard.index() } else { last });
        answer.reject = Some(is_refused);
        answer.reject_hint = Some(0);
    }
    Some(answer)
}

/// Starts ourselves as a member of etcd's cluster.
fn join(runtime: &Runtime, etcd: &Etcd, listener: TcpListener) -> (TestMember, u64) {
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (cluster, members) = members(runtime, etcd);
    let ours = members
        .iter()
        .find(|m| m.peer_ur_ls == [url.clone()])
        .unwrap();
    let theirs = members.iter().find(|m| m.id != ours.id).unwrap();
    let us = TestMember::start_on(
        runtime,
        Config::new(MemberId(ours.id), cluster),
        listener,
        None,
    );
    *us.mouth.members.lock().unwrap() = members.clone();
    us.add_at(theirs.id, &theirs.peer_ur_ls[0]);
    (us, theirs.id)
}

#[test]
fn etcd_takes_us_for_a_member() {
    let runtime = runtime();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let Some(etcd) = Etcd::start(&[("ours", &url)], &[]) else {
        return;
    };
    let (us, them) = join(&runtime, &etcd, listener);
    wait(&runtime, "all four streams are open", || {
        us.metrics(them).streams_open == 2 && us.transport.active_peers() == 1
    });
    let from = etcd.log_lines();
    wait(
        &runtime,
        "etcd leads, with our votes and acknowledgements",
        || {
            follow(&us, true);
            etcd.says("ready to serve client requests")
        },
    );
    wait(
        &runtime,
        "etcd decides on the cluster's version, having asked for ours",
        || {
            follow(&us, true);
            etcd.says("set initial cluster version") || etcd.says("updated cluster version")
        },
    );
    let mut put = None;
    std::thread::scope(|scope| {
        let putting =
            scope.spawn(|| etcd.post("/v3/kv/put", "{\"key\":\"aw==\",\"value\":\"dg==\"}"));
        wait(&runtime, "a put is acknowledged", || {
            follow(&us, true);
            putting.is_finished()
        });
        put = putting.join().unwrap();
    });
    assert!(
        put.as_ref().is_some_and(|answer| answer.contains("200 OK")),
        "{put:?}"
    );
    ask_everything(&runtime, &etcd, &us);

    // etcd probes every four seconds and complains after five.
    let asked = std::time::Instant::now();
    wait(&runtime, "probes were answered both ways", || {
        follow(&us, true);
        asked.elapsed() > Duration::from_secs(7) && us.metrics(them).round_trip_time.count >= 1
    });
    assert!(us.metrics(them).probe_is_healthy);
    assert_eq!(us.metrics(them).streams_open, 2);
    let complaints = etcd.complaints(from);
    // Promotions were meant to fail.
    let about_us = |line: &&String| {
        [
            "stream",
            "peer",
            "rafthttp",
            "version",
            "cluster ID",
            "header",
            "prober",
        ]
        .iter()
        .any(|word| line.contains(word))
    };
    let about_us: Vec<&String> = complaints
        .iter()
        .filter(about_us)
        .filter(|line| !line.contains("failed to promote a member"))
        .collect();
    assert!(about_us.is_empty(), "{about_us:#?}");
    assert_eq!(us.heard(|h| h.removed), 0);
}

/// Asks etcd what a member asks another.
fn ask_everything(runtime: &Runtime, etcd: &Etcd, us: &TestMember) {
    let urls = || vec![etcd.peer_url.clone()];
    let transport = &us.transport;
    let asking = async {
        let versions = transport.versions_of(urls(), PATIENCE).await.unwrap();
        assert_eq!(versions.server, "3.7.1");
        assert_eq!(versions.cluster.as_deref(), Some("3.7.0"));
        let hash = transport.hash_kv_of(urls(), 0, PATIENCE).await.unwrap();
        assert!(hash.revision >= 2 && hash.hash != 0, "{hash:?}");
        let future = transport.hash_kv_of(urls(), 1 << 40, PATIENCE).await;
        assert!(
            matches!(future, Err(Error::Refused(Refusal::FutureRevision))),
            "{future:?}"
        );
        let unknown = transport
            .promote_on(urls(), MemberId(42), None, PATIENCE)
            .await;
        assert!(
            matches!(unknown, Err(Error::Refused(Refusal::MemberNotFound))),
            "{unknown:?}"
        );
        let voter = transport
            .promote_on(urls(), MemberId(us.id), None, PATIENCE)
            .await;
        assert!(
            matches!(voter, Err(Error::Refused(Refusal::NotLearner))),
            "{voter:?}"
        );
        let renewed = transport.renew_lease_on(urls(), LeaseId(7), PATIENCE).await;
        assert!(
            matches!(renewed, Err(Error::Refused(Refusal::LeaseNotFound))),
            "{renewed:?}"
        );
        let lease = transport
            .time_to_live_on(urls(), LeaseId(7), true, PATIENCE)
            .await;
        assert!(
            matches!(lease, Err(Error::Refused(Refusal::LeaseNotFound))),
            "{lease:?}"
        );
        assert!(
            !transport
                .downgrade_enabled_of(urls(), PATIENCE)
                .await
                .unwrap()
        );
    };
    let following = async {
        loop {
            follow(us, true);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = asking => {}
            () = following => {}
        }
    });
}

#[test]
fn snapshots_pass_between_etcd_and_us() {
    let runtime = runtime();
    let few_entries = ["--snapshot-count", "10", "--snapshot-catchup-entries", "5"];
    let Some(etcd) = Etcd::start(&[], &few_entries) else {
        return;
    };
    wait(&runtime, "etcd serves", || {
        etcd.says("ready to serve client requests")
    });
    for _ in 0..40 {
        let put = etcd.post("/v3/kv/put", "{\"key\":\"aw==\",\"value\":\"dg==\"}");
        assert!(put.is_some_and(|answer| answer.contains("200 OK")));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = format!("{{\"peerURLs\":[\"{url}\"],\"isLearner\":true}}");
    let added = etcd.post("/v3/cluster/member/add", &body).unwrap();
    assert!(added.contains("200 OK"), "{added}");

    let (us, them) = join(&runtime, &etcd, listener);
    wait(&runtime, "etcd sends its database", || {
        follow(&us, false);
        us.heard(|h| !h.snapshots.is_empty())
    });
    let (message, path) = us.heard(|h| h.snapshots[0].clone());
    let image = std::fs::read(path).unwrap();
    assert_eq!(image[16..20], BBOLT_MAGIC);
    assert!(message.snapshot.unwrap().metadata.unwrap().index() > 40);
    wait(&runtime, "etcd knows that it arrived", || {
        etcd.says("sent database snapshot")
    });

    // An index that etcd has already: it takes the image, and raft ignores it.
    us.images.set(image);
    us.transport.send(vec![snapshot(us.id, them, 1)]);
    wait(&runtime, "etcd acknowledges our snapshot", || {
        us.heard(|h| h.snapshots_sent == [(them, true)])
    });
    assert!(etcd.says("received and saved database snapshot"));
}

#[test]
fn etcd_joins_by_what_we_answer() {
    let runtime = runtime();
    let us = TestMember::start(&runtime, config(0x1111));
    us.mouth.no_downgrade.store(true, Ordering::Relaxed);
    let existing = ["--initial-cluster-state", "existing"];
    let theirs = free_address();
    let member = |id, name: &str, url: &str| Member {
        id,
        name: name.to_owned(),
        peer_ur_ls: vec![url.to_owned()],
        ..Member::default()
    };
    // It must be among the members before it asks who they are.
    let their_url = format!("http://{theirs}");
    let members = vec![
        member(us.id, "ours", &us.url),
        member(0x2222, "", &their_url),
    ];
    *us.mouth.members.lock().unwrap() = members;
    let Some(etcd) = Etcd::start_at(theirs, &[("ours", &us.url)], &existing) else {
        return;
    };
    us.add_at(0x2222, &etcd.peer_url);
    // It knows nobody from its log, so it refuses our streams, and answers by post to where we said that we are.
    wait(&runtime, "etcd answers as the member we made it", || {
        let mut beat = message(MessageType::MsgHeartbeat, us.id, 0x2222, 0);
        beat.context = Some(bytes::Bytes::from_static(&[7; 8]));
        us.transport.send(vec![beat]);
        us.heard(|h| {
            h.messages.iter().any(|m| {
                m.r#type() == MessageType::MsgHeartbeatResp && m.from() == 0x2222 && m.term() == 1
            })
        })
    });
    assert!(!etcd.says("failed to unmarshal cluster response"));
    assert!(!etcd.says("failed to parse cluster ID"));
    assert!(!etcd.says("failed to get version"));
    assert!(!etcd.says("failed to get downgrade enabled status"));
    assert_eq!(us.heard(|h| h.removed), 0);
}
