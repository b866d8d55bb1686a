//! Restored directories, looked into: ours beside those that etcdutl makes of the same backup.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, as its body does"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Read as _;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{Backend, Options, ReadTxn, Revision, Table};
use quorate_core::{ImageHash, ImageStream};
use quorate_disk::RealDisk;
use quorate_proto::mvccpb::KeyValue;
use quorate_snap::ImageReader;

const CLUSTER: &str =
    "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,b=http://b.example:2380,c=https://10.0.0.3:2380";
const MEMBERS: [(&str, &str); 3] = [
    ("a", "http://10.0.0.1:2380"),
    ("b", "http://b.example:2380,http://10.0.0.2:2380"),
    ("c", "https://10.0.0.3:2380"),
];

type Rows = BTreeMap<(Table, Bytes), Bytes>;

fn open(path: &Path) -> ReadTxn {
    let backend = Backend::open(Arc::new(RealDisk), path, Options::default()).unwrap();
    backend.read().unwrap()
}

/// Makes a backup of a cluster of one that had another member before.
fn make_backup(dir: &Path) -> PathBuf {
    let path = dir.join("old.db");
    let backend = Backend::open(Arc::new(RealDisk), &path, Options::default()).unwrap();
    let mut txn = backend.begin_apply(90, 7);
    for main in 2..60 {
        let record = KeyValue {
            key: format!("key {}", main % 9).into(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: vec![b'v'; 300].into(),
            lease: 0,
        };
        txn.put_revision(Revision::new(main, 0), false, record.encode_to_vec().into());
    }
    for (table, key, value) in [
        (Table::Cluster, "clusterVersion", "3.7.0"),
        (Table::Meta, "storageVersion", "3.7.0"),
        (
            Table::Meta,
            "confState",
            r#"{"voters":[17],"auto_leave":false}"#,
        ),
        (
            Table::Members,
            "11",
            r#"{"id":17,"peerURLs":["http://old:1"],"name":"old"}"#,
        ),
        (Table::MembersRemoved, "12", "removed"),
    ] {
        txn.put(table, key.as_bytes(), Bytes::from_static(value.as_bytes()));
    }
    txn.commit(5);
    let mut image = Vec::new();
    let mut stream = ImageStream::open(backend.read().unwrap()).unwrap();
    stream.read_to_end(&mut image).unwrap();
    let mut hash = ImageHash::default();
    hash.update(&image);
    image.extend(hash.finish());
    let backup = dir.join("backup");
    fs::write(&backup, image).unwrap();
    backup
}

fn restore(program: &Path, backup: &Path, data_dir: &Path, (name, urls): (&str, &str)) {
    let output = Command::new(program)
        .args(["snapshot", "restore"])
        .arg(backup)
        .arg("--data-dir")
        .arg(data_dir)
        .args([
            "--initial-cluster",
            CLUSTER,
            "--initial-cluster-token",
            "new",
        ])
        .args(["--name", name, "--initial-advertise-peer-urls", urls])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

fn rows_of_quorate(data_dir: &Path) -> Rows {
    let txn = open(&data_dir.join("member/snap/quorate.db"));
    let mut rows = Rows::new();
    for table in Table::ALL {
        for (key, value) in txn.scan(table, Bound::Unbounded, 10_000).unwrap() {
            rows.insert((table, key), value);
        }
    }
    rows
}

fn rows_of_etcd(data_dir: &Path) -> Rows {
    let image = ImageReader::open(&RealDisk, &data_dir.join("member/snap/db")).unwrap();
    image.check().unwrap();
    let mut rows = Rows::new();
    for table in Table::ALL {
        for row in image.rows(table.name().as_bytes()) {
            let (key, value) = row.unwrap();
            rows.insert((table, key), value);
        }
    }
    rows
}

fn text(rows: &Rows, table: Table, key: &'static str) -> String {
    let value = rows.get(&(table, Bytes::from_static(key.as_bytes())));
    String::from_utf8_lossy(value.map_or(&[], |value| value)).into_owned()
}

fn members(rows: &Rows) -> Vec<String> {
    let members = rows
        .iter()
        .filter(|((table, _), _)| *table == Table::Members);
    members
        .map(|((_, key), value)| {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            format!("{key} {value}")
        })
        .collect()
}

#[test]
fn members_are_replaced_in_each_directory_of_the_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let backup = make_backup(dir.path());
    let program = Path::new(env!("CARGO_BIN_EXE_quoratectl"));
    let mut all: Vec<Rows> = Vec::new();
    for member in MEMBERS {
        let data_dir = dir.path().join(member.0);
        restore(program, &backup, &data_dir, member);
        all.push(rows_of_quorate(&data_dir));
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    let rows = &all[0];
    assert_eq!(members(rows).len(), 3);
    assert!(members(rows)[0].contains(r#""name":""#));
    assert!(
        !rows
            .keys()
            .any(|(table, _)| *table == Table::MembersRemoved)
    );
    assert_eq!(
        text(rows, Table::Meta, "consistent_index"),
        "\0\0\0\0\0\0\0\x03"
    );
    assert_eq!(text(rows, Table::Meta, "term"), "\0\0\0\0\0\0\0\x01");
    assert!(text(rows, Table::Meta, "confState").starts_with(r#"{"voters":["#));
    assert_eq!(text(rows, Table::Cluster, "clusterVersion"), "3.7.0");
    assert_eq!(
        rows.keys()
            .filter(|(table, _)| *table == Table::Key)
            .count(),
        58
    );
    like_etcd(dir.path(), &backup, &all);
}

/// Compares with what etcdutl makes of the same backup, where there is one.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn like_etcd(dir: &Path, backup: &Path, ours: &[Rows]) {
    let Some(etcd) = env::var_os("QUORATE_REFERENCE_ETCD") else {
        eprintln!(
            "skipped: QUORATE_REFERENCE_ETCD does not name an etcd 3.7.1 with its etcdutl beside it"
        );
        return;
    };
    let etcdutl = Path::new(&etcd).with_file_name("etcdutl");
    for (member, ours) in MEMBERS.into_iter().zip(ours) {
        let data_dir = dir.join(format!("etcd-{}", member.0));
        restore(&etcdutl, backup, &data_dir, member);
        let mut theirs = rows_of_etcd(&data_dir);
        let mut ours = ours.clone();
        // etcd leaves the old cluster's configuration there and makes it anew from the members when it starts.
        let conf_state = (Table::Meta, Bytes::from_static(b"confState"));
        theirs.remove(&conf_state).unwrap();
        ours.remove(&conf_state).unwrap();
        assert_eq!(members(&ours), members(&theirs));
        assert!(ours == theirs, "{:?}\n{:?}", ours.keys(), theirs.keys());
    }
}

#[test]
fn the_database_of_a_stopped_member_is_defragmented() {
    let dir = tempfile::tempdir().unwrap();
    let snap = dir.path().join("member/snap");
    fs::create_dir_all(&snap).unwrap();
    let path = snap.join("quorate.db");
    let backend = Backend::open(Arc::new(RealDisk), &path, Options::default()).unwrap();
    let mut txn = backend.begin_apply(9, 1);
    for main in 2..2_000 {
        txn.put_revision(Revision::new(main, 0), false, vec![b'v'; 4_000].into());
    }
    txn.commit(1);
    backend.seal().unwrap().run().unwrap();
    let mut txn = backend.maintenance().unwrap();
    for main in 2..1_990 {
        txn.delete_revision(Revision::new(main, 0), false);
    }
    txn.commit().unwrap();
    let before = backend.sizes().file_bytes;
    let run = || {
        let mut defrag = Command::new(env!("CARGO_BIN_EXE_quoratectl"));
        defrag.arg("defrag").arg("--data-dir").arg(dir.path());
        defrag.output().unwrap()
    };
    let refused = run();
    assert!(!refused.status.success());
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("is in use by another process"), "{errors}");
    drop(backend);
    let done = run();
    assert!(done.status.success(), "{done:?}");
    assert!(
        done.stdout
            .starts_with(b"Finished defragmenting directory[")
    );
    let backend = Backend::open(Arc::new(RealDisk), &path, Options::default()).unwrap();
    let after = backend.sizes();
    assert!(after.file_bytes * 4 < before, "{before}, then {after:?}");
    assert_eq!(after.total_bytes, after.in_use_bytes);
    assert!(backend.value(Revision::new(1_995, 0)).unwrap().is_some());
}
