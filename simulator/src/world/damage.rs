//! What goes wrong with disks, and the atlas: what is damaged where, never more than a minority may suffer.
use std::path::{Path, PathBuf};

use quorate_core::BACKEND_FILE;
use quorate_disk::{Disk as _, Fault, OperationKind, SECTOR_BYTES};

use super::{Event, World};
use crate::Random;
use crate::node::{Machine, Status};
use crate::plan::FaultKind;

/// Sectors that a stray write goes astray by, at most.
const STRAY_SECTORS: u64 = 64;
/// Milliseconds after which a member whose stored bytes were damaged is killed, if it is.
const KILLED_WITHIN_MS: u64 = 1_000;
/// Bits that rot in a database at once: most of its pages are free, or are not read again.
const DATABASE_BITS: u64 = 40;
/// Bytes left on a full disk, at most.
const LEFT_BYTES: u64 = 16 << 10;

impl World {
    /// Says whether the member on a machine may fail: something happened to its disk.
    pub fn may_fail(&self, number: u64) -> bool {
        let machine = self.machines.get(&number);
        machine.is_some_and(|m| m.is_faulty || m.damage.is_some() || !m.has_power())
            || self.nemesis.is_full(number)
    }

    /// Says whether a machine may be damaged now: others have all it holds, and the cluster can go on without it.
    ///
    /// Beyond the atlas anybody may be damaged that holds anything.
    pub(super) fn may_be_damaged(&self, number: u64) -> bool {
        let Some(machine) = self.machines.get(&number) else {
            return false;
        };
        if machine.damage.is_some()
            || matches!(machine.status, Status::Removed | Status::Refused(_))
        {
            return false;
        }
        if self.plan.is_beyond {
            return true;
        }
        self.can_spare(1, None) && self.is_settled() && self.committed.len() > self.voters().len()
    }

    /// Lets the next operation of a kind fail.
    pub(super) fn fail_next(&mut self, number: u64, kind: OperationKind, name: &'static str) {
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        machine.is_faulty = true;
        machine.disk.inject_next(kind, Fault::Fail);
        self.hit(name);
        self.say(|| format!("the next {kind:?} of m{number}'s disk will fail"));
    }

    /// Damages a machine in a way that only later shows.
    pub(super) fn damage(&mut self, number: u64, kind: FaultKind, random: &mut Random) -> bool {
        if !self.may_be_damaged(number) {
            return false;
        }
        let done = match kind {
            FaultKind::Rot => self.rot(number, random),
            FaultKind::Latent => self.spoil_sector(number, random),
            FaultKind::ReadRot => self.spoil_next(number, OperationKind::Read, Fault::FlipBit),
            FaultKind::LostWrite => self.spoil_next(number, OperationKind::Write, Fault::LoseWrite),
            _ => {
                let sectors = 1 + i64::try_from(random.below(STRAY_SECTORS)).unwrap_or(0);
                let sectors = if random.one_in(2) { -sectors } else { sectors };
                self.spoil_next(
                    number,
                    OperationKind::Write,
                    Fault::MisdirectWrite { sectors },
                )
            }
        };
        let Some(what) = done else {
            return false;
        };
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.damage = Some(what);
        }
        self.hit(what);
        self.say(|| format!("m{number}: {what}"));
        if matches!(kind, FaultKind::Rot | FaultKind::Latent) && random.one_in(2) {
            // What is read of it is read at a start.
            let ms = 1 + random.below(KILLED_WITHIN_MS);
            self.after(ms, number, Event::Kill);
        }
        true
    }

    fn spoil_next(
        &mut self,
        number: u64,
        kind: OperationKind,
        fault: Fault,
    ) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
        machine.running.as_ref()?;
        machine.disk.inject_next(kind, fault);
        machine.is_faulty = true;
        machine.hides = if kind == OperationKind::Write { 2 } else { 0 };
        Some(match fault {
            Fault::FlipBit => "read was damaged",
            Fault::LoseWrite => "write was lost",
            _ => "write went astray",
        })
    }

    /// Turns a bit round in a file of a member that runs.
    fn rot(&mut self, number: u64, random: &mut Random) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
        machine.running.as_ref()?;
        let (path, what) = pick_file(machine, random)?;
        let mut bytes = machine.disk.peek(&path).ok()?;
        // Behind the last byte that is not zero there is nothing yet.
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        let bits = match what {
            "bit rotted in the database" => DATABASE_BITS,
            _ => 1,
        };
        for _ in 0..bits {
            let position = usize::try_from(random.below(used as u64)).ok()?;
            *bytes.get_mut(position)? ^= 1 << random.below(8);
        }
        machine.disk.poke(&path, bytes).ok()?;
        machine.is_faulty = true;
        machine.hides = u8::from(what == "bit rotted in the log");
        Some(what)
    }

    /// Makes a sector of a member that runs unreadable: every read of it fails from now on.
    fn spoil_sector(&mut self, number: u64, random: &mut Random) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
        machine.running.as_ref()?;
        let (path, _) = pick_file(machine, random)?;
        let len = machine.disk.peek(&path).ok()?.len();
        let sectors = len.div_ceil(SECTOR_BYTES) as u64;
        let sector = usize::try_from(random.below(sectors)).ok()?;
        machine.disk.spoil_sector(&path, sector).ok()?;
        machine.is_faulty = true;
        Some("sector became unreadable")
    }

    /// Leaves a disk without space, or gives it back.
    pub(super) fn fill_disk(&mut self, number: u64, is_full: bool, random: &mut Random) {
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        if !is_full {
            machine.disk.set_capacity(None);
            self.say(|| format!("m{number} has space again"));
            return;
        }
        let used = machine.disk_bytes();
        machine
            .disk
            .set_capacity(Some(used + random.below(LEFT_BYTES)));
        self.hit("disk full");
        self.say(|| format!("m{number}'s disk is nearly full"));
    }
}

fn pick_file(machine: &Machine, random: &mut Random) -> Option<(PathBuf, &'static str)> {
    let (snap, wal) = machine.files();
    let in_wal = |name: &String| Machine::wal_dir().join(name);
    let segments: Vec<PathBuf> = wal
        .iter()
        .filter(|n| n.ends_with(".wal"))
        .map(in_wal)
        .collect();
    let snapshots: Vec<PathBuf> = snap
        .iter()
        .filter(|n| n.ends_with(".snap"))
        .map(|n| Machine::snap_dir().join(n))
        .collect();
    let any = |paths: &[PathBuf], random: &mut Random| {
        let at = usize::try_from(random.below(paths.len() as u64)).ok()?;
        paths.get(at).cloned()
    };
    match random.below(5) {
        0 | 1 => Some((any(&segments, random)?, "bit rotted in the log")),
        2 => Some((any(&snapshots, random)?, "bit rotted in a snapshot")),
        _ => {
            let database: &Path = Path::new(BACKEND_FILE);
            Some((
                Machine::snap_dir().join(database),
                "bit rotted in the database",
            ))
        }
    }
}

impl Machine {
    /// Returns how many bytes its files take.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let (snap, wal) = self.files();
        let size = |dir: PathBuf, names: Vec<String>| {
            let sizes = names.into_iter().filter_map(|name| {
                let path = dir.join(name);
                self.disk
                    .exists(&path)
                    .ok()?
                    .then(|| self.disk.peek(&path).map_or(0, |b| b.len() as u64))
            });
            sizes.sum::<u64>()
        };
        size(Self::snap_dir(), snap) + size(Self::wal_dir(), wal)
    }
}
