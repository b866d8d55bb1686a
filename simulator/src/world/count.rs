//! Counts what has happened, where it takes effect.
use quorate_core::{Error, MemberChangeKind, Notice, Outcome};
use quorate_disk::{Fault, Mishap, OperationKind};

use super::World;
use crate::node::{CLUSTER_VERSION, Found};

impl World {
    /// Counts what went wrong on a machine's disk.
    pub(super) fn count_mishaps(&mut self, number: u64) {
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        let mishaps = machine.disk.take_mishaps();
        machine.has_met_fault |= !mishaps.is_empty();
        for name in mishaps.into_iter().filter_map(mishap_name) {
            self.hit(name);
        }
    }

    /// Counts what a start found.
    pub(super) fn count_start(&mut self, number: u64, found: &Found, has_other_limits: bool) {
        let received = found.received;
        let machine = self.machines.get(&number);
        let wall_offset_ms = machine.map_or(0, |m| m.clock.wall_offset_ms);
        let is_older = machine.is_some_and(|m| m.version != CLUSTER_VERSION);
        for (is, name) in [
            (has_other_limits, "restarted with other limits"),
            (wall_offset_ms != 0, "wall clock jumped"),
            (is_older, "member of an older version started"),
            (found.is_torn, "torn tail repaired"),
            (
                found.unapplied > 0,
                "log was longer than the state at a start",
            ),
            (
                received.is_unfinished,
                "start removed a database in the making",
            ),
            (
                received.is_unmarked,
                "crash left a received database without a mark",
            ),
            (
                received.is_installed,
                "start finished the install of a received database",
            ),
        ] {
            if is {
                self.hit(name);
            }
        }
    }

    /// Counts a message lost on a link that is cut, and the cut, when it is the first.
    pub(super) fn count_cut(&mut self, from: u64, to: u64) {
        if !self.network.is_cut(from, to, self.now_ms) {
            return;
        }
        self.hit("message lost to a cut link");
        let is_near = |(victim, _): &(u64, _)| *victim == from || *victim == to;
        if let Some(at) = self.fresh_cuts.iter().position(is_near) {
            let (_, name) = self.fresh_cuts.remove(at);
            self.hit(name);
        }
    }

    /// Counts that damage was found, by who ends for it.
    pub(super) fn count_found(&mut self, damage: Option<&str>) {
        let name = match damage {
            Some("bit rotted in the log") => "rot in the log found",
            Some("bit rotted in the database") => "rot in the database found",
            Some("bit rotted in a snapshot") => "rot in a snapshot found",
            _ => return,
        };
        self.hit(name);
    }

    /// Counts what a member says.
    pub(super) fn count_notice(&mut self, number: u64, notice: &Notice) {
        let name = match notice {
            Notice::BecameLeader { term } => {
                self.count_leader(number, *term);
                "member became leader"
            }
            Notice::LeaderChanged { .. } if self.has_writes_in_flight(number) => {
                "leader changed with writes in flight"
            }
            Notice::ElectionAdvanced { .. } => "first election brought forward",
            Notice::LateHeartbeat { .. } => "heartbeats sent late",
            Notice::SlowDisk { .. } => "leader handed over for a slow disk",
            Notice::Downgraded(_) => "downgrade complete",
            Notice::SnapshotTriggered {
                is_forced: true, ..
            } => "snapshot saved before its time",
            Notice::QuotaExceeded => "quota used up",
            Notice::ConfigurationRefused(_) => "change of members refused when applied",
            Notice::MemberChanged { kind, .. } => match kind {
                MemberChangeKind::Promoted => "learner was promoted",
                MemberChangeKind::Updated => "member's addresses were updated",
                _ => return,
            },
            _ => return,
        };
        self.hit(name);
    }

    fn count_leader(&mut self, number: u64, term: u64) {
        let others = self.machines.values().filter(|m| m.number != number);
        let mut members = others.filter_map(|m| m.member());
        let is_second = members.any(|member| member.leads() && member.view().term() < term);
        if is_second {
            self.hit("two members led at once");
        }
        if self.invariants.skips(term) {
            self.hit("election without a winner");
        }
    }

    fn has_writes_in_flight(&mut self, number: u64) -> bool {
        let running = self.running(number);
        running.is_some_and(|r| r.member.view().proposals_pending() > 0)
    }

    /// Counts how a request failed.
    pub(super) fn count_outcome(&mut self, outcome: &Outcome) {
        let Outcome::Failed(error) = outcome else {
            return;
        };
        self.hit(match error {
            Error::Timeout | Error::DeadlineExceeded => "request timed out",
            Error::TimeoutLeaderFail => "request timed out near the loss of a leader",
            Error::TimeoutConnectionLost => "request timed out while cut off",
            Error::LeaderChanged => "read failed as the leader changed",
            Error::ProposalDropped => "proposal dropped",
            Error::Stopped => "request failed as its member stopped",
            Error::Corrupt => "request refused for corrupt data",
            Error::NoSpace => "request refused for lack of space",
            _ => return,
        });
    }
}

fn mishap_name(mishap: Mishap) -> Option<&'static str> {
    use OperationKind as K;
    let (kind, fault) = match mishap {
        Mishap::NoSpace => return Some("disk full"),
        Mishap::Unreadable => return Some("unreadable sector was read"),
        Mishap::Fault(kind, fault) => (kind, fault),
    };
    Some(match (kind, fault) {
        (K::Sync, Fault::Fail) => "sync failed",
        (K::Write, Fault::Fail) => "write failed",
        (K::Read | K::Map, Fault::Fail) => "read failed",
        (K::Read | K::Map, Fault::FlipBit) => "read was damaged",
        (K::Read, Fault::ShortRead) => "reads came short",
        (K::Write, Fault::FlipBit) => "write was done with a wrong bit",
        (K::Write, Fault::LoseWrite) => "write was lost",
        (K::Write, Fault::MisdirectWrite { .. }) => "write went astray",
        _ => return None,
    })
}
