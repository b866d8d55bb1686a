use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{Applied, Backend, Options, Revision, Table};
use quorate_disk::{Disk, OpenMode, SimDisk, read_exact_at};
use quorate_proto::{leasepb::Lease, mvccpb::KeyValue};
use quorate_snap::{ImageHash, ImageReader, Snapshotter};
use quorate_wal::Wal;

use super::*;

const IMAGE: &str = "/backup";

pub(super) fn new_disk() -> Arc<dyn Disk> {
    let disk = SimDisk::new(3);
    disk.create_dir_all(Path::new("/data")).unwrap();
    Arc::new(disk)
}

fn open(disk: &Arc<dyn Disk>, path: &str) -> Backend {
    Backend::open(Arc::clone(disk), Path::new(path), Options::default()).unwrap()
}

/// A backend with rows in every table, the last of them not flushed.
pub(super) fn sample(disk: &Arc<dyn Disk>) -> Backend {
    let backend = open(disk, "/data/db");
    for index in 5..305_u64 {
        let mut txn = backend.begin_apply(index, 2);
        let main = i64::try_from(index).unwrap();
        let record = KeyValue {
            key: format!("k{}", index % 50).into(),
            value: vec![7; usize::try_from(index * index % 7_000).unwrap()].into(),
            ..KeyValue::default()
        };
        let record = Bytes::from(record.encode_to_vec());
        txn.put_revision(Revision::new(main, 0), false, record.clone());
        txn.put_revision(Revision::new(main, 1), index % 3 == 0, record);
        let lease = Lease {
            id: main,
            ttl: 60,
            ..Lease::default()
        };
        txn.put(
            Table::Lease,
            &main.to_be_bytes(),
            lease.encode_to_vec().into(),
        );
        if index == 300 {
            let put = |txn: &mut quorate_backend::ApplyTxn,
                       table,
                       key: &'static [u8],
                       value: &'static [u8]| {
                txn.put(table, key, Bytes::from_static(value));
            };
            put(&mut txn, Table::Meta, b"storageVersion", b"3.7.0");
            put(
                &mut txn,
                Table::Meta,
                b"confState",
                br#"{"voters":[9],"auto_leave":false}"#,
            );
            put(
                &mut txn,
                Table::Members,
                b"9",
                br#"{"id":9,"peerURLs":["http://old:1"],"name":"old"}"#,
            );
            put(&mut txn, Table::MembersRemoved, b"8", b"removed");
            put(&mut txn, Table::Cluster, b"clusterVersion", b"3.7.0");
            put(&mut txn, Table::Auth, b"authEnabled", b"\x01");
            put(&mut txn, Table::AuthRoles, b"r", b"\x0a\x01r");
            put(&mut txn, Table::AuthUsers, b"u", b"\x0a\x01u");
            put(&mut txn, Table::Alarm, b"\x08\x09\x10\x01", b"");
        }
        txn.commit(index * 11);
        if index == 200 {
            backend.seal().unwrap().run().unwrap();
        }
    }
    backend
}

fn export(backend: &Backend) -> Vec<u8> {
    let mut stream = ImageStream::open(backend.read().unwrap()).unwrap();
    let mut image = Vec::new();
    stream.read_to_end(&mut image).unwrap();
    assert_eq!(u64::try_from(image.len()).unwrap(), stream.image_bytes());
    image
}

fn seal(image: &[u8]) -> Vec<u8> {
    let mut hash = ImageHash::default();
    hash.update(image);
    [image, &hash.finish()].concat()
}

fn store(disk: &dyn Disk, bytes: &[u8]) {
    let file = disk.open(Path::new(IMAGE), OpenMode::CreateOrOpen).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

pub(super) fn all_rows(backend: &Backend) -> Vec<(Table, Bytes, Bytes)> {
    let txn = backend.read().unwrap();
    Table::ALL
        .into_iter()
        .flat_map(|table| {
            let rows = txn.scan(table, std::ops::Bound::Unbounded, 10_000).unwrap();
            rows.into_iter()
                .map(move |(key, value)| (table, key, value))
        })
        .collect()
}

#[test]
fn image_of_a_backend_makes_an_equal_backend() {
    let disk = new_disk();
    let backend = sample(&disk);
    let image = export(&backend);
    assert_eq!(export(&backend), image);
    store(&*disk, &image);
    let reader = ImageReader::open(&*disk, Path::new(IMAGE)).unwrap();
    let facts = check_image(&reader).unwrap();
    let copy = open(&disk, "/data/copy");
    assert_eq!(
        import_image(&reader, &copy, Import::default()).unwrap(),
        facts
    );
    assert_eq!((facts.consistent_index, facts.term), (304, 2));
    assert_eq!(facts.revision, Revision::new(304, 1));
    let expected = Applied {
        index: 304,
        term: 2,
        digest: 0,
    };
    assert_eq!(copy.durable(), expected);
    assert!(all_rows(&copy) == all_rows(&backend));
    assert_eq!(export(&copy), image);
}

#[test]
fn empty_backend_has_an_image_with_all_buckets() {
    let disk = new_disk();
    store(&*disk, &export(&open(&disk, "/data/db")));
    let reader = ImageReader::open(&*disk, Path::new(IMAGE)).unwrap();
    assert_eq!(reader.buckets().count(), Table::COUNT);
    assert_eq!(check_image(&reader).unwrap(), ImageFacts::default());
}

#[test]
fn rows_that_make_no_sense_are_refused() {
    let cases: [(Table, &[u8], &[u8]); 8] = [
        (Table::Meta, b"storageVersion", b"3.8.0"),
        (Table::Meta, b"storageVersion", b"new"),
        (Table::Meta, b"confState", b"{"),
        (Table::Lease, b"1234567", b""),
        (Table::Members, b"9", b"[]"),
        (Table::MembersRemoved, b"x", b"removed"),
        (Table::AuthUsers, b"u", b"\x0a\x09"),
        (Table::Alarm, b"\x08", b""),
    ];
    for (table, key, value) in cases {
        let disk = new_disk();
        let backend = open(&disk, "/data/db");
        let mut txn = backend.begin_apply(1, 1);
        txn.put(table, key, Bytes::from_static(value));
        txn.commit(0);
        store(&*disk, &export(&backend));
        let reader = ImageReader::open(&*disk, Path::new(IMAGE)).unwrap();
        let error = check_image(&reader).unwrap_err();
        let newer = matches!(error, ImageError::NewerStorage(_));
        assert!(newer || matches!(error, ImageError::Row { .. }), "{error}");
        assert_eq!(newer, value == b"3.8.0");
    }
}

fn restore_of_three(name: &str) -> Restore {
    let member = |name: &str, port: u16| FoundingMember {
        name: name.to_owned(),
        peer_urls: vec![format!("http://127.0.0.1:{port}")],
    };
    Restore {
        backup: IMAGE.into(),
        data_dir: "/new/dir".into(),
        name: name.to_owned(),
        members: vec![member("a", 1), member("b", 2), member("c", 3)],
        token: "token".to_owned(),
        ..Restore::default()
    }
}

#[test]
fn restored_directory_has_new_members_and_the_old_rest() {
    let disk = new_disk();
    let old = sample(&disk);
    store(&*disk, &seal(&export(&old)));
    let restore = restore_of_three("b");
    let restored = restore_backup(&disk, &restore).unwrap();
    assert_eq!(restored.revision, 304);

    let backend = open(&disk, "/new/dir/member/snap/quorate.db");
    let identity = backend.identity().unwrap();
    assert_eq!(identity.member_id, restored.member_id.0);
    assert_eq!(identity.cluster_id, restored.cluster_id.0);
    assert_eq!((backend.durable().index, backend.durable().term), (3, 1));
    let is_kept = |row: &(Table, Bytes, Bytes)| {
        !matches!(row.0, Table::Members | Table::MembersRemoved | Table::Meta)
    };
    let kept =
        |backend: &Backend| -> Vec<_> { all_rows(backend).into_iter().filter(is_kept).collect() };
    assert!(kept(&backend) == kept(&old));
    let cluster = crate::Cluster::restore(&backend, 1).unwrap();
    let mut names: Vec<&str> = cluster.members().map(|member| &member.name[..]).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    let txn = backend.read().unwrap();
    assert_eq!(txn.get(Table::MembersRemoved, b"8").unwrap(), None);
    assert_eq!(
        txn.get(Table::Meta, b"storageVersion").unwrap().unwrap(),
        "3.7.0"
    );

    let wal_dir = Path::new("/new/dir/member/wal");
    let options = quorate_wal::Options::default();
    let (_wal, recovered) = Wal::open(Arc::clone(&disk), wal_dir, options).unwrap();
    assert_eq!(recovered.identity.member_id, restored.member_id.0);
    assert_eq!(recovered.snapshot.unwrap().index, 3);
    assert_eq!(
        (recovered.hard_state.term, recovered.hard_state.commit),
        (1, 3)
    );
    assert_eq!(recovered.entries, []);
    let snap_identity = quorate_snap::Identity {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
    };
    let snapshotter = Snapshotter::open(
        Arc::clone(&disk),
        Path::new("/new/dir/member/snap"),
        snap_identity,
    )
    .unwrap();
    let snapshot = snapshotter.load_newest().unwrap().snapshot.unwrap();
    assert_eq!((snapshot.id.term, snapshot.id.index), (1, 3));
    assert!(matches!(
        restore_backup(&disk, &restore),
        Err(ImageError::NotEmpty(_))
    ));
}

#[test]
fn bumped_revision_is_written_and_marked() {
    let disk = new_disk();
    store(&*disk, &export(&sample(&disk)));
    let mut restore = restore_of_three("a");
    restore.skip_hash_check = true;
    restore.bump_revision = Some(1_000);
    restore.wal_dir = Some("/log/here".into());
    assert_eq!(restore_backup(&disk, &restore).unwrap().revision, 1_304);
    let backend = open(&disk, "/new/dir/member/snap/quorate.db");
    let newest = Revision::new(1_304, 0);
    assert_eq!(backend.value(newest).unwrap().unwrap(), "");
    let mark = backend
        .read()
        .unwrap()
        .get(Table::Meta, b"scheduledCompactRev")
        .unwrap()
        .unwrap();
    assert_eq!(mark, newest.table_key(false).as_bytes());
    assert!(disk.exists(Path::new("/log/here")).unwrap());
    restore.data_dir = "/other".into();
    assert!(matches!(
        restore_backup(&disk, &restore),
        Err(ImageError::WalDirExists(_))
    ));
    restore.wal_dir = None;
    restore.bump_revision = Some(u64::MAX);
    assert!(matches!(
        restore_backup(&disk, &restore),
        Err(ImageError::RevisionOverflow)
    ));
    restore.name = "x".to_owned();
    assert!(matches!(
        restore_backup(&disk, &restore),
        Err(ImageError::UnknownMember(_))
    ));
}

/// A backup with a hash: every flipped bit and every cut is refused, and nothing is written. faults.md D4.
#[test]
fn damaged_backups_leave_nothing_behind() {
    let disk = new_disk();
    let backend = open(&disk, "/data/db");
    let mut txn = backend.begin_apply(1, 1);
    txn.put(
        Table::Cluster,
        b"clusterVersion",
        Bytes::from_static(b"3.7.0"),
    );
    txn.commit(0);
    let whole = seal(&export(&backend));
    let restore = restore_of_three("a");
    let refuse = |bytes: &[u8], what: &str| {
        store(&*disk, bytes);
        assert!(restore_backup(&disk, &restore).is_err(), "{what}");
        assert!(!disk.exists(Path::new("/new")).unwrap(), "{what}");
    };
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        refuse(&bad, &format!("byte {at}"));
    }
    for len in (0..whole.len()).step_by(511) {
        refuse(&whole[..len], &format!("length {len}"));
    }
    refuse(&[&whole[..], b"more"].concat(), "longer");
    store(&*disk, &whole);
    restore_backup(&disk, &restore).unwrap();
    let mut stored = vec![0; whole.len()];
    let file = disk.open(Path::new(IMAGE), OpenMode::Read).unwrap();
    read_exact_at(&*file, &mut stored, 0).unwrap();
    assert!(stored == whole);
}
