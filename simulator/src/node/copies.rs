//! What an operator makes of a member's data when all else is lost: a member that goes on alone, and a new cluster from a
//! backup. Both are tried on a disk of their own, and must hold what the member held.
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use quorate_core::{FoundingMember, ImageHash, ImageStream, Member, Restore, restore_backup};
use quorate_disk::{CrashPolicy, Disk, SimDisk};
use quorate_mvcc::Reader;
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb::RangeRequest;
use quorate_server::bootstrap::{self, Opened, Start};

use super::{Machine, peer_url};

/// Ticks within which a member that is alone must serve.
const TICKS_MAX: u64 = 200;
/// Where a backup lies on its disk, and the directory made of it.
const BACKUP: &str = "/backup.db";
const RESTORED_DIR: &str = "/restored";
/// By how much a restored store may raise its revision.
pub(crate) const BUMP: u64 = 1_000;

impl Machine {
    /// Starts a copy of the disk as the only member of its cluster, and compares it at a revision with the member itself.
    ///
    /// # Errors
    /// What differs, or why it does not serve.
    pub(crate) fn go_on_alone(&mut self, now_ms: u64, revision: i64) -> Result<(), String> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.crash(&CrashPolicy::KeepAll));
        let options = bootstrap::Options {
            alone: true,
            ..self.bootstrap_options(&disk)
        };
        let opened = bootstrap::open(&disk, &options).map_err(|e| e.to_string())?;
        let copy = self.lead(opened, now_ms)?;
        let members: Vec<u64> = copy.stores().cluster.members().map(|m| m.id).collect();
        if members != [self.member_id.0] {
            return Err(format!("its members are {members:x?}"));
        }
        self.compare(&copy, revision, 0)?;
        let (own, other) = (self.reader()?, copy.live().reader());
        let hash = |reader: &Reader| reader.hash_kv(revision).map_err(|e| e.to_string());
        let (own, other) = (hash(&own)?, hash(&other)?);
        if own.compact_revision == other.compact_revision && own.hash != other.hash {
            return Err(format!("it hashes to {other:?}, not {own:?}"));
        }
        Ok(())
    }

    /// Saves a backup, restores it as a cluster of one on a disk of its own, and compares that at a revision with the member
    /// itself. The restored store may begin at a revision that is so much higher.
    ///
    /// # Errors
    /// What differs, or why it cannot be restored or does not serve.
    pub(crate) fn restore_backup(
        &mut self,
        now_ms: u64,
        revision: i64,
        bump: Option<u64>,
    ) -> Result<(), String> {
        let opened = self.open_backup(now_ms, self.save_backup()?, bump)?;
        let copy = self.lead(opened, now_ms)?;
        self.compare(
            &copy,
            revision,
            i64::try_from(bump.unwrap_or(0)).unwrap_or(0),
        )
    }

    /// Restores a backup as a cluster of one on a disk of its own, and opens what came of it.
    ///
    /// # Errors
    /// Why it cannot be restored or opened.
    pub(crate) fn open_backup(
        &self,
        now_ms: u64,
        backup: Vec<u8>,
        bump: Option<u64>,
    ) -> Result<Opened, String> {
        let disk = SimDisk::new(now_ms);
        disk.poke(&PathBuf::from(BACKUP), backup)
            .map_err(|e| e.to_string())?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let name = format!("m{}", self.number);
        let restore = Restore {
            backup: PathBuf::from(BACKUP),
            data_dir: PathBuf::from(RESTORED_DIR),
            name: name.clone(),
            members: vec![FoundingMember {
                name,
                peer_urls: vec![peer_url(self.number)],
            }],
            token: "restored".to_owned(),
            bump_revision: bump,
            log: self.limits.wal(),
            ..Restore::default()
        };
        let restored = restore_backup(&disk, &restore).map_err(|e| e.to_string())?;
        let options = bootstrap::Options {
            data_dir: PathBuf::from(RESTORED_DIR),
            start: Start::Restart,
            ..self.bootstrap_options(&disk)
        };
        let opened = bootstrap::open(&disk, &options).map_err(|e| e.to_string())?;
        if opened.member_id != restored.member_id || opened.cluster_id != restored.cluster_id {
            return Err("it is another member than was restored".to_owned());
        }
        Ok(opened)
    }

    /// Saves what a client's snapshot of this member gives, with its hash.
    fn save_backup(&self) -> Result<Vec<u8>, String> {
        let member = self.member().ok_or("it does not run")?;
        let state = member.stores().backend.read().map_err(|e| e.to_string())?;
        let mut stream = ImageStream::open(state).map_err(|e| e.to_string())?;
        let (mut bytes, mut hash) = (Vec::new(), ImageHash::default());
        stream.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        hash.update(&bytes);
        bytes.extend_from_slice(&hash.finish());
        Ok(bytes)
    }

    /// Runs a member that needs nobody else until it serves.
    fn lead(&mut self, opened: Opened, now_ms: u64) -> Result<Member, String> {
        let Opened {
            mut wal,
            log,
            stores,
            lock: _lock,
            member_id,
            cluster_id,
            ..
        } = opened;
        let mut config = self.config(now_ms);
        (config.member_id, config.cluster_id) = (member_id, cluster_id);
        let (tick_ms, mut own_ms) = (config.tick_ms, self.clock.at(now_ms));
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut member = Member::new(config, log, stores, &logger, own_ms)
            .map_err(|e| format!("cannot start raft: {e}"))?;
        for _ in 0..TICKS_MAX {
            own_ms += tick_ms;
            member.handle_time(own_ms);
            member.handle_tick(own_ms);
            loop {
                let actions = member.take_actions();
                if let Some(why) = actions.fatal {
                    return Err(why);
                }
                if actions.persist.is_empty() {
                    break;
                }
                let synced = wal.append(&actions.persist).map_err(|e| e.to_string())?;
                member.handle_synced(&synced);
            }
            if member.leads() && member.view().reads_are_linearizable() {
                return Ok(member);
            }
        }
        Err(format!("it does not serve within {TICKS_MAX} ticks"))
    }

    fn reader(&self) -> Result<Reader, String> {
        let running = self.running.as_ref().ok_or("it does not run")?;
        Ok(running.live.reader())
    }

    /// Compares keys at a revision, users and roles with a copy whose revisions are so much higher.
    fn compare(&self, copy: &Member, revision: i64, bump: i64) -> Result<(), String> {
        let member = self.member().ok_or("it does not run")?;
        let pairs = |reader: &Reader, revision: i64| {
            let everything = RangeRequest {
                key: "\0".into(),
                range_end: "\0".into(),
                revision,
                ..RangeRequest::default()
            };
            let range = reader.range(&everything);
            range
                .map(|r| r.kvs)
                .map_err(|e| format!("cannot read revision {revision}: {e}"))
        };
        let own = pairs(&self.reader()?, revision)?;
        // What holds no revisions is counted from zero, as etcdutl does, though an empty store is at 1.
        let base = if revision == 1 && bump > 0 {
            0
        } else {
            revision
        };
        let other = pairs(&copy.live().reader(), base + bump)?;
        if own != other {
            return Err(format!("it holds {other:?} at {revision}, not {own:?}"));
        }
        let users = |member: &Member| {
            let auth = &member.stores().auth;
            (
                auth.is_enabled(),
                auth.revision(),
                auth.user_list(),
                auth.role_list(),
            )
        };
        if users(member) != users(copy) {
            return Err(format!(
                "its users are {:?}, not {:?}",
                users(copy),
                users(member)
            ));
        }
        Ok(())
    }

    /// Says whether its member votes, as it knows itself.
    pub(crate) fn votes(&self) -> bool {
        let own = self.member_id;
        let is_it =
            |m: &quorate_proto::etcdserverpb::Member| MemberId(m.id) == own && !m.is_learner;
        self.member()
            .is_some_and(|member| member.view().members().iter().any(is_it))
    }
}
