//! The simulated disk and its files.

use super::fault::{Fault, Mishap, Operation, OperationKind};
use super::file::Content;
use super::state::{CrashPolicy, State, Unsynced, flip_bit, input_output_error};
use super::tree::{NodeId, Tree};
use crate::{Disk, File, Mapped, OpenMode};
use parking_lot::Mutex;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest simulated file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// A disk in memory that knows what is synced and can fail at any operation.
///
/// Clones share the disk. All paths start at one root. Operations are counted from 0; a [`Fault`] is planned for a number, or for
/// the next operation of a kind, or by rate. [`SimDisk::crash`] gives the disk as it is after a power loss, as a new one; the
/// old one stays as it was, so that one state can be crashed in many ways.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// Makes an empty disk; all chance comes from the seed.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::of(State::new(seed, Tree::new()))
    }

    fn of(state: State) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Returns how many operations were asked for, which is the number of the next one.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Plans a fault for the first operation from this number on that it can happen to.
    pub fn inject(&self, at: u64, fault: Fault) {
        self.state.lock().plan.add(at, None, Path::new(""), fault);
    }

    /// Plans a fault for the next operation of a kind; called several times, for the following ones.
    pub fn inject_next(&self, kind: OperationKind, fault: Fault) {
        self.inject_next_in(Path::new(""), kind, fault);
    }

    /// Plans a fault for the next operation of a kind on a directory or on what lies in it; called several times, for the following
    /// ones.
    pub fn inject_next_in(&self, dir: &Path, kind: OperationKind, fault: Fault) {
        self.state.lock().plan.add(0, Some(kind), dir, fault);
    }

    /// Lets a fault happen by chance to so many of a million operations of a kind; 0 ends it.
    pub fn set_rate(&self, kind: OperationKind, fault: Fault, per_million: u32) {
        self.state.lock().plan.set_rate(kind, fault, per_million);
    }

    /// Takes back all planned faults and rates.
    pub fn clear_faults(&self) {
        self.state.lock().plan.clear();
    }

    /// Cuts the power before the operation with this number: it and all later ones fail and do nothing.
    pub fn power_off_at(&self, operation: u64) {
        let mut state = self.state.lock();
        state.power_off_at = Some(operation);
        state.power_off_before = None;
    }

    /// Cuts the power before the next operation of a kind, or the one after so many of them.
    pub fn power_off_before(&self, kind: OperationKind, spared: u64) {
        self.state.lock().power_off_before = Some((kind, spared));
    }

    /// Says whether the next operation still has power.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        let state = self.state.lock();
        state.power_off_at.is_none_or(|at| state.operations < at)
    }

    /// Limits the space for file contents, in bytes; `None` takes the limit away.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Sets what [`File::block_bytes`] of files says that are opened with [`Disk::open_direct`] from now on; 1 at first.
    pub fn set_block_bytes(&self, bytes: u64) {
        self.state.lock().block_bytes = bytes;
    }

    /// Returns how long operations have stalled since the last call, in milliseconds, for the caller's clock.
    #[must_use]
    pub fn take_stalled_ms(&self) -> u64 {
        std::mem::take(&mut self.state.lock().stalled_ms)
    }

    /// Returns what has gone wrong since the last call, in order.
    #[must_use]
    pub fn take_mishaps(&self) -> Vec<Mishap> {
        std::mem::take(&mut self.state.lock().mishaps)
    }

    /// Starts to record operations, from none.
    pub fn start_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// Returns the operations recorded so far and goes on recording.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Operation> {
        let mut state = self.state.lock();
        state.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Lists what a power loss may keep or lose, each by itself: names first, then file by file the size and the sectors.
    #[must_use]
    pub fn unsynced(&self) -> Vec<Unsynced> {
        self.state.lock().unsynced()
    }

    /// Returns the disk as it is after a power loss now, with no faults planned, no locks held and operations counted from 0.
    #[must_use]
    pub fn crash(&self, policy: &CrashPolicy) -> SimDisk {
        SimDisk::of(self.state.lock().after_power_loss(policy))
    }

    /// Returns the disk as it is after its process was killed, with no faults planned, no locks held and operations counted
    /// from 0. The system still has all that was written; what was not synced is still not, and a power loss may take it.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        SimDisk::of(self.state.lock().after_kill())
    }

    /// Returns the bytes of a file; counts as no operation.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn peek(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let id = state.tree.find(path)?;
        Ok(state.tree.file(id)?.content.bytes().to_vec())
    }

    /// Lists the names in a directory, sorted; counts as no operation, as [`Self::peek`].
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.state.lock().tree.names(path)
    }

    /// Sets the bytes of a file, durable at once, and makes it if need be; counts as no operation. This is how tests damage files.
    ///
    /// # Errors
    /// When the directory does not exist or the path is a directory.
    pub fn poke(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = Content::durable(bytes);
        match state.tree.find(path) {
            Ok(id) => state.tree.file_mut(id)?.content = content,
            Err(_) => {
                state.tree.create_file(path, content)?;
            }
        }
        Ok(())
    }

    /// Makes a sector of a file unreadable, numbered from 0: reads and maps that touch it fail until it is written again, also
    /// after a power loss; counts as no operation.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn spoil_sector(&self, path: &Path, sector: usize) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.tree.find(path)?;
        state.tree.file_mut(id)?.content.spoil(sector);
        Ok(())
    }

    fn begin(&self, kind: OperationKind, path: &Path) -> io::Result<()> {
        self.state.lock().begin(kind, path).map(|_| ())
    }
}

impl SimDisk {
    fn open_with(&self, path: &Path, mode: OpenMode, direct: bool) -> io::Result<Box<dyn File>> {
        let mut state = self.state.lock();
        state.begin(OperationKind::Open, path)?;
        let id = match (state.tree.find(path), mode) {
            (Ok(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(id), _) => id,
            (Err(_), OpenMode::Create | OpenMode::CreateOrOpen) => {
                state.tree.create_file(path, Content::default())?
            }
            (Err(error), OpenMode::Read | OpenMode::ReadWrite) => return Err(error),
        };
        state.tree.file_mut(id)?.handles += 1;
        state.next_handle += 1;
        Ok(Box::new(SimFile {
            state: Arc::clone(&self.state),
            id,
            handle: state.next_handle,
            writable: mode != OpenMode::Read,
            block_bytes: if direct { state.block_bytes } else { 1 },
            path: path.to_owned(),
        }))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        self.open_with(path, mode, false)
    }

    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        self.open_with(path, mode, true)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin(OperationKind::CreateDir, path)?;
        self.state.lock().tree.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.begin(OperationKind::ReadDir, path)?;
        self.state.lock().tree.names(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.begin(OperationKind::Exists, path)?;
        Ok(self.state.lock().tree.exists(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(OperationKind::Rename, from)?;
        self.state.lock().tree.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.begin(OperationKind::Remove, path)?;
        self.state.lock().tree.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.begin(OperationKind::SyncDir, path)?;
        self.state.lock().tree.sync_dir(path)
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    id: NodeId,
    handle: u64,
    writable: bool,
    block_bytes: u64,
    path: PathBuf,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(rustix::io::Errno::BADF.into())
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin(OperationKind::Len, &self.path)?;
        let len = state.tree.file(self.id)?.content.len();
        Ok(u64::try_from(len).unwrap_or(u64::MAX))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        state.begin(OperationKind::SetLen, &self.path)?;
        let len = memory_position(len)?;
        state.tree.file_mut(self.id)?.content.set_len(len);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let fault = state.begin(OperationKind::Read, &self.path)?;
        let content = &state.tree.file(self.id)?.content;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = content.bytes().get(offset..).unwrap_or_default();
        let mut count = from.len().min(buf.len());
        if content.is_unreadable(offset, offset.saturating_add(count)) {
            state.remember(Mishap::Unreadable);
            return Err(input_output_error());
        }
        if fault == Some(Fault::ShortRead) && count > 1 {
            count = 1 + state.random.position(count - 1);
        }
        buf[..count].copy_from_slice(&from[..count]);
        if fault == Some(Fault::FlipBit) {
            flip_bit(&mut buf[..count], &mut state.random);
        }
        Ok(count)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&[buf], offset)
    }

    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        let fault = state.begin(OperationKind::Write, &self.path)?;
        let bytes = bufs.concat();
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        memory_position(offset.saturating_add(len))?;
        state.write(self.id, &bytes, memory_position(offset)?, fault)
    }

    fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.begin(OperationKind::Sync, &self.path)?;
        state.sync(self.id, fault)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        state.begin(OperationKind::Allocate, &self.path)?;
        state.reserve(self.id, memory_position(len)?)
    }

    fn map(&self) -> io::Result<Mapped> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let fault = state.begin(OperationKind::Map, &self.path)?;
        let content = &state.tree.file(self.id)?.content;
        if content.is_unreadable(0, content.len()) {
            state.remember(Mishap::Unreadable);
            return Err(input_output_error());
        }
        let mut bytes = content.bytes().to_vec();
        if fault == Some(Fault::FlipBit) {
            flip_bit(&mut bytes, &mut state.random);
        }
        Ok(Mapped::copy(bytes))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.begin(OperationKind::Lock, &self.path)?;
        let file = state.tree.file_mut(self.id)?;
        let holder = *file.locked_by.get_or_insert(self.handle);
        Ok(holder == self.handle)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if let Ok(file) = state.tree.file_mut(self.id) {
            file.handles = file.handles.saturating_sub(1);
            if file.locked_by == Some(self.handle) {
                file.locked_by = None;
            }
        }
    }
}

fn memory_position(position: u64) -> io::Result<usize> {
    if position > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
