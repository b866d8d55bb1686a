//! The disk of the operating system.

use crate::direct::DirectFile;
use crate::{Disk, File, Mapped, OpenMode};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// Mode of new files.
const FILE_MODE: u32 = 0o600;
/// Mode of new directories.
const DIRECTORY_MODE: u32 = 0o700;
/// Buffers a single gather write may have. Source: Linux, `IOV_MAX`.
const GATHER_BUFFERS_MAX: usize = 1024;

/// The disk of the operating system; paths mean what they mean to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
pub(crate) struct RealFile(pub(crate) std::fs::File);

impl RealFile {
    fn open(path: &Path, mode: OpenMode) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create_new(true);
            }
            OpenMode::CreateOrOpen => {
                options.write(true).create(true).truncate(false);
            }
        }
        Ok(RealFile(options.open(path)?))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile::open(path, mode)?))
    }

    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let file = RealFile::open(path, mode)?;
        // Not asked for at the opening: where it is refused, a new file may have been made all the same.
        let flags = fcntl_getfl(&file.0)?;
        match fcntl_setfl(&file.0, flags | OFlags::DIRECT) {
            Ok(()) => Ok(Box::new(DirectFile::new(file))),
            Err(rustix::io::Errno::INVAL) => Ok(Box::new(file)),
            Err(error) => Err(error.into()),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut position = offset;
        for chunk in bufs.chunks(GATHER_BUFFERS_MAX) {
            let mut slices: Vec<IoSlice<'_>> = chunk.iter().map(|buf| IoSlice::new(buf)).collect();
            position = write_slices(&self.0, &mut slices, position)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len)?;
        Ok(())
    }

    fn map(&self) -> io::Result<Mapped> {
        Mapped::map(&self.0)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Writes the slices until none is left and returns the position behind them.
fn write_slices(file: &std::fs::File, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<u64> {
    let mut rest = slices;
    let mut position = offset;
    // Empty buffers at the front are dropped, so that a write of nothing is not taken for a full disk.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let count = match rustix::io::pwritev(file, rest, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        IoSlice::advance_slices(&mut rest, count);
        position = u64::try_from(count)
            .ok()
            .and_then(|count| position.checked_add(count))
            .ok_or(io::ErrorKind::FileTooLarge)?;
    }
    Ok(position)
}
