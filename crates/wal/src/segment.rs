//! Segment files: their names, and how one comes to be.

use crate::Error;
use crate::error_at::at;
use crate::fields::{file_len, memory_len};
use crate::head::HEAD_BYTES;
use quorate_disk::{Disk, File, OpenMode};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What segment files end with.
const SEGMENT_SUFFIX: &str = ".wal";
/// What files that are not yet segments end with.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// What files made ahead, files made when one is needed, and segments that were released start with.
const PREPARED_PREFIX: &str = "prepared-";
const INLINE_PREFIX: &str = "inline-";
const SPARE_PREFIX: &str = "spare-";
/// Zeros written at once: the writes and syncs of appends never wait behind more of them.
const ZERO_WRITE_BYTES: u64 = 1 << 20;
/// Where zeros begin in memory: at a multiple of what the device takes as it is.
const ZERO_ALIGNMENT: usize = 4096;

/// Returns `<sequence>-<index of the next entry>.wal`, 16 hexadecimal digits each.
pub(crate) fn segment_name(sequence: u64, next_index: u64) -> String {
    format!("{sequence:016x}-{next_index:016x}{SEGMENT_SUFFIX}")
}

/// Returns the name of a segment that was released and may be used again.
pub(crate) fn spare_name(sequence: u64) -> String {
    format!("{SPARE_PREFIX}{sequence}{TEMPORARY_SUFFIX}")
}

/// Reads the sequence number out of a segment's name.
pub(crate) fn parse_segment_name(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?.strip_suffix(SEGMENT_SUFFIX)?;
    let (sequence, next_index) = name.split_once('-')?;
    let is_hex =
        |part: &str| part.len() == 16 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex(sequence) || !is_hex(next_index) {
        return None;
    }
    u64::from_str_radix(sequence, 16).ok()
}

/// Says whether a file is one that was made to become a segment.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        name.ends_with(TEMPORARY_SUFFIX)
            && [PREPARED_PREFIX, INLINE_PREFIX, SPARE_PREFIX]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    })
}

/// The work of making the next segment, for another thread.
///
/// Zero-filling ahead is what makes appends cheap: a write into blocks that were written before needs no change of the file
/// system's own records, and half the time and CPU of one into blocks that were only reserved. The zeros also are what lets
/// opening tell a write that was torn from damage, so the blocks of a segment that was released are filled with them too.
pub struct PrepareJob {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    len: u64,
    /// The file, and how much of it is filled, once that has begun.
    begun: Option<(Box<dyn File>, u64)>,
    zeros: Vec<u8>,
}

impl fmt::Debug for PrepareJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrepareJob")
            .field("path", &self.path)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// How far a [`PrepareJob`] is after a step.
#[derive(Debug)]
pub enum Preparing {
    /// There is more to do; pausing before it leaves the disk to appends.
    More(PrepareJob),
    /// The segment is ready.
    Done(PreparedSegment),
}

/// A file of zeros that can become a segment.
pub struct PreparedSegment {
    pub(crate) file: Box<dyn File>,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

impl fmt::Debug for PreparedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedSegment")
            .field("path", &self.path)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl PrepareJob {
    fn new(disk: &Arc<dyn Disk>, path: PathBuf, len: u64) -> PrepareJob {
        PrepareJob {
            disk: Arc::clone(disk),
            path,
            len,
            begun: None,
            zeros: Vec::new(),
        }
    }

    /// Plans a segment that is made ahead, from a file that was a segment if there is one.
    pub(crate) fn ahead(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        number: u64,
        spare: Option<PathBuf>,
        len: u64,
    ) -> PrepareJob {
        let new = || dir.join(format!("{PREPARED_PREFIX}{number}{TEMPORARY_SUFFIX}"));
        PrepareJob::new(disk, spare.unwrap_or_else(new), len)
    }

    /// Plans a segment that is needed now.
    pub(crate) fn inline(disk: &Arc<dyn Disk>, dir: &Path, sequence: u64, len: u64) -> PrepareJob {
        let path = dir.join(format!("{INLINE_PREFIX}{sequence}{TEMPORARY_SUFFIX}"));
        PrepareJob::new(disk, path, len)
    }

    /// Reserves the space, fills it with zeros and syncs it, all at once.
    ///
    /// # Errors
    /// As [`PrepareJob::step`].
    ///
    /// # Durability
    /// The zeros are durable, the name of the file is not.
    pub fn run(self) -> Result<PreparedSegment, Error> {
        let mut job = self;
        loop {
            job = match job.step()? {
                Preparing::More(job) => job,
                Preparing::Done(segment) => return Ok(segment),
            };
        }
    }

    /// Does a part of the work that takes about a millisecond.
    ///
    /// # Errors
    /// [`Error::Io`], for example when the disk is full. The log goes on without it, and makes a smaller segment when it needs one.
    ///
    /// # Durability
    /// As [`PrepareJob::run`] when it is done, none before.
    pub fn step(mut self) -> Result<Preparing, Error> {
        match self.fill_more() {
            Ok(None) => Ok(Preparing::More(self)),
            Ok(Some(file)) => Ok(Preparing::Done(PreparedSegment {
                file,
                path: self.path,
                len: self.len,
            })),
            Err(error) => {
                // What was reserved is given back; if that fails too, the next opening removes the file.
                let _ = self.disk.remove_file(&self.path);
                Err(error)
            }
        }
    }

    /// Fills the next part with zeros; returns the file when it is whole and durable.
    fn fill_more(&mut self) -> Result<Option<Box<dyn File>>, Error> {
        let Some((file, position)) = self.begun.take() else {
            self.begun = Some((self.begin()?, 0));
            return Ok(None);
        };
        if position == self.len {
            file.sync_all().map_err(at("sync", &self.path))?;
            return Ok(Some(file));
        }
        let part_bytes = ZERO_WRITE_BYTES.min(self.len);
        if self.zeros.is_empty() {
            self.zeros = vec![0; memory_len(part_bytes) + ZERO_ALIGNMENT];
        }
        let start = self.zeros.as_ptr().align_offset(ZERO_ALIGNMENT);
        let count = part_bytes.min(self.len - position);
        let part = self.zeros.get(start..).unwrap_or(&self.zeros);
        let part = part.get(..memory_len(count)).unwrap_or(part);
        file.write_all_at(part, position)
            .map_err(at("fill with zeros", &self.path))?;
        self.begun = Some((file, position + file_len(part.len())));
        Ok(None)
    }

    fn begin(&self) -> Result<Box<dyn File>, Error> {
        let opened = self.disk.open_direct(&self.path, OpenMode::CreateOrOpen);
        let file = opened.map_err(at("create", &self.path))?;
        // What has the right size has its blocks too: they are filled anew in their place.
        if file.len().map_err(at("size", &self.path))? != self.len {
            file.set_len(0).map_err(at("cut", &self.path))?;
        }
        file.allocate(self.len)
            .map_err(at("reserve space for", &self.path))?;
        Ok(file)
    }
}

impl PreparedSegment {
    /// Makes the file the segment with this head: writes the head, syncs it, gives it the name and syncs the directory.
    ///
    /// The head is durable before the name leads to it, so a segment without a whole head is damaged, never unfinished.
    /// `naming` is set once the name may have changed: errors before leave the log as it was.
    pub(crate) fn become_segment(
        self,
        disk: &dyn Disk,
        path: &Path,
        head: &[u8],
        naming: &mut bool,
    ) -> Result<Box<dyn File>, Error> {
        let locked = self.file.try_lock().map_err(at("lock", &self.path))?;
        if !locked {
            return Err(Error::InUse { path: self.path });
        }
        // Zeros behind it, so that no block is read to be written again.
        let behind = file_len(head.len()).next_multiple_of(self.file.block_bytes().max(1));
        let zeros = vec![0; memory_len(behind.min(self.len)).saturating_sub(head.len())];
        self.file
            .write_all_vectored_at(&[head, &zeros], 0)
            .map_err(at("write the head of", &self.path))?;
        self.file.sync_data().map_err(at("sync", &self.path))?;
        *naming = true;
        disk.rename(&self.path, path)
            .map_err(at("rename", &self.path))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        disk.sync_dir(dir).map_err(at("sync", dir))?;
        Ok(self.file)
    }
}

/// Bounds the size of a segment from below, so that a head and a record always fit.
pub(crate) fn segment_len(bytes: u64, needed: u64) -> u64 {
    bytes.max(HEAD_BYTES + needed).next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_do_not() {
        let name = segment_name(0x1f, 0xabc);
        assert_eq!(name, "000000000000001f-0000000000000abc.wal");
        assert_eq!(parse_segment_name(OsStr::new(&name)), Some(0x1f));
        for other in [
            "0.tmp",
            "1f-abc.wal",
            "000000000000001f-0000000000000abc.wal.broken",
            "000000000000001f.wal",
            "+00000000000001f-0000000000000abc.wal",
            "é00000000000001f-0000000000000abc.wal",
        ] {
            assert_eq!(parse_segment_name(OsStr::new(other)), None, "{other}");
        }
        assert!(is_temporary(OsStr::new("prepared-1.tmp")));
        assert!(is_temporary(OsStr::new(&spare_name(7))));
        assert!(!is_temporary(OsStr::new("1.tmp")));
    }
}
