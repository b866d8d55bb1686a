//! `snapshot status`: what a backup holds.
//!
//! Source: etcd v3.7.1 `etcdutl/snapshot/v3_snapshot.go` `Status`.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use prost::Message as _;
use quorate_backend::{Revision, Table};
use quorate_core::{ImageError, check_image};
use quorate_disk::RealDisk;
use quorate_proto::mvccpb::KeyValue;
use quorate_snap::{ImageHash, ImageReader};

use crate::failure::{Failure, Outcome};
use crate::print::{Backup, Printer};
use crate::run::Session;
use crate::terminal::print;

/// Bytes of a key's hash that stand for it: so many keys fit in memory, however long they are.
const KEY_HASH_BYTES: usize = 16;

pub(in crate::run) fn status(session: &Session) -> Outcome {
    let [path] = session.args.as_slice() else {
        return Err(Failure::bad_args(
            "snapshot status requires exactly one argument",
        ));
    };
    let printer = Printer::new(
        &session.flags.string("write-out"),
        session.flags.bool("hex"),
    )?;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let backup = examine(path).map_err(|e| Failure::error(e.to_string()))?;
    print(&printer.backup_status(&backup)?);
    Ok(())
}

fn examine(path: &Path) -> Result<Backup, ImageError> {
    let image = ImageReader::open(&RealDisk, path)?;
    check_image(&image)?;
    let mut backup = Backup {
        total_bytes: image.bytes(),
        ..Backup::default()
    };
    let mut live = BTreeSet::new();
    for name in image.buckets() {
        backup.hash = crc32c::crc32c_append(backup.hash, name);
        for row in image.rows(name) {
            let (key, value) = row?;
            backup.hash = crc32c::crc32c_append(backup.hash, &key);
            backup.hash = crc32c::crc32c_append(backup.hash, &value);
            if name == Table::Key.name().as_bytes() {
                // Both were checked to be readable.
                let (revision, tombstone) = Revision::from_table_key(&key).unwrap_or_default();
                let record = KeyValue::decode(value).unwrap_or_default();
                backup.revision = revision.main;
                let key = short_hash(&record.key);
                if tombstone {
                    live.remove(&key);
                } else {
                    live.insert(key);
                }
            } else if name == Table::Meta.name().as_bytes() && key == "storageVersion" {
                backup.version = String::from_utf8_lossy(&value).into_owned();
            }
        }
    }
    backup.total_keys = live.len();
    Ok(backup)
}

fn short_hash(key: &[u8]) -> [u8; KEY_HASH_BYTES] {
    let mut hash = ImageHash::default();
    hash.update(key);
    let mut short = [0; KEY_HASH_BYTES];
    short.copy_from_slice(&hash.finish()[..KEY_HASH_BYTES]);
    short
}
