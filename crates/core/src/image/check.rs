//! Whether an image holds what etcd's buckets hold.
use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{CONSISTENT_INDEX_KEY, Revision, TERM_KEY, Table};
use quorate_proto::etcdserverpb::AlarmMember;
use quorate_proto::{authpb, leasepb, mvccpb};
use quorate_snap::ImageReader;

use super::ImageError;
use crate::{CONF_STATE_KEY, ClusterMember};

pub(super) const STORAGE_VERSION_KEY: &[u8] = b"storageVersion";
/// The newest storage version that is understood.
const STORAGE_VERSION_MAX: (u64, u64) = (3, 7);

/// What an image says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Index of the newest applied entry; 0 when there is none.
    pub consistent_index: u64,
    /// That entry's term.
    pub term: u64,
    /// The newest revision in the table of revisions.
    pub revision: Revision,
    /// Rows in all tables.
    pub rows: u64,
}

/// Reads a whole image and checks its pages and what is in its rows.
///
/// # Errors
/// What is wrong first.
pub fn check_image(image: &ImageReader) -> Result<ImageFacts, ImageError> {
    image.check()?;
    let mut facts = ImageFacts::default();
    for table in tables(image)? {
        for row in image.rows(table.name().as_bytes()) {
            let (key, value) = row?;
            facts.check(table, &key, &value)?;
        }
    }
    Ok(facts)
}

/// Returns the tables that an image has, in order of their names.
pub(super) fn tables(image: &ImageReader) -> Result<Vec<Table>, ImageError> {
    image
        .buckets()
        .map(|name| {
            let table = Table::ALL
                .into_iter()
                .find(|table| table.name().as_bytes() == name);
            let unknown = || ImageError::UnknownBucket(String::from_utf8_lossy(name).into_owned());
            table.ok_or_else(unknown)
        })
        .collect()
}

impl ImageFacts {
    /// Checks a row and takes in what it says.
    pub(super) fn check(
        &mut self,
        table: Table,
        key: &Bytes,
        value: &Bytes,
    ) -> Result<(), ImageError> {
        let damaged = |what| ImageError::Row {
            bucket: table.name().to_owned(),
            what,
        };
        self.rows += 1;
        let whole = match table {
            Table::Key => {
                let (revision, _) =
                    Revision::from_table_key(key).ok_or_else(|| damaged("not a revision"))?;
                // One number with and without a tombstone's mark would be two rows.
                if self.revision >= revision && self.revision != Revision::default() {
                    return Err(damaged("out of order"));
                }
                self.revision = revision;
                mvccpb::KeyValue::decode(value.clone()).is_ok()
            }
            Table::Meta => return self.check_meta(key, value),
            Table::Alarm => AlarmMember::decode(key.clone()).is_ok(),
            Table::AuthRoles => authpb::Role::decode(value.clone()).is_ok(),
            Table::AuthUsers => authpb::User::decode(value.clone()).is_ok(),
            Table::Lease => key.len() == 8 && leasepb::Lease::decode(value.clone()).is_ok(),
            Table::Members => serde_json::from_slice::<ClusterMember>(value).is_ok(),
            Table::MembersRemoved => {
                std::str::from_utf8(key).is_ok_and(|key| u64::from_str_radix(key, 16).is_ok())
            }
            _ => true,
        };
        if whole {
            Ok(())
        } else {
            Err(damaged("not readable"))
        }
    }

    fn check_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), ImageError> {
        let damaged = |what| ImageError::Row {
            bucket: Table::Meta.name().to_owned(),
            what,
        };
        match key {
            CONSISTENT_INDEX_KEY | TERM_KEY => {
                let number: [u8; 8] = value.try_into().map_err(|_| damaged("not a number"))?;
                let number = u64::from_be_bytes(number);
                if key == TERM_KEY {
                    self.term = number;
                } else {
                    self.consistent_index = number;
                }
            }
            STORAGE_VERSION_KEY => {
                let version = std::str::from_utf8(value).map_err(|_| damaged("not a version"))?;
                let minor = minor_version(version).ok_or_else(|| damaged("not a version"))?;
                if minor > STORAGE_VERSION_MAX {
                    return Err(ImageError::NewerStorage(version.to_owned()));
                }
            }
            CONF_STATE_KEY => {
                let read = serde_json::from_slice::<serde_json::Value>(value);
                read.map_err(|_| damaged("not a configuration"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn minor_version(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}
