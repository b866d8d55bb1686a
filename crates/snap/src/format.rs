//! The form of a snapshot file and of its name.

use crate::Damage;
use bytes::Bytes;
use std::ffi::OsStr;
use std::fmt;

/// First bytes of every file.
const MAGIC: [u8; 8] = *b"QRTESNP\n";
/// The format this release writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes before the body.
pub(crate) const HEADER_BYTES: u64 = 64;
const HEADER_LEN: usize = 64;
/// Bytes before the checksum.
const PREFIX_LEN: usize = 12;
/// Largest body: metadata and membership, never a database.
pub(crate) const BODY_BYTES_MAX: u64 = 64 << 20;
/// What the names of snapshot files end with.
const SUFFIX: &str = ".snap";

/// Says whose snapshots they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "member {:x} of cluster {:x}",
            self.member_id, self.cluster_id
        )
    }
}

/// Names a snapshot; a later one compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The term of the last entry it covers.
    pub term: u64,
    /// The index of the last entry it covers.
    pub index: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which it is.
    pub id: SnapshotId,
    /// Raft's metadata and the membership; this crate does not look at it.
    pub body: Bytes,
}

impl SnapshotId {
    /// Returns the name of the file.
    pub(crate) fn file_name(self) -> String {
        format!("{:016x}-{:016x}{SUFFIX}", self.term, self.index)
    }

    /// Reads the name of a file.
    pub(crate) fn of_file_name(name: &OsStr) -> Option<SnapshotId> {
        let (term, index) = name.to_str()?.strip_suffix(SUFFIX)?.split_once('-')?;
        let number = |part: &str| {
            let is_hex = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            (is_hex && part.len() == 16).then(|| u64::from_str_radix(part, 16).ok())?
        };
        Some(SnapshotId {
            term: number(term)?,
            index: number(index)?,
        })
    }
}

/// What the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded {
    Whole(Identity, Snapshot),
    Newer(u32),
    /// Etcd's own form.
    Etcd,
    Damaged(Damage),
}

/// Returns the bytes of a file.
pub(crate) fn encode(identity: Identity, snapshot: &Snapshot) -> Vec<u8> {
    let body_len = u64::try_from(snapshot.body.len()).unwrap_or(u64::MAX);
    let mut rest = Vec::with_capacity(HEADER_LEN + snapshot.body.len());
    for word in [
        identity.cluster_id,
        identity.member_id,
        snapshot.id.term,
        snapshot.id.index,
        body_len,
        0,
    ] {
        rest.extend_from_slice(&word.to_le_bytes());
    }
    rest.extend_from_slice(&snapshot.body);
    let mut bytes = Vec::with_capacity(PREFIX_LEN + 4 + rest.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = checksum(&bytes, &rest);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.append(&mut rest);
    bytes
}

/// Reads the bytes of a file.
pub(crate) fn decode(bytes: &Bytes) -> Decoded {
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if has_form_of_etcd(bytes) {
        return Decoded::Etcd;
    }
    let Some((prefix, after)) = bytes.split_at_checked(PREFIX_LEN) else {
        return damaged("file is too short", 0, HEADER_BYTES, len);
    };
    if !prefix.starts_with(&MAGIC) {
        return damaged("magic", 0, word(&MAGIC), word(prefix));
    }
    let Some((crc, rest)) = after.split_first_chunk() else {
        return damaged("file is too short", 0, HEADER_BYTES, len);
    };
    let (expected, found) = (u32::from_le_bytes(*crc), checksum(prefix, rest));
    if expected != found {
        let offset = u64::try_from(PREFIX_LEN).unwrap_or(0);
        return damaged("checksum", offset, u64::from(expected), u64::from(found));
    }
    let version = prefix.get(MAGIC.len()..).and_then(<[u8]>::first_chunk);
    match version.map_or(0, |version| u32::from_le_bytes(*version)) {
        FORMAT_VERSION => decode_fields(bytes, rest, len),
        version if version > FORMAT_VERSION => Decoded::Newer(version),
        version => damaged("version", 8, u64::from(FORMAT_VERSION), u64::from(version)),
    }
}

fn decode_fields(bytes: &Bytes, rest: &[u8], len: u64) -> Decoded {
    let mut rest = rest;
    let mut next = || {
        let (field, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u64::from_le_bytes(*field))
    };
    let fields = (next(), next(), next(), next(), next(), next());
    let (Some(cluster_id), Some(member_id), Some(term), Some(index), Some(body_len), Some(_)) =
        fields
    else {
        return damaged("file is too short", 0, HEADER_BYTES, len);
    };
    let expected = len.saturating_sub(HEADER_BYTES);
    if body_len != expected {
        return damaged("length of the body", 48, expected, body_len);
    }
    let identity = Identity {
        cluster_id,
        member_id,
    };
    let body = bytes.slice(HEADER_LEN.min(bytes.len())..);
    let id = SnapshotId { term, index };
    Decoded::Whole(identity, Snapshot { id, body })
}

fn damaged(what: &'static str, offset: u64, expected: u64, found: u64) -> Decoded {
    Decoded::Damaged(Damage {
        what,
        offset,
        expected,
        found,
    })
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn checksum(prefix: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(rest);
    hasher.finalize()
}

/// Says whether the bytes are a checksum field and a data field that fills the file.
///
/// Source: etcd 3.7.1 `server/etcdserver/api/snap/snappb/snap.proto`, message `snapshot`: field 1 `crc`, field 2 `data`.
fn has_form_of_etcd(bytes: &[u8]) -> bool {
    let Some(([0x08], rest)) = bytes.split_first_chunk() else {
        return false;
    };
    let Some((_, rest)) = varint(rest) else {
        return false;
    };
    let Some(([0x12], rest)) = rest.split_first_chunk() else {
        return false;
    };
    varint(rest).is_some_and(|(len, data)| u64::try_from(data.len()) == Ok(len))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (position, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(position + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> (Identity, Snapshot) {
        let identity = Identity {
            cluster_id: 0x0102_0304_0506_0708,
            member_id: 0xf1f2_f3f4_f5f6_f7f8,
        };
        let id = SnapshotId { term: 5, index: 99 };
        let body = Bytes::from_static(b"body");
        (identity, Snapshot { id, body })
    }

    #[test]
    fn file_has_these_bytes() {
        let (identity, snapshot) = snapshot();
        let bytes = encode(identity, &snapshot);
        let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "51525445534e500a010000001fefb7330807060504030201f8f7f6f5f4f3f2f1\
            0500000000000000630000000000000004000000000000000000000000000000626f6479";
        assert_eq!(found, golden);
        assert_eq!(decode(&bytes.into()), Decoded::Whole(identity, snapshot));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (identity, snapshot) = snapshot();
        let bytes = encode(identity, &snapshot);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(decode(&bytes.into()), Decoded::Damaged(_)),
                "{bit}"
            );
        }
        for len in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..len]);
            assert!(matches!(decode(&cut), Decoded::Damaged(_)), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(decode(&longer.into()), Decoded::Damaged(_)));
    }

    #[test]
    fn newer_version_and_file_of_etcd_are_told_from_damage() {
        let (identity, snapshot) = snapshot();
        let mut bytes = encode(identity, &snapshot);
        bytes[8] = 7;
        let crc = checksum(&bytes[..12], &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&bytes.into()), Decoded::Newer(7));
        let etcd = [0x08, 0xb9, 0xd5, 0xa4, 0xed, 0x0c, 0x12, 3, 1, 2, 3];
        assert_eq!(decode(&Bytes::copy_from_slice(&etcd)), Decoded::Etcd);
        let cut = Bytes::copy_from_slice(&etcd[..10]);
        assert!(matches!(decode(&cut), Decoded::Damaged(_)));
    }

    #[test]
    fn names_read_back_and_others_do_not() {
        let id = SnapshotId {
            term: 0x1f,
            index: 0xabc,
        };
        assert_eq!(id.file_name(), "000000000000001f-0000000000000abc.snap");
        let read = |name: &str| SnapshotId::of_file_name(OsStr::new(name));
        assert_eq!(read(&id.file_name()), Some(id));
        for other in [
            "db",
            "0000000000000abc.snap.db",
            "1f-abc.snap",
            "000000000000001f-0000000000000abc.snap.tmp",
            "000000000000001f-0000000000000abc.snap.broken",
            "+00000000000001f-0000000000000abc.snap",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
