//! Fuzz targets, as plain functions of a seed.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use quorate_auth::Identity;
use quorate_backend::{Backend, Options, Revision, Table, TableRow};
use quorate_disk::{Disk, SimDisk};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op;
use quorate_proto::mvccpb::KeyValue;

use crate::envelope::{self, Content};
use crate::image::ImageError;
use crate::{CONF_STATE_KEY, Filling, ReceivedState, Request, StateReader, StateStream};

/// Largest entry of drawn fields, in bytes.
const ENTRY_BYTES_MAX: u64 = 400;
/// Depth of nested transactions drawn.
const TXN_DEPTH_MAX: u64 = 5;

/// Decodes an entry's data: a request as members propose it, which must come back as it was, then the same bytes damaged,
/// then bytes that only look like fields.
///
/// # Panics
/// When a request does not come back, when reading bytes panics, or when two ways of reading the same header differ.
pub fn fuzz_entry(seed: u64) {
    let mut random = Random(seed);
    let identity = Identity {
        username: "x".repeat(random.position(12)),
        revision: random.next(),
    };
    let id = random.next() >> random.below(64);
    let request = draw_request(&mut random);
    let data = envelope::encode(id, &identity, &request, None);
    assert_eq!(envelope::peek_id(&data), id, "seed {seed}");
    let found = envelope::decode(&data);
    assert!(
        found.is_ok_and(|found| found.identity == identity
            && found.content == Content::Request(Box::new(request))),
        "seed {seed}: an entry does not come back"
    );
    let mut damaged = BytesMut::from(&data[..]);
    for _ in 0..=random.below(3) {
        let at = random.position(damaged.len());
        match random.below(3) {
            0 => damaged[at] ^= 1 << random.below(8),
            1 => damaged[at] = random.byte(),
            _ => damaged.truncate(at.max(1)),
        }
    }
    read(&damaged.freeze(), seed);
    read(&draw_fields(&mut random), seed);
}

/// Takes in a state as members send it to each other, in pieces, which must come as it was; then the same bytes damaged: what the
/// reader lets through of them, a database must take.
///
/// # Panics
/// When a state is refused or comes otherwise than it was, or when taking in damaged bytes panics.
pub fn fuzz_state(seed: u64) {
    let mut random = Random(seed);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
    let dir = Path::new("/d");
    let made = disk.create_dir_all(dir);
    made.expect("the disk is new");
    let index_max = 1 + random.below(12);
    let mut state = draw_state(&mut random, &disk, index_max);
    let (batches, end) = take_in(&mut random, &state);
    let (rest, received) = end.expect("a state that was not changed");
    assert_eq!(received.applied.index, index_max, "seed {seed}");
    let count = batches.iter().flatten().count() + rest.len();
    assert!(count > 0, "seed {seed}: a state without rows");
    for _ in 0..=random.below(3) {
        let at = random.position(state.len());
        match random.below(4) {
            0 => state[at] ^= 1 << random.below(8),
            1 => state[at] = random.byte(),
            2 => state.extend(random.bytes(20)),
            _ => state.truncate(at.max(1)),
        }
    }
    let (mut batches, end) = take_in(&mut random, &state);
    batches.extend(end.ok().map(|(rest, _)| rest));
    let filling = Filling::begin(&disk, dir, 1, Options::default());
    let filling = filling.expect("a disk without faults");
    for rows in batches {
        let filled = filling.append(&rows);
        filled.expect("a disk without faults");
    }
}

/// Makes a database of drawn rows, and the state of it.
fn draw_state(random: &mut Random, disk: &Arc<dyn Disk>, index_max: u64) -> Vec<u8> {
    let path = Path::new("/d/db");
    let backend = Backend::open(Arc::clone(disk), path, Options::default());
    let backend = backend.expect("a disk without faults");
    for index in 1..=index_max {
        let mut txn = backend.begin_apply(index, 1);
        let main = index.cast_signed() + 1;
        for sub in 0..random.below(4).cast_signed() {
            let pair = KeyValue {
                key: random.bytes(20),
                value: random.bytes(3_000),
                ..KeyValue::default()
            };
            let record = Bytes::from(pair.encode_to_vec());
            txn.put_revision(Revision::new(main, sub), random.below(4) == 0, record);
        }
        let id = format!("{index:x}");
        let removed = Bytes::from_static(b"removed");
        txn.put(Table::MembersRemoved, id.as_bytes(), removed);
        txn.put(Table::Meta, CONF_STATE_KEY, Bytes::from_static(b"{}"));
        txn.commit(index);
    }
    let txn = backend.read().expect("a disk without faults");
    let mut state = Vec::new();
    let read = StateStream::new(txn).read_to_end(&mut state);
    read.expect("a disk without faults");
    state
}

type TakenIn = Result<(Vec<TableRow>, ReceivedState), ImageError>;

fn take_in(random: &mut Random, state: &[u8]) -> (Vec<Vec<TableRow>>, TakenIn) {
    let rows_max = 1 + random.position(20);
    let mut reader = StateReader::in_batches_of(rows_max);
    let mut batches = Vec::new();
    let mut rest = state;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + random.position(2_000)).min(rest.len()));
        rest = behind;
        reader.push(piece);
        loop {
            match reader.batch() {
                Ok(Some(rows)) => batches.push(rows),
                Ok(None) => break,
                Err(why) => return (batches, Err(why)),
            }
        }
    }
    (batches, reader.finish())
}

/// Reads bytes in every way that entries are read; both ways to the header must agree.
fn read(data: &Bytes, seed: u64) {
    let header = envelope::header(data);
    assert_eq!(
        envelope::peek_id(data),
        header.as_ref().map_or(0, |header| header.id),
        "seed {seed}"
    );
    let _ = envelope::decode(data);
}

fn draw_request(random: &mut Random) -> Request {
    match random.below(7) {
        0 => Request::DeleteRange(pb::DeleteRangeRequest {
            key: random.bytes(20),
            range_end: random.bytes(20),
            prev_kv: random.below(2) == 0,
        }),
        1 => Request::LeaseGrant(pb::LeaseGrantRequest {
            ttl: random.next().cast_signed(),
            id: random.next().cast_signed(),
        }),
        2 => Request::Compaction(pb::CompactionRequest {
            revision: random.next().cast_signed(),
            physical: random.below(2) == 0,
        }),
        3 => Request::AuthRoleDelete(pb::AuthRoleDeleteRequest {
            role: "r".repeat(random.position(9)),
        }),
        4 => {
            let depth = random.below(TXN_DEPTH_MAX);
            Request::Txn(draw_txn(random, depth))
        }
        _ => Request::Put(draw_put(random)),
    }
}

fn draw_put(random: &mut Random) -> pb::PutRequest {
    pb::PutRequest {
        key: random.bytes(20),
        value: random.bytes(300),
        lease: random.next().cast_signed() >> random.below(64),
        prev_kv: random.below(2) == 0,
        ..pb::PutRequest::default()
    }
}

fn draw_txn(random: &mut Random, depth: u64) -> pb::TxnRequest {
    let op = |random: &mut Random| {
        let request = if depth > 0 && random.below(2) == 0 {
            request_op::Request::RequestTxn(draw_txn(random, depth - 1))
        } else {
            request_op::Request::RequestPut(draw_put(random))
        };
        pb::RequestOp {
            request: Some(request),
        }
    };
    pb::TxnRequest {
        compare: Vec::new(),
        success: (0..random.below(4)).map(|_| op(random)).collect(),
        failure: (0..random.below(3)).map(|_| op(random)).collect(),
    }
}

/// Draws bytes that look like fields: mostly true tags and lengths of fields that entries have, sometimes lies and garbage.
fn draw_fields(random: &mut Random) -> Bytes {
    const FIELDS: [u32; 12] = [1, 3, 4, 5, 6, 7, 8, 100, 1000, 1100, 9900, 12_345];
    let len = random.position(usize::try_from(ENTRY_BYTES_MAX).unwrap_or(0));
    let mut data = BytesMut::new();
    while data.len() < len {
        let field = FIELDS[random.position(FIELDS.len())];
        match random.below(6) {
            0..=2 => {
                let payload = random.bytes(30);
                encode_key(field, WireType::LengthDelimited, &mut data);
                let lie = if random.below(8) == 0 {
                    random.next()
                } else {
                    0
                };
                encode_varint(payload.len() as u64 ^ lie, &mut data);
                data.put_slice(&payload);
            }
            3 => {
                encode_key(field, WireType::Varint, &mut data);
                encode_varint(random.next() >> random.below(64), &mut data);
            }
            4 => {
                encode_key(field, WireType::SixtyFourBit, &mut data);
                data.put_u64_le(random.next());
            }
            _ => data.put_u8(random.byte()),
        }
    }
    data.freeze()
}

/// A small generator of seeded numbers. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    fn position(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, len_max: usize) -> Bytes {
        let len = self.position(len_max + 1);
        (0..len).map(|_| self.byte()).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_come_back_and_damaged_ones_are_refused_quietly() {
        for seed in 0..3000 {
            super::fuzz_entry(seed);
        }
    }

    #[test]
    fn states_come_back_and_of_damaged_ones_a_database_can_be_made() {
        for seed in 0..50 {
            super::fuzz_state(seed);
        }
    }
}
