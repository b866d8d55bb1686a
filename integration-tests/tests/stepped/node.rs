//! One member with its disk, driven as the server's threads drive it.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use quorate_backend::{Backend, FlushJob, Table};
use quorate_core::{
    AutoCompaction, BACKEND_FILE, Bounds, CONF_STATE_KEY, Cluster, ClusterMember, Config,
    ImageHash, LogStart, Member, PeerChange, SnapshotInstall, SnapshotToSave, Stores, image_file,
    install_image,
};
use quorate_disk::{CrashPolicy, Disk, OpenMode, SimDisk};
use quorate_mvcc::CompactionJob;
use quorate_proto::raftpb::{ConfChange, ConfState};
use quorate_proto::{ClusterId, MemberId};
use quorate_server::recovery;
use quorate_snap::{Snapshot, SnapshotId, Snapshotter};
use quorate_wal::{Batch, Entry, HardState, Identity, Recovered, Wal};

pub(crate) const CLUSTER: u64 = 7;
pub(crate) const TICK_MS: u64 = 10;
pub(crate) const ELECTION_TICKS: usize = 10;
const SNAP_DIR: &str = "/d/snap";
const WAL_DIR: &str = "/d/wal";

/// A member that runs.
pub(crate) struct Running {
    pub(crate) member: Member,
    pub(crate) wal: Wal,
    pub(crate) snapshotter: Snapshotter,
    /// Batches that wait for the log's next write.
    pub(crate) unwritten: Vec<Batch>,
    /// Whether that write is under way.
    pub(crate) writing: bool,
    pub(crate) release: Option<u64>,
    pub(crate) flush: Option<FlushJob>,
    pub(crate) flushing: bool,
    pub(crate) compacting: bool,
    pub(crate) compact: Option<CompactionJob>,
    pub(crate) saves: VecDeque<SnapshotToSave>,
    pub(crate) install: Option<SnapshotInstall>,
    pub(crate) peers: BTreeSet<u64>,
    /// Whether it has published itself.
    pub(crate) ready: bool,
    /// Up to where digests were compared.
    pub(crate) compared: u64,
}

/// A machine: it keeps its disk when the member on it is killed.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) disk: SimDisk,
    pub(crate) running: Option<Running>,
    /// Counts starts; what was under way in an earlier life does not reach a later one.
    pub(crate) epoch: u64,
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    /// The member was removed from the cluster.
    pub(crate) removed: bool,
    /// How fast its clock runs, in percent of the world's.
    pub(crate) clock_percent: u64,
    /// Since when links to others are up.
    pub(crate) links: BTreeMap<MemberId, u64>,
}

/// Settings that the scenarios vary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) snapshot_count: u64,
    pub(crate) catchup_entries: u64,
    pub(crate) strict: bool,
    pub(crate) max_learners: usize,
    pub(crate) version: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            snapshot_count: 30,
            catchup_entries: 10,
            strict: false,
            max_learners: 1,
            version: "3.7.0",
        }
    }
}

pub(crate) fn peer_url(id: u64) -> String {
    format!("http://m{id:x}:2380")
}

fn config(node: &Node, now_ms: u64) -> Config {
    Config {
        member_id: MemberId(node.id),
        cluster_id: ClusterId(CLUSTER),
        name: format!("m{:x}", node.id),
        client_urls: vec![format!("http://m{:x}:2379", node.id)],
        tick_ms: TICK_MS,
        election_ticks: ELECTION_TICKS,
        pre_vote: true,
        initial_election_tick_advance: true,
        max_request_bytes: 1 << 20,
        snapshot_count: node.settings.snapshot_count,
        catchup_entries: node.settings.catchup_entries,
        flush_interval_ms: 30,
        flush_bytes: 1 << 20,
        quota_bytes: 0,
        lease_checkpoint: false,
        auto_compaction: AutoCompaction::Off,
        seed: node.seed ^ node.epoch.wrapping_mul(0x9e37_79b9),
        start_unix_ms: 1_000_000 + now_ms + node.epoch,
        batch_bytes: 1 << 12,
        downgrade_check_ms: 5_000,
        strict_reconfig_check: node.settings.strict,
        cluster_version: node.settings.version.to_owned(),
        bounds: Bounds::default(),
    }
}

fn wal_options() -> quorate_wal::Options {
    quorate_wal::Options {
        segment_bytes: 1 << 15,
        ..quorate_wal::Options::default()
    }
}

fn backend_options() -> quorate_backend::Options {
    quorate_backend::Options {
        page_cache_bytes: 1 << 20,
        value_cache_bytes: 1 << 16,
        ..quorate_backend::Options::default()
    }
}

pub(crate) fn restore(backend: &Backend, settings: &Settings) -> Stores {
    let options = recovery::Options {
        kv: quorate_mvcc::Options::default(),
        lease: quorate_lease::Options {
            min_ttl_s: 1,
            revoke_retry_ms: 1_000,
            ..quorate_lease::Options::default()
        },
        auth: quorate_auth::Options {
            bcrypt_cost: 4,
            token_provider: quorate_auth::TokenProvider::Noop,
        },
        max_learners: settings.max_learners,
    };
    recovery::restore(backend, &options).unwrap()
}

impl Node {
    /// Makes a machine whose member founds a cluster together with others, or joins one when there are no founders.
    pub(crate) fn new(id: u64, founders: &[u64], seed: u64, settings: Settings) -> Self {
        let disk = SimDisk::new(seed ^ id);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        shared.create_dir_all(Path::new(SNAP_DIR)).unwrap();
        shared.sync_dir(Path::new("/d")).unwrap();
        shared.sync_dir(Path::new("/")).unwrap();
        let identity = Identity {
            cluster_id: CLUSTER,
            member_id: id,
        };
        let mut wal = Wal::create(shared, Path::new(WAL_DIR), identity, wal_options()).unwrap();
        if !founders.is_empty() {
            let synced = wal.append(&[founding(founders)]).unwrap();
            assert_eq!(synced.ticket(), 0);
        }
        Self {
            id,
            disk,
            running: None,
            epoch: 0,
            seed,
            settings,
            removed: false,
            clock_percent: 100,
            links: BTreeMap::new(),
        }
    }

    /// What its own clock shows at a time of the world.
    pub(crate) fn clock_ms(&self, now_ms: u64) -> u64 {
        now_ms * self.clock_percent / 100
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.running.as_ref().map(|r| &r.member)
    }

    /// Starts the member on what the disk holds; an install that was cut short is finished first.
    pub(crate) fn start(&mut self, now_ms: u64) {
        self.epoch += 1;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (wal, recovered) = Wal::open(disk.clone(), Path::new(WAL_DIR), wal_options()).unwrap();
        let snap_dir = Path::new(SNAP_DIR);
        let path = snap_dir.join(BACKEND_FILE);
        let mut backend = Backend::open(disk.clone(), &path, backend_options()).unwrap();
        let mark = recovered.snapshot.unwrap_or_default();
        if backend.durable().index < mark.index {
            let image = snap_dir.join(image_file(mark.index));
            assert!(disk.exists(&image).unwrap(), "the image of a mark is there");
            drop(backend);
            backend = install_image(&disk, snap_dir, mark.index, backend_options()).unwrap();
        }
        self.remove_images();
        let identity = quorate_snap::Identity {
            cluster_id: CLUSTER,
            member_id: self.id,
        };
        let snapshotter = Snapshotter::open(disk, snap_dir, identity).unwrap();
        let log = log_start(&backend, recovered);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let stores = restore(&backend, &self.settings);
        let compared = stores.backend.applied().index;
        let member = Member::new(config(self, now_ms), log, stores, &logger, now_ms).unwrap();
        self.links.clear();
        self.running = Some(Running {
            member,
            wal,
            snapshotter,
            unwritten: Vec::new(),
            writing: false,
            release: None,
            flush: None,
            flushing: false,
            compacting: false,
            compact: None,
            saves: VecDeque::new(),
            install: None,
            peers: BTreeSet::new(),
            ready: false,
            compared,
        });
    }

    /// Kills the member. `power` also takes from the disk what was not synced; `written` says whether what waited for the
    /// log got there.
    pub(crate) fn kill(&mut self, power: Option<u64>, written: bool) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if written && !running.unwritten.is_empty() {
            let _ = running.wal.append(&running.unwritten).unwrap();
        }
        drop(running);
        self.epoch += 1;
        let policy = power.map_or(CrashPolicy::KeepAll, CrashPolicy::Seeded);
        self.disk = self.disk.crash(&policy);
    }

    /// Stores a received image, as a member does.
    pub(crate) fn store_image(&self, index: u64, image: &[u8]) {
        let path = image_path(index);
        if self.disk.exists(&path).unwrap() {
            return;
        }
        let unfinished = path.with_extension("tmp");
        let file = self.disk.open(&unfinished, OpenMode::CreateOrOpen).unwrap();
        file.set_len(0).unwrap();
        let sealed = [image, &ImageHash::of(image)].concat();
        file.write_all_at(&sealed, 0).unwrap();
        file.sync_all().unwrap();
        self.disk.rename(&unfinished, &path).unwrap();
        self.disk.sync_dir(Path::new(SNAP_DIR)).unwrap();
    }

    pub(crate) fn remove_image(&self, index: u64) {
        let path = image_path(index);
        if self.disk.exists(&path).unwrap() {
            self.disk.remove_file(&path).unwrap();
        }
    }

    /// Counts received images that are still there.
    pub(crate) fn images(&self) -> usize {
        let names = self.disk.read_dir(Path::new(SNAP_DIR)).unwrap();
        let is_image = |name: &&std::ffi::OsString| name.to_str().unwrap().ends_with(".snap.db");
        names.iter().filter(is_image).count()
    }

    fn remove_images(&self) {
        for name in self.disk.read_dir(Path::new(SNAP_DIR)).unwrap() {
            let name = name.to_str().unwrap();
            if name.ends_with(".snap.db") || name.ends_with(".tmp") {
                let path = Path::new(SNAP_DIR).join(name);
                self.disk.remove_file(&path).unwrap();
            }
        }
    }
}

impl Running {
    /// Appends what waits for the log and tells the member.
    pub(crate) fn write_log(&mut self) {
        self.writing = false;
        let batches = std::mem::take(&mut self.unwritten);
        let synced = self.wal.append(&batches).unwrap();
        if let Some(index) = self.release.take() {
            self.wal.release_to(index).unwrap();
        }
        self.member.handle_synced(&synced);
    }

    pub(crate) fn save_snapshot(&mut self) {
        let snapshot = self.saves.pop_front().unwrap();
        let (term, index) = (snapshot.term, snapshot.index);
        let id = SnapshotId { term, index };
        let body = snapshot.body;
        self.snapshotter.save(&Snapshot { id, body }).unwrap();
        self.member.handle_snapshot_saved(index, term);
        self.snapshotter.release(3).unwrap();
    }

    /// Puts the received image in the place of everything.
    pub(crate) fn install(&mut self, disk: &SimDisk, settings: &Settings) {
        let index = self.install.take().unwrap().index;
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let backend = install_image(&disk, Path::new(SNAP_DIR), index, backend_options()).unwrap();
        let stores = restore(&backend, settings);
        drop(self.member.handle_installed(stores));
        self.compared = index;
    }

    pub(crate) fn change_peer(&mut self, change: PeerChange) {
        match change {
            PeerChange::Add { id, urls } => {
                assert!(!urls.is_empty());
                self.peers.insert(id.0);
            }
            PeerChange::Update { id, .. } => {
                self.peers.insert(id.0);
            }
            PeerChange::Remove { id } => {
                self.peers.remove(&id.0);
            }
            PeerChange::Clear => self.peers.clear(),
        }
    }
}

fn image_path(index: u64) -> PathBuf {
    Path::new(SNAP_DIR).join(image_file(index))
}

/// The log of a new cluster: its members, committed.
fn founding(founders: &[u64]) -> Batch {
    let entry = |(index, id): (u64, &u64)| {
        let member = ClusterMember {
            id: *id,
            peer_urls: vec![peer_url(*id)],
            ..ClusterMember::default()
        };
        let change = ConfChange {
            id: None,
            r#type: Some(0),
            node_id: Some(*id),
            context: Some(Cluster::founding_context(&member)),
        };
        Entry {
            term: 1,
            index,
            kind: 1,
            data: change.encode_to_vec().into(),
        }
    };
    Batch {
        ticket: 0,
        entries: (1..).zip(founders).map(entry).collect(),
        hard_state: Some(HardState {
            term: 1,
            vote: 0,
            commit: founders.len() as u64,
        }),
        snapshot: None,
        must_sync: true,
    }
}

fn log_start(backend: &Backend, recovered: Recovered) -> LogStart {
    let stored = backend
        .read()
        .unwrap()
        .get(Table::Meta, CONF_STATE_KEY)
        .unwrap();
    let conf_state = match stored {
        Some(json) => conf_state(&json),
        None => ConfState {
            voters: recovered
                .entries
                .iter()
                .take_while(|e| e.kind == 1 && e.term == 1)
                .map(|e| ConfChange::decode(e.data.clone()).unwrap().node_id.unwrap())
                .collect(),
            ..ConfState::default()
        },
    };
    LogStart {
        snapshot: recovered.snapshot.unwrap_or_default(),
        entries: recovered.entries,
        hard_state: recovered.hard_state,
        conf_state,
    }
}

fn conf_state(json: &[u8]) -> ConfState {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap();
    let list = |name: &str| {
        let ids = value.get(name).and_then(|v| v.as_array());
        ids.map_or_else(Vec::new, |ids| {
            ids.iter().map(|id| id.as_u64().unwrap()).collect()
        })
    };
    ConfState {
        voters: list("voters"),
        learners: list("learners"),
        ..ConfState::default()
    }
}
