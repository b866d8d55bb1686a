//! Arrivals whole, cut short, dropped, overtaken and on a disk that fails.
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use quorate_backend::Backend;
use quorate_disk::{CrashPolicy, Disk, Fault, OperationKind, SimDisk};
use quorate_proto::raftpb::{Message, Snapshot, SnapshotMetadata};

use super::*;
use crate::installer::tests::{
    FIRST, Form as SentForm, Rows, SECOND, SNAP_DIR, open, options, rows, sealed, state_of_leader,
};
use crate::metrics::Metrics;
use crate::queue::{Event, Queue, Taken};

/// A member that snapshots come to: states onto a simulated disk, images into a directory.
struct World {
    disk: SimDisk,
    installer: Installer,
    images: tempfile::TempDir,
    arrivals: Arrivals,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let place = open(&disk).unwrap().place;
        let installer = Installer {
            place: Arc::new(place),
            recovery: Arc::new(options().recovery),
            queue: Queue::default(),
            metrics: Metrics::new(),
            passed: Arc::default(),
        };
        let images = tempfile::tempdir().unwrap();
        let directory = ImageDirectory::open(images.path()).unwrap();
        let arrivals = Arrivals::new(directory, installer.clone());
        Self {
            disk,
            installer,
            images,
            arrivals,
        }
    }

    fn arrive(&self, bytes: &[u8], index: u64) -> io::Result<PathBuf> {
        let mut arrival = self.arrivals.create()?;
        for piece in bytes.chunks(1_000) {
            arrival.append(piece)?;
        }
        arrival.keep(index)
    }

    /// What there is of received states.
    fn states(&self) -> Vec<String> {
        let text = |name: &OsString| name.to_string_lossy().into_owned();
        let names = self.disk.read_dir(Path::new(SNAP_DIR)).unwrap();
        let names = names.iter().map(text);
        names.filter(|name| name.contains(".state.db")).collect()
    }

    fn shown(&self) -> String {
        let mut text = quorate_rpc::Text::default();
        self.installer.metrics.render(&mut text);
        text.finish()
    }

    /// So many were made durable, and so many of them were whole.
    fn assert_measured(&self, synced: u64, saved: u64) {
        let shown = self.shown();
        for line in [
            format!("etcd_snap_db_fsync_duration_seconds_count {synced}"),
            format!("etcd_snap_db_save_total_duration_seconds_count {saved}"),
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}");
        }
    }

    fn images(&self) -> usize {
        std::fs::read_dir(self.images.path()).unwrap().count()
    }

    /// Nothing is left of what arrived, and nobody works on it.
    fn assert_clean(&self, what: &str) {
        assert_eq!(self.states(), [""; 0], "{what}");
        assert_eq!(self.images(), 0, "{what}");
        assert!(self.installer.passed.lock().is_none(), "{what}");
        // This one's and that of the arrivals.
        assert_eq!(Arc::strong_count(&self.installer.place), 2, "{what}");
    }
}

fn state(index: u64) -> (Rows, Vec<u8>) {
    state_of_leader(index, SentForm::State)
}

fn received(index: u64) -> String {
    quorate_core::received_file(index)
}

#[test]
fn state_becomes_a_database_with_its_key_index_and_an_image_is_stored() {
    let world = World::new();
    let (rows_sent, sent) = state(FIRST);
    let path = world.arrive(&sent, FIRST - 3).unwrap();
    assert_eq!(path, Path::new(SNAP_DIR).join(received(FIRST)));
    let position = world.installer.place.received_position(&path).unwrap();
    assert_eq!(position.index, FIRST);
    let crashed: Arc<dyn Disk> = Arc::new(world.disk.crash(&CrashPolicy::KeepNone));
    let options = world.installer.place.options;
    let backend = Backend::open(crashed, &path, options).unwrap();
    assert!(
        rows(&backend) == rows_sent,
        "durable before anybody is told"
    );
    assert!(world.installer.take_passed(FIRST - 3).is_none());
    assert!(world.installer.take_passed(FIRST).is_some());
    assert_eq!(world.images(), 0);

    let (_, image) = state_of_leader(SECOND, SentForm::Image);
    let path = world.arrive(&image, SECOND).unwrap();
    assert_eq!(path.parent(), Some(world.images.path()));
    assert!(std::fs::read(path).unwrap() == sealed(&image));
    assert!(world.installer.take_passed(SECOND).is_none());
    assert_eq!(world.states(), [received(FIRST)]);
    world.assert_measured(2, 2);
}

#[test]
fn installation_is_shown_until_it_was_handled() {
    let world = World::new();
    let is_shown = |count: u8| {
        let line = format!("etcd_server_snapshot_apply_in_progress_total {count}");
        world.shown().lines().any(|shown| shown == line)
    };
    world.arrive(&state(FIRST).1, FIRST).unwrap();
    assert!(is_shown(0));
    world.installer.install(FIRST);
    let mut taken = Taken::default();
    let far = world.installer.metrics.clock() + Duration::from_secs(60);
    world.installer.queue.take(far, false, &mut taken);
    assert!(is_shown(1));
    let Some(Event::Installed(stores)) = taken.events.pop() else {
        panic!("not installed");
    };
    world.installer.close(*stores);
    assert!(is_shown(0));
}

#[test]
fn few_bytes_are_an_image_and_a_state_of_another_version_is_refused() {
    let world = World::new();
    let mut arrival = world.arrivals.create().unwrap();
    for piece in [&b"QUO"[..], b"", b"RR"] {
        arrival.append(piece).unwrap();
    }
    let path = arrival.keep(7).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), sealed(b"QUORR"));
    std::fs::remove_file(path).unwrap();

    let (_, mut newer) = state(FIRST);
    newer[7] = 2;
    let refused = world.arrive(&newer, FIRST).unwrap_err().to_string();
    assert!(refused.contains("not a state that is known"), "{refused}");
    world.assert_clean("another version");
}

#[test]
fn state_that_breaks_off_or_is_too_old_is_refused_before_it_is_acknowledged() {
    let world = World::new();
    let (_, sent) = state(FIRST);
    for cut in [7, 8, 100, sent.len() / 2, sent.len() - 1] {
        let refused = world.arrive(&sent[..cut], FIRST).unwrap_err().to_string();
        assert!(refused.contains("cut short"), "{cut}: {refused}");
        world.assert_clean("cut short");
        let mut dropped = world.arrivals.create().unwrap();
        dropped.append(&sent[..cut]).unwrap();
        drop(dropped);
        world.assert_clean("dropped");
    }
    let refused = world.arrive(&sent, FIRST + 1).unwrap_err().to_string();
    assert!(refused.contains("older than its message"), "{refused}");
    world.assert_clean("too old");
    world.assert_measured(0, 0);
    world.arrive(&sent, FIRST).unwrap();
    world.arrive(&sent, FIRST).unwrap_err();
    world.assert_measured(2, 1);
}

#[test]
fn state_that_begins_to_arrive_ends_those_under_way() {
    let world = World::new();
    let ((_, first), (_, second)) = (state(FIRST), state(SECOND));
    let mut older = world.arrivals.create().unwrap();
    older.append(&first[..first.len() / 2]).unwrap();
    let mut image = world.arrivals.create().unwrap();
    image.append(&[0; 100]).unwrap();
    let mut newer = world.arrivals.create().unwrap();
    newer.append(&second[..100]).unwrap();
    let ended = older.append(&first[first.len() / 2..]).unwrap_err();
    assert!(ended.to_string().contains("another snapshot"), "{ended}");
    drop(older);
    newer.append(&second[100..]).unwrap();
    newer.keep(SECOND).unwrap();
    assert_eq!(world.states(), [received(SECOND)]);
    assert!(world.installer.take_passed(SECOND).is_some());
    image.append(b"more").unwrap();
    assert!(image.keep(9).is_ok(), "images do not mind");
}

#[test]
fn key_index_goes_with_no_database_but_its_own() {
    let world = World::new();
    let ((_, first), (_, second)) = (state(FIRST), state(SECOND));
    world.arrive(&first, FIRST).unwrap();
    // The one that is there is somebody's, and its index belongs to it.
    let refused = world.arrive(&first, FIRST).unwrap_err().to_string();
    assert!(refused.contains(&received(FIRST)), "{refused}");
    assert_eq!(world.states(), [received(FIRST)]);
    assert!(world.installer.take_passed(FIRST).is_some());

    world.arrive(&second, SECOND).unwrap();
    assert!(world.installer.take_passed(FIRST).is_none());
    world.installer.remove(SECOND);
    assert!(world.installer.take_passed(SECOND).is_none());
    assert_eq!(world.states(), [received(FIRST)]);

    // A message that asks for more than it brings is refused, and what came with it goes.
    let path = world.arrive(&second, SECOND).unwrap();
    let metadata = SnapshotMetadata {
        index: Some(SECOND + 1),
        ..SnapshotMetadata::default()
    };
    let mut message = Message {
        snapshot: Some(Snapshot {
            data: None,
            metadata: Some(metadata),
        }),
        ..Message::default()
    };
    world.installer.take_in(&mut message, &path).unwrap_err();
    assert!(world.installer.take_passed(SECOND).is_none());
    assert_eq!(world.states(), [received(FIRST)]);
}

#[test]
fn disk_that_fails_or_is_full_at_any_operation_leaves_a_durable_database_or_none() {
    let (rows_sent, sent) = state(FIRST);
    for fault in [Fault::Fail, Fault::NoSpace] {
        let mut refused = 0;
        for at in 0.. {
            let world = World::new();
            world.disk.inject(world.disk.operations() + at, fault);
            let arrived = world.arrive(&sent, FIRST);
            let was_hit = world.disk.operations() > at;
            world.disk.clear_faults();
            if let Ok(path) = &arrived {
                let crashed: Arc<dyn Disk> = Arc::new(world.disk.crash(&CrashPolicy::KeepNone));
                let options = world.installer.place.options;
                let backend = Backend::open(crashed, path, options).unwrap();
                assert!(rows(&backend) == rows_sent, "{fault:?} at {at}");
            } else {
                refused += 1;
                world.assert_clean("after a fault");
            }
            if arrived.is_ok() && at > 200 || !was_hit {
                break;
            }
        }
        assert!(refused > 10, "{refused}");
    }
}

#[test]
fn sync_that_fails_while_a_database_is_filled_is_its_end() {
    let world = World::new();
    let place = &world.installer.place;
    let (_, sent) = state(FIRST);
    let mut reader = StateReader::default();
    reader.push(&sent);
    assert!(reader.batch().unwrap().is_none());
    let (all, _) = reader.finish().unwrap();
    let filling = Filling::begin(&place.disk, &place.snap_dir, 1, place.options).unwrap();
    world
        .disk
        .set_rate(OperationKind::Sync, Fault::Fail, 1_000_000);
    let (to_filler, batches) = sync_channel(all.len());
    for row in all {
        to_filler.send(vec![row]).unwrap();
    }
    drop(to_filler);
    let failed = fill(&filling, &world.installer.recovery.kv, &batches).unwrap_err();
    assert!(
        matches!(
            &failed,
            ImageError::Backend(quorate_backend::Error::Io { .. })
        ),
        "the reason is the disk: {failed}"
    );
    world.disk.clear_faults();
    // A sync that succeeds now says nothing of what was written before.
    filling.backend().begin_apply(FIRST, 3).commit(0);
    filling.backend().seal().unwrap().run().unwrap_err();
}
