//! The head of a segment.

use crate::fields::Fields;
use crate::{HardState, Identity, SnapshotMark};

/// First bytes of every segment.
const MAGIC: [u8; 8] = *b"QRTEWAL\n";
/// The format this release writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Size of the head.
pub(crate) const HEAD_BYTES: u64 = 128;
const HEAD_LEN: usize = 128;
/// Bytes of the head before its checksum.
const PREFIX_LEN: usize = 12;

/// The head of a segment. It is durable before the segment gets its name, so it is never torn.
///
/// **Shape**: 128 bytes, little-endian. Magic, version and checksum keep their places in every version to come.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | magic `QRTEWAL\n` |
/// | 8 | 4 | format version |
/// | 12 | 4 | crc32 of the other 124 bytes |
/// | 16 | 8 | cluster id |
/// | 24 | 8 | member id |
/// | 32 | 8 | sequence number of the segment, from 1 |
/// | 40 | 8 | index of the next entry when the segment was made |
/// | 48 | 16 | snapshot mark then: index, term; zeros for none |
/// | 64 | 24 | hard state then: term, vote, commit |
/// | 88 | 8 | byte offset at which the segment before it ends, 0 in the first |
/// | 96 | 4 | checksum of the last record there, 0 in the first |
/// | 100 | 28 | zeros |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) identity: Identity,
    pub(crate) sequence: u64,
    pub(crate) next_index: u64,
    pub(crate) snapshot: SnapshotMark,
    pub(crate) hard_state: HardState,
    pub(crate) previous_end: u64,
    pub(crate) previous_chain: u32,
}

/// Why bytes are no head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeadFault {
    NotOurs,
    Newer(u32),
    Damaged { expected: u32, found: u32 },
}

impl Head {
    /// Returns the bytes and their checksum, with which the records of the segment are chained.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut rest = Vec::with_capacity(HEAD_LEN);
        let words = [
            self.identity.cluster_id,
            self.identity.member_id,
            self.sequence,
            self.next_index,
            self.snapshot.index,
            self.snapshot.term,
            self.hard_state.term,
            self.hard_state.vote,
            self.hard_state.commit,
            self.previous_end,
        ];
        for word in words {
            rest.extend_from_slice(&word.to_le_bytes());
        }
        rest.extend_from_slice(&self.previous_chain.to_le_bytes());
        rest.resize(HEAD_LEN - PREFIX_LEN - 4, 0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let crc = checksum(&bytes, &rest);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.append(&mut rest);
        (bytes, crc)
    }

    /// Reads a head and its checksum from the first bytes of a file, however few there are.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Head, u32), HeadFault> {
        let short = HeadFault::Damaged {
            expected: 0,
            found: 0,
        };
        let Some(bytes) = bytes.get(..HEAD_LEN) else {
            return Err(short);
        };
        let (prefix, after) = bytes.split_at(PREFIX_LEN);
        if !prefix.starts_with(&MAGIC) {
            return Err(if prefix.iter().all(|byte| *byte == 0) {
                short
            } else {
                HeadFault::NotOurs
            });
        }
        let mut fields = Fields(after);
        let expected = fields.u32().ok_or(short.clone())?;
        let found = checksum(prefix, fields.0);
        if expected != found {
            return Err(HeadFault::Damaged { expected, found });
        }
        let version = prefix
            .get(MAGIC.len()..)
            .and_then(|rest| Fields(rest).u32());
        match version {
            Some(FORMAT_VERSION) => {}
            Some(version) if version > FORMAT_VERSION => return Err(HeadFault::Newer(version)),
            _ => return Err(HeadFault::NotOurs),
        }
        Head::fields(&mut fields)
            .map(|head| (head, expected))
            .ok_or(short)
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Head> {
        Some(Head {
            identity: Identity {
                cluster_id: fields.u64()?,
                member_id: fields.u64()?,
            },
            sequence: fields.u64()?,
            next_index: fields.u64()?,
            snapshot: SnapshotMark {
                index: fields.u64()?,
                term: fields.u64()?,
            },
            hard_state: HardState {
                term: fields.u64()?,
                vote: fields.u64()?,
                commit: fields.u64()?,
            },
            previous_end: fields.u64()?,
            previous_chain: fields.u32()?,
        })
    }

    /// Returns what every record checksum of the segment starts from, so that records of other segments never parse.
    pub(crate) fn seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.identity.cluster_id.to_le_bytes());
        hasher.update(&self.identity.member_id.to_le_bytes());
        hasher.update(&self.sequence.to_le_bytes());
        hasher.finalize()
    }
}

fn checksum(prefix: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(rest);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            identity: Identity {
                cluster_id: 0x1122_3344_5566_7788,
                member_id: 0x99aa_bbcc_ddee_ff00,
            },
            sequence: 3,
            next_index: 101,
            snapshot: SnapshotMark { index: 90, term: 4 },
            hard_state: HardState {
                term: 5,
                vote: 7,
                commit: 99,
            },
            previous_end: 4096,
            previous_chain: 0xdead_beef,
        }
    }

    #[test]
    fn head_reads_back_and_every_flipped_bit_is_noticed() {
        let (bytes, crc) = head().encode();
        assert_eq!(bytes.len(), HEAD_LEN);
        assert_eq!(Head::decode(&bytes), Ok((head(), crc)));
        for bit in 0..HEAD_LEN * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..HEAD_LEN {
            assert!(Head::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn head_has_these_bytes() {
        let (bytes, _) = head().encode();
        let golden = "5152544557414c0a01000000cdc59d2a8877665544332211\
            00ffeeddccbbaa9903000000000000006500000000000000\
            5a0000000000000004000000000000000500000000000000\
            0700000000000000630000000000000000100000000000\
            00efbeadde";
        let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, format!("{golden:0<256}"));
    }

    #[test]
    fn each_segment_of_each_log_has_its_own_seed() {
        let mut seeds = std::collections::BTreeSet::from([head().seed()]);
        let mut other = head();
        other.sequence += 1;
        seeds.insert(other.seed());
        other.identity.member_id += 1;
        seeds.insert(other.seed());
        other.identity.cluster_id += 1;
        seeds.insert(other.seed());
        assert_eq!(seeds.len(), 4);
    }

    #[test]
    fn newer_version_is_told_from_damage() {
        let (mut bytes, _) = head().encode();
        bytes[8] = 2;
        let crc = checksum(&bytes[..12], &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Head::decode(&bytes), Err(HeadFault::Newer(2)));
    }
}
