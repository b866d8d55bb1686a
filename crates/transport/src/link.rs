//! What all parts of the link to one peer share.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use quorate_proto::MemberId;

use crate::Receiver;
use crate::metrics::Counters;
use crate::url::Picker;

/// One peer as its streams, pipeline and snapshots see it.
pub(crate) struct Link {
    pub(crate) id: MemberId,
    pub(crate) picker: Picker,
    pub(crate) counters: Arc<Counters>,
    pub(crate) receiver: Arc<dyn Receiver>,
    /// Drops what goes to and comes from the peer; for tests.
    paused: AtomicBool,
    /// Whether the peer knows what only we have, as one of its streams has said.
    ///
    /// **Invariant:** never taken back. A peer does not forget; an answer that lacks the word has been changed on its way.
    kindred: AtomicBool,
    /// Whether it has asked for checksums.
    takes_checksums: AtomicBool,
    /// Whether the last snapshot for it failed, after which the next is one that every member takes.
    snapshot_failed: AtomicBool,
    /// Since when a link works; `None` while none does.
    active_since: Mutex<Option<Instant>>,
}

impl Link {
    pub(crate) fn new(
        id: MemberId,
        picker: Picker,
        counters: Arc<Counters>,
        receiver: Arc<dyn Receiver>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            picker,
            counters,
            receiver,
            paused: AtomicBool::new(false),
            kindred: AtomicBool::new(false),
            takes_checksums: AtomicBool::new(false),
            snapshot_failed: AtomicBool::new(false),
            active_since: Mutex::new(None),
        })
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) fn set_kindred(&self) {
        self.kindred.store(true, Ordering::Relaxed);
        self.set_takes_checksums();
    }

    /// Notes that the peer has asked for checksums. It need not know yet that we have them, so what comes from it may have none.
    pub(crate) fn set_takes_checksums(&self) {
        self.takes_checksums.store(true, Ordering::Relaxed);
    }

    pub(crate) fn takes_checksums(&self) -> bool {
        self.takes_checksums.load(Ordering::Relaxed)
    }

    /// Notes how a snapshot went. A form that only our own kind takes may be of a version that the peer does not know, or
    /// meet a fault of ours: whatever kept it from arriving, the peer must not stay behind for ever.
    pub(crate) fn note_snapshot(&self, ok: bool) {
        self.snapshot_failed.store(!ok, Ordering::Relaxed);
    }

    pub(crate) fn snapshot_failed(&self) -> bool {
        self.snapshot_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn is_kindred(&self) -> bool {
        self.kindred.load(Ordering::Relaxed)
    }

    pub(crate) fn active_since(&self) -> Option<Instant> {
        *self.active_since.lock()
    }

    pub(crate) fn activate(&self) {
        let mut since = self.active_since.lock();
        if since.is_none() {
            *since = Some(Instant::now());
            tracing::info!("peer-id" = %self.id, "peer became active");
        }
    }

    /// Notes that a link broke, or could not be made.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/peer_status.go `deactivate`.
    pub(crate) fn deactivate(&self, action: &str, source: &str, reason: &dyn std::fmt::Display) {
        let was_active = self.active_since.lock().take().is_some();
        let id = self.id;
        if was_active {
            self.counters.disconnected.add(1);
            tracing::warn!(
                "peer-id" = %id,
                error = %format_args!("failed to {action} {id} on {source} ({reason})"),
                "peer became inactive (message send to peer failed)"
            );
        } else {
            tracing::debug!(
                "peer-id" = %id,
                error = %format_args!("failed to {action} {id} on {source} ({reason})"),
                "peer deactivated again"
            );
        }
    }

    /// Tells raft that messages to the peer were lost.
    pub(crate) fn lost(&self, count: usize) {
        self.counters.sent_failures.add(count);
        self.receiver.unreachable(self.id);
    }
}
