//! Turning batches into one gather list, without copying payloads.

use crate::fields::file_len;
use crate::record::{
    HEADER_BYTES, Header, OVERHEAD_BYTES_MAX, RecordType, encode_end, fill_zeros, slot,
    zero_sectors,
};
use crate::{Entry, HardState, SnapshotMark};

/// Payload of a hard state: the vote.
const VOTE_BYTES: u64 = 8;

/// A record that is to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item<'a> {
    Snapshot(SnapshotMark),
    Entry(&'a Entry),
    HardState(HardState),
}

impl Item<'_> {
    /// Returns the most that the record takes, wherever it starts.
    pub(crate) fn len_max(&self) -> u64 {
        let payload = match self {
            Item::Snapshot(_) => 0,
            Item::Entry(entry) => file_len(entry.data.len()),
            Item::HardState(_) => VOTE_BYTES,
        };
        payload + OVERHEAD_BYTES_MAX
    }
}

/// Writes records into a scratch buffer and remembers where payloads go between its bytes.
pub(crate) struct Encoder<'a> {
    scratch: &'a mut Vec<u8>,
    /// Length of the scratch buffer at which each payload is put in.
    payloads: Vec<(usize, &'a [u8])>,
    seed: u32,
    /// Offset behind the last record, and its checksum.
    position: u64,
    chain: u32,
    synced_to: u64,
}

impl<'a> Encoder<'a> {
    /// Starts behind a record that ends at `position` with the checksum `chain`.
    pub(crate) fn new(
        scratch: &'a mut Vec<u8>,
        items: usize,
        seed: u32,
        position: u64,
        chain: u32,
        synced_to: u64,
    ) -> Encoder<'a> {
        scratch.clear();
        Encoder {
            scratch,
            payloads: Vec::with_capacity(items),
            seed,
            position,
            chain,
            synced_to,
        }
    }

    /// Adds a record.
    pub(crate) fn add(&mut self, item: Item<'a>, last_of_batch: bool) {
        let vote;
        let (record_type, term, index, kind, payload): (_, _, _, _, &[u8]) = match item {
            Item::Snapshot(mark) => (RecordType::Snapshot, mark.term, mark.index, 0, &[]),
            Item::Entry(entry) => {
                let kind = entry.kind;
                (
                    RecordType::Entry,
                    entry.term,
                    entry.index,
                    kind,
                    &entry.data,
                )
            }
            Item::HardState(state) => {
                vote = state.vote.to_le_bytes();
                (RecordType::HardState, state.term, state.commit, 0, &vote)
            }
        };
        let start = slot(self.position);
        fill_zeros(self.scratch, start - self.position);
        let header = Header {
            crc: 0,
            previous: self.chain,
            payload_crc: crc32fast::hash(payload),
            // Sizes were checked before anything is encoded.
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            synced_to: self.synced_to,
            zero_sectors: zero_sectors(payload, start + HEADER_BYTES),
            term,
            index,
            kind,
            record_type,
            last_of_batch,
        };
        self.chain = header.encode(self.scratch, self.seed, start);
        match item {
            Item::Entry(entry) if !entry.data.is_empty() => {
                self.payloads.push((self.scratch.len(), &entry.data));
            }
            _ => self.scratch.extend_from_slice(payload),
        }
        let stop = start + HEADER_BYTES + file_len(payload.len());
        self.position = encode_end(self.scratch, stop);
    }

    /// Returns the gather list, and the offset and checksum with which it ends. Zeros follow up to a multiple of `block_bytes`,
    /// where there are zeros already.
    pub(crate) fn finish(self, block_bytes: u64) -> (Vec<&'a [u8]>, u64, u32) {
        let whole = self.position.next_multiple_of(block_bytes);
        fill_zeros(self.scratch, whole - self.position);
        let mut slices = Vec::with_capacity(self.payloads.len() * 2 + 1);
        let mut rest: &'a [u8] = self.scratch;
        let mut taken = 0;
        for (at, payload) in self.payloads {
            let Some((before, after)) = rest.split_at_checked(at - taken) else {
                break;
            };
            slices.push(before);
            slices.push(payload);
            rest = after;
            taken = at;
        }
        slices.push(rest);
        (slices, self.position, self.chain)
    }
}
