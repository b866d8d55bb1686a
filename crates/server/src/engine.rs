//! The engine's thread: one loop that feeds a member with what happens and does what it asks for.
use std::time::{Duration, Instant};

use quorate_core::{Actions, Member, Outlet};
use quorate_proto::MemberId;
use quorate_wal::Synced;

use quorate_rpc::Clock;

use crate::installer::Installer;
use crate::log_writer::{Here, LogOrder};
use crate::peers::Links;
use crate::queue::{Event, Queue, Taken};
use crate::tell::Teller;
use crate::workers::{BackendOrder, Chore, Workers};

/// Ticks made up for at most after a pause; more would only fire time-outs in a burst.
const MAX_LATE_TICKS: u32 = 10;

/// How long a member that stops waits for another to lead.
const TRANSFER_MS: u64 = 2_000;
/// How long a removed member lives on, so that others hear that it knows. Source: etcd v3.7.1 server.go
/// removeMember, one second.
const REMOVAL_DELAY_MS: u64 = 1_000;

/// The engine with all its ends.
pub(crate) struct Engine<O> {
    pub(crate) member: Member,
    pub(crate) queue: Queue,
    pub(crate) workers: Workers,
    pub(crate) outlet: O,
    pub(crate) tick: Duration,
    pub(crate) clock: Clock,
    /// The links to other members.
    pub(crate) links: Links,
    pub(crate) installer: Installer,
    pub(crate) teller: Teller,
    /// When this member applied its own removal.
    pub(crate) removed_ms: Option<u64>,
    /// Called once when the member has published itself.
    pub(crate) on_ready: Option<Box<dyn FnOnce() + Send>>,
}

/// Why the engine ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to.
    Stopped,
    /// This member was removed from the cluster.
    Removed,
    /// Something failed for good.
    Fatal(String),
}

impl<O: Outlet> Engine<O> {
    /// Runs until the member is stopped or something fails for good, then ends the disk's threads.
    ///
    /// # Durability
    /// When it returns [`Ended::Stopped`], everything applied has been flushed.
    pub(crate) fn run(mut self) -> Ended {
        let mut taken = Taken::default();
        let mut next_tick = Instant::now() + self.tick;
        let mut stopping = Stopping::default();
        let mut ended = self.perform_all();
        loop {
            if let Some(ended) = ended.take() {
                return self.end(ended);
            }
            self.queue.take(next_tick, &mut taken);
            self.member.handle_time(self.clock.now_ms());
            for event in taken.events.drain(..) {
                // What cannot go on outweighs a wish to stop: its exit code tells of it.
                ended = match (ended, self.handle(event, &mut stopping)) {
                    (Some(Ended::Fatal(why)), _) => Some(Ended::Fatal(why)),
                    (before, None) => before,
                    (_, now) => now,
                };
            }
            if !taken.messages.is_empty() {
                self.member
                    .handle_messages(std::mem::take(&mut taken.messages));
            }
            if !taken.submissions.is_empty() {
                let capacity = taken.submissions.capacity();
                self.member
                    .handle_submissions(std::mem::take(&mut taken.submissions));
                taken.submissions.reserve(capacity.min(1_024));
            }
            self.tick_when_due(&mut next_tick);
            ended = ended
                .or_else(|| self.perform_all())
                .or_else(|| stopping.is_over(&self.member, self.clock.now_ms(), &self.teller))
                .or_else(|| self.is_removed().then_some(Ended::Removed));
        }
    }

    fn handle(&mut self, event: Event, stopping: &mut Stopping) -> Option<Ended> {
        match event {
            Event::Synced(synced) => {
                self.workers.log.handle_synced(&synced);
                self.member.handle_synced(&synced);
            }
            Event::Flushed => self.member.handle_flushed(),
            Event::Compacted => self.member.handle_compacted(),
            Event::SnapshotSaved { index, term } => self.member.handle_snapshot_saved(index, term),
            Event::PeerSnapshot(message) => self.member.handle_messages(vec![*message]),
            Event::SnapshotSent { id, ok } => {
                self.links.states.drop_for(id);
                self.member.handle_snapshot_sent(id, ok);
            }
            Event::Unreachable(id) => self.member.handle_unreachable(id),
            Event::MemberVersions(versions) => self.member.handle_member_versions(&versions),
            Event::Installed(stores) => {
                let old = self.member.handle_installed(*stores);
                self.installer.close(old);
            }
            Event::Removed => return Some(Ended::Removed),
            Event::Fatal(why) => return Some(Ended::Fatal(why)),
            Event::Stop => {
                let now_ms = self.clock.now_ms();
                return stopping.begin(&mut self.member, now_ms, &self.teller);
            }
        }
        None
    }

    fn is_removed(&self) -> bool {
        let since = self.removed_ms;
        since.is_some_and(|ms| self.clock.now_ms() >= ms + REMOVAL_DELAY_MS)
    }

    fn tick_when_due(&mut self, next_tick: &mut Instant) {
        let now = Instant::now();
        let mut late = 0;
        while now >= *next_tick {
            if late == 0 {
                let links = self.links.ages();
                self.member.set_links(links);
            }
            self.member.handle_tick(self.clock.now_ms());
            *next_tick += self.tick;
            late += 1;
            if late == MAX_LATE_TICKS {
                *next_tick = now + self.tick;
            }
        }
    }

    /// Does what the member asks for, until it asks for nothing that the engine can do at once.
    fn perform_all(&mut self) -> Option<Ended> {
        loop {
            let mut actions = self.member.take_actions();
            if let Some(why) = actions.fatal.take() {
                self.perform(actions);
                return Some(Ended::Fatal(why));
            }
            match self.perform_and_append(actions) {
                Err(why) => return Some(Ended::Fatal(why)),
                Ok(Some(synced)) => self.member.handle_synced(&synced),
                Ok(None) => return None,
            }
        }
    }

    /// Does it, and appends to the log here when nobody else waits for anything: neither clients, nor the other members of a
    /// cluster, who must hear from this one whatever its disk does.
    fn perform_and_append(&mut self, mut actions: Actions) -> Result<Option<Synced>, String> {
        if actions.persist.is_empty()
            || !self.member.view().reads_are_linearizable()
            || !self.queue.is_empty()
        {
            self.perform(actions);
            return Ok(None);
        }
        let batches = std::mem::take(&mut actions.persist);
        self.perform(actions);
        match self.workers.log.append_here(batches)? {
            Here::Synced(synced) => Ok(Some(synced)),
            Here::Refused(batches) => {
                self.workers.log.send(LogOrder::Append(batches));
                Ok(None)
            }
        }
    }

    fn perform(&mut self, mut actions: Actions) {
        self.links.perform(&mut actions);
        // A thread that has gone told why in a fatal event, which ends the loop in its next turn.
        if !actions.persist.is_empty() {
            self.workers.log.send(LogOrder::Append(actions.persist));
        }
        if !actions.replies.is_empty() {
            self.outlet.deliver(actions.replies);
        }
        if actions.published {
            self.outlet.published();
        }
        if let Some(job) = actions.flush {
            let _ = self.workers.backend.send(BackendOrder::Flush(job));
        }
        if let Some(job) = actions.compact {
            let _ = self.workers.backend.send(BackendOrder::Compact(job));
        }
        for snapshot in actions.save_snapshots {
            let _ = self.workers.chores.send(Chore::Save(snapshot));
        }
        if let Some(index) = actions.release_log {
            self.workers.log.send(LogOrder::Release(index));
        }
        if let Some(install) = actions.install {
            self.installer.install(install.index);
        }
        for index in actions.unused_images {
            self.installer.forget(index);
        }
        for notice in &actions.notices {
            self.teller.tell(notice);
        }
        if actions.removed {
            self.removed_ms = self.removed_ms.or(Some(self.clock.now_ms()));
        }
        if actions.ready
            && let Some(ready) = self.on_ready.take()
        {
            ready();
        }
    }

    fn end(mut self, ended: Ended) -> Ended {
        self.member.stop();
        self.perform_all();
        self.links.transport.stop();
        let backend = self.member.stores().backend.clone();
        self.workers.join();
        if ended == Ended::Stopped
            && let Some(job) = backend.seal()
            && let Err(e) = job.run()
        {
            return Ended::Fatal(format!("cannot flush the backend at the end: {e}"));
        }
        ended
    }
}

/// A stop under way: leadership moves first, when there is somebody to take it.
#[derive(Default)]
struct Stopping {
    /// Who is to lead, and since when that is waited for.
    transfer: Option<(MemberId, u64)>,
}

impl Stopping {
    fn begin(&mut self, member: &mut Member, now_ms: u64, teller: &Teller) -> Option<Ended> {
        if self.transfer.is_some() {
            return Some(Ended::Stopped);
        }
        let Some(to) = member.transfer_leadership_for_stop() else {
            return Some(Ended::Stopped);
        };
        teller.transfer_starts(to);
        self.transfer = Some((to, now_ms));
        None
    }

    fn is_over(&self, member: &Member, now_ms: u64, teller: &Teller) -> Option<Ended> {
        let (to, began_ms) = self.transfer?;
        let took_ms = now_ms - began_ms;
        if !member.leads() {
            teller.transfer_ends(to, Duration::from_millis(took_ms));
        } else if took_ms >= TRANSFER_MS {
            teller.transfer_fails();
        } else {
            return None;
        }
        Some(Ended::Stopped)
    }
}
