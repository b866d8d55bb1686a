//! Noticing that a leader is missing or that the log hangs.
use std::cell::Cell;

use quorate_core::View;

/// Election timeouts without a leader after which streams that require one are ended.
///
/// Source: etcd v3.7.1 server/etcdserver/api/v3rpc/interceptor.go `maxNoLeaderCnt`.
const NO_LEADER_MAX: u32 = 3;

/// Ends the streams that require a leader when there has been none for too long.
#[derive(Default)]
pub(super) struct LeaderWatch {
    pub(super) checked_ms: Cell<u64>,
    pub(super) misses: Cell<u32>,
    pub(super) lost: tokio::sync::Notify,
}

/// Notices a log that hangs.
#[derive(Default)]
pub(super) struct CommitWatch {
    pub(super) committed: Cell<u64>,
    /// When an entry was last committed, or none waited for it.
    pub(super) moved_ms: Cell<u64>,
}

impl CommitWatch {
    pub(super) fn look(&self, now_ms: u64, view: &View) {
        // What was appended is read first, so that it is not ahead of what is committed only by the time between.
        let appended = view.appended();
        let committed = view.committed();
        if appended <= committed || committed != self.committed.replace(committed) {
            self.moved_ms.set(now_ms);
        }
    }
}

impl LeaderWatch {
    pub(super) fn tick(&self, now_ms: u64, election_timeout_ms: u64, has_leader: bool) {
        if now_ms < self.checked_ms.get() + election_timeout_ms {
            return;
        }
        self.checked_ms.set(now_ms);
        self.misses
            .set(if has_leader { 0 } else { self.misses.get() + 1 });
        if self.misses.get() >= NO_LEADER_MAX {
            self.lost.notify_waiters();
        }
    }
}
