//! The first thing in the file: whose it is, and redb's own header.

use crate::Identity;

/// Encoded size of a superblock in bytes: one sector, so that a power loss keeps it whole or not at all.
pub(crate) const SUPERBLOCK_BYTES: usize = 512;
/// Newest format version, and the one written.
pub const FORMAT_VERSION: u32 = 1;
/// Most bytes of redb's header that fit.
pub(crate) const ENGINE_HEADER_BYTES_MAX: usize = SUPERBLOCK_BYTES - ENGINE_HEADER_AT;

const MAGIC: [u8; 8] = *b"QUORATEB";
const VERSION_AT: usize = 8;
const CHECKSUM_AT: usize = 12;
const CLUSTER_AT: usize = 16;
const MEMBER_AT: usize = 24;
const OWNED_AT: usize = 32;
const ENGINE_HEADER_LEN_AT: usize = 36;
const GENERATION_AT: usize = 40;
const COMMITTED_LEN_AT: usize = 48;
const ENGINE_HEADER_AT: usize = 56;

/// The superblock.
///
/// **Shape**, 512 bytes, numbers little endian:
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 8 | `QUORATEB` |
/// | 8 | 4 | format version |
/// | 12 | 4 | CRC-32C of the 512 bytes with these four zero |
/// | 16 | 8 | cluster id |
/// | 24 | 8 | member id |
/// | 32 | 4 | 1 when the file has an identity, else 0 |
/// | 36 | 4 | length of redb's header |
/// | 40 | 8 | generation, one more at each write |
/// | 48 | 8 | committed length: logical bytes the file must at least have |
/// | 56 | 456 | redb's header, then zeros |
///
/// The first 16 bytes keep their meaning, and the checksum its span, in every later format version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) identity: Option<Identity>,
    pub(crate) generation: u64,
    pub(crate) committed_len: u64,
    /// **Invariant:** at most [`ENGINE_HEADER_BYTES_MAX`] bytes.
    pub(crate) engine_header: Vec<u8>,
}

/// What the bytes of a superblock turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Valid(Superblock),
    /// Intact, but of a newer release.
    Newer(u32),
    /// Begins as ours, but is damaged.
    Damaged,
    /// Does not begin as ours.
    Foreign,
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let header_len = self.engine_header.len();
        assert!(
            header_len <= ENGINE_HEADER_BYTES_MAX,
            "redb's header fits in a superblock"
        );
        let mut out = [0; SUPERBLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let (cluster, member, owned) = match self.identity {
            Some(identity) => (identity.cluster_id, identity.member_id, 1_u32),
            None => (0, 0, 0),
        };
        let header_len = u32::try_from(header_len).expect("checked above");
        put(0, &MAGIC);
        put(VERSION_AT, &FORMAT_VERSION.to_le_bytes());
        put(CLUSTER_AT, &cluster.to_le_bytes());
        put(MEMBER_AT, &member.to_le_bytes());
        put(OWNED_AT, &owned.to_le_bytes());
        put(ENGINE_HEADER_LEN_AT, &header_len.to_le_bytes());
        put(GENERATION_AT, &self.generation.to_le_bytes());
        put(COMMITTED_LEN_AT, &self.committed_len.to_le_bytes());
        put(ENGINE_HEADER_AT, &self.engine_header);
        let sum = checksum(&out);
        out[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Decoded {
        if bytes[..MAGIC.len()] != MAGIC {
            return Decoded::Foreign;
        }
        if u32_at(bytes, CHECKSUM_AT) != checksum(bytes) {
            return Decoded::Damaged;
        }
        let version = u32_at(bytes, VERSION_AT);
        if version > FORMAT_VERSION {
            return Decoded::Newer(version);
        }
        let owned = u32_at(bytes, OWNED_AT);
        let header_len = usize::try_from(u32_at(bytes, ENGINE_HEADER_LEN_AT)).unwrap_or(usize::MAX);
        if version != FORMAT_VERSION || owned > 1 || header_len > ENGINE_HEADER_BYTES_MAX {
            return Decoded::Damaged;
        }
        Decoded::Valid(Superblock {
            identity: (owned == 1).then(|| Identity {
                cluster_id: u64_at(bytes, CLUSTER_AT),
                member_id: u64_at(bytes, MEMBER_AT),
            }),
            generation: u64_at(bytes, GENERATION_AT),
            committed_len: u64_at(bytes, COMMITTED_LEN_AT),
            engine_header: bytes[ENGINE_HEADER_AT..ENGINE_HEADER_AT + header_len].to_vec(),
        })
    }
}

fn checksum(bytes: &[u8; SUPERBLOCK_BYTES]) -> u32 {
    let sum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, &bytes[CHECKSUM_AT + 4..])
}

fn u32_at(bytes: &[u8; SUPERBLOCK_BYTES], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8; SUPERBLOCK_BYTES], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            identity: Some(Identity {
                cluster_id: 0x11,
                member_id: 0x22,
            }),
            generation: 3,
            committed_len: 0x5000,
            engine_header: vec![0xab; 320],
        }
    }

    #[test]
    fn superblocks_have_golden_bytes() {
        let bytes = sample().encode();
        let mut head = b"QUORATEB\x01\0\0\0".to_vec();
        head.extend(checksum(&bytes).to_le_bytes());
        head.extend(b"\x11\0\0\0\0\0\0\0\x22\0\0\0\0\0\0\0\x01\0\0\0\x40\x01\0\0");
        head.extend(b"\x03\0\0\0\0\0\0\0\0\x50\0\0\0\0\0\0");
        head.extend([0xab; 320]);
        head.extend([0; 136]);
        assert_eq!(&bytes[..], &head[..]);
        assert_eq!(Superblock::decode(&bytes), Decoded::Valid(sample()));
        let nobody = Superblock {
            identity: None,
            ..sample()
        };
        assert_eq!(
            Superblock::decode(&nobody.encode()),
            Decoded::Valid(nobody.clone())
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = sample().encode();
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(Superblock::decode(&bad), Decoded::Valid(_)),
                "bit {bit}"
            );
        }
    }
}
