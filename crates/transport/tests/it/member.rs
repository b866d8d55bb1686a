//! A member made of a transport and a list of what it was told.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::Member;
use quorate_proto::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use quorate_proto::{ClusterId, LeaseId, MemberId};
use quorate_transport::{
    Answer, Config, HashKv, ImageDirectory, ImageSource, ImageStore, OpenedImage, Parts,
    PeerMetrics, Receiver, Refusal, Service, SnapshotForm, TimeToLive, Transport, Versions,
};
use tokio::runtime::Runtime;

use crate::PATIENCE;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

/// What a member was told.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) messages: Vec<Message>,
    pub(crate) snapshots: Vec<(Message, PathBuf)>,
    pub(crate) unreachable: BTreeSet<u64>,
    pub(crate) snapshots_sent: Vec<(u64, bool)>,
    pub(crate) removed: usize,
    /// Room for messages; more are refused.
    pub(crate) room: Option<usize>,
}

#[derive(Default)]
pub(crate) struct Ear(pub(crate) Mutex<Heard>);

impl Receiver for Ear {
    fn messages(&self, messages: Vec<Message>) -> usize {
        let mut heard = self.0.lock().unwrap();
        let count = messages.len();
        let room = heard
            .room
            .unwrap_or(usize::MAX)
            .saturating_sub(heard.messages.len());
        heard.messages.extend(messages.into_iter().take(room));
        count.saturating_sub(room)
    }

    fn snapshot(&self, message: Message, image: PathBuf) {
        self.0.lock().unwrap().snapshots.push((message, image));
    }

    fn unreachable(&self, id: MemberId) {
        self.0.lock().unwrap().unreachable.insert(id.0);
    }

    fn snapshot_sent(&self, id: MemberId, ok: bool) {
        self.0.lock().unwrap().snapshots_sent.push((id.0, ok));
    }

    fn removed(&self) {
        self.0.lock().unwrap().removed += 1;
    }
}

/// What a member answers.
#[derive(Default)]
pub(crate) struct Mouth {
    pub(crate) members: Mutex<Vec<Member>>,
    pub(crate) removed: Mutex<BTreeSet<u64>>,
    pub(crate) leases: Mutex<BTreeMap<i64, i64>>,
    /// What everything is refused with, if anything.
    pub(crate) refusal: Mutex<Option<Refusal>>,
    pub(crate) token: Mutex<Option<String>>,
    pub(crate) no_downgrade: AtomicBool,
}

impl Mouth {
    fn answer<T: Send + 'static>(&self, value: T) -> Answer<Result<T, Refusal>> {
        let refusal = self.refusal.lock().unwrap().clone();
        Box::pin(async move { refusal.map_or(Ok(value), Err) })
    }
}

impl Service for Mouth {
    fn members(&self) -> Vec<Member> {
        self.members.lock().unwrap().clone()
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.removed.lock().unwrap().contains(&id.0)
    }

    fn versions(&self) -> Versions {
        Versions {
            server: String::new(),
            cluster: Some("3.7.0".to_owned()),
            storage: None,
        }
    }

    fn promote(&self, _: MemberId, token: Option<String>) -> Answer<Result<Vec<Member>, Refusal>> {
        *self.token.lock().unwrap() = token;
        self.answer(self.members())
    }

    fn hash_kv(&self, revision: i64) -> Answer<Result<HashKv, Refusal>> {
        self.answer(HashKv {
            revision: 10,
            hash: 0xffff_fff0,
            compact_revision: 0,
            hash_revision: revision,
        })
    }

    fn renew_lease(&self, id: LeaseId) -> Answer<Result<i64, Refusal>> {
        match self.leases.lock().unwrap().get(&id.0) {
            Some(ttl) => self.answer(*ttl),
            None => Box::pin(async { Err(Refusal::LeaseNotFound) }),
        }
    }

    fn time_to_live(&self, id: LeaseId, keys: bool) -> Answer<Result<TimeToLive, Refusal>> {
        let lease = TimeToLive {
            ttl_s: 3,
            granted_ttl_s: 10,
            keys: if keys {
                vec![Bytes::from_static(b"k")]
            } else {
                vec![]
            },
        };
        if self.leases.lock().unwrap().contains_key(&id.0) {
            self.answer(lease)
        } else {
            Box::pin(async { Err(Refusal::LeaseNotFound) })
        }
    }

    fn downgrade_enabled(&self) -> Answer<Result<bool, Refusal>> {
        self.answer(!self.no_downgrade.load(Ordering::Relaxed))
    }

    fn exchange(&self, topic: String, body: Bytes) -> Answer<Result<Bytes, Refusal>> {
        self.answer(Bytes::from([topic.as_bytes(), &body].concat()))
    }
}

/// Images made up of their index, or one that is given; they may claim to be longer than they are.
#[derive(Default)]
pub(crate) struct Images {
    pub(crate) bytes: Mutex<usize>,
    pub(crate) missing: Mutex<i64>,
    /// Whether each was opened for one of our own kind.
    pub(crate) asked: Mutex<Vec<bool>>,
    given: Mutex<Option<Vec<u8>>>,
    /// Held, no image is opened.
    pub(crate) opening: Mutex<()>,
}

impl Images {
    pub(crate) fn set(&self, image: Vec<u8>) {
        *self.bytes.lock().unwrap() = image.len();
        *self.given.lock().unwrap() = Some(image);
    }
}

pub(crate) fn image(index: u64, bytes: usize) -> Vec<u8> {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut image = Vec::with_capacity(bytes);
    while image.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        image.extend_from_slice(&state.to_le_bytes());
    }
    image.truncate(bytes);
    image
}

impl ImageSource for Images {
    fn open(&self, index: u64, to_kindred: bool) -> io::Result<OpenedImage> {
        let _opening = self.opening.lock().unwrap();
        self.asked.lock().unwrap().push(to_kindred);
        let bytes = *self.bytes.lock().unwrap();
        if bytes == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let claimed = i64::try_from(bytes).unwrap() + *self.missing.lock().unwrap();
        let given = self.given.lock().unwrap().clone();
        let image = io::Cursor::new(given.unwrap_or_else(|| image(index, bytes)));
        Ok(OpenedImage {
            form: SnapshotForm::Image,
            bytes: Some(u64::try_from(claimed).unwrap()),
            body: Box::new(image),
        })
    }
}

pub(crate) struct TestMember {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) transport: Transport,
    pub(crate) ear: Arc<Ear>,
    pub(crate) mouth: Arc<Mouth>,
    pub(crate) images: Arc<Images>,
    pub(crate) directory: tempfile::TempDir,
}

/// Sets how long a link may stand still, either way.
pub(crate) fn set_link_timeouts(config: &mut Config, time: Duration) {
    config.read_timeout = time;
    config.write_timeout = time;
}

/// Settings with which links notice things soon.
pub(crate) fn config(id: u64) -> Config {
    let mut config = Config::new(MemberId(id), CLUSTER);
    config.probe_interval = Duration::from_millis(50);
    config.redial_interval = Duration::from_millis(20);
    config
}

impl TestMember {
    pub(crate) fn start(runtime: &Runtime, config: Config) -> Self {
        Self::start_with(runtime, config, None)
    }

    pub(crate) fn start_with(
        runtime: &Runtime,
        config: Config,
        store: Option<Arc<dyn ImageStore>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_on(runtime, config, listener, store)
    }

    pub(crate) fn start_on(
        runtime: &Runtime,
        mut config: Config,
        listener: TcpListener,
        store: Option<Arc<dyn ImageStore>>,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        config.peer_urls = vec![url.clone()];
        let id = config.member_id.0;
        let directory = tempfile::tempdir().unwrap();
        let (ear, mouth, images) = <(Arc<Ear>, Arc<Mouth>, Arc<Images>)>::default();
        let kept = ImageDirectory::open(directory.path()).unwrap();
        let parts = Parts {
            receiver: Arc::clone(&ear) as _,
            service: Arc::clone(&mouth) as _,
            images: Arc::clone(&images) as _,
            store: store.unwrap_or_else(|| Arc::new(kept)),
        };
        let transport = Transport::start(config, parts, runtime.handle().clone()).unwrap();
        transport.listen(listener).unwrap();
        Self {
            id,
            url,
            transport,
            ear,
            mouth,
            images,
            directory,
        }
    }

    pub(crate) fn add(&self, peer: &TestMember) {
        self.add_at(peer.id, &peer.url);
    }

    pub(crate) fn add_at(&self, id: u64, url: &str) {
        let urls = [url.to_owned()];
        self.transport.add_peer(MemberId(id), &urls).unwrap();
    }

    pub(crate) fn heard<T>(&self, read: impl FnOnce(&mut Heard) -> T) -> T {
        read(&mut self.ear.0.lock().unwrap())
    }

    pub(crate) fn metrics(&self, id: u64) -> PeerMetrics {
        let all = self.transport.metrics();
        all.into_iter().find(|peer| peer.id.0 == id).unwrap()
    }

    /// Names of the files of received images.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

/// Members that know each other.
pub(crate) fn cluster(runtime: &Runtime, size: u64) -> Vec<TestMember> {
    let start = |id| TestMember::start(runtime, config(id));
    let members: Vec<TestMember> = (1..=size).map(start).collect();
    for member in &members {
        for peer in members.iter().filter(|peer| peer.id != member.id) {
            member.add(peer);
        }
    }
    members
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Lets the links work until something holds.
///
/// # Panics
///
/// If it does not for far too long.
pub(crate) fn wait(runtime: &Runtime, what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, waiting).await });
    assert!(waited.is_ok(), "{what}");
}

/// Waits until both streams of both directions between all members are open.
pub(crate) fn wait_for_links(runtime: &Runtime, members: &[&TestMember]) {
    let is_linked = |member: &&TestMember| {
        let peers = members.iter().filter(|peer| peer.id != member.id);
        peers
            .map(|peer| member.metrics(peer.id).streams_open)
            .all(|open| open == 2)
    };
    wait(runtime, "all streams are open", || {
        members.iter().all(is_linked)
    });
}

pub(crate) fn message(kind: MessageType, from: u64, to: u64, index: u64) -> Message {
    Message {
        r#type: Some(kind.into()),
        from: Some(from),
        to: Some(to),
        term: Some(1),
        index: Some(index),
        ..Message::default()
    }
}

pub(crate) fn append(from: u64, to: u64, index: u64, data: Bytes) -> Message {
    let entry = Entry {
        term: Some(1),
        index: Some(index + 1),
        data: Some(data),
        ..Entry::default()
    };
    Message {
        log_term: Some(1),
        entries: vec![entry],
        commit: Some(index),
        ..message(MessageType::MsgApp, from, to, index)
    }
}

pub(crate) fn snapshot(from: u64, to: u64, index: u64) -> Message {
    let metadata = SnapshotMetadata {
        index: Some(index),
        term: Some(1),
        conf_state: None,
    };
    Message {
        snapshot: Some(Snapshot {
            data: None,
            metadata: Some(metadata),
        }),
        ..message(MessageType::MsgSnap, from, to, 0)
    }
}
