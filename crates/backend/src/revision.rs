//! Revisions and their table keys.

use bytes::Bytes;
use std::fmt;

/// Names one change of one key: the transaction it belongs to, and its place inside that.
///
/// Revisions order by `main`, then `sub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// Number of the transaction. **Invariant:** `main >= 0` in everything stored.
    pub main: i64,
    /// Place of the change inside the transaction, from 0. **Invariant:** `sub >= 0` in everything stored.
    pub sub: i64,
}

/// One row of [`Table::Key`](crate::Table::Key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// The revision.
    pub rev: Revision,
    /// Whether the revision deleted its key.
    pub tombstone: bool,
    /// The encoded `KeyValue`; of a tombstone it has only the key.
    pub record: Bytes,
}

/// The table key of a revision, without an allocation.
///
/// **Shape**, 17 bytes, 18 for a tombstone:
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 8 | `main`, big endian |
/// | 8 | 1 | `_` |
/// | 9 | 8 | `sub`, big endian |
/// | 17 | 1 | `t`, tombstones only |
///
/// Byte order is revision order as long as both numbers are not negative.
///
/// Source: etcd 3.7.1 `server/storage/mvcc/revision.go` `BucketKey`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RevisionKey {
    bytes: [u8; TOMBSTONE_KEY_BYTES],
    tombstone: bool,
}

const KEY_BYTES: usize = 17;
const TOMBSTONE_KEY_BYTES: usize = 18;
const SEPARATOR: u8 = b'_';
const TOMBSTONE_MARK: u8 = b't';

impl Revision {
    /// The smallest revision that can be stored.
    pub const MIN: Revision = Revision { main: 0, sub: 0 };
    /// The largest revision that can be stored.
    pub const MAX: Revision = Revision {
        main: i64::MAX,
        sub: i64::MAX,
    };

    /// Makes a revision.
    #[must_use]
    pub const fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    /// Encodes the revision as a table key.
    #[must_use]
    pub fn table_key(self, tombstone: bool) -> RevisionKey {
        let mut bytes = [0; TOMBSTONE_KEY_BYTES];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8] = SEPARATOR;
        bytes[9..KEY_BYTES].copy_from_slice(&self.sub.to_be_bytes());
        bytes[KEY_BYTES] = TOMBSTONE_MARK;
        RevisionKey { bytes, tombstone }
    }

    /// Decodes a table key to the revision and whether it is a tombstone's; `None` when the bytes are not a table key.
    #[must_use]
    pub fn from_table_key(key: &[u8]) -> Option<(Revision, bool)> {
        let (head, tombstone) = match key.len() {
            KEY_BYTES => (key, false),
            TOMBSTONE_KEY_BYTES if key[KEY_BYTES] == TOMBSTONE_MARK => (&key[..KEY_BYTES], true),
            _ => return None,
        };
        let main = i64::from_be_bytes(head[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(head[9..].try_into().ok()?);
        let valid = head[8] == SEPARATOR && main >= 0 && sub >= 0;
        valid.then_some((Revision { main, sub }, tombstone))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.main, self.sub)
    }
}

impl RevisionKey {
    /// Returns the 17 or 18 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        if self.tombstone {
            &self.bytes
        } else {
            &self.bytes[..KEY_BYTES]
        }
    }
}

impl AsRef<[u8]> for RevisionKey {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for RevisionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

impl RevisionRow {
    /// Encodes the row's table key.
    #[must_use]
    pub fn table_key(&self) -> RevisionKey {
        self.rev.table_key(self.tombstone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_keys_are_etcds_bytes() {
        let rev = Revision::new(0x0102, 3);
        assert_eq!(
            rev.table_key(false).as_bytes(),
            b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03"
        );
        assert_eq!(
            rev.table_key(true).as_bytes(),
            b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t"
        );
        for tombstone in [false, true] {
            let key = rev.table_key(tombstone);
            assert_eq!(
                Revision::from_table_key(key.as_bytes()),
                Some((rev, tombstone))
            );
        }
    }

    #[test]
    fn other_bytes_are_not_table_keys() {
        let good = Revision::new(7, 0).table_key(true);
        let good = good.as_bytes();
        assert_eq!(Revision::from_table_key(&[]), None);
        assert_eq!(Revision::from_table_key(&good[..16]), None);
        for (at, byte) in [(8, b'-'), (17, b'x'), (0, 0x80), (9, 0xff)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert_eq!(Revision::from_table_key(&bad), None, "byte {at}");
        }
        let long = [good, b"t"].concat();
        assert_eq!(Revision::from_table_key(&long), None);
    }

    #[test]
    fn byte_order_is_revision_order() {
        let revs = [
            Revision::MIN,
            Revision::new(0, 1),
            Revision::new(1, 0),
            Revision::new(255, 256),
            Revision::new(256, 0),
            Revision::MAX,
        ];
        for pair in revs.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].table_key(true).as_bytes() < pair[1].table_key(false).as_bytes());
        }
    }
}
