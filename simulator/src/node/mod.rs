//! One machine: its disk, its clock, and the member on it.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use quorate_core::{Member, image_file};
use quorate_disk::{CrashPolicy, Disk as _, SimDisk};
use quorate_proto::{ClusterId, MemberId};
use quorate_server::bootstrap::Start;

use crate::check::Durable;
use crate::clock::Clock;
use crate::plan::Limits;
use crate::{Committed, Random};

mod copies;
mod images;
mod running;
mod start;
mod states;

pub(crate) use copies::BUMP;
pub(crate) use images::{End, Image, make as make_image};
pub(crate) use running::Running;
pub(crate) use start::{CLUSTER_VERSION, Found};
pub(crate) use states::Cuts;

/// Damage of a machine whose member goes on with another state than the others.
pub(crate) const DIFFERS: &str = "state went another way";

/// The cluster's data directory on every machine.
const DATA_DIR: &str = "/data";

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The member runs.
    Up,
    /// It is down and will be started again.
    Down,
    /// It refuses to start, or to go on, for a reason that does not pass by itself.
    Refused(String),
    /// It was removed from the cluster: it never comes back.
    Removed,
}

/// A machine: it keeps its disk when the member on it is killed.
pub struct Machine {
    /// Its number, which is also in its peer URL.
    pub number: u64,
    /// The member on it.
    pub member_id: MemberId,
    pub(crate) cluster_id: ClusterId,
    pub(crate) start: Start,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// The version that its member is of, and that it lets the cluster agree on.
    pub(crate) version: String,
    pub(crate) random: Random,
    pub(crate) status: Status,
    /// Whether it has been a member of the cluster that knows of itself.
    pub(crate) has_joined: bool,
    pub(crate) running: Option<Running>,
    /// Counts starts and ends: what was under way in one life does not reach another.
    pub(crate) epoch: u64,
    /// The process stands still until then.
    pub(crate) paused_until_ms: u64,
    /// Whether nothing has been held up by that yet.
    pub(crate) is_pause_news: bool,
    /// Milliseconds after it that messages and ticks of before come, behind what clients have asked.
    pub(crate) deaf_ms: u64,
    /// Everything that the machine does takes so much longer, until then.
    pub(crate) slow: (u64, u64),
    /// Whether its power is to go at some operation of its disk.
    pub(crate) is_doomed: bool,
    /// Whether only the process ends then, and the machine has power.
    pub(crate) only_dies: bool,
    /// Whether its disk was made to fail since the last start, so that it may stop.
    pub(crate) is_faulty: bool,
    /// Whether something went wrong on its disk since then.
    pub(crate) has_met_fault: bool,
    /// What was done to what it had stored; a member that is damaged may refuse to start.
    pub(crate) damage: Option<&'static str>,
    /// Durable appends to the log that are still needed before damage at its end shows: until then a crash would hide it.
    pub(crate) hides: u8,
    /// The log as raft has it, durable or not, as far as it was not compared yet.
    pub(crate) log: BTreeMap<u64, Committed>,
    pub(crate) durable: Durable,
    /// The last entry of its log that others took the place of: the segment that holds it stays until the log is released up to there.
    pub(crate) overwritten: u64,
    /// Since when links to others are up.
    pub(crate) links: BTreeMap<MemberId, u64>,
    /// Images received so far, for names.
    pub(crate) images: u64,
}

/// Returns the peer URL of a machine.
pub(crate) fn peer_url(number: u64) -> String {
    format!("http://m{number}:2380")
}

/// Returns the machine that has a peer URL.
pub(crate) fn machine_at(url: &str) -> Option<u64> {
    let host = url.strip_prefix("http://m")?;
    host.split(':').next()?.parse().ok()
}

impl Machine {
    pub(crate) fn new(number: u64, start: Start, limits: Limits, seed: u64, now_ms: u64) -> Self {
        let identity = start.identity().expect("a machine is given a member");
        Self {
            number,
            member_id: MemberId(identity.member_id),
            cluster_id: ClusterId(identity.cluster_id),
            start,
            disk: SimDisk::new(seed),
            clock: Clock::new(now_ms),
            limits,
            version: CLUSTER_VERSION.to_owned(),
            random: Random::of(seed, "machine"),
            status: Status::Down,
            has_joined: true,
            running: None,
            epoch: 0,
            paused_until_ms: 0,
            is_pause_news: false,
            deaf_ms: 0,
            slow: (0, 0),
            is_doomed: false,
            only_dies: false,
            is_faulty: false,
            has_met_fault: false,
            damage: None,
            hides: 0,
            log: BTreeMap::new(),
            durable: Durable::default(),
            overwritten: 0,
            links: BTreeMap::new(),
            images: 0,
        }
    }

    /// Returns the member, if it runs.
    pub fn member(&self) -> Option<&Member> {
        self.running.as_ref().map(|r| &r.member)
    }

    /// Says whether its member was removed from the cluster.
    pub fn is_removed(&self) -> bool {
        self.status == Status::Removed
    }

    /// Returns its disk.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Returns its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn is_paused(&self, now_ms: u64) -> bool {
        now_ms < self.paused_until_ms
    }

    /// Returns how much longer everything takes now, in milliseconds.
    pub(crate) fn slowness_ms(&self, now_ms: u64) -> u64 {
        let (ms, until_ms) = self.slow;
        if now_ms < until_ms { ms } else { 0 }
    }

    pub(crate) fn snap_dir() -> PathBuf {
        Path::new(DATA_DIR).join("member/snap")
    }

    pub(crate) fn wal_dir() -> PathBuf {
        Path::new(DATA_DIR).join("member/wal")
    }

    pub(crate) fn image_path(index: u64) -> PathBuf {
        Self::snap_dir().join(image_file(index))
    }

    /// Says whether the power is still on.
    pub(crate) fn has_power(&self) -> bool {
        self.disk.is_powered()
    }

    /// Ends the process at once. Without power, what was not synced is lost as the seed says.
    pub(crate) fn end(&mut self, lost_power: Option<u64>) {
        self.epoch += 1;
        self.status = Status::Down;
        let after = match lost_power {
            Some(seed) => self.disk.crash(&CrashPolicy::Seeded(seed)),
            None => self.disk.kill(),
        };
        // What is dropped below must write no more: nobody is there to do it.
        self.disk.power_off_at(0);
        if let Some(running) = self.running.take() {
            self.durable.interrupt(&running.writing);
        }
        self.disk = after;
        self.is_doomed = false;
        self.only_dies = false;
    }

    /// Lists the files in the directory of snapshots; counts as no operation of the disk.
    pub(crate) fn snap_names(&self) -> Vec<OsString> {
        self.disk.list(&Self::snap_dir()).unwrap_or_default()
    }

    /// Lists the files in the directory of snapshots, and in that of the log.
    pub(crate) fn files(&self) -> (Vec<String>, Vec<String>) {
        let list = |path: &Path| {
            let names = self.disk.read_dir(path).unwrap_or_default();
            let texts = names.into_iter().map(|n| n.to_string_lossy().into_owned());
            texts.collect()
        };
        (list(&Self::snap_dir()), list(&Self::wal_dir()))
    }
}
