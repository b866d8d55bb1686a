//! What can go wrong, and when.

use super::random::Random;
use std::path::{Path, PathBuf};

/// One in so many operations, for [`SimDisk::set_rate`](crate::SimDisk::set_rate).
pub(super) const RATE_SCALE: u32 = 1_000_000;

/// What kind of operation was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    /// [`Disk::open`](crate::Disk::open).
    Open,
    /// [`Disk::create_dir_all`](crate::Disk::create_dir_all).
    CreateDir,
    /// [`Disk::read_dir`](crate::Disk::read_dir).
    ReadDir,
    /// [`Disk::exists`](crate::Disk::exists).
    Exists,
    /// [`Disk::rename`](crate::Disk::rename).
    Rename,
    /// [`Disk::remove_file`](crate::Disk::remove_file).
    Remove,
    /// [`Disk::sync_dir`](crate::Disk::sync_dir).
    SyncDir,
    /// [`File::len`](crate::File::len).
    Len,
    /// [`File::set_len`](crate::File::set_len).
    SetLen,
    /// [`File::read_at`](crate::File::read_at).
    Read,
    /// [`File::write_all_at`](crate::File::write_all_at) and [`File::write_all_vectored_at`](crate::File::write_all_vectored_at).
    Write,
    /// [`File::sync_data`](crate::File::sync_data) and [`File::sync_all`](crate::File::sync_all).
    Sync,
    /// [`File::allocate`](crate::File::allocate).
    Allocate,
    /// [`File::map`](crate::File::map).
    Map,
    /// [`File::try_lock`](crate::File::try_lock).
    Lock,
}

/// An operation that was asked for, as [`SimDisk::take_trace`](crate::SimDisk::take_trace) reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its number, counted from 0 since the disk was made.
    pub index: u64,
    /// What it was.
    pub kind: OperationKind,
    /// The path it named, or under which its file was opened.
    pub path: PathBuf,
}

/// A way in which one operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an input/output error. A write may have written a part; a sync may have made a part durable and
    /// forgets the rest, so that a second sync succeeds without it.
    Fail,
    /// It fails for lack of space: opening for creation, writing, growing, reserving, making a directory, renaming.
    NoSpace,
    /// One bit of what is read, mapped or written is turned round, and nobody is told.
    FlipBit,
    /// A read returns fewer bytes than it could.
    ShortRead,
    /// A write is acknowledged and not done.
    LoseWrite,
    /// A write lands so many sectors away from where it should.
    MisdirectWrite {
        /// Distance in sectors; what would lie before the start of the file is lost.
        sectors: i64,
    },
    /// The operation succeeds, late; see [`SimDisk::take_stalled_ms`](crate::SimDisk::take_stalled_ms).
    Stall {
        /// How late, in milliseconds.
        ms: u64,
    },
}

impl Fault {
    fn fits(self, kind: OperationKind) -> bool {
        use OperationKind as K;
        match self {
            Fault::Fail | Fault::Stall { .. } => true,
            Fault::NoSpace => matches!(
                kind,
                K::Open | K::CreateDir | K::Rename | K::SetLen | K::Write | K::Allocate
            ),
            Fault::FlipBit => matches!(kind, K::Read | K::Map | K::Write),
            Fault::ShortRead => kind == K::Read,
            Fault::LoseWrite | Fault::MisdirectWrite { .. } => kind == K::Write,
        }
    }
}

/// A fault that an operation met, or space or a sector that was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// An operation of this kind met a fault.
    Fault(OperationKind, Fault),
    /// There was no space for what was written or reserved.
    NoSpace,
    /// What was read lay in an unreadable sector.
    Unreadable,
}

#[derive(Debug, Clone)]
struct Planned {
    at: u64,
    kind: Option<OperationKind>,
    /// Directory that the operation must lie in; empty for anywhere.
    under: PathBuf,
    fault: Fault,
}

#[derive(Debug, Clone)]
struct Rate {
    kind: OperationKind,
    fault: Fault,
    per_million: u32,
}

/// The faults to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    planned: Vec<Planned>,
    rates: Vec<Rate>,
}

impl Plan {
    pub(super) fn add(&mut self, at: u64, kind: Option<OperationKind>, under: &Path, fault: Fault) {
        let under = under.to_owned();
        self.planned.push(Planned {
            at,
            kind,
            under,
            fault,
        });
    }

    pub(super) fn set_rate(&mut self, kind: OperationKind, fault: Fault, per_million: u32) {
        self.rates
            .retain(|rate| rate.kind != kind || rate.fault != fault);
        if per_million > 0 {
            self.rates.push(Rate {
                kind,
                fault,
                per_million,
            });
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Plan::default();
    }

    /// Takes the fault that this operation meets: a planned one first, then one by chance.
    pub(super) fn draw(
        &mut self,
        index: u64,
        kind: OperationKind,
        path: &Path,
        random: &mut Random,
    ) -> Option<Fault> {
        let planned = self.planned.iter().position(|planned| {
            planned.at <= index
                && planned.kind.is_none_or(|wanted| wanted == kind)
                && path.starts_with(&planned.under)
                && planned.fault.fits(kind)
        });
        if let Some(position) = planned {
            return Some(self.planned.remove(position).fault);
        }
        let hit = self.rates.iter().find(|rate| {
            rate.kind == kind
                && rate.fault.fits(kind)
                && random.below(u64::from(RATE_SCALE)) < u64::from(rate.per_million)
        });
        hit.map(|rate| rate.fault)
    }
}
