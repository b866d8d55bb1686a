//! Everything a simulated disk knows, behind one lock.

use super::fault::{Fault, Mishap, Operation, OperationKind, Plan};
use super::file::{Content, SECTOR_BYTES};
use super::random::Random;
use super::tree::{NodeId, Tree};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Mishaps that are remembered until they are taken; further ones are not.
const MISHAPS_MAX: usize = 1 << 10;
/// Operations that a trace holds; further ones are not recorded.
const TRACE_OPERATIONS_MAX: usize = 1 << 20;

/// What a power loss keeps of everything that was not synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrashPolicy {
    /// Nothing: every sector, size and name is as after its last sync.
    KeepNone,
    /// Everything; also what the kill of a process leaves, since the system then still has it all.
    KeepAll,
    /// Each sector, size and name by chance from this seed, sectors also in versions overwritten since.
    Seeded(u64),
    /// What the same position in [`SimDisk::unsynced`](crate::SimDisk::unsynced) says; missing positions are lost.
    Keep(Vec<bool>),
}

/// One thing that a power loss may keep or lose by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsynced {
    /// A name made, removed or renamed.
    Name(OsString),
    /// The size of a file.
    Length {
        /// Number of the file.
        file: u64,
    },
    /// A sector of a file.
    Sector {
        /// Number of the file.
        file: u64,
        /// Number of the sector, from 0.
        sector: usize,
    },
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) random: Random,
    pub(super) plan: Plan,
    pub(super) operations: u64,
    pub(super) power_off_at: Option<u64>,
    /// The power goes before an operation of this kind, once so many were let through.
    pub(super) power_off_before: Option<(OperationKind, u64)>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) stalled_ms: u64,
    pub(super) trace: Option<Vec<Operation>>,
    pub(super) mishaps: Vec<Mishap>,
    pub(super) next_handle: u64,
    pub(super) block_bytes: u64,
}

impl State {
    pub(super) fn new(seed: u64, tree: Tree) -> State {
        State {
            tree,
            random: Random::new(seed),
            plan: Plan::default(),
            operations: 0,
            power_off_at: None,
            power_off_before: None,
            capacity_bytes: None,
            stalled_ms: 0,
            trace: None,
            mishaps: Vec::new(),
            next_handle: 0,
            block_bytes: 1,
        }
    }

    /// Counts an operation and returns the fault that its own code must act out.
    pub(super) fn begin(&mut self, kind: OperationKind, path: &Path) -> io::Result<Option<Fault>> {
        let index = self.operations;
        match &mut self.power_off_before {
            Some((wanted, 0)) if *wanted == kind => self.power_off_at = Some(index),
            Some((wanted, spared)) if *wanted == kind => *spared -= 1,
            _ => {}
        }
        if self.power_off_at.is_some_and(|at| at <= index) {
            return Err(io::Error::other("simulated power loss"));
        }
        self.operations += 1;
        self.record(index, kind, path);
        let fault = self.plan.draw(index, kind, path, &mut self.random);
        if let Some(fault) = fault {
            self.remember(Mishap::Fault(kind, fault));
        }
        match fault {
            Some(Fault::Stall { ms }) => {
                self.stalled_ms = self.stalled_ms.saturating_add(ms);
                Ok(None)
            }
            Some(Fault::Fail) if !fails_in_part(kind) => Err(input_output_error()),
            Some(Fault::NoSpace) => Err(no_space_error()),
            fault => Ok(fault),
        }
    }

    /// Remembers what went wrong.
    pub(super) fn remember(&mut self, mishap: Mishap) {
        if self.mishaps.len() < MISHAPS_MAX {
            self.mishaps.push(mishap);
        }
    }

    fn record(&mut self, index: u64, kind: OperationKind, path: &Path) {
        if let Some(trace) = &mut self.trace
            && trace.len() < TRACE_OPERATIONS_MAX
        {
            trace.push(Operation {
                index,
                kind,
                path: PathBuf::from(path),
            });
        }
    }

    pub(super) fn write(
        &mut self,
        id: NodeId,
        bytes: &[u8],
        offset: usize,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let mut bytes = bytes.to_vec();
        let mut offset = offset;
        let mut result = Ok(());
        match fault {
            Some(Fault::Fail) => {
                bytes.truncate(self.random.position(bytes.len() + 1));
                result = Err(input_output_error());
            }
            Some(Fault::FlipBit) => flip_bit(&mut bytes, &mut self.random),
            Some(Fault::LoseWrite) => return Ok(()),
            Some(Fault::MisdirectWrite { sectors }) => match misdirect(offset, sectors) {
                Some(moved) => offset = moved,
                None => return Ok(()),
            },
            _ => {}
        }
        let fitting = self.fitting(id, offset, bytes.len())?;
        if fitting < bytes.len() {
            self.remember(Mishap::NoSpace);
            bytes.truncate(fitting);
            result = Err(no_space_error());
        }
        self.tree.file_mut(id)?.content.write(&bytes, offset);
        result
    }

    /// Reserves space; all or nothing.
    pub(super) fn reserve(&mut self, id: NodeId, len: usize) -> io::Result<()> {
        if self.fitting(id, 0, len)? < len {
            self.remember(Mishap::NoSpace);
            return Err(no_space_error());
        }
        self.tree.file_mut(id)?.content.reserve(0, len);
        Ok(())
    }

    pub(super) fn sync(&mut self, id: NodeId, fault: Option<Fault>) -> io::Result<()> {
        let content = &mut self.tree.file_mut(id)?.content;
        if fault == Some(Fault::Fail) {
            content.sync_badly(&mut self.random);
            return Err(input_output_error());
        }
        content.sync();
        Ok(())
    }

    /// Returns how many bytes from the offset find space.
    fn fitting(&self, id: NodeId, offset: usize, len: usize) -> io::Result<usize> {
        let Some(capacity) = self.capacity_bytes else {
            return Ok(len);
        };
        let used: usize = self
            .tree
            .files()
            .map(|(_, file)| file.content.reserved_sectors())
            .sum();
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX) / SECTOR_BYTES;
        let free = capacity.saturating_sub(used);
        let content = &self.tree.file(id)?.content;
        let end = offset.saturating_add(len);
        if content.unreserved_sectors(offset, end) <= free {
            return Ok(len);
        }
        let mut fitting = 0;
        while fitting < len {
            let next = (offset + fitting + 1)
                .next_multiple_of(SECTOR_BYTES)
                .min(end);
            if content.unreserved_sectors(offset, next) > free {
                break;
            }
            fitting = next - offset;
        }
        Ok(fitting)
    }

    pub(super) fn unsynced(&self) -> Vec<Unsynced> {
        let names = (0..self.tree.pending_changes())
            .map(|position| Unsynced::Name(self.tree.pending_name(position)));
        let mut all: Vec<Unsynced> = names.collect();
        for (file, node) in self.tree.files() {
            if node.content.length_is_unsynced() {
                all.push(Unsynced::Length { file });
            }
            let sectors = node.content.unsynced_sectors();
            all.extend(sectors.map(|sector| Unsynced::Sector { file, sector }));
        }
        all
    }

    pub(super) fn after_kill(&self) -> State {
        let mut state = State::new(0, self.tree.closed());
        state.block_bytes = self.block_bytes;
        state.capacity_bytes = self.capacity_bytes;
        state
    }

    pub(super) fn after_power_loss(&self, policy: &CrashPolicy) -> State {
        let (tree, seed) = match policy {
            CrashPolicy::KeepNone => (self.tree_after(|_, _| 0), 0),
            CrashPolicy::KeepAll => (self.tree_after(|_, choices| choices - 1), 0),
            CrashPolicy::Seeded(seed) => {
                let mut random = Random::new(*seed);
                let mut lottery = Lottery::new(&mut random);
                let tree = self.tree_after(|item, choices| lottery.choose(item, choices));
                (tree, random.next())
            }
            CrashPolicy::Keep(kept) => {
                let mut kept = kept.iter();
                let tree = self.tree_after(|_, choices| {
                    if kept.next() == Some(&true) {
                        choices - 1
                    } else {
                        0
                    }
                });
                (tree, 0)
            }
        };
        let mut state = State::new(seed, tree);
        state.block_bytes = self.block_bytes;
        state.capacity_bytes = self.capacity_bytes;
        state
    }

    /// Asks `choose` once for each item of `unsynced`, in that order, which of so many versions stays.
    fn tree_after(&self, choose: impl FnMut(Item, usize) -> usize) -> Tree {
        let choose = std::cell::RefCell::new(choose);
        // The tree asks for names last, so their answers are drawn first to keep the order of `unsynced`.
        let names: Vec<bool> = (0..self.tree.pending_changes())
            .map(|_| choose.borrow_mut()(Item::Name, 2) == 1)
            .collect();
        self.tree.after_power_loss(
            |position| names.get(position) == Some(&true),
            |_, content: &Content| {
                content.after_power_loss(
                    |choices| match choices {
                        1 => 0,
                        _ => choose.borrow_mut()(Item::Length, choices),
                    },
                    |sector, choices| choose.borrow_mut()(Item::Sector(sector), choices),
                )
            },
        )
    }
}

/// What a choice is about.
#[derive(Debug, Clone, Copy)]
enum Item {
    Name,
    Length,
    Sector(usize),
}

/// Chance with a bias that differs from crash to crash, and units of one or eight sectors.
struct Lottery<'a> {
    random: &'a mut Random,
    keep_of_eight: u64,
    unit_sectors: usize,
    last: Option<(usize, bool)>,
}

impl Lottery<'_> {
    fn new(random: &mut Random) -> Lottery<'_> {
        let keep_of_eight = [0, 1, 4, 4, 7, 8][random.position(6)];
        let unit_sectors = [1, 8][random.position(2)];
        Lottery {
            random,
            keep_of_eight,
            unit_sectors,
            last: None,
        }
    }

    fn choose(&mut self, item: Item, choices: usize) -> usize {
        let keep = match item {
            Item::Sector(sector) => {
                let unit = sector / self.unit_sectors;
                match self.last {
                    Some((last, keep)) if last == unit => keep,
                    _ => {
                        let keep = self.random.below(8) < self.keep_of_eight;
                        self.last = Some((unit, keep));
                        keep
                    }
                }
            }
            Item::Name | Item::Length => {
                self.last = None;
                self.random.below(8) < self.keep_of_eight
            }
        };
        if !keep {
            return 0;
        }
        // Mostly the newest version, sometimes one overwritten since the last sync.
        if choices > 2 && self.random.below(4) == 0 {
            return 1 + self.random.position(choices - 1);
        }
        choices.saturating_sub(1)
    }
}

/// Says whether an operation that fails may have done a part, which its own code acts out.
fn fails_in_part(kind: OperationKind) -> bool {
    matches!(kind, OperationKind::Write | OperationKind::Sync)
}

fn misdirect(offset: usize, sectors: i64) -> Option<usize> {
    let distance = sectors.checked_mul(i64::try_from(SECTOR_BYTES).ok()?)?;
    offset.checked_add_signed(isize::try_from(distance).ok()?)
}

pub(super) fn flip_bit(bytes: &mut [u8], random: &mut Random) {
    let position = random.position(bytes.len());
    let bit = random.below(8);
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= 1 << bit;
    }
}

pub(super) fn input_output_error() -> io::Error {
    rustix::io::Errno::IO.into()
}

pub(super) fn no_space_error() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}
