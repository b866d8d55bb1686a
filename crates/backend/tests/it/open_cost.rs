//! Opening after a kill reads the same few pages, however large the file is.

use crate::support::{PATH, disk, flush, small_options};
use bytes::Bytes;
use quorate_backend::{Backend, Options, Revision};
use quorate_disk::{CrashPolicy, Disk, File, Mapped, OpenMode, SimDisk};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk that counts the bytes that are read.
struct Counting {
    disk: SimDisk,
    read: Arc<AtomicU64>,
}

struct CountingFile {
    file: Box<dyn File>,
    read: Arc<AtomicU64>,
}

impl Disk for Counting {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        Ok(Box::new(CountingFile {
            file: self.disk.open(path, mode)?,
            read: Arc::clone(&self.read),
        }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.disk.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

impl File for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.file.read_at(buf, offset)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }
    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.file.write_all_vectored_at(bufs, offset)
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

/// Bytes read and file length of opening a file with so many rows after its process was killed.
fn open_after_kill(rows: i64) -> (u64, u64) {
    let disk = disk(1);
    let options = Options {
        page_cache_bytes: 8 << 20,
        ..small_options()
    };
    let open = |disk: Arc<dyn Disk>| Backend::open(disk, Path::new(PATH), options).unwrap();
    let backend = open(Arc::new(disk.clone()));
    let mut txn = backend.begin_apply(1, 1);
    for main in 2..rows {
        txn.put_revision(Revision::new(main, 0), false, Bytes::from(vec![5; 500]));
    }
    txn.commit(0);
    flush(&backend);
    let mut txn = backend.begin_apply(2, 1);
    txn.put_revision(Revision::new(rows, 0), false, Bytes::from(vec![5; 500]));
    txn.commit(0);
    flush(&backend);
    let read = Arc::new(AtomicU64::new(0));
    let killed = Counting {
        disk: disk.crash(&CrashPolicy::KeepAll),
        read: Arc::clone(&read),
    };
    let reopened = open(Arc::new(killed));
    assert_eq!(reopened.applied().index, 2);
    let bytes = read.load(Ordering::Relaxed);
    assert_eq!(reopened.flushed_revision(), Some(Revision::new(rows, 0)));
    (bytes, reopened.sizes().file_bytes)
}

#[test]
fn opening_after_a_kill_reads_as_much_for_ten_times_the_file() {
    let (small, small_file) = open_after_kill(4_000);
    let (large, large_file) = open_after_kill(40_000);
    assert!(large_file > small_file * 7, "{small_file} {large_file}");
    println!("{small} bytes of {small_file}, {large} bytes of {large_file}");
    assert!(large < small + (64 << 10), "{small} {large}");
    assert!(large < 400 << 10, "{large}");
}
