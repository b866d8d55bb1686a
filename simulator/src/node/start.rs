//! From a disk to a running member, as the server's `run` does it.
use std::path::PathBuf;
use std::sync::Arc;

use quorate_core::{AutoCompaction, Config, LogStart, Member, RECEIVED_END, Stores, received_file};
use quorate_disk::Disk;
use quorate_mvcc::WatchHub;
use quorate_proto::etcdserverpb as pb;
use quorate_server::bootstrap::{self, Opened, Start};
use quorate_wal::Wal;

use super::{DATA_DIR, DIFFERS, Machine, Running, Status};
use crate::Committed;

/// Wall clock at the beginning of a run, in milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;
/// Version that the members run, and that the cluster agrees on.
pub(crate) const CLUSTER_VERSION: &str = "3.7.0";
/// Members that found a cluster at most.
const FOUNDERS_MAX: u64 = 7;
/// End of the name of an image that is being received.
pub(super) const UNFINISHED_IMAGE: &str = ".snap.db.tmp";

/// What a start found.
pub(crate) struct Found {
    pub(crate) is_new: bool,
    /// Whether the torn end of the log was cut.
    pub(crate) is_torn: bool,
    /// Entries behind what the state holds.
    pub(crate) unapplied: u64,
    /// The log without its entries' data, for comparison with what was durable.
    pub(crate) violation: Option<String>,
    /// What of received states lay there, and was installed or removed.
    pub(crate) received: Received,
    /// How raft's configuration differs from the members that are stored with it.
    pub(crate) mismatch: Option<String>,
}

/// What a start finds of states that were received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    /// A database in the making.
    pub(crate) is_unfinished: bool,
    /// A database whose snapshot has no mark in the log.
    pub(crate) is_unmarked: bool,
    /// A database that waited to be installed, and was.
    pub(crate) is_installed: bool,
}

impl Machine {
    /// Starts the member on what the disk holds.
    ///
    /// # Errors
    /// Why it cannot, as the server would say it.
    pub(crate) fn open(&mut self, now_ms: u64) -> Result<Found, String> {
        self.epoch += 1;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let options = self.bootstrap_options(&disk);
        let (names, _) = self.files();
        let opened = bootstrap::open(&disk, &options).map_err(|e| e.to_string())?;
        let received = find_received(&names, &opened);
        self.remove_unfinished_images().map_err(|e| e.to_string())?;
        if self.damage == Some(DIFFERS) {
            go_another_way(&opened.stores);
        }
        let remotes = match options.start {
            Start::Join { members, .. } => members,
            Start::Restart | Start::Found { .. } => Vec::new(),
        };
        let mut found = self.run(opened, remotes, now_ms)?;
        found.received = received;
        Ok(found)
    }

    pub(super) fn bootstrap_options(&self, disk: &Arc<dyn Disk>) -> bootstrap::Options {
        let joins = matches!(self.start, Start::Join { .. });
        let has_log = Wal::exists(disk.as_ref(), &Self::wal_dir()).unwrap_or(false);
        bootstrap::Options {
            data_dir: PathBuf::from(DATA_DIR),
            wal_dir: None,
            start: if joins && has_log {
                Start::Restart
            } else {
                self.start.clone()
            },
            alone: false,
            wal: self.limits.wal(),
            backend: self.limits.backend(),
            recovery: self.limits.recovery(),
        }
    }

    /// As the transport does when it opens its directory of images.
    fn remove_unfinished_images(&self) -> std::io::Result<()> {
        for name in self.disk.read_dir(&Self::snap_dir())? {
            if name.to_string_lossy().ends_with(UNFINISHED_IMAGE) {
                self.disk.remove_file(&Self::snap_dir().join(name))?;
            }
        }
        Ok(())
    }

    /// Says what a start finds.
    fn found(&self, log: &LogStart, stores: &Stores, is_new: bool, is_torn: bool) -> Found {
        let applied = stores.backend.applied().index;
        let last = log.entries.last().map_or(log.snapshot.index, |e| e.index);
        Found {
            is_new,
            is_torn,
            unapplied: last.saturating_sub(applied),
            violation: self.durable.compare(log),
            received: Received::default(),
            mismatch: compare_configuration(log, stores),
        }
    }

    fn run(
        &mut self,
        opened: Opened,
        remotes: Vec<pb::Member>,
        now_ms: u64,
    ) -> Result<Found, String> {
        let Opened {
            wal,
            log,
            stores,
            snapshotter,
            is_new,
            torn_tail,
            place,
            lock,
            ..
        } = opened;
        let found = self.found(&log, &stores, is_new, torn_tail.is_some());
        let applied = stores.backend.applied().index;
        self.durable.restart(&log);
        let mark = log.snapshot.index;
        self.log = log.entries.iter().map(Committed::of).collect();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let own_ms = self.clock.at(now_ms);
        self.version = self.version_for(&stores);
        let config = self.config(now_ms);
        let member = Member::new(config, log, stores, &logger, own_ms)
            .map_err(|e| format!("cannot start raft: {e}"))?;
        let live = member.live();
        let hub = WatchHub::new(live.reader(), self.limits.watch(self.random.number()));
        self.links.clear();
        self.status = Status::Up;
        self.running = Some(Running {
            number: self.number,
            inbox: Vec::new(),
            is_ready: false,
            stops_ms: None,
            hub_generation: live.generation(),
            live,
            hub,
            compared: applied,
            next_tick_ms: own_ms + self.limits.tick_ms,
            remotes,
            recovery: self.limits.recovery(),
            keep_snapshots: self.limits.snapshots_kept,
            has_released: false,
            member,
            wal,
            snapshotter,
            place,
            _lock: lock,
            unwritten: Vec::new(),
            writing: Vec::new(),
            is_writing: false,
            release: None,
            found: mark,
            saved: 0,
            released: 0,
            flush: None,
            compaction: None,
            compaction_steps: 0,
            defragmentation: None,
            saves: Default::default(),
            prepare: None,
            install: None,
            arrivals: Default::default(),
            peers: Default::default(),
            strangers: Default::default(),
            is_watch_due: false,
            removed_ms: None,
            led: false,
            suspicion: Default::default(),
            applied: 0,
        });
        Ok(found)
    }

    /// Returns the version that is started: that to which the cluster is being downgraded, once nothing stands against it.
    fn version_for(&self, stores: &Stores) -> String {
        let cluster = &stores.cluster;
        cluster
            .downgrade_target()
            .filter(|target| {
                self.limits.downgrades
                    && allows(target, cluster.version(), cluster.storage_version())
            })
            .unwrap_or_else(|| CLUSTER_VERSION.to_owned())
    }

    /// Returns the version to which its member is to be downgraded now.
    pub(crate) fn downgrades_to(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        let target = running.member.stores().cluster.downgrade_target()?;
        let view = running.member.view();
        let is_due = self.limits.downgrades
            && self.version != target
            && running.stops_ms.is_none()
            && allows(&target, &view.cluster_version(), &view.storage_version());
        is_due.then_some(target)
    }

    pub(super) fn config(&mut self, now_ms: u64) -> Config {
        let limits = &self.limits;
        let wall_ms = WALL_MS + now_ms;
        Config {
            member_id: self.member_id,
            cluster_id: self.cluster_id,
            name: format!("m{}", self.number),
            client_urls: vec![format!("http://m{}:2379", self.number)],
            tick_ms: limits.tick_ms,
            election_ticks: usize::try_from(limits.election_ticks).unwrap_or(10),
            pre_vote: limits.pre_vote,
            initial_election_tick_advance: limits.advance,
            max_request_bytes: limits.max_request_bytes,
            snapshot_count: limits.snapshot_count,
            catchup_entries: limits.catchup_entries,
            flush_interval_ms: limits.flush_ms,
            flush_bytes: limits.flush_bytes,
            quota_bytes: limits.quota_bytes,
            lease_checkpoint: limits.checkpoint_ms.is_some(),
            auto_compaction: AutoCompaction::Off,
            seed: self.random.number(),
            start_unix_ms: wall_ms.saturating_add_signed(self.clock.wall_offset_ms) + self.epoch,
            batch_bytes: limits.batch_bytes,
            downgrade_check_ms: limits.downgrade_check_ms,
            strict_reconfig_check: limits.strict,
            cluster_version: self.version.clone(),
            bounds: limits.bounds,
        }
    }
}

/// Makes the running digest another, and leaves all else as it is.
fn go_another_way(stores: &Stores) {
    let applied = stores.backend.applied();
    let txn = stores.backend.begin_apply(applied.index, applied.term);
    txn.commit(applied.digest.wrapping_mul(3) | 1);
}

/// Says whether a member of a version can serve a cluster and read a database of these versions.
fn allows(target: &str, cluster: &str, storage: &str) -> bool {
    cluster == target && (storage == target || storage.is_empty())
}

/// Tells what the directory of snapshots held of received states before a start.
fn find_received(names: &[String], opened: &Opened) -> Received {
    let mark = opened.log.snapshot.index;
    let applied = opened.stores.backend.durable().index;
    let marked = received_file(mark);
    let is_whole = |name: &&String| name.ends_with(RECEIVED_END);
    let is_any = |name: &&String| name.contains(RECEIVED_END);
    Received {
        is_unfinished: names.iter().any(|n| is_any(&n) && !is_whole(&n)),
        is_unmarked: names.iter().any(|n| is_whole(&n) && *n != marked),
        is_installed: applied == mark && names.contains(&marked),
    }
}

/// Compares who votes for raft with who is a member for clients, at the same place in the log.
fn compare_configuration(log: &LogStart, stores: &Stores) -> Option<String> {
    // The configuration begins with all founders; as members they come with the first entries.
    if stores.backend.applied().index <= FOUNDERS_MAX {
        return None;
    }
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    let members = |is_learner: bool| -> Vec<u64> {
        let members = stores.cluster.members();
        sorted(
            &members
                .filter(|m| m.is_learner == is_learner)
                .map(|m| m.id)
                .collect::<Vec<_>>(),
        )
    };
    let conf = &log.conf_state;
    let raft = (sorted(&conf.voters), sorted(&conf.learners));
    let stored = (members(false), members(true));
    (raft != stored)
        .then(|| format!("raft has the voters and learners {raft:?}, the members are {stored:?}"))
}
