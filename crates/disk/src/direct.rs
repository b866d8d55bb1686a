//! Files that are written past the system's cache.

use crate::real::RealFile;
use crate::{File, Mapped};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// What positions, lengths and memory are a multiple of in every transfer: a page, which suits all devices.
pub(crate) const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = 4096;
/// Bytes written at once at most; the memory for it is kept, since fresh memory costs more than the copy into it.
const RUN_BYTES_MAX: usize = 1 << 20;
/// Bytes of memory that a file begins with.
const RUN_BYTES_MIN: usize = 64 << 10;

/// A file that is written past the system's cache, and read past it unless it is mapped.
///
/// What goes through the cache costs a page of memory, a copy and the write-back of the page; what goes past it only the
/// copy into memory that the device can take. The device takes whole blocks, so a write that begins or ends inside of one
/// takes what is around it along: in the block where the last write ended that is remembered, elsewhere it is read.
#[derive(Debug)]
pub(crate) struct DirectFile {
    file: RealFile,
    run: Mutex<Run>,
}

/// Memory for one transfer.
#[derive(Debug, Default)]
struct Run {
    memory: Vec<u8>,
    /// Where in the memory the first block begins: at a multiple of [`BLOCK_BYTES`].
    start: usize,
    len: usize,
    /// Position of the block of the file that the first block of the memory is a copy of.
    remembered: Option<u64>,
}

impl Run {
    /// Makes room for so many bytes, or as many as are written at once.
    fn reserve(&mut self, bytes: usize) {
        let wanted = bytes.clamp(RUN_BYTES_MIN, RUN_BYTES_MAX);
        if self.len >= wanted {
            return;
        }
        let len = wanted.next_power_of_two();
        let mut memory = vec![0; len + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        if self.remembered.is_some() {
            memory[start..start + BLOCK].copy_from_slice(self.block(0));
        }
        (self.memory, self.start, self.len) = (memory, start, len);
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.memory[self.start..][range]
    }

    fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.memory[self.start..][range]
    }

    fn block(&self, at: usize) -> &[u8] {
        self.bytes(at..at + BLOCK)
    }
}

impl DirectFile {
    /// Takes a file that was opened to be written past the cache.
    pub(crate) fn new(file: RealFile) -> DirectFile {
        DirectFile {
            file,
            run: Mutex::default(),
        }
    }

    fn write(&self, run: &mut Run, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let end = position_behind(offset, total)?;
        if total == 0 {
            return Ok(());
        }
        let inside = within_block(offset);
        run.reserve(inside.saturating_add(total));
        let mut at = offset - offset % BLOCK_BYTES;
        // Whether the last block of the run is known behind what was filled in.
        let mut first_is_known = inside > 0;
        if first_is_known && run.remembered != Some(at) {
            self.read_block(run, 0, at)?;
        }
        run.remembered = None;
        let mut filled = inside;
        for buf in bufs {
            let mut rest = *buf;
            if filled == 0 && is_aligned(rest) {
                // Memory that the device can take as it is, such as the zeros of a new file.
                let (whole, after) = rest.split_at(rest.len() - rest.len() % BLOCK);
                self.transfer(whole, at)?;
                at = position_behind(at, whole.len())?;
                rest = after;
            }
            while !rest.is_empty() {
                let count = rest.len().min(run.len - filled);
                let (now, later) = rest.split_at(count);
                run.bytes_mut(filled..filled + count).copy_from_slice(now);
                (filled, rest) = (filled + count, later);
                if filled == run.len {
                    self.transfer(run.bytes(0..filled), at)?;
                    at = position_behind(at, filled)?;
                    (filled, first_is_known) = (0, false);
                }
            }
        }
        if filled > 0 {
            self.write_rest(run, at, filled, first_is_known, end)?;
        }
        Ok(())
    }

    /// Writes what does not fill the run, and remembers its last block for the write that goes on there.
    fn write_rest(
        &self,
        run: &mut Run,
        at: u64,
        filled: usize,
        first_is_known: bool,
        end: u64,
    ) -> io::Result<()> {
        let whole = filled.next_multiple_of(BLOCK);
        let last = whole - BLOCK;
        let last_at = position_behind(at, last)?;
        let mut len_before = u64::MAX;
        if filled < whole {
            len_before = self.file.len()?;
            if last > 0 || !first_is_known {
                let kept = run.bytes(last..filled).to_vec();
                self.read_block(run, last, last_at)?;
                run.bytes_mut(last..filled).copy_from_slice(&kept);
            }
        }
        self.transfer(run.bytes(0..whole), at)?;
        if len_before < position_behind(at, whole)? {
            // Only whole blocks can be written, but the file ends where it should.
            self.file.set_len(len_before.max(end))?;
        }
        let start = run.start;
        run.memory.copy_within(start + last..start + whole, start);
        run.remembered = Some(last_at);
        Ok(())
    }

    /// Reads a block of the file into the run; what lies behind the end of the file counts as zeros.
    fn read_block(&self, run: &mut Run, to: usize, position: u64) -> io::Result<()> {
        let block = run.bytes_mut(to..to + BLOCK);
        let count = self.receive(block, position)?;
        block[count..].fill(0);
        Ok(())
    }

    /// Fills memory from the file until its end.
    fn receive(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            let at = position_behind(position, filled)?;
            match self.file.0.read_at(&mut into[filled..], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What ends the file need not be a whole block, and reading on from there is refused.
                Err(error) if filled > 0 && is_refused(&error) => break,
                Err(error) if is_refused(&error) => self.use_cache()?,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes whole blocks.
    fn transfer(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = position_behind(position, done)?;
            match self.file.0.write_at(&bytes[done..], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_refused(&error) => self.use_cache()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes through the cache from now on: the file system wants another alignment than ours. Nothing was transferred then.
    fn use_cache(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.file.0)?;
        if !flags.contains(OFlags::DIRECT) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(rustix::fs::fcntl_setfl(
            &self.file.0,
            flags - OFlags::DIRECT,
        )?)
    }
}

impl File for DirectFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.run.lock().remembered = None;
        self.file.set_len(len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut run = self.run.lock();
        let inside = within_block(offset);
        run.reserve(inside.saturating_add(buf.len()).next_multiple_of(BLOCK));
        run.remembered = None;
        let wanted = inside.saturating_add(buf.len()).min(run.len);
        let whole = wanted.next_multiple_of(BLOCK);
        let count = self.receive(run.bytes_mut(0..whole), offset - offset % BLOCK_BYTES)?;
        let found = run.bytes(inside.min(count)..count.min(wanted));
        buf[..found.len()].copy_from_slice(found);
        Ok(found.len())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&[buf], offset)
    }

    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write(&mut self.run.lock(), bufs, offset)
    }

    fn block_bytes(&self) -> u64 {
        BLOCK_BYTES
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn map(&self) -> io::Result<Mapped> {
        self.file.map()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

/// Says whether the system refuses the alignment of a transfer.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.len() >= BLOCK && bytes.as_ptr().align_offset(BLOCK) == 0
}

fn within_block(offset: u64) -> usize {
    usize::try_from(offset % BLOCK_BYTES).unwrap_or(0)
}

fn position_behind(offset: u64, len: usize) -> io::Result<u64> {
    let len = u64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let end = offset
        .checked_add(len)
        .filter(|end| *end <= i64::MAX.cast_unsigned());
    end.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}
