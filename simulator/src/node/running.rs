//! A member that runs, with what the server's threads have under way for it.
use std::collections::{BTreeMap, VecDeque};

use quorate_backend::{DefragmentJob, FlushJob};
use quorate_core::{
    LiveStores, Member, PeerChange, SnapshotInstall, SnapshotToSave, Stores, Submission, Suspicion,
};
use quorate_disk::File;
use quorate_mvcc::{CompactionJob, Progress, Reader, WatchHub};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_server::bootstrap::Place;
use quorate_server::recovery;
use quorate_snap::{Snapshot, SnapshotId, Snapshotter};
use quorate_wal::{Batch, PrepareJob, Preparing, Synced, Wal};

use super::machine_at;
use super::states::Arrivals;

/// A member and the ends of what the server runs beside it.
pub(crate) struct Running {
    pub(crate) number: u64,
    pub(crate) member: Member,
    /// What clients have asked and the engine has not taken.
    pub(crate) inbox: Vec<Submission>,
    /// Whether clients may reach it.
    pub(crate) is_ready: bool,
    /// Until when it waits for another to lead, when it is to stop.
    pub(crate) stops_ms: Option<u64>,
    pub(crate) wal: Wal,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) place: Place,
    pub(crate) recovery: recovery::Options,
    pub(crate) keep_snapshots: usize,
    /// Whether old snapshot files were removed since the start.
    pub(crate) has_released: bool,
    pub(crate) _lock: Box<dyn File>,
    /// Batches that wait for the log's next write, and those of the write under way.
    pub(crate) unwritten: Vec<Batch>,
    pub(crate) writing: Vec<Batch>,
    pub(crate) is_writing: bool,
    pub(crate) release: Option<u64>,
    /// Up to where the log's last snapshot went at the start, up to where one was saved or installed since, and up to where the log
    /// was released since.
    pub(crate) found: u64,
    pub(crate) saved: u64,
    pub(crate) released: u64,
    pub(crate) flush: Option<FlushJob>,
    pub(crate) compaction: Option<CompactionJob>,
    pub(crate) compaction_steps: u64,
    pub(crate) defragmentation: Option<DefragmentJob>,
    pub(crate) saves: VecDeque<SnapshotToSave>,
    pub(crate) prepare: Option<PrepareJob>,
    pub(crate) install: Option<SnapshotInstall>,
    pub(crate) arrivals: Arrivals,
    /// Machines by the member that is said to be there.
    pub(crate) peers: BTreeMap<MemberId, u64>,
    /// Machines of members that only their messages told of.
    pub(crate) strangers: BTreeMap<MemberId, u64>,
    /// Members of the cluster that it joined, as they were then.
    pub(crate) remotes: Vec<pb::Member>,
    pub(crate) live: LiveStores,
    pub(crate) hub: WatchHub<Reader>,
    pub(crate) hub_generation: u64,
    pub(crate) is_watch_due: bool,
    /// Up to where digests were compared.
    pub(crate) compared: u64,
    /// On the member's own clock.
    pub(crate) next_tick_ms: u64,
    /// When it applied its own removal.
    pub(crate) removed_ms: Option<u64>,
    pub(crate) led: bool,
    /// What its comparisons of digests found.
    pub(crate) suspicion: Suspicion,
    /// What it had applied at the last look.
    pub(crate) applied: u64,
}

/// Steps that the watch hub makes at once.
const WATCH_STEPS_MAX: usize = 16;

impl Running {
    /// Appends the batches of the write under way, then releases segments, as the log's thread does.
    ///
    /// # Errors
    /// What ends the member.
    pub(crate) fn write_log(&mut self) -> Result<Option<Synced>, String> {
        let mut synced = None;
        if !self.writing.is_empty() {
            let result = self.wal.append(&self.writing);
            synced = Some(result.map_err(|e| format!("cannot write the log: {e}"))?);
        }
        if let Some(index) = self.release.take() {
            let released = self.wal.release_to(index);
            released.map_err(|e| format!("cannot release log segments: {e}"))?;
            self.released = self.released.max(index);
        }
        Ok(synced)
    }

    /// Saves the oldest snapshot that waits.
    ///
    /// # Errors
    /// What ends the member.
    pub(crate) fn save_snapshot(&mut self) -> Result<(), String> {
        let Some(snapshot) = self.saves.pop_front() else {
            return Ok(());
        };
        let (term, index) = (snapshot.term, snapshot.index);
        let id = SnapshotId { term, index };
        let body = snapshot.body;
        let saved = self.snapshotter.save(&Snapshot { id, body });
        saved.map_err(|e| format!("cannot save a snapshot: {e}"))?;
        self.member.handle_snapshot_saved(index, term);
        self.saved = self.saved.max(index);
        // Old files that stay are only told of, and removed with those of the next one.
        self.has_released = self.snapshotter.release(self.keep_snapshots).is_ok();
        Ok(())
    }

    /// Takes a step of preparing a log segment; says whether there is more to do, and whether one is ready.
    pub(crate) fn prepare_step(&mut self) -> (bool, bool) {
        match self.prepare.take().map(PrepareJob::step) {
            Some(Ok(Preparing::More(job))) => {
                self.prepare = Some(job);
                (true, false)
            }
            Some(Ok(Preparing::Done(segment))) => {
                self.wal.accept_prepared(segment);
                (false, true)
            }
            // One that fails is only told of.
            Some(Err(_)) | None => (false, false),
        }
    }

    /// Takes a step of a compaction; says whether it ended.
    ///
    /// # Errors
    /// What ends the member.
    pub(crate) fn compact_step(&mut self) -> Result<bool, String> {
        let Some(mut job) = self.compaction.take() else {
            return Ok(true);
        };
        match job.step() {
            Ok(Progress::Done(_)) => {
                self.member.handle_compacted();
                Ok(true)
            }
            Ok(_) => {
                self.compaction = Some(job);
                Ok(false)
            }
            Err(e) => Err(format!("cannot compact: {e}")),
        }
    }

    /// Makes the stores of a received image, or of the database made of a state.
    ///
    /// # Errors
    /// What ends the member.
    pub(crate) fn restore(&mut self, index: u64) -> Result<Stores, String> {
        let restored = self
            .place
            .install(index)
            .map_err(|e| e.to_string())
            .and_then(|backend| {
                let passed = self.arrivals.take_passed(index);
                recovery::restore_passed(&backend, &self.recovery, passed)
                    .map_err(|e| e.to_string())
            });
        restored.map_err(|why| format!("cannot install a snapshot: {why}"))
    }

    pub(crate) fn change_peer(&mut self, change: PeerChange) {
        match change {
            PeerChange::Add { id, urls } | PeerChange::Update { id, urls } => {
                if let Some(machine) = urls.iter().find_map(|url| machine_at(url)) {
                    self.peers.insert(id, machine);
                } else {
                    self.peers.remove(&id);
                }
            }
            PeerChange::Remove { id } => {
                self.peers.remove(&id);
            }
            PeerChange::Clear => self.peers.clear(),
        }
    }

    /// Returns where a member is, as this one knows it.
    pub(crate) fn machine_of(&self, id: MemberId) -> Option<u64> {
        let known = self.peers.get(&id).or_else(|| self.strangers.get(&id));
        known.copied().or_else(|| {
            let remote = self.remotes.iter().find(|m| m.id == id.0)?;
            remote.peer_ur_ls.iter().find_map(|url| machine_at(url))
        })
    }

    /// Lists the members that it opens streams to: those that it knows of, at first those of the cluster that it joined.
    pub(crate) fn dialed(&self) -> impl Iterator<Item = (MemberId, u64)> + '_ {
        let remotes = self.remotes.iter().filter(|_| self.peers.is_empty());
        let remotes = remotes.filter_map(|m| {
            let machine = m.peer_ur_ls.iter().find_map(|url| machine_at(url))?;
            Some((MemberId(m.id), machine))
        });
        self.peers.iter().map(|(id, m)| (*id, *m)).chain(remotes)
    }

    /// Remembers where a member is that the log does not know of: the transport reads it off its requests.
    pub(crate) fn remember(&mut self, id: MemberId, machine: u64) {
        if !self.peers.contains_key(&id) {
            self.strangers.insert(id, machine);
        }
    }

    /// Moves the watch hub on by a bounded number of steps; says whether more is to be done right away.
    ///
    /// # Errors
    /// What ends the member.
    pub(crate) fn advance_watches(&mut self) -> Result<bool, String> {
        self.is_watch_due = false;
        let generation = self.live.generation();
        if std::mem::replace(&mut self.hub_generation, generation) != generation {
            self.hub.restored(self.live.reader());
        }
        let mut more = true;
        for _ in 0..WATCH_STEPS_MAX {
            let advanced = self.hub.advance();
            more = advanced.map_err(|e| format!("cannot read history for watchers: {e}"))?;
            if !more {
                break;
            }
        }
        Ok(more)
    }
}

impl super::Machine {
    /// Does what the server's threads still do when the member ends in order: all that waits is written, all that was
    /// applied is flushed.
    ///
    /// # Errors
    /// What ends the member otherwise.
    pub(crate) fn close(&mut self) -> Result<(), String> {
        let Some(running) = self.running.as_mut() else {
            return Ok(());
        };
        for _ in 0..2 {
            running.write_log()?;
            if !self.disk.is_powered() {
                // Nobody knows what there is now of what was on its way.
                return Ok(());
            }
            let batches = std::mem::take(&mut running.writing);
            self.durable.appended(&batches);
            running.writing = std::mem::take(&mut running.unwritten);
        }
        let backend = running.member.stores().backend.clone();
        let jobs = running.flush.take().into_iter();
        for job in jobs.chain(backend.seal()) {
            job.run()
                .map_err(|e| format!("cannot flush the backend: {e}"))?;
        }
        Ok(())
    }
}
