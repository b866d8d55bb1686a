//! The engine: feeds a member with what happens and does what it asks for, on a thread of its own or on that of who brings
//! something.
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_core::{Actions, Member, Outlet};
use quorate_proto::MemberId;
use quorate_wal::Synced;

use quorate_rpc::Clock;

use crate::installer::Installer;
use crate::log_writer::{Here, LogOrder};
use crate::peers::Links;
use crate::queue::{Event, Queue, Taken, Turns};
use crate::tell::Teller;
use crate::workers::{BackendOrder, Chore, Workers};

/// Ticks made up for at most after a pause; more would only fire time-outs in a burst.
const MAX_LATE_TICKS: u32 = 10;

/// How long a member that stops waits for another to lead.
const TRANSFER_MS: u64 = 2_000;
/// How long a removed member lives on, so that others hear that it knows. Source: etcd v3.7.1 server.go
/// removeMember, one second.
const REMOVAL_DELAY_MS: u64 = 1_000;

/// Entries in the log that are not applied yet, above which nobody helps: one acknowledgement may bring them all, and who
/// brings it has other work to do.
const HELPED_UNAPPLIED_MAX: u64 = 64;
/// A helper's turn that takes longer than this is the last one until the next tick: one entry may be a lot of work, and
/// where one is, more may follow.
const HELPED_TURN_MAX: Duration = Duration::from_millis(5);

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

/// An engine while it runs.
struct Running<O> {
    engine: Engine<O>,
    stopping: Stopping,
    ended: Option<Ended>,
    /// What a helper took last, for its room.
    taken: Taken,
    /// Whether a helper's turn took too long since the last tick.
    is_heavy: bool,
}

/// An engine at which threads take turns: see [`Queue`] for who does when.
pub(crate) struct SharedEngine<O> {
    queue: Queue,
    tick: Duration,
    /// Locked by the inbox' owner only, so nobody waits for it.
    running: Mutex<Option<Running<O>>>,
}

impl<O: Outlet + Send + 'static> SharedEngine<O> {
    /// Makes an engine and lets others help it. It lives as long as what is returned.
    pub(crate) fn new(engine: Engine<O>) -> Arc<Self> {
        let this = Arc::new(Self {
            queue: engine.queue.clone(),
            tick: engine.tick,
            running: Mutex::new(Some(Running {
                engine,
                stopping: Stopping::default(),
                ended: None,
                taken: Taken::default(),
                is_heavy: false,
            })),
        });
        let helper: Weak<dyn Turns> = Arc::<Self>::downgrade(&this);
        this.queue.set_helper(helper);
        this
    }

    /// Runs until the member is stopped or something fails for good, then ends the disk's threads; to be called once.
    ///
    /// # Durability
    /// When it returns [`Ended::Stopped`], everything applied has been flushed.
    pub(crate) fn run(&self) -> Ended {
        let mut taken = Taken::default();
        let mut next_tick = Instant::now() + self.tick;
        let mut is_first = true;
        loop {
            let mut slot = self.running.lock();
            let running = slot.as_mut().expect("only this takes it away");
            if std::mem::take(&mut is_first) {
                running.ended = running.engine.perform_all(true);
            } else {
                running.turn(&mut taken, Some(&mut next_tick));
            }
            if let Some(ended) = running.ended.take() {
                let engine = slot.take().map(|running| running.engine);
                drop(slot);
                return engine.expect("just seen").end(ended);
            }
            let takes_help = running.takes_help();
            drop(slot);
            self.queue.take(next_tick, takes_help, &mut taken);
        }
    }
}

impl<O: Outlet + Send + 'static> Turns for SharedEngine<O> {
    fn help(&self, turns_max: u32) {
        // In a release a panic ends the process at once; what unwinds would leave the inbox without anybody who looks at it.
        let _end = AbortOnUnwind;
        let mut turns = 0;
        loop {
            turns += 1;
            let mut slot = self.running.lock();
            let running = slot.as_mut().expect("its end owns the inbox for ever");
            let mut taken = std::mem::take(&mut running.taken);
            self.queue.take_now(&mut taken);
            let begin = Instant::now();
            running.turn(&mut taken, None);
            running.is_heavy |= begin.elapsed() > HELPED_TURN_MAX;
            running.taken = taken;
            let is_over = running.ended.is_some();
            let takes_help = running.takes_help();
            drop(slot);
            if self.queue.release(turns < turns_max, takes_help, is_over) {
                return;
            }
        }
    }
}

/// Ends the process when it is dropped by a panic.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl<O: Outlet> Running<O> {
    /// Says whether others may take turns: not while the engine appends to the log itself, has much to apply, has just had
    /// much to do in one turn, or ends.
    fn takes_help(&self) -> bool {
        let view = self.engine.member.view();
        let writes_itself = view.reads_are_linearizable();
        let unapplied = view.appended().saturating_sub(view.applied());
        let is_busy = unapplied > HELPED_UNAPPLIED_MAX;
        let is_ending = self.stopping.transfer.is_some() || self.ended.is_some();
        !writes_itself && !is_busy && !self.is_heavy && !is_ending
    }

    /// Works off what was taken, on the engine's thread if it gives the time of the next tick.
    fn turn(&mut self, taken: &mut Taken, next_tick: Option<&mut Instant>) {
        let Self {
            engine,
            stopping,
            ended,
            is_heavy,
            ..
        } = self;
        let is_own_thread = next_tick.is_some();
        engine.member.handle_time(engine.clock.now_ms());
        for event in taken.events.drain(..) {
            // What cannot go on outweighs a wish to stop: its exit code tells of it.
            *ended = match (ended.take(), engine.handle(event, stopping)) {
                (Some(Ended::Fatal(why)), _) => Some(Ended::Fatal(why)),
                (before, None) => before,
                (_, now) => now,
            };
        }
        if !taken.messages.is_empty() {
            let messages = std::mem::take(&mut taken.messages);
            engine.member.handle_messages(messages);
        }
        if !taken.submissions.is_empty() {
            let capacity = taken.submissions.capacity();
            let submissions = std::mem::take(&mut taken.submissions);
            engine.member.handle_submissions(submissions);
            taken.submissions.reserve(capacity.min(1_024));
        }
        if let Some(next_tick) = next_tick
            && engine.tick_when_due(next_tick)
        {
            *is_heavy = false;
        }
        *ended = ended
            .take()
            .or_else(|| engine.perform_all(is_own_thread))
            .or_else(|| stopping.is_over(&engine.member, engine.clock.now_ms(), &engine.teller))
            .or_else(|| engine.is_removed().then_some(Ended::Removed));
    }
}

impl<O: Outlet> Engine<O> {
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

    /// Makes the ticks that are due; `true` if there was one.
    fn tick_when_due(&mut self, next_tick: &mut Instant) -> bool {
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
        late > 0
    }

    /// Does what the member asks for, until it asks for nothing that the engine can do at once.
    fn perform_all(&mut self, is_own_thread: bool) -> Option<Ended> {
        loop {
            let mut actions = self.member.take_actions();
            if let Some(why) = actions.fatal.take() {
                self.perform(actions);
                return Some(Ended::Fatal(why));
            }
            match self.perform_and_append(actions, is_own_thread) {
                Err(why) => return Some(Ended::Fatal(why)),
                Ok(Some(synced)) => self.member.handle_synced(&synced),
                Ok(None) => return None,
            }
        }
    }

    /// Does it, and appends to the log here when nobody else waits for anything: neither clients, nor the other members of a
    /// cluster, who must hear from this one whatever its disk does.
    fn perform_and_append(
        &mut self,
        mut actions: Actions,
        is_own_thread: bool,
    ) -> Result<Option<Synced>, String> {
        if !is_own_thread
            || actions.persist.is_empty()
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
        self.perform_all(true);
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
