//! A disk that measures what the log and the snapshot files cost.
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_disk::{Disk, File, Mapped, OpenMode};

use super::Metrics;
use crate::config::GoDuration;

/// Syncs of the log that take longer are told of. Source: etcd v3.7.1 server/storage/wal/wal.go, warnSyncDuration.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// How the name of a snapshot file ends while it is written.
const SNAPSHOT_IN_THE_MAKING: &str = ".snap.tmp";

/// Passes everything on, and measures files of the log and of snapshots.
pub(crate) struct MeteredDisk {
    disk: Arc<dyn Disk>,
    metrics: Metrics,
    wal_dir: PathBuf,
    /// When the snapshot file that is being written was begun; there is one at a time.
    snapshot_begun: Mutex<Option<Instant>>,
}

impl MeteredDisk {
    pub(crate) fn new(disk: Arc<dyn Disk>, metrics: Metrics, wal_dir: PathBuf) -> Self {
        Self {
            disk,
            metrics,
            wal_dir,
            snapshot_begun: Mutex::new(None),
        }
    }

    fn metered(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        let is_log = path.parent() == Some(&self.wal_dir);
        let is_snapshot = is_snapshot_in_the_making(path);
        if is_snapshot {
            *self.snapshot_begun.lock() = Some(Instant::now());
        }
        if !is_log && !is_snapshot {
            return file;
        }
        Box::new(MeteredFile {
            file,
            metrics: self.metrics.clone(),
            is_log,
            has_appended: AtomicBool::new(false),
        })
    }
}

fn is_snapshot_in_the_making(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(SNAPSHOT_IN_THE_MAKING))
}

impl Disk for MeteredDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        Ok(self.metered(path, self.disk.open(path, mode)?))
    }

    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        Ok(self.metered(path, self.disk.open_direct(path, mode)?))
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
        self.disk.rename(from, to)?;
        if is_snapshot_in_the_making(from)
            && let Some(begun) = self.snapshot_begun.lock().take()
        {
            self.metrics.snapshot_saved(begun.elapsed());
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

struct MeteredFile {
    file: Box<dyn File>,
    metrics: Metrics,
    /// A file of the log; else a snapshot.
    is_log: bool,
    /// Whether something was appended since the last sync: what segments are made of is not counted.
    has_appended: AtomicBool,
}

impl MeteredFile {
    fn measure_sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let started = Instant::now();
        let result = sync();
        let took = started.elapsed();
        if !self.is_log {
            self.metrics.snapshot_synced(took);
        } else if self.has_appended.swap(false, Ordering::Relaxed) {
            self.metrics.wal_synced(took);
            if took > SLOW_SYNC {
                tracing::warn!(
                    took = %GoDuration::from(took),
                    "expected-duration" = %GoDuration::from(SLOW_SYNC),
                    "slow fdatasync"
                );
            }
        }
        result
    }
}

impl File for MeteredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let started = Instant::now();
        self.file.write_all_vectored_at(bufs, offset)?;
        if self.is_log {
            let bytes = bufs.iter().map(|buf| buf.len() as u64).sum();
            self.metrics.wal_written(started.elapsed(), bytes);
            self.has_appended.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn block_bytes(&self) -> u64 {
        self.file.block_bytes()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.measure_sync(|| self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.measure_sync(|| self.file.sync_all())
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

#[cfg(test)]
mod tests {
    use quorate_disk::{SimDisk, replace_atomic};
    use quorate_rpc::Text;

    use super::*;

    #[test]
    fn appends_and_snapshots_are_measured_and_nothing_else() {
        let metrics = Metrics::new();
        let sim: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let disk = MeteredDisk::new(sim, metrics.clone(), PathBuf::from("/d/wal"));
        for dir in ["/d", "/d/wal", "/d/snap"] {
            disk.create_dir_all(Path::new(dir)).unwrap();
        }
        let log = disk
            .open_direct(Path::new("/d/wal/1.wal"), OpenMode::Create)
            .unwrap();
        log.write_all_at(&[0; 64], 0).unwrap();
        log.sync_data().unwrap();
        for _ in 0..3 {
            log.write_all_vectored_at(&[b"ab", b"cde"], 0).unwrap();
            log.sync_data().unwrap();
        }
        let other = disk
            .open(Path::new("/d/snap/db"), OpenMode::Create)
            .unwrap();
        other.write_all_vectored_at(&[b"x"], 0).unwrap();
        other.sync_data().unwrap();
        replace_atomic(&disk, Path::new("/d/snap/1-1.snap"), b"body").unwrap();
        let mut out = Text::default();
        metrics.render(&mut out);
        let text = out.finish();
        for line in [
            "etcd_disk_wal_fsync_duration_seconds_count 3",
            "etcd_disk_wal_write_duration_seconds_count 3",
            "etcd_disk_wal_write_bytes_total 15",
            "etcd_snap_fsync_duration_seconds_count 1",
            "etcd_debugging_snap_save_total_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
