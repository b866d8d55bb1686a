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
/// The byte at the end of each record of the log.
const RECORD_END: u8 = 0xa5;
/// Disk operations of a start within which one fails.
const START_OPERATIONS: u64 = 80;
/// What a start reads by.
const START_READS: [OperationKind; 6] = [
    OperationKind::Map,
    OperationKind::Read,
    OperationKind::Open,
    OperationKind::Len,
    OperationKind::ReadDir,
    OperationKind::Exists,
];
/// Reads that come short at most.
const SHORT_READS: u64 = 20;
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

    /// Makes all believe that every disk was damaged, which is a lie.
    pub(crate) fn call_all_damaged(&mut self) {
        for machine in self.machines.values_mut() {
            machine.damage = Some("said to be damaged");
        }
    }

    /// Lets the next operation of a kind fail.
    pub(super) fn fail_next(&mut self, number: u64, kind: OperationKind) {
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        machine.is_faulty = true;
        machine.disk.inject_next(kind, Fault::Fail);
        self.say(|| format!("the next {kind:?} of m{number}'s disk will fail"));
    }

    /// Damages a machine; beyond the atlas also many at once, be it all of them, and be it the same file of each.
    pub(super) fn damage_some(&mut self, victim: u64, kind: FaultKind, random: &mut Random) {
        if !self.plan.is_beyond || random.one_in(3) {
            self.damage(victim, kind, random);
            return;
        }
        let standing = self.standing();
        let (is_all, is_same) = (random.one_in(3), random.one_in(2));
        let mut struck = 0;
        for number in &standing {
            if is_all || random.one_in(2) {
                let mut alike = random.clone();
                let random = if is_same { &mut alike } else { &mut *random };
                struck += usize::from(self.damage(*number, kind, random));
            }
        }
        // What was drawn for all alike is not drawn again.
        random.number();
        if standing.len() > 1 && struck == standing.len() {
            self.hit("all members damaged at once");
        } else if 2 * struck > standing.len() {
            self.hit("majority damaged at once");
        }
    }

    /// Damages a machine in a way that only later shows.
    fn damage(&mut self, number: u64, kind: FaultKind, random: &mut Random) -> bool {
        if !self.may_be_damaged(number) {
            return false;
        }
        if matches!(
            kind,
            FaultKind::Rot | FaultKind::Latent | FaultKind::ReadRot
        ) && random.one_in(4)
        {
            self.take_down(number);
        }
        let done = match kind {
            FaultKind::Rot => self.rot(number, random),
            FaultKind::Latent => self.spoil_sector(number, random),
            FaultKind::ReadRot => self.spoil_read(number),
            FaultKind::WriteRot => self.spoil_write(number, Fault::FlipBit, random),
            FaultKind::LostWrite => self.spoil_write(number, Fault::LoseWrite, random),
            _ => {
                let sectors = 1 + i64::try_from(random.below(STRAY_SECTORS)).unwrap_or(0);
                let sectors = if random.one_in(2) { -sectors } else { sectors };
                self.spoil_write(number, Fault::MisdirectWrite { sectors }, random)
            }
        };
        let Some(what) = done else {
            return false;
        };
        let is_down = self.machines.get_mut(&number).is_some_and(|machine| {
            machine.damage = Some(what);
            machine.running.is_none()
        });
        if matches!(kind, FaultKind::Rot | FaultKind::Latent) {
            self.hit(what);
        }
        if is_down {
            self.hit("damaged while it was down");
        }
        self.say(|| format!("m{number}: {what}"));
        if matches!(kind, FaultKind::Rot | FaultKind::Latent) && random.one_in(2) {
            // What is read of it is read at a start.
            let ms = 1 + random.below(KILLED_WITHIN_MS);
            self.after(ms, number, Event::Kill);
        }
        true
    }

    /// Kills a member, unless it is down, or a crash would hide what was done to it.
    fn take_down(&mut self, number: u64) {
        let goes = |m: &Machine| m.running.is_some() && m.hides == 0;
        if self.machines.get(&number).is_some_and(goes) {
            self.kill(number);
        }
    }

    /// Lets an operation of a member's next start fail: it is tried again.
    pub(super) fn fail_start(&mut self, number: u64, random: &mut Random) {
        self.take_down(number);
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        if machine.status != Status::Down {
            return;
        }
        machine.is_faulty = true;
        let operations = random.below(START_OPERATIONS);
        let kind = random.pick(&START_READS).filter(|_| random.one_in(2));
        match kind {
            Some(kind) => machine.disk.inject_next(kind, Fault::Fail),
            None => machine.disk.inject(operations, Fault::Fail),
        }
        self.hit("operation of a start failed");
        self.say(|| match kind {
            Some(kind) => format!("the next {kind:?} of m{number}'s disk will fail"),
            None => format!("m{number}'s disk will fail after {operations} operations"),
        });
    }

    /// Lets the next reads of a member come short.
    pub(super) fn shorten_reads(&mut self, number: u64, random: &mut Random) {
        let reads = 1 + random.below(SHORT_READS);
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        for _ in 0..reads {
            machine
                .disk
                .inject_next(OperationKind::Read, Fault::ShortRead);
        }
        self.say(|| format!("the next {reads} reads of m{number}'s disk come short"));
    }

    /// Lets a read give a wrong bit: the next of a member that runs, or the first of the snapshots or the database at a start.
    fn spoil_read(&mut self, number: u64) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
        let (kind, fault) = (OperationKind::Read, Fault::FlipBit);
        match machine.running {
            Some(_) => machine.disk.inject_next(kind, fault),
            // What is misread at the log's end at a start looks like what was never written.
            None => machine
                .disk
                .inject_next_in(&Machine::snap_dir(), kind, fault),
        }
        machine.is_faulty = true;
        Some("read was damaged")
    }

    /// Lets the next write of a member that runs go wrong, or the next to its snapshots and its database.
    fn spoil_write(
        &mut self,
        number: u64,
        fault: Fault,
        random: &mut Random,
    ) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
        machine.running.as_ref()?;
        let kind = OperationKind::Write;
        if random.one_in(3) {
            let dir = Machine::snap_dir();
            machine.disk.inject_next_in(&dir, kind, fault);
        } else {
            machine.disk.inject_next(kind, fault);
            machine.hides = 2;
        }
        machine.is_faulty = true;
        Some(match fault {
            Fault::FlipBit => "write was done with a wrong bit",
            Fault::LoseWrite => "write was lost",
            _ => "write went astray",
        })
    }

    /// Turns a bit round in a file.
    fn rot(&mut self, number: u64, random: &mut Random) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
        let (path, what) = pick_file(machine, random)?;
        let mut bytes = machine.disk.peek(&path).ok()?;
        // Behind the last byte that is not zero there is nothing yet; a segment made ahead has nothing else.
        let used = bytes.iter().rposition(|byte| *byte != 0);
        let used = used.map_or(bytes.len(), |last| last + 1);
        let is_any = what == "bit rotted in the log" && random.one_in(8);
        let reach = if is_any { bytes.len() } else { used };
        let bits = match what {
            "bit rotted in the database" => DATABASE_BITS,
            _ => 1,
        };
        for _ in 0..bits {
            let position = usize::try_from(random.below(reach as u64)).ok()?;
            let byte = bytes.get_mut(position)?;
            if machine.running.is_none() && *byte == RECORD_END && is_log(&path) {
                // Without it the last record is one that was not written to its end, for all that anybody can know.
                return None;
            }
            *byte ^= 1 << random.below(8);
        }
        machine.disk.poke(&path, bytes).ok()?;
        machine.is_faulty = true;
        machine.hides = u8::from(is_log(&path) && machine.running.is_some());
        Some(what)
    }

    /// Makes a sector unreadable: every read of it fails from now on.
    fn spoil_sector(&mut self, number: u64, random: &mut Random) -> Option<&'static str> {
        let machine = self.machines.get_mut(&number)?;
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
        self.say(|| format!("m{number}'s disk is nearly full"));
    }
}

/// Draws a file of a machine: of the log, a snapshot, the database, or anything else that lies there, such as what was received or
/// is in the making.
fn pick_file(machine: &Machine, random: &mut Random) -> Option<(PathBuf, &'static str)> {
    let (snap, wal) = machine.files();
    let in_snap = snap.into_iter().map(|name| Machine::snap_dir().join(name));
    let in_wal = wal.into_iter().map(|name| Machine::wal_dir().join(name));
    let database = Machine::snap_dir().join(BACKEND_FILE);
    let ends_in = |path: &Path, end: &str| path.extension().is_some_and(|e| e == end);
    let (mut segments, mut marks, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for path in in_snap.chain(in_wal).filter(|path| *path != database) {
        if is_log(&path) {
            segments.push(path);
        } else if ends_in(&path, "snap") {
            marks.push(path);
        } else {
            others.push(path);
        }
    }
    let any = |paths: &[PathBuf], random: &mut Random| {
        let at = usize::try_from(random.below(paths.len() as u64)).ok()?;
        paths.get(at).cloned()
    };
    if let Some(other) = any(&others, random).filter(|_| random.one_in(3)) {
        return Some((other, "bit rotted in another file"));
    }
    match random.below(5) {
        0 | 1 => Some((any(&segments, random)?, "bit rotted in the log")),
        2 => Some((any(&marks, random)?, "bit rotted in a snapshot")),
        _ => Some((database, "bit rotted in the database")),
    }
}

/// Says whether a file is a segment of the log.
fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "wal")
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
