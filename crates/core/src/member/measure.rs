//! Measuring the work of the member, with a clock that others provide.
use super::Member;
use crate::actions::Notice;
use crate::read_index::RETRY_MS;
use crate::redact::request_text;
use crate::tally::succeeded;
use crate::{Applied, Error, Request};

/// Notices about single requests that are kept until the next actions are taken.
const REQUEST_NOTICES_MAX: usize = 32;

/// Tells how long things take. What it says is shown and decides nothing, so that a run does not depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    /// Returns nanoseconds since some moment; never goes back.
    pub now_ns: fn() -> u64,
    /// Time above which applying a request is worth a notice, in nanoseconds.
    pub slow_apply_ns: u64,
}

impl Default for Stopwatch {
    /// One that stands still.
    fn default() -> Self {
        Self {
            now_ns: || 0,
            slow_apply_ns: u64::MAX,
        }
    }
}

/// A stopwatch and when it was read last, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Laps {
    stopwatch: Stopwatch,
    last_ns: u64,
}

impl Laps {
    /// Starts a lap: one clock read a batch, and one for each entry in it.
    pub(super) fn start(&mut self) {
        self.last_ns = (self.stopwatch.now_ns)();
    }

    fn lap_ns(&mut self) -> u64 {
        let before_ns = self.last_ns;
        self.start();
        self.last_ns.saturating_sub(before_ns)
    }
}

impl Member {
    /// Says how many of what wait, by name: with nothing asked and nothing under way all are 0.
    ///
    /// For checks that nothing is left over.
    pub fn waiting(&self) -> [(&'static str, usize); 12] {
        [
            ("proposals", self.waiters.len()),
            ("proposals that no leader has taken", self.unproposed.len()),
            ("reads", self.reads.len()),
            ("reads of others", self.early_reads.len()),
            ("renewals", self.late_renewals.len()),
            ("moves of leadership", self.moves.len()),
            ("requests for entries to be applied", self.parked.len()),
            ("compactions", self.compaction.callers.len()),
            ("writes of the log", self.persisting.len()),
            ("entries behind a snapshot", self.backlog.len()),
            ("snapshots being sent", self.sending.len()),
            ("snapshots to be sent", self.unsent_snapshots.len()),
        ]
    }

    /// Gives the member a clock to measure its work with; without one, everything takes no time.
    pub fn set_stopwatch(&mut self, stopwatch: Stopwatch) {
        self.laps.stopwatch = stopwatch;
    }

    /// Counts a request that was just applied, and tells when it was slow or failed.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/apply/uber_applier.go dispatch.
    pub(super) fn measure_apply(&mut self, request: &Request, result: &Result<Applied, Error>) {
        let took_ns = self.laps.lap_ns();
        self.view.tally().applied(request, result, took_ns);
        let is_slow = took_ns > self.laps.stopwatch.slow_apply_ns;
        if is_slow {
            self.view.tally().slow_applies.add(1);
        }
        if (!is_slow && succeeded(result)) || self.actions.notices.len() >= REQUEST_NOTICES_MAX {
            return;
        }
        let error = result.as_ref().err().map(ToString::to_string);
        let request = request_text(request);
        self.actions.notices.push(if is_slow {
            Notice::SlowApply {
                took_ns,
                expected_ns: self.laps.stopwatch.slow_apply_ns,
                request,
                error,
            }
        } else {
            Notice::FailedApply {
                took_ns,
                request,
                error: error.unwrap_or_default(),
            }
        });
    }

    /// Tells that raft was asked for the commit index again because it did not answer.
    pub(super) fn measure_read_index(&mut self, request_id: u64, at_once: bool) {
        if self.reads.is_asked_again() && !at_once {
            let retry_ms = RETRY_MS;
            self.actions.notices.push(Notice::ReadIndexLate {
                request_id,
                retry_ms,
            });
        }
    }

    /// Counts reads whose time was over before their index was known.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/read/read.go, which counts rounds; here each reader has a time of its own.
    pub(super) fn measure_late_reads(&mut self, count: usize) {
        if count > 0 {
            self.view.tally().read_indexes_slow.add(count as u64);
            self.actions
                .notices
                .push(Notice::ReadIndexTimedOut { count });
        }
    }
}
