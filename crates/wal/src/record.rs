//! Records: how they are laid out, and how what is found in their place is told apart.

use crate::fields::{Fields, all_zero, file_len, memory_len};
use std::ops::Range;

/// The unit that a power loss keeps or loses as a whole.
pub(crate) const SECTOR_BYTES: u64 = 512;
const SECTOR_LEN: usize = 512;
/// Size of a record's header.
pub(crate) const HEADER_BYTES: u64 = 48;
const HEADER_LEN: usize = 48;
/// Largest payload of one record.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 1 << 30;
/// Records start at multiples of this.
const ALIGNMENT_BYTES: u64 = 8;
/// Most that a record takes besides its payload: header, end mark, and gaps before and after.
pub(crate) const OVERHEAD_BYTES_MAX: u64 = 2 * HEADER_BYTES + ALIGNMENT_BYTES;
/// Last byte of every header and every record; several bits, so that no single flipped bit makes it zero.
const END_MARK: u8 = 0xa5;
/// In the type byte: the record ends its batch.
const LAST_OF_BATCH: u8 = 0x80;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordType {
    /// An entry: term, index and kind in the header, data as payload.
    Entry,
    /// A hard state: term in the header, commit in place of the index, 8 bytes of vote as payload.
    HardState,
    /// A snapshot mark: term and index in the header, no payload.
    Snapshot,
}

impl RecordType {
    fn number(self) -> u8 {
        match self {
            RecordType::Entry => 1,
            RecordType::HardState => 2,
            RecordType::Snapshot => 3,
        }
    }

    fn of(number: u8) -> Option<RecordType> {
        match number {
            1 => Some(RecordType::Entry),
            2 => Some(RecordType::HardState),
            3 => Some(RecordType::Snapshot),
            _ => None,
        }
    }
}

/// The header of a record.
///
/// **Shape**: 48 bytes, little-endian, at a multiple of 8, never across a sector boundary (the next sector is taken instead).
/// The payload follows, then the byte 0xa5, then zeros up to a multiple of 8.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 4 | crc32, seeded with cluster, member and segment, of the header's offset in the segment (8 bytes) and its bytes 4..48 |
/// | 4 | 4 | that crc32 of the record before it, or of the head |
/// | 8 | 4 | crc32 of the payload |
/// | 12 | 4 | payload bytes |
/// | 16 | 8 | offset up to which the segment was durable when this record was written |
/// | 24 | 4 | how many whole sectors of the payload are all zero |
/// | 28 | 8 | term |
/// | 36 | 8 | index; of a hard state, commit |
/// | 44 | 1 | kind of entry |
/// | 45 | 1 | type: 1 entry, 2 hard state, 3 snapshot mark; 0x80 added in the last record of a batch |
/// | 46 | 1 | zero |
/// | 47 | 1 | 0xa5 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) crc: u32,
    pub(crate) previous: u32,
    pub(crate) payload_crc: u32,
    pub(crate) payload_len: u32,
    pub(crate) synced_to: u64,
    pub(crate) zero_sectors: u32,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) kind: u8,
    pub(crate) record_type: RecordType,
    pub(crate) last_of_batch: bool,
}

impl Header {
    /// Appends the header's bytes for an offset and returns its checksum.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, seed: u32, offset: u64) -> u32 {
        let mut body = [0_u8; HEADER_LEN - 4];
        let mut rest = body.as_mut_slice();
        let last = if self.last_of_batch { LAST_OF_BATCH } else { 0 };
        put(&mut rest, self.previous.to_le_bytes());
        put(&mut rest, self.payload_crc.to_le_bytes());
        put(&mut rest, self.payload_len.to_le_bytes());
        put(&mut rest, self.synced_to.to_le_bytes());
        put(&mut rest, self.zero_sectors.to_le_bytes());
        put(&mut rest, self.term.to_le_bytes());
        put(&mut rest, self.index.to_le_bytes());
        put(
            &mut rest,
            [self.kind, self.record_type.number() | last, 0, END_MARK],
        );
        let crc = header_crc(&body, seed, offset);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&body);
        crc
    }

    /// Reads a header that is whole and was written for this place.
    fn decode(bytes: &[u8], seed: u32, offset: u64) -> Option<Header> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let mut fields = Fields(bytes);
        let crc = fields.u32()?;
        if crc != header_crc(fields.0, seed, offset) {
            return None;
        }
        let (previous, payload_crc, payload_len) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (synced_to, zero_sectors) = (fields.u64()?, fields.u32()?);
        let (term, index, kind) = (fields.u64()?, fields.u64()?, fields.u8()?);
        let type_byte = fields.u8()?;
        Some(Header {
            crc,
            previous,
            payload_crc,
            payload_len,
            synced_to,
            zero_sectors,
            term,
            index,
            kind,
            record_type: RecordType::of(type_byte & !LAST_OF_BATCH)?,
            last_of_batch: type_byte & LAST_OF_BATCH != 0,
        })
    }
}

fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((place, after)) = std::mem::take(rest).split_first_chunk_mut::<N>() {
        *place = field;
        *rest = after;
    }
}

fn header_crc(body: &[u8], seed: u32, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&offset.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Returns where the next header goes when the bytes before `position` are taken.
pub(crate) fn slot(position: u64) -> u64 {
    let position = position.next_multiple_of(ALIGNMENT_BYTES);
    if position % SECTOR_BYTES > SECTOR_BYTES - HEADER_BYTES {
        position.next_multiple_of(SECTOR_BYTES)
    } else {
        position
    }
}

/// Appends what follows a payload that ends at `position`, and returns where the record ends.
pub(crate) fn encode_end(out: &mut Vec<u8>, position: u64) -> u64 {
    let end = (position + 1).next_multiple_of(ALIGNMENT_BYTES);
    out.push(END_MARK);
    fill_zeros(out, end - position - 1);
    end
}

/// Appends zeros.
pub(crate) fn fill_zeros(out: &mut Vec<u8>, count: u64) {
    out.resize(out.len() + memory_len(count), 0);
}

/// Counts the whole sectors in a payload that starts at `offset` and are all zero.
///
/// A sector that was lost reads as zeros in a segment that was zeros before; this count tells such sectors from the payload's own.
pub(crate) fn zero_sectors(payload: &[u8], offset: u64) -> u32 {
    let skip = offset.next_multiple_of(SECTOR_BYTES) - offset;
    let whole = payload.get(memory_len(skip)..).unwrap_or_default();
    let (sectors, _) = whole.as_chunks::<SECTOR_LEN>();
    let count = sectors.iter().filter(|sector| all_zero(*sector)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A valid record in the bytes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) header: Header,
    pub(crate) payload: Range<usize>,
    /// Where it ends, its padding included.
    pub(crate) end: u64,
}

/// What lies at the place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Record(Record),
    /// Zeros in place of the header: the end of the log, or a sector that was lost.
    Blank,
    /// A record of which sectors or the last bytes were never written.
    Torn,
    /// Bytes that no incomplete write can leave.
    Damaged(Damage),
}

/// How a record is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) what: &'static str,
    pub(crate) expected: u64,
    pub(crate) found: u64,
    /// Index in the header, when the header is whole.
    pub(crate) index: Option<u64>,
}

/// Reads the record whose header belongs at `offset`, when the record before it has the checksum `chain`.
///
/// Bytes behind the end of the slice count as zeros, since a cut file and one whose last sectors were lost mean the same.
pub(crate) fn read(bytes: &[u8], offset: u64, seed: u32, chain: u32) -> Found {
    let rest = bytes.get(memory_len(offset)..).unwrap_or_default();
    let mut place = [0_u8; HEADER_LEN];
    for (to, from) in place.iter_mut().zip(rest) {
        *to = *from;
    }
    if all_zero(&place) {
        return Found::Blank;
    }
    let Some(header) = Header::decode(&place, seed, offset) else {
        return bad_header(&place, rest, seed, offset);
    };
    if header.previous != chain {
        return Found::Damaged(Damage {
            what: "record does not follow the one before it",
            expected: u64::from(chain),
            found: u64::from(header.previous),
            index: Some(header.index),
        });
    }
    read_payload(bytes, offset, header)
}

/// A header lies in one sector, so it is written whole or not at all; only a file that was cut can end inside it.
fn bad_header(place: &[u8; HEADER_LEN], rest: &[u8], seed: u32, offset: u64) -> Found {
    let [.., mark] = *place;
    let after = rest.get(HEADER_LEN..).unwrap_or_default();
    if mark == 0 && all_zero(after) {
        return Found::Torn;
    }
    let mut fields = Fields(place);
    let found = fields.u32().unwrap_or(0);
    Found::Damaged(Damage {
        what: "record header checksum",
        expected: u64::from(header_crc(fields.0, seed, offset)),
        found: u64::from(found),
        index: None,
    })
}

fn read_payload(bytes: &[u8], offset: u64, header: Header) -> Found {
    let start = offset + HEADER_BYTES;
    let stop = start + u64::from(header.payload_len);
    let range = memory_len(start)..memory_len(stop);
    let whole = bytes.get(range.clone());
    let crc = whole.map(crc32fast::hash);
    if crc == Some(header.payload_crc) {
        return Found::Record(Record {
            header,
            payload: range,
            end: (stop + 1).next_multiple_of(ALIGNMENT_BYTES),
        });
    }
    // The bytes end with a mark that no flipped bit makes zero: without it, the end was never written.
    let ends = bytes.get(range.end).is_some_and(|mark| *mark != 0);
    let lost = whole.is_none_or(|payload| zero_sectors(payload, start) > header.zero_sectors);
    if !ends || lost {
        return Found::Torn;
    }
    Found::Damaged(Damage {
        what: "record payload checksum",
        expected: u64::from(header.payload_crc),
        found: u64::from(crc.unwrap_or(0)),
        index: Some(header.index),
    })
}

/// Looks from `offset` on for a whole header that was written when more than `durable` bytes of the segment were durable.
///
/// Such a record proves that what is missing before it was durable once, so that its loss is damage and not a torn write.
pub(crate) fn find_proof(bytes: &[u8], offset: u64, seed: u32, durable: u64) -> Option<Header> {
    let mut position = offset.next_multiple_of(ALIGNMENT_BYTES);
    while position + HEADER_BYTES <= file_len(bytes.len()) {
        let here = bytes.get(memory_len(position)..)?;
        let [.., mark] = *here.first_chunk::<HEADER_LEN>()?;
        if mark == END_MARK
            && let Some(header) = Header::decode(here, seed, position)
            && header.synced_to > durable
        {
            return Some(header);
        }
        position += ALIGNMENT_BYTES;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            crc: 0,
            previous: 0x0102_0304,
            payload_crc: crc32fast::hash(b"data"),
            payload_len: 4,
            synced_to: 0x80,
            zero_sectors: 0,
            term: 5,
            index: 99,
            kind: 2,
            record_type: RecordType::Entry,
            last_of_batch: true,
        }
    }

    /// A file whose bytes are zeros but for one record at `offset`.
    fn file(offset: u64, seed: u32) -> Vec<u8> {
        let mut bytes = vec![0; memory_len(offset)];
        header().encode(&mut bytes, seed, offset);
        bytes.extend_from_slice(b"data");
        encode_end(&mut bytes, offset + HEADER_BYTES + 4);
        bytes
    }

    #[test]
    fn record_has_these_bytes() {
        let bytes = file(128, 7);
        let found: String = bytes[128..].iter().map(|b| format!("{b:02x}")).collect();
        let golden = "41b00da50403020163f3f3ad04000000800000000000000000000000\
            050000000000000063000000000000000281\
            00a564617461a5000000";
        assert_eq!(found, golden);
    }

    #[test]
    fn record_is_valid_only_where_it_was_written_and_behind_what_it_followed() {
        let previous = header().previous;
        let bytes = file(128, 7);
        let Found::Record(record) = read(&bytes, 128, 7, previous) else {
            panic!("the record is not found");
        };
        assert_eq!(record.end, 184);
        assert_eq!(&bytes[record.payload], b"data");
        let moved: Vec<u8> = [vec![0; 8], bytes.clone()].concat();
        for (bytes, offset, seed, chain) in [
            (&moved, 136, 7, previous),
            (&bytes, 128, 8, previous),
            (&bytes, 128, 7, previous + 1),
        ] {
            let found = read(bytes, offset, seed, chain);
            assert!(matches!(found, Found::Damaged(_)), "{found:?}");
        }
        assert_eq!(read(&bytes, 184, 7, previous), Found::Blank);
        assert_eq!(read(&bytes, 1 << 40, 7, previous), Found::Blank);
    }

    #[test]
    fn header_never_crosses_a_sector() {
        for position in 0..4096 {
            let slot = slot(position);
            assert!(slot >= position && slot - position < HEADER_BYTES + 8);
            assert_eq!(slot % 8, 0);
            assert_eq!(slot / 512, (slot + HEADER_BYTES - 1) / 512);
        }
    }

    #[test]
    fn only_whole_sectors_of_zeros_are_counted() {
        let zeros = vec![0; 2000];
        assert_eq!(zero_sectors(&zeros, 512), 3);
        assert_eq!(zero_sectors(&zeros, 513), 2);
        assert_eq!(zero_sectors(&zeros[..511], 512), 0);
        let mut mixed = zeros.clone();
        mixed[700] = 1;
        assert_eq!(zero_sectors(&mixed, 512), 2);
        assert_eq!(zero_sectors(&[], 5), 0);
    }
}
