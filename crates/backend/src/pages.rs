//! redb's storage on a [`disk::File`](quorate_disk::File), with a checksum for every page.
//!
//! redb checks its own checksums only in a full repair, and the point of quick repair is that there is none. So the file is
//! laid out here, and every page that comes from the disk is verified before redb sees it.
//!
//! **Shape** of the file, in pages of 4096 bytes:
//!
//! | page | content |
//! |---|---|
//! | 0, 1 | two copies of the [`Superblock`], which holds redb's header |
//! | 2 | checksums of the 1024 pages that follow: CRC-32C, 4 bytes little endian each; 0 = never written |
//! | 3 .. 1026 | redb's pages 0 to 1023; page 0 is unused, it lives in the superblock |
//! | 1027 | checksums of the next 1024 pages, and so on |
//!
//! A checksum covers the page's number, the file's identity and its content, so that a page of another place or another
//! file, and one whose write never happened, are found too.
//!
//! Why a power loss leaves the last commit whole:
//!
//! | written | why any part of it may be lost |
//! |---|---|
//! | a page | redb never overwrites a page that the last commit can reach |
//! | a checksum page | all entries that the last commit can reach keep their value, and a sector is kept or lost as one |
//! | a superblock | goes to the copy that is not the newest synced one; both are equal after each sync |
//! | a shorter length | the superblock that allows it is synced first |

use crate::error::Error;
use crate::gathered::GatheredPages;
use crate::superblock::{Decoded, FORMAT_VERSION, SUPERBLOCK_BYTES, Superblock};
use crate::{Identity, Options};
use parking_lot::{Mutex, RwLock};
use quorate_disk::{Disk, File, OpenMode, read_exact_at};
use redb::StorageBackend;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Pages that share one page of checksums.
const GROUP_PAGES: u64 = 1024;
/// Pages before the first group.
const SUPERBLOCK_PAGES: u64 = 2;
/// Where the two copies of the superblock begin.
const SUPERBLOCK_AT: [u64; 2] = [0, PAGE_BYTES];
/// Checksum entry of a page that was never written.
const UNWRITTEN: u32 = 0;

pub(crate) const PAGE: usize = 4096;
const GROUP: usize = 1024;

/// The file under redb.
pub(crate) struct PagedFile {
    file: Box<dyn File>,
    path: PathBuf,
    identity: Option<Identity>,
    /// Logical length in bytes, as redb sees it; a multiple of [`PAGE_BYTES`].
    len: AtomicU64,
    head: Mutex<Head>,
    groups: RwLock<Vec<Option<Group>>>,
    /// Pages that redb wrote since the last sync, unless they were too many.
    gathered: GatheredPages,
    /// Held by whoever writes.
    writer: Mutex<()>,
    /// Set by the first failed write or sync; nothing is written after it.
    failed: AtomicBool,
    /// Set by the first failed read: redb gives nothing more from then on.
    unreadable: AtomicBool,
    /// Whether syncs are left out, since the file is of no use yet to whoever finds it.
    is_filling: AtomicBool,
    /// The first page that failed its checksum.
    damage: Mutex<Option<PageDamage>>,
}

/// The superblock in memory.
struct Head {
    block: Superblock,
    /// Which copy holds the newest synced superblock.
    synced: usize,
    /// Whether the other copy holds a newer one that is not synced.
    pending: bool,
}

/// The checksums of [`GROUP_PAGES`] pages.
struct Group {
    sums: Box<[u32; GROUP]>,
    dirty: bool,
}

/// A page that is not what was written.
#[derive(Debug, Clone)]
pub(crate) struct PageDamage {
    offset: u64,
    expected: u32,
    found: u32,
}

impl fmt::Display for PageDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "page at byte {} has checksum {:08x}, expected {:08x}",
            self.offset, self.found, self.expected
        )
    }
}

impl std::error::Error for PageDamage {}

impl PagedFile {
    /// Makes an empty file in place of whatever is there.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &Path,
        identity: Option<Identity>,
    ) -> Result<PagedFile, Error> {
        let file = disk
            .open(path, OpenMode::CreateOrOpen)
            .map_err(|source| io_error(path, source))?;
        lock(&*file, path)?;
        let block = Superblock {
            identity,
            generation: 1,
            committed_len: 0,
            engine_header: Vec::new(),
        };
        let bytes = block.encode();
        file.set_len(0)
            .and_then(|()| file.set_len(SUPERBLOCK_PAGES * PAGE_BYTES))
            .and_then(|()| file.write_all_at(&bytes, SUPERBLOCK_AT[0]))
            .and_then(|()| file.write_all_at(&bytes, SUPERBLOCK_AT[1]))
            .and_then(|()| file.sync_data())
            .map_err(|source| io_error(path, source))?;
        Ok(PagedFile::with(file, path, block, 0, 0))
    }

    /// Opens a file and checks that it is ours, before anything is written to it.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        options: &Options,
    ) -> Result<PagedFile, Error> {
        let file = disk
            .open(path, OpenMode::ReadWrite)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NotFound {
                    path: path.to_path_buf(),
                },
                _ => io_error(path, source),
            })?;
        lock(&*file, path)?;
        let physical = file.len().map_err(|source| io_error(path, source))?;
        let (block, copy) = choose_superblock(&*file, path, physical)?;
        if let Some(expected) = options.identity
            && block.identity != Some(expected)
        {
            return Err(Error::ForeignIdentity {
                path: path.to_path_buf(),
                expected,
                found: block.identity,
            });
        }
        let Some(len) = logical_len(physical) else {
            return Err(corrupt(
                path,
                None,
                format!("length {physical} is not a whole number of pages"),
            ));
        };
        if len < block.committed_len {
            return Err(corrupt(
                path,
                Some(physical),
                format!(
                    "file ends after {len} of {} committed bytes",
                    block.committed_len
                ),
            ));
        }
        // What is found may still be in the cache of the system only. It is made durable here, because from now on the
        // other copy of the superblock is overwritten in the belief that this one is safe.
        file.sync_data().map_err(|source| io_error(path, source))?;
        Ok(PagedFile::with(file, path, block, copy, len))
    }

    fn with(
        file: Box<dyn File>,
        path: &Path,
        block: Superblock,
        synced: usize,
        len: u64,
    ) -> PagedFile {
        let mut groups = Vec::new();
        groups.resize_with(group_count(len), || None);
        PagedFile {
            file,
            path: path.to_path_buf(),
            identity: block.identity,
            len: AtomicU64::new(len),
            head: Mutex::new(Head {
                block,
                synced,
                pending: false,
            }),
            groups: RwLock::new(groups),
            gathered: GatheredPages::default(),
            writer: Mutex::new(()),
            failed: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            is_filling: AtomicBool::new(false),
            damage: Mutex::new(None),
        }
    }

    /// Gives it the path that it is to have once it is whole, for messages.
    pub(crate) fn named(self, path: &Path) -> PagedFile {
        PagedFile {
            path: path.to_path_buf(),
            ..self
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Returns the size of the real file in bytes.
    pub(crate) fn physical_len(&self) -> u64 {
        physical_len(self.len.load(Ordering::Acquire))
    }

    /// Leaves syncs out, or no longer: the next one then covers all that was written.
    pub(crate) fn set_filling(&self, is_filling: bool) {
        self.is_filling.store(is_filling, Ordering::Release);
    }

    /// Brings to the disk what was written, as far as that has got to the file, beside whoever writes.
    pub(crate) fn write_back(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|source| {
            self.fail();
            io_error(&self.path, source)
        })
    }

    /// Lets no write through any more.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Says whether a read has failed.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Acquire)
    }

    /// Turns redb's error into ours, with the place when a page was damaged.
    pub(crate) fn explain(&self, error: impl Into<redb::Error>) -> Error {
        if let Some(damage) = self.damage.lock().clone() {
            let found = damage.found;
            let expected = damage.expected;
            return corrupt(
                &self.path,
                Some(damage.offset),
                format!("page has checksum {found:08x}, expected {expected:08x}"),
            );
        }
        match error.into() {
            redb::Error::Io(source) => io_error(&self.path, source),
            redb::Error::PreviousIo => Error::Poisoned,
            other => corrupt(&self.path, None, other.to_string()),
        }
    }

    /// Runs something that writes; the first failure is the last write.
    fn writing<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _writer = self.writer.lock();
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write failed"));
        }
        write().inspect_err(|_| self.fail())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        if is_header(offset, out.len()) {
            return self.read_header(offset, out);
        }
        for (first, span) in runs(offset, out.len())? {
            self.read_run(first, &mut out[span])?;
        }
        Ok(())
    }

    fn read_header(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let head = self.head.lock();
        let header = &head.block.engine_header;
        let start = to_usize(offset)?;
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = header.get(start + at).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write_header(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset != 0 || data.len() > crate::superblock::ENGINE_HEADER_BYTES_MAX {
            return Err(io::Error::other("redb's header has an unexpected shape"));
        }
        let mut head = self.head.lock();
        head.block.engine_header = data.to_vec();
        head.block.committed_len = self.len.load(Ordering::Acquire);
        self.write_superblock(&mut head)
    }

    /// Writes the superblock to the copy that is not the newest synced one.
    fn write_superblock(&self, head: &mut Head) -> io::Result<()> {
        head.block.generation += 1;
        head.pending = true;
        self.file
            .write_all_at(&head.block.encode(), SUPERBLOCK_AT[1 - head.synced])
    }

    /// Syncs the file, after which both copies of the superblock may be equal.
    fn sync_superblock(&self, head: &mut Head) -> io::Result<()> {
        self.file.sync_data()?;
        if head.pending {
            head.pending = false;
            head.synced = 1 - head.synced;
            self.file
                .write_all_at(&head.block.encode(), SUPERBLOCK_AT[1 - head.synced])?;
        }
        Ok(())
    }

    /// Loads the checksums of a group unless they are there.
    fn load_group(&self, group: u64) -> io::Result<()> {
        let slot = to_usize(group)?;
        match self.groups.read().get(slot) {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Some(_)) => return Ok(()),
            Some(None) => {}
        }
        let mut bytes = [0; PAGE];
        read_exact_at(&*self.file, &mut bytes, sums_offset(group))?;
        let mut sums = Box::new([UNWRITTEN; GROUP]);
        for (sum, bytes) in sums.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *sum = u32::from_le_bytes(*bytes);
        }
        // Another reader, or the writer, may have been faster; then its copy is the better one.
        if let Some(place @ None) = self.groups.write().get_mut(slot) {
            *place = Some(Group { sums, dirty: false });
        }
        Ok(())
    }

    fn checksum(&self, page: u64, content: &[u8]) -> u32 {
        let mut prefix = [0; 24];
        prefix[..8].copy_from_slice(&page.to_le_bytes());
        if let Some(identity) = self.identity {
            prefix[8..16].copy_from_slice(&identity.cluster_id.to_le_bytes());
            prefix[16..].copy_from_slice(&identity.member_id.to_le_bytes());
        }
        let sum = crc32c::crc32c_append(crc32c::crc32c(&prefix), content);
        if sum == UNWRITTEN { 1 } else { sum }
    }

    /// Reads pages of one group and verifies each.
    fn read_run(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        self.load_group(first / GROUP_PAGES)?;
        self.gathered.read(&*self.file, first, out)?;
        let groups = self.groups.read();
        let slot = to_usize(first / GROUP_PAGES)?;
        let Some(Some(group)) = groups.get(slot) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        for (page, content) in (first..).zip(out.chunks(PAGE)) {
            let expected = group.sums[to_usize(page % GROUP_PAGES)?];
            let found = self.checksum(page, content);
            let intact = if expected == UNWRITTEN {
                content.iter().all(|byte| *byte == 0)
            } else {
                expected == found
            };
            if !intact {
                return Err(self.damaged(PageDamage {
                    offset: page_offset(page),
                    expected,
                    found,
                }));
            }
        }
        Ok(())
    }

    fn damaged(&self, damage: PageDamage) -> io::Error {
        let mut first = self.damage.lock();
        if first.is_none() {
            *first = Some(damage.clone());
        }
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }

    /// Writes pages of one group, now or with the next sync, and notes their checksums.
    fn write_run(&self, first: u64, data: &[u8]) -> io::Result<()> {
        self.load_group(first / GROUP_PAGES)?;
        {
            let mut groups = self.groups.write();
            let slot = to_usize(first / GROUP_PAGES)?;
            let Some(Some(group)) = groups.get_mut(slot) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            for (page, content) in (first..).zip(data.chunks(PAGE)) {
                group.sums[to_usize(page % GROUP_PAGES)?] = self.checksum(page, content);
            }
            group.dirty = true;
        }
        self.gathered.write(&*self.file, first, data)
    }

    /// Writes the checksum pages that changed.
    fn write_sums(&self) -> io::Result<()> {
        let mut pages = Vec::new();
        for (group, place) in (0..).zip(self.groups.write().iter_mut()) {
            if let Some(place) = place.as_mut().filter(|place| place.dirty) {
                place.dirty = false;
                pages.push((group, encode_sums(&place.sums)));
            }
        }
        for (group, bytes) in pages {
            self.file.write_all_at(&bytes, sums_offset(group))?;
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > self.len.load(Ordering::Acquire)) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{len} bytes at {offset} lie behind the end"),
            ));
        }
        let aligned = offset.is_multiple_of(PAGE_BYTES) && len.is_multiple_of(PAGE);
        if aligned || is_header(offset, len) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{len} bytes at {offset} are not whole pages"
        )))
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE_BYTES) {
            return Err(io::Error::other("length is not a whole number of pages"));
        }
        let mut head = self.head.lock();
        if len < head.block.committed_len {
            head.block.committed_len = len;
            self.write_superblock(&mut head)?;
            self.sync_superblock(&mut head)?;
        }
        drop(head);
        let shorter = len < self.len.load(Ordering::Acquire);
        if shorter {
            self.gathered.write_out(&*self.file)?;
            self.forget_sums(len)?;
        }
        self.file.set_len(physical_len(len))?;
        self.len.store(len, Ordering::Release);
        let count = group_count(len);
        self.groups.write().resize_with(count, || None);
        Ok(())
    }

    /// Marks the pages behind a new end as never written, since that is how they read when the file grows again.
    fn forget_sums(&self, len: u64) -> io::Result<()> {
        let pages = len / PAGE_BYTES;
        let kept = pages % GROUP_PAGES;
        if kept == 0 {
            return Ok(());
        }
        self.load_group(pages / GROUP_PAGES)?;
        let slot = to_usize(pages / GROUP_PAGES)?;
        if let Some(Some(group)) = self.groups.write().get_mut(slot) {
            group.sums[to_usize(kept)?..].fill(UNWRITTEN);
            group.dirty = true;
        }
        Ok(())
    }
}

impl fmt::Debug for PagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagedFile")
            .field("path", &self.path)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What redb gets to hold.
#[derive(Debug)]
pub(crate) struct Pages(pub(crate) Arc<PagedFile>);

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = self.0.read(offset, out);
        read.inspect_err(|_| self.0.unreadable.store(true, Ordering::Release))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.writing(|| self.0.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.is_filling.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.writing(|| {
            self.0.gathered.write_out(&*self.0.file)?;
            self.0.write_sums()?;
            let mut head = self.0.head.lock();
            self.0.sync_superblock(&mut head)
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.check_range(offset, data.len())?;
        self.0.writing(|| {
            if is_header(offset, data.len()) {
                return self.0.write_header(offset, data);
            }
            for (first, span) in runs(offset, data.len())? {
                self.0.write_run(first, &data[span])?;
            }
            Ok(())
        })
    }
}

/// Says whether the bytes lie in redb's header, the only thing it reads and writes in part.
fn is_header(offset: u64, len: usize) -> bool {
    offset < PAGE_BYTES && len < PAGE
}

/// Splits whole pages at the ends of their groups: first page, and which of the bytes.
fn runs(offset: u64, len: usize) -> io::Result<Vec<(u64, Range<usize>)>> {
    let mut out = Vec::with_capacity(1);
    let mut page = offset / PAGE_BYTES;
    let mut start = 0;
    while start < len {
        let rest = to_usize(GROUP_PAGES - page % GROUP_PAGES)? * PAGE;
        let end = len.min(start + rest);
        out.push((page, start..end));
        page += GROUP_PAGES - page % GROUP_PAGES;
        start = end;
    }
    Ok(out)
}

fn encode_sums(sums: &[u32; GROUP]) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    for (bytes, sum) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
        *bytes = sum.to_le_bytes();
    }
    bytes
}

fn sums_offset(group: u64) -> u64 {
    (SUPERBLOCK_PAGES + group * (GROUP_PAGES + 1)) * PAGE_BYTES
}

pub(crate) fn page_offset(page: u64) -> u64 {
    sums_offset(page / GROUP_PAGES) + (1 + page % GROUP_PAGES) * PAGE_BYTES
}

fn physical_len(len: u64) -> u64 {
    let pages = len / PAGE_BYTES;
    (SUPERBLOCK_PAGES + pages + pages.div_ceil(GROUP_PAGES)) * PAGE_BYTES
}

fn logical_len(physical: u64) -> Option<u64> {
    let pages = (physical / PAGE_BYTES).checked_sub(SUPERBLOCK_PAGES)?;
    let len = (pages - pages.div_ceil(GROUP_PAGES + 1)) * PAGE_BYTES;
    (physical_len(len) == physical).then_some(len)
}

fn group_count(len: u64) -> usize {
    usize::try_from((len / PAGE_BYTES).div_ceil(GROUP_PAGES))
        .expect("a file's groups fit in memory")
}

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn lock(file: &dyn File, path: &Path) -> Result<(), Error> {
    match file.try_lock() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Locked {
            path: path.to_path_buf(),
        }),
        Err(source) => Err(io_error(path, source)),
    }
}

/// Returns the newest intact superblock and which copy it is.
fn choose_superblock(
    file: &dyn File,
    path: &Path,
    physical: u64,
) -> Result<(Superblock, usize), Error> {
    if physical < SUPERBLOCK_PAGES * PAGE_BYTES {
        return Err(Error::ForeignFile {
            path: path.to_path_buf(),
            found: "too short",
        });
    }
    let mut newest: Option<(Superblock, usize)> = None;
    let mut damaged = false;
    for (copy, at) in SUPERBLOCK_AT.into_iter().enumerate() {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        read_exact_at(file, &mut bytes, at).map_err(|source| io_error(path, source))?;
        match Superblock::decode(&bytes) {
            Decoded::Valid(block) => {
                if newest
                    .as_ref()
                    .is_none_or(|(other, _)| other.generation < block.generation)
                {
                    newest = Some((block, copy));
                }
            }
            Decoded::Newer(found) => {
                return Err(Error::NewerFormat {
                    path: path.to_path_buf(),
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            Decoded::Damaged => damaged = true,
            Decoded::Foreign => {
                if copy == 0 && is_bbolt(&bytes) {
                    return Err(Error::ForeignFile {
                        path: path.to_path_buf(),
                        found: "a bbolt database, as etcd writes it",
                    });
                }
            }
        }
    }
    match newest {
        Some(newest) => Ok(newest),
        None if damaged => Err(corrupt(
            path,
            Some(0),
            "both superblocks fail their checksum".to_owned(),
        )),
        None => Err(Error::ForeignFile {
            path: path.to_path_buf(),
            found: "unknown format",
        }),
    }
}

/// Source: bbolt 1.5 `internal/common/types.go` `Magic`, after the 16 bytes of a page header.
fn is_bbolt(bytes: &[u8; SUPERBLOCK_BYTES]) -> bool {
    bytes[16..20] == 0xED0C_DAED_u32.to_le_bytes()
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        source,
    }
}

pub(crate) fn corrupt(path: &Path, offset: Option<u64>, what: String) -> Error {
    Error::Corrupt {
        path: path.to_path_buf(),
        offset,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_disk::SimDisk;

    const PATH: &str = "/db";
    const HEADER: usize = 320;

    fn superblocks(disk: &SimDisk) -> [Superblock; 2] {
        let bytes = disk.peek(Path::new(PATH)).unwrap();
        SUPERBLOCK_AT.map(|at| {
            let at = usize::try_from(at).unwrap();
            let block = bytes[at..at + SUPERBLOCK_BYTES].try_into().unwrap();
            match Superblock::decode(&block) {
                Decoded::Valid(block) => block,
                other => panic!("{other:?}"),
            }
        })
    }

    fn file(disk: &SimDisk) -> Pages {
        Pages(Arc::new(
            PagedFile::create(disk, Path::new(PATH), None).unwrap(),
        ))
    }

    #[test]
    fn the_newest_synced_superblock_is_never_overwritten() {
        let disk = SimDisk::new(1);
        let pages = file(&disk);
        pages.set_len(8 * PAGE_BYTES).unwrap();
        let mut synced = superblocks(&disk)[0].clone();
        for round in 0..10 {
            for write in 0..1 + round % 3 {
                pages.write(0, &[round * 10 + write; HEADER]).unwrap();
                assert!(superblocks(&disk).contains(&synced), "round {round}");
            }
            pages.sync_data().unwrap();
            let [first, second] = superblocks(&disk);
            assert_eq!(first, second, "both copies are equal after a sync");
            assert!(first.generation > synced.generation);
            assert_eq!(first.engine_header, [round * 10 + round % 3; HEADER]);
            synced = first;
        }
    }

    #[test]
    fn equal_pages_have_checksums_of_their_own() {
        let disk = SimDisk::new(1);
        let pages = file(&disk);
        pages.set_len(8 * PAGE_BYTES).unwrap();
        pages.write(PAGE_BYTES, &[7; 3 * PAGE]).unwrap();
        pages.sync_data().unwrap();
        let bytes = disk.peek(Path::new(PATH)).unwrap();
        let sums = &bytes[2 * PAGE..2 * PAGE + 16];
        assert_eq!(sums[..4], [0; 4], "page 0 is in the superblock");
        assert!(sums[4..8] != sums[8..12] && sums[8..12] != sums[12..16]);
    }

    #[test]
    fn a_file_that_shrinks_and_grows_reads_as_zeros() {
        let disk = SimDisk::new(1);
        let pages = file(&disk);
        let len = (GROUP_PAGES + 20) * PAGE_BYTES;
        pages.set_len(len).unwrap();
        let span = 8 * PAGE_BYTES..len;
        let content = vec![9; usize::try_from(span.end - span.start).unwrap()];
        pages.write(span.start, &content).unwrap();
        pages.write(0, &[1; HEADER]).unwrap();
        pages.sync_data().unwrap();
        for shorter in [GROUP_PAGES + 3, GROUP_PAGES, 10] {
            pages.set_len(shorter * PAGE_BYTES).unwrap();
            let mut kept = vec![0; PAGE];
            pages.read((shorter - 1) * PAGE_BYTES, &mut kept).unwrap();
            assert_eq!(kept, [9; PAGE]);
            pages.read(shorter * PAGE_BYTES, &mut kept).unwrap_err();
            pages.set_len(len).unwrap();
            let mut new = vec![1; PAGE * 2];
            pages.read(shorter * PAGE_BYTES, &mut new).unwrap();
            assert_eq!(new, [0; PAGE * 2]);
            let block = &superblocks(&disk)[0];
            assert!(block.committed_len <= shorter * PAGE_BYTES);
        }
    }

    #[test]
    fn lengths_map_both_ways() {
        for pages in (0..5000).chain([1 << 20, (1 << 20) + 1]) {
            let len = pages * PAGE_BYTES;
            assert_eq!(logical_len(physical_len(len)), Some(len));
        }
        for physical in [0, 4096, 8191, 8193, 12_288, 8192 + 1026 * 4096] {
            assert_eq!(logical_len(physical), None, "{physical}");
        }
    }

    #[test]
    fn nothing_is_written_after_a_failure() {
        let disk = SimDisk::new(1);
        let pages = file(&disk);
        pages.set_len(8 * PAGE_BYTES).unwrap();
        pages.0.fail();
        let before = disk.operations();
        pages.write(PAGE_BYTES, &[1; PAGE]).unwrap_err();
        pages.write(0, &[1; HEADER]).unwrap_err();
        pages.set_len(16 * PAGE_BYTES).unwrap_err();
        pages.sync_data().unwrap_err();
        assert_eq!(disk.operations(), before);
    }
}
