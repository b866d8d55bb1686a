//! Drives a member as the server's threads do, in one thread and one step at a time.
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use quorate_backend::{Backend, Table};
use quorate_core::{
    Actions, Alarms, Applied, Bounds, CONF_STATE_KEY, Cluster, ClusterMember, Config, LogStart,
    Member, Outcome, Proposal, Request, Stores, Submission, Token,
};
use quorate_disk::{CrashPolicy, Disk, SimDisk};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{ConfChange, ConfState};
use quorate_proto::{ClusterId, MemberId};
use quorate_wal::{Batch, Entry, HardState, Identity, Wal};

pub(crate) const MEMBER: u64 = 0x11;
const TICK_MS: u64 = 100;
pub(crate) const DATABASE: &str = "/d/db";
/// How often the remaining time of leases is replicated, where that is on.
pub(crate) const CHECKPOINT_MS: u64 = 5_000;

/// A member, its disk, and what it has asked for and not got yet.
pub(crate) struct Harness {
    pub(crate) disk: SimDisk,
    pub(crate) member: Member,
    wal: Wal,
    pub(crate) now_ms: u64,
    pub(crate) replies: Vec<(Token, Outcome)>,
    pub(crate) unsynced: Vec<Batch>,
    pub(crate) ready: bool,
    pub(crate) saved_snapshots: Vec<u64>,
    pub(crate) released: u64,
    /// The snapshot that is to be installed, and what of its kind is of no use.
    pub(crate) install: Option<u64>,
    pub(crate) unused_images: Vec<u64>,
    next_token: u64,
}

pub(crate) fn config() -> Config {
    Config {
        member_id: MemberId(MEMBER),
        cluster_id: ClusterId(7),
        name: "m".to_owned(),
        client_urls: vec!["http://c:1".to_owned()],
        tick_ms: TICK_MS,
        election_ticks: 10,
        pre_vote: true,
        initial_election_tick_advance: true,
        max_request_bytes: 1 << 20,
        snapshot_count: 20,
        catchup_entries: 5,
        flush_interval_ms: 100,
        flush_bytes: 1 << 20,
        quota_bytes: 0,
        lease_checkpoint: false,
        auto_compaction: quorate_core::AutoCompaction::Off,
        seed: 1,
        start_unix_ms: 1_000,
        batch_bytes: 1 << 16,
        downgrade_check_ms: 5_000,
        strict_reconfig_check: true,
        cluster_version: "3.7.0".to_owned(),
        bounds: Bounds::default(),
    }
}

pub(crate) fn restore(backend: &Backend) -> Stores {
    let lease = quorate_lease::Options {
        min_ttl_s: 1,
        revoke_retry_ms: 7_000,
        checkpoint_interval_ms: Some(CHECKPOINT_MS),
        ..quorate_lease::Options::default()
    };
    let mut lessor = quorate_lease::Lessor::restore(backend, lease).unwrap();
    let (kv, keys) =
        quorate_mvcc::Store::restore(backend, quorate_mvcc::Options::default()).unwrap();
    lessor.attach_restored(keys);
    let auth = quorate_auth::Options {
        bcrypt_cost: 4,
        token_provider: quorate_auth::TokenProvider::Simple {
            ttl_ms: 300_000,
            tokens_max: 100,
        },
    };
    Stores {
        backend: backend.clone(),
        kv,
        lessor,
        auth: quorate_auth::AuthStore::restore(backend, auth).unwrap(),
        alarms: Alarms::restore(backend).unwrap(),
        cluster: Cluster::restore(backend, 1).unwrap(),
    }
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let disk = SimDisk::new(1);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        shared.create_dir_all(Path::new("/d")).unwrap();
        shared.sync_dir(Path::new("/")).unwrap();
        let identity = Identity {
            cluster_id: 7,
            member_id: MEMBER,
        };
        let options = quorate_wal::Options {
            segment_bytes: 1 << 16,
            ..quorate_wal::Options::default()
        };
        let mut wal = Wal::create(shared, Path::new("/d/wal"), identity, options).unwrap();
        let founder = ClusterMember {
            id: MEMBER,
            peer_urls: vec!["http://p:1".into()],
            ..ClusterMember::default()
        };
        let change = ConfChange {
            id: None,
            r#type: Some(0),
            node_id: Some(MEMBER),
            context: Some(Cluster::founding_context(&founder)),
        };
        let batch = Batch {
            ticket: 0,
            entries: vec![Entry {
                term: 1,
                index: 1,
                kind: 1,
                data: change.encode_to_vec().into(),
            }],
            hard_state: Some(HardState {
                term: 1,
                vote: 0,
                commit: 1,
            }),
            snapshot: None,
            must_sync: true,
        };
        let _synced = wal.append(&[batch]).unwrap();
        drop(wal);
        Self::open(disk, config, 0)
    }

    fn open(disk: SimDisk, config: Config, now_ms: u64) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = quorate_wal::Options {
            segment_bytes: 1 << 16,
            ..quorate_wal::Options::default()
        };
        let (wal, recovered) = Wal::open(shared.clone(), Path::new("/d/wal"), options).unwrap();
        let backend = Backend::open(
            shared,
            Path::new(DATABASE),
            // What is read comes from the disk.
            quorate_backend::Options {
                page_cache_bytes: 0,
                value_cache_bytes: 0,
                ..quorate_backend::Options::default()
            },
        )
        .unwrap();
        let stored = backend
            .read()
            .unwrap()
            .get(Table::Meta, CONF_STATE_KEY)
            .unwrap();
        let log = LogStart {
            snapshot: recovered.snapshot.unwrap_or_default(),
            entries: recovered.entries,
            hard_state: recovered.hard_state,
            conf_state: ConfState {
                voters: vec![MEMBER],
                ..ConfState::default()
            },
        };
        if let Some(json) = stored {
            assert_eq!(
                &json[..],
                format!(r#"{{"voters":[{MEMBER}],"auto_leave":false}}"#).as_bytes()
            );
        }
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let member = Member::new(config, log, restore(&backend), &logger, now_ms).unwrap();
        let mut harness = Self {
            disk,
            member,
            wal,
            now_ms,
            replies: Vec::new(),
            unsynced: Vec::new(),
            ready: false,
            saved_snapshots: Vec::new(),
            released: 0,
            install: None,
            unused_images: Vec::new(),
            next_token: 1,
        };
        harness.collect();
        harness
    }

    /// Kills the member and the machine, and starts again on what a crash left of the disk.
    pub(crate) fn crash(self, policy: &CrashPolicy, config: Config) -> Self {
        let disk = self.disk.crash(policy);
        Self::open(disk, config, self.now_ms)
    }

    /// Takes the member's actions; everything but the log's work is done at once.
    pub(crate) fn collect(&mut self) {
        loop {
            let Actions {
                persist,
                replies,
                flush,
                compact,
                save_snapshots,
                release_log,
                install,
                unused_images,
                ready,
                fatal,
                ..
            } = self.member.take_actions();
            assert_eq!(fatal, None);
            self.unsynced.extend(persist);
            self.replies.extend(replies);
            self.ready |= ready;
            self.install = install.map(|install| install.index).or(self.install);
            self.unused_images.extend(unused_images);
            self.released = release_log.unwrap_or(self.released);
            if let Some(index) = release_log {
                self.wal.release_to(index).unwrap();
            }
            let mut idle = true;
            if let Some(job) = flush {
                job.run().unwrap();
                self.member.handle_flushed();
                idle = false;
            }
            if let Some(mut job) = compact {
                while !matches!(job.step().unwrap(), quorate_mvcc::Progress::Done(_)) {}
                self.member.handle_compacted();
                idle = false;
            }
            for snapshot in save_snapshots {
                self.saved_snapshots.push(snapshot.index);
                self.member
                    .handle_snapshot_saved(snapshot.index, snapshot.term);
                idle = false;
            }
            if idle {
                return;
            }
        }
    }

    /// Lets the log write and sync, and leaves it to the caller to tell the member.
    pub(crate) fn append(&mut self, batches: &[Batch]) -> quorate_wal::Synced {
        self.wal.append(batches).unwrap()
    }

    /// Lets the log write and sync what it was given.
    pub(crate) fn sync(&mut self) {
        while !self.unsynced.is_empty() {
            let batches = std::mem::take(&mut self.unsynced);
            let synced = self.wal.append(&batches).unwrap();
            self.member.handle_synced(&synced);
            self.collect();
        }
    }

    pub(crate) fn tick(&mut self) {
        self.now_ms += TICK_MS;
        self.member.handle_tick(self.now_ms);
        self.collect();
    }

    /// Ticks and syncs for a while.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(TICK_MS) {
            self.tick();
            self.sync();
        }
    }

    pub(crate) fn submit(&mut self, request: Request) -> Token {
        self.submit_raw(request, None)
    }

    pub(crate) fn submit_raw(&mut self, request: Request, raw: Option<bytes::Bytes>) -> Token {
        let token = self.token();
        let identity = quorate_auth::Identity {
            username: String::new(),
            revision: 0,
        };
        let proposal = Proposal {
            token,
            request,
            raw,
            identity,
        };
        self.member
            .handle_submissions(vec![Submission::Propose(proposal)]);
        self.collect();
        token
    }

    pub(crate) fn send(&mut self, make: impl FnOnce(Token) -> Submission) -> Token {
        let token = self.token();
        self.member.handle_submissions(vec![make(token)]);
        self.collect();
        token
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    pub(crate) fn reply(&mut self, token: Token) -> Option<Outcome> {
        let at = self.replies.iter().position(|(t, _)| *t == token)?;
        Some(self.replies.remove(at).1)
    }

    /// Submits, syncs, and returns the outcome.
    pub(crate) fn call(&mut self, request: Request) -> Outcome {
        let token = self.submit(request);
        self.sync();
        self.reply(token).expect("an answer")
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        match self.call(put(key, value, 0)) {
            Outcome::Applied(Applied::Put(result)) => result.revision,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<Vec<u8>> {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        let range = self.member.stores().kv.reader().range(&request).unwrap();
        let record = range.kvs.first()?.clone();
        Some(
            quorate_proto::mvccpb::KeyValue::decode(record)
                .unwrap()
                .value
                .to_vec(),
        )
    }
}

pub(crate) fn put(key: &str, value: &str, lease: i64) -> Request {
    Request::Put(pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..Default::default()
    })
}
