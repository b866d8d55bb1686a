//! The two traits through which everything durable goes.

use crate::Mapped;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Says how [`Disk::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    ReadWrite,
    /// For reading and writing; the file must not exist.
    Create,
    /// For reading and writing; the file is made when it does not exist and kept as it is when it does.
    CreateOrOpen,
}

/// A directory tree. Two implementations: [`RealDisk`](crate::RealDisk) and [`SimDisk`](crate::SimDisk).
pub trait Disk: Send + Sync {
    /// Opens a file; a new one gets mode 0600.
    ///
    /// # Errors
    /// `NotFound` or `AlreadyExists` as the mode demands; otherwise what the system says.
    ///
    /// # Durability
    /// The name of a new file is durable only after [`Disk::sync_dir`] on its directory.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;

    /// Opens a file whose writes go past the system's cache where the file system can do that, and as [`Disk::open`] does
    /// elsewhere. For files that are written once, in order, and not read again soon; [`File::block_bytes`] says how.
    ///
    /// # Errors
    /// As [`Disk::open`].
    ///
    /// # Durability
    /// As [`Disk::open`]: bytes are durable after a sync and not before.
    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        self.open(path, mode)
    }

    /// Makes a directory and all that lead to it, new ones with mode 0700; one that exists is left as it is.
    ///
    /// # Errors
    /// What the system says, for example when a file is in the way.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Lists the names in a directory, sorted by their bytes.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Says whether something has this name.
    ///
    /// # Errors
    /// When that cannot be determined.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Gives a file or directory another name; a file that has that name already is replaced in the same step.
    ///
    /// # Errors
    /// What the system says; both names are then as before.
    ///
    /// # Durability
    /// None before [`Disk::sync_dir`]; a crash leaves the old or the new names, never neither.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file; handles that are open stay usable.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in this directory durable.
    ///
    /// # Errors
    /// What the system says. It must not be tried again.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file. Positions are explicit, so that one handle serves several readers and the writer.
pub trait File: Send + Sync {
    /// Returns the size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Says whether the file has no bytes.
    ///
    /// # Errors
    /// As [`File::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file or extends it with zeros; reserves nothing.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reads at an offset and returns how many bytes came: fewer than asked is allowed, 0 means the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all the bytes at an offset.
    ///
    /// # Errors
    /// What the system says; any part of the bytes may then have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all the buffers one after the other from an offset, as one gather write as far as the system allows.
    ///
    /// # Errors
    /// As [`File::write_all_at`].
    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Returns what positions of writes should end at a multiple of, in bytes; a write that ends elsewhere costs a read of
    /// the rest of the block. 1 when it makes no difference.
    fn block_bytes(&self) -> u64 {
        1
    }

    /// Makes the bytes and the size durable.
    ///
    /// # Errors
    /// What the system says. It must not be tried again: what was not written may be forgotten.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the bytes, the size and all other attributes durable.
    ///
    /// # Errors
    /// As [`File::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Reserves space for the first `len` bytes and extends the file to at least that size; new bytes read as zeros.
    ///
    /// # Errors
    /// `StorageFull` when there is no space, or what the system says.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Maps the whole file for reading: a memory map for real files, a copy for simulated ones.
    ///
    /// The file must not be cut while the map lives. A real disk that cannot read a mapped page ends the process with a bus
    /// error, so only what is read once, at opening, is read this way.
    ///
    /// # Errors
    /// What the system says.
    fn map(&self) -> io::Result<Mapped>;

    /// Takes the exclusive lock of the file if nobody else has it; it is released when the handle is dropped.
    ///
    /// # Errors
    /// What the system says; another holder is `Ok(false)`.
    fn try_lock(&self) -> io::Result<bool>;
}

/// Fills the buffer from an offset, however short the single reads are.
///
/// # Errors
/// `UnexpectedEof` when the file ends first, or what the system says.
pub fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut rest = buf;
    let mut position = offset;
    while !rest.is_empty() {
        let count = match file.read_at(rest, position) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("file ends at byte {position}"),
                ));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        rest = rest.get_mut(count..).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "read returned more than was asked",
            )
        })?;
        position = position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}
