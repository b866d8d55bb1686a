//! The log: a synced append against a bare write, encoding, and opening.
//!
//! `cargo bench -p quorate-benches --bench wal`. The two synced cases take turns, so that the disk's moods meet both alike, and the
//! ratio of their medians is printed;
//! files go to the directory of `TMPDIR`, which must be on the disk that is to be measured.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate_disk::{Disk, File, Mapped, OpenMode, RealDisk};
use quorate_wal::{Batch, Entry, HardState, Identity, Options, SnapshotMark, Wal};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Payload of the synced append, and size of the bare write.
const SYNCED_BYTES: usize = 4096;
/// Size of the file of the bare write; as a segment.
const BARE_FILE_BYTES: u64 = 64 << 20;
/// Payload of the records that are encoded.
const RECORD_BYTES: usize = 300;
/// Records of the log that is opened.
const OPENED_RECORDS: u64 = 150_000;
const IDENTITY: Identity = Identity {
    cluster_id: 1,
    member_id: 2,
};

/// A disk that takes everything and keeps nothing, so that only the log's own work is measured.
struct NullDisk;

struct NullFile;

impl Disk for NullDisk {
    fn open(&self, _: &Path, _: OpenMode) -> io::Result<Box<dyn File>> {
        Ok(Box::new(NullFile))
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read_dir(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(Vec::new())
    }

    fn exists(&self, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for NullFile {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_all_vectored_at(&self, _: &[&[u8]], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self) -> io::Result<Mapped> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

fn payload(len: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_u32;
    let bytes = std::iter::repeat_with(|| {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word.to_be_bytes()[0] | 1
    });
    bytes.take(len).collect()
}

fn batch(first: u64, count: u64, data: &bytes::Bytes) -> Batch {
    let entries = first..first + count;
    Batch {
        ticket: first,
        entries: entries
            .map(|index| Entry {
                term: 1,
                index,
                kind: 0,
                data: data.clone(),
            })
            .collect(),
        must_sync: true,
        ..Batch::default()
    }
}

/// A log and a file of zeros on one disk, each written in its own way.
struct Synced {
    wal: Wal,
    index: u64,
    data: bytes::Bytes,
    bare: Box<dyn File>,
    position: u64,
    /// How long each took, turn by turn.
    append_times: Vec<Duration>,
    bare_times: Vec<Duration>,
}

impl Synced {
    fn new(dir: &Path) -> Synced {
        let disk = Arc::new(RealDisk);
        let bare = disk.open(&dir.join("bare"), OpenMode::Create);
        let bare = bare.expect("the directory is writable");
        let zeros = vec![0; 1 << 20];
        for position in (0..BARE_FILE_BYTES).step_by(zeros.len()) {
            bare.write_all_at(&zeros, position).expect("there is space");
        }
        bare.sync_all().expect("the disk works");
        let wal = Wal::create(disk, &dir.join("wal"), IDENTITY, Options::default());
        Synced {
            wal: wal.expect("the directory is writable"),
            index: 0,
            data: payload(SYNCED_BYTES).into(),
            bare,
            position: 0,
            append_times: Vec::new(),
            bare_times: Vec::new(),
        }
    }

    fn append(&mut self) -> Duration {
        self.index += 1;
        let batch = batch(self.index, 1, &self.data);
        let start = Instant::now();
        let synced = self.wal.append(std::slice::from_ref(&batch));
        let taken = start.elapsed();
        assert_eq!(synced.expect("the disk works").ticket(), self.index);
        if let Some(job) = self.wal.take_prepare_job() {
            let prepared = job.run().expect("there is space");
            self.wal.accept_prepared(prepared);
            self.release();
        }
        self.append_times.push(taken);
        taken
    }

    /// Removes what was written, so that a long run needs little space.
    fn release(&mut self) {
        let mark = Batch {
            ticket: self.index,
            snapshot: Some(SnapshotMark {
                index: self.index,
                term: 1,
            }),
            hard_state: Some(HardState {
                term: 1,
                vote: 0,
                commit: self.index,
            }),
            ..Batch::default()
        };
        let synced = self.wal.append(&[mark]).expect("the disk works");
        self.wal
            .release_to(synced.ticket())
            .expect("the disk works");
    }

    fn write_bare(&mut self) -> Duration {
        let start = Instant::now();
        self.bare
            .write_all_at(&self.data, self.position)
            .and_then(|()| self.bare.sync_data())
            .expect("the disk works");
        let taken = start.elapsed();
        let next = self.position + (SYNCED_BYTES as u64);
        self.position = next % BARE_FILE_BYTES;
        self.bare_times.push(taken);
        taken
    }
}

/// Says how the medians of all turns compare, which a disk whose mood changes between two cases does not touch.
#[expect(
    clippy::print_stderr,
    reason = "criterion compares a case with its own past only"
)]
fn print_comparison(synced: &mut Synced) {
    if synced.bare_times.is_empty() {
        return;
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let append = median(&mut synced.append_times);
    let bare = median(&mut synced.bare_times);
    let ratio = append.as_secs_f64() / bare.as_secs_f64();
    let turns = synced.bare_times.len();
    eprintln!("medians of {turns} turns: append {append:?}, bare write {bare:?}, ratio {ratio:.3}");
}

fn synced_append(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let mut synced = Synced::new(dir.path());
    let mut group = criterion.benchmark_group("wal_synced_4k");
    group.sample_size(50);
    group.measurement_time(Duration::from_secs(8));
    group.bench_function("bare_write_fdatasync", |bencher| {
        bencher.iter_custom(|iterations| {
            let turns = (0..iterations).map(|_| {
                let taken = synced.write_bare();
                synced.append();
                taken
            });
            turns.sum()
        });
    });
    group.bench_function("append", |bencher| {
        bencher.iter_custom(|iterations| {
            let turns = (0..iterations).map(|_| {
                synced.write_bare();
                synced.append()
            });
            turns.sum()
        });
    });
    group.finish();
    print_comparison(&mut synced);
}

fn encode(criterion: &mut Criterion) {
    let data = payload(RECORD_BYTES).into();
    let mut group = criterion.benchmark_group("wal_encode_300b");
    for count in [1, 16, 256] {
        let wal = Wal::create(
            Arc::new(NullDisk),
            Path::new("wal"),
            IDENTITY,
            Options::default(),
        );
        let mut wal = wal.expect("the disk that keeps nothing works");
        let mut index = 1;
        group.throughput(Throughput::Elements(count));
        let id = BenchmarkId::from_parameter(count);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let appends = (0..iterations).map(|_| {
                    let batch = [batch(index, count, &data)];
                    index += count;
                    let start = Instant::now();
                    let synced = wal.append(&batch);
                    let taken = start.elapsed();
                    assert!(synced.is_ok());
                    taken
                });
                appends.sum()
            });
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let (disk, path) = (Arc::new(RealDisk), dir.path().join("wal"));
    let wal = Wal::create(disk.clone(), &path, IDENTITY, Options::default());
    let mut wal = wal.expect("the directory is writable");
    let data = payload(RECORD_BYTES).into();
    for first in (1..=OPENED_RECORDS).step_by(1000) {
        let synced = wal.append(&[batch(first, 1000, &data)]);
        assert!(synced.is_ok());
    }
    drop(wal);
    let mut group = criterion.benchmark_group("wal_open");
    group.sample_size(10);
    group.throughput(Throughput::Elements(OPENED_RECORDS));
    group.bench_function("records_of_300b", |bencher| {
        bencher.iter(|| {
            let opened = Wal::open(disk.clone(), &path, Options::default());
            let (_, recovered) = opened.expect("the log is whole");
            assert_eq!(recovered.entries.len() as u64, OPENED_RECORDS);
        });
    });
    group.finish();
}

criterion_group!(benches, encode, open, synced_append);
criterion_main!(benches);
