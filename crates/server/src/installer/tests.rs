//! Snapshots on their way into a data directory, with the power cut before every operation of the disk.
//!
//! Rows of faults.md: C7 and N6; of its known defects 9 and 10 (what a start finds right after an install) and 18 (two in a row).
use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{Backend, Revision, Table};
use quorate_core::{
    CONF_STATE_KEY, Filling, ImageHash, ImageStream, StateReader, StateStream, image_file,
};
use quorate_disk::{CrashPolicy, Disk, SimDisk};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::raftpb::{Snapshot as RaftSnapshot, SnapshotMetadata};
use quorate_snap::{Snapshot, SnapshotId};
use quorate_wal::{Batch, HardState, SnapshotMark};

use super::*;
use crate::bootstrap::{self, Opened, Options, Start};

pub(crate) const SNAP_DIR: &str = "/data/member/snap";
const OLD: u64 = 1;
pub(crate) const FIRST: u64 = 50;
pub(crate) const SECOND: u64 = 70;
const TERM: u64 = 3;
/// Rows of a state: enough for several pages.
const ROWS: i64 = 60;

pub(crate) type Rows = Vec<(Table, Bytes, Bytes)>;

pub(crate) fn options() -> Options {
    Options {
        data_dir: "/data".into(),
        wal_dir: None,
        start: Start::found([("a", vec!["http://a:1".to_owned()])], "token", "a"),
        alone: false,
        wal: quorate_wal::Options {
            segment_bytes: 1 << 15,
            ..quorate_wal::Options::default()
        },
        backend: quorate_backend::Options {
            page_cache_bytes: 1 << 20,
            value_cache_bytes: 1 << 16,
            ..quorate_backend::Options::default()
        },
        recovery: recovery::Options {
            kv: quorate_mvcc::Options::default(),
            lease: quorate_lease::Options {
                min_ttl_s: 1,
                revoke_retry_ms: 1_000,
                ..quorate_lease::Options::default()
            },
            auth: quorate_auth::Options {
                bcrypt_cost: 4,
                token_provider: quorate_auth::TokenProvider::Noop,
            },
            max_learners: 1,
        },
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<Opened, bootstrap::Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    bootstrap::open(&disk, &options())
}

/// Brings a backend to the state of an entry, which no other entry has.
fn apply(backend: &Backend, index: u64, term: u64) {
    let mut txn = backend.begin_apply(index, term);
    let first = i64::try_from(index).unwrap() * 100;
    for main in first..first + ROWS {
        let record = KeyValue {
            key: format!("k{}", main % 20).into(),
            value: vec![u8::try_from(index).unwrap(); 300].into(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            ..KeyValue::default()
        };
        let record = Bytes::from(record.encode_to_vec());
        txn.put_revision(Revision::new(main, 0), false, record);
    }
    let voter = options().start.identity().unwrap().member_id;
    let conf_state = format!(r#"{{"voters":[{voter}],"auto_leave":false}}"#);
    txn.put(Table::Meta, CONF_STATE_KEY, conf_state.into());
    // What every start makes sure of.
    let auth_revision = Bytes::copy_from_slice(&1_u64.to_be_bytes());
    txn.put(Table::Auth, b"authRevision", auth_revision);
    txn.commit(index * 7);
    backend.seal().unwrap().run().unwrap();
}

pub(crate) fn rows(backend: &Backend) -> Rows {
    let txn = backend.read().unwrap();
    let of = |table| {
        let rows = txn.scan(table, Bound::Unbounded, 10_000).unwrap();
        rows.into_iter()
            .map(move |(key, value)| (table, key, value))
    };
    let digest = |row: &(Table, Bytes, Bytes)| row.1 != quorate_core::DIGEST_KEY;
    Table::ALL.into_iter().flat_map(of).filter(digest).collect()
}

/// How a state travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Image,
    State,
}

/// The leader's state at an entry: its rows and what is sent of it.
pub(crate) fn state_of_leader(index: u64, form: Form) -> (Rows, Vec<u8>) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2));
    disk.create_dir_all(Path::new("/leader")).unwrap();
    let path = Path::new("/leader/db");
    let backend = Backend::open(disk, path, options().backend).unwrap();
    apply(&backend, index, TERM);
    let mut sent = Vec::new();
    let txn = backend.read().unwrap();
    let read = match form {
        Form::Image => ImageStream::open_for_member(txn)
            .unwrap()
            .read_to_end(&mut sent),
        Form::State => StateStream::new(txn).read_to_end(&mut sent),
    };
    read.unwrap();
    (rows(&backend), sent)
}

/// An image as it is stored.
pub(crate) fn sealed(image: &[u8]) -> Vec<u8> {
    [image, &ImageHash::of(image)].concat()
}

/// What may be found after a crash.
struct World {
    /// A member with an old state.
    disk: SimDisk,
    states: BTreeMap<u64, Rows>,
    form: Form,
    /// What was sent of them.
    sent: BTreeMap<u64, Vec<u8>>,
}

impl World {
    fn new(form: Form) -> Self {
        let disk = SimDisk::new(1);
        let opened = open(&disk).unwrap();
        apply(&opened.stores.backend, OLD, 1);
        let mut states = BTreeMap::from([(OLD, rows(&opened.stores.backend))]);
        let mut sent = BTreeMap::new();
        drop(opened);
        for index in [FIRST, SECOND] {
            let (rows, bytes) = state_of_leader(index, form);
            states.insert(index, rows);
            sent.insert(index, bytes);
        }
        Self {
            disk: disk.crash(&CrashPolicy::KeepAll),
            states,
            form,
            sent,
        }
    }

    /// Starts a member and has it install the snapshots, one behind the other, as the engine does. The power goes off before
    /// some operation. Returns the disk, the index of the newest snapshot whose mark is durable, and whether all was done.
    fn install(&self, off_at: Option<u64>) -> (SimDisk, u64, Result<(), String>) {
        let disk = self.disk.crash(&CrashPolicy::KeepAll);
        let mut opened = open(&disk).unwrap();
        let path = |index: u64| Path::new(SNAP_DIR).join(image_file(index));
        // The second one comes while the first is not installed yet. The leader said an older index than its images have.
        for (index, image) in self.sent.iter().filter(|_| self.form == Form::Image) {
            disk.poke(&path(index - 3), sealed(image)).unwrap();
        }
        if let Some(off_at) = off_at {
            disk.power_off_at(disk.operations() + off_at);
        }
        let installer = Installer {
            place: Arc::new(opened.place.clone()),
            recovery: Arc::new(options().recovery),
            queue: Queue::default(),
            metrics: Metrics::new(),
            passed: Arc::default(),
        };
        let mut arrived = BTreeMap::new();
        if self.form == Form::State {
            for (index, state) in &self.sent {
                match receive(&opened.place, *index, state) {
                    Ok(path) => arrived.insert(*index, path),
                    Err(why) => return (disk, OLD, Err(why)),
                };
            }
        }
        let mut marked = OLD;
        let done = self.sent.keys().try_for_each(|index| {
            let mut message = message_of(*index - 3);
            let stored = arrived.get(index).cloned();
            let image = stored.unwrap_or_else(|| path(*index - 3));
            installer.place.align(&mut message, &image)?;
            assert_eq!(index_of(&message), *index);
            save(&mut opened, *index)?;
            marked = *index;
            let stores = installer.restore(*index)?;
            assert_eq!(stores.backend.applied().index, *index);
            assert_eq!(stores.backend.applied().digest, *index * 7);
            opened.stores = stores;
            Ok(())
        });
        (disk, marked, done)
    }

    /// Starts a member after a crash: it must have the state of the newest mark, or a newer one if that was under way.
    fn check(&self, disk: &SimDisk, marked: u64) {
        let opened = open(disk).unwrap();
        let backend = &opened.stores.backend;
        let index = backend.durable().index;
        assert!(index >= marked, "{index} after the mark of {marked}");
        let found = rows(backend);
        let expected = self.states.get(&index).expect("a state");
        let other: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
        assert!(
            other.is_empty() && missing.is_empty(),
            "{index}: {other:?} instead of {missing:?}"
        );
        let names = disk.read_dir(Path::new(SNAP_DIR)).unwrap();
        for name in names {
            let name = name.to_string_lossy().into_owned();
            let is_known = name == "quorate.db" || name.ends_with(".snap");
            assert!(is_known, "{name} is left over");
        }
        assert_eq!(opened.log.snapshot.index.max(OLD), index);
    }
}

/// Makes a database of a state as it comes.
fn receive(place: &Place, number: u64, state: &[u8]) -> Result<PathBuf, String> {
    let text = |e: quorate_core::ImageError| e.to_string();
    let filling = Filling::begin(&place.disk, &place.snap_dir, number, place.options);
    let filling = filling.map_err(text)?;
    let mut reader = StateReader::default();
    reader.push(state);
    while let Some(rows) = reader.batch().map_err(text)? {
        filling.append(&rows).map_err(text)?;
    }
    let (rows, state) = reader.finish().map_err(text)?;
    filling.append(&rows).map_err(text)?;
    filling.keep(state).map_err(text)
}

fn message_of(index: u64) -> Message {
    Message {
        snapshot: Some(RaftSnapshot {
            data: None,
            metadata: Some(SnapshotMetadata {
                conf_state: None,
                index: Some(index),
                term: Some(TERM),
            }),
        }),
        ..Message::default()
    }
}

fn index_of(message: &Message) -> u64 {
    let snapshot = message.snapshot.as_ref();
    let metadata = snapshot.and_then(|s| s.metadata.as_ref());
    metadata.unwrap().index()
}

/// Saves a snapshot's file and puts its mark into the log.
fn save(opened: &mut Opened, index: u64) -> Result<(), String> {
    let id = SnapshotId { term: TERM, index };
    let snapshot = Snapshot {
        id,
        body: Bytes::from_static(b"body"),
    };
    let saved = opened.snapshotter.save(&snapshot);
    saved.map_err(|e| e.to_string())?;
    let batch = Batch {
        hard_state: Some(HardState {
            term: TERM,
            vote: 0,
            commit: index,
        }),
        snapshot: Some(SnapshotMark { index, term: TERM }),
        ..Batch::default()
    };
    let _synced = opened.wal.append(&[batch]).map_err(|e| e.to_string())?;
    Ok(())
}

#[test]
fn a_wrong_bit_in_a_stored_image_is_noticed_and_changes_nothing() {
    let world = World::new(Form::Image);
    let (index, image) = world.sent.first_key_value().unwrap();
    let good = sealed(image);
    for position in (0..good.len()).step_by(good.len() / 50) {
        let disk = world.disk.crash(&CrashPolicy::KeepAll);
        let opened = open(&disk).unwrap();
        let mut bad = good.clone();
        bad[position] ^= 1 << (position % 8);
        let path = Path::new(SNAP_DIR).join(image_file(*index));
        disk.poke(&path, bad).unwrap();
        let before = rows(&opened.stores.backend);
        assert!(opened.place.install(*index).is_err(), "byte {position}");
        drop(opened);
        assert_eq!(rows(&open(&disk).unwrap().stores.backend), before);
    }
}

#[test]
fn power_cut_at_any_operation_leaves_one_whole_state_and_nothing_else() {
    for form in [Form::Image, Form::State] {
        sweep(&World::new(form));
    }
}

fn sweep(world: &World) {
    let (disk, marked, done) = world.install(None);
    done.unwrap();
    world.check(&disk.crash(&CrashPolicy::KeepNone), marked);
    let mut found = BTreeMap::new();
    for off_at in 0.. {
        let (disk, marked, done) = world.install(Some(off_at));
        *found.entry(marked).or_insert(0) += 1;
        for policy in [CrashPolicy::KeepNone, CrashPolicy::Seeded(off_at)] {
            world.check(&disk.crash(&policy), marked);
        }
        if done.is_ok() {
            break;
        }
    }
    // The sweep has seen all stages.
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn power_cut_at_any_operation_of_the_start_that_finishes_an_install_is_made_up_for() {
    for form in [Form::Image, Form::State] {
        sweep_of_start(&World::new(form));
    }
}

fn sweep_of_start(world: &World) {
    // The first moment at which the mark of the second snapshot is durable: its image waits for the start.
    let (disk, ..) = (0..)
        .map(|off_at| world.install(Some(off_at)))
        .find(|(_, marked, _)| *marked == SECOND)
        .unwrap();
    for off_at in 0.. {
        let again = disk.crash(&CrashPolicy::KeepNone);
        again.power_off_at(off_at);
        let is_open = open(&again).is_ok();
        for policy in [CrashPolicy::KeepNone, CrashPolicy::Seeded(off_at)] {
            world.check(&again.crash(&policy), SECOND);
        }
        if is_open {
            break;
        }
    }
}
