//! Messages from the network and the log, as they are decoded everywhere.

use prost::Message;
use quorate_proto::{authpb, etcdserverpb, leasepb, mvccpb, raftpb};

use crate::random::Random;

/// Largest message that is drawn, in bytes.
const MESSAGE_BYTES_MAX: u64 = 300;

/// Decodes bytes drawn from the seed as every kind of message, and what decodes must stay the same when it is encoded
/// and decoded again.
pub(crate) fn decode(seed: u64) {
    let bytes = draw(&mut Random::new(seed));
    round_trip::<etcdserverpb::InternalRaftRequest>(&bytes, seed);
    round_trip::<etcdserverpb::RangeRequest>(&bytes, seed);
    round_trip::<etcdserverpb::PutRequest>(&bytes, seed);
    round_trip::<etcdserverpb::DeleteRangeRequest>(&bytes, seed);
    round_trip::<etcdserverpb::TxnRequest>(&bytes, seed);
    round_trip::<etcdserverpb::WatchRequest>(&bytes, seed);
    round_trip::<mvccpb::KeyValue>(&bytes, seed);
    round_trip::<leasepb::Lease>(&bytes, seed);
    round_trip::<authpb::User>(&bytes, seed);
    round_trip::<authpb::Role>(&bytes, seed);
    round_trip::<raftpb::Entry>(&bytes, seed);
    round_trip::<raftpb::Message>(&bytes, seed);
    round_trip::<raftpb::ConfChange>(&bytes, seed);
}

fn round_trip<M: Message + Default + PartialEq>(bytes: &[u8], seed: u64) {
    let Ok(message) = M::decode(bytes) else {
        return;
    };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(
        again.is_ok_and(|again| again == message),
        "seed {seed}: a message changes when it is encoded"
    );
}

/// Draws bytes that look like fields: mostly true tags and lengths, sometimes lies and garbage.
fn draw(random: &mut Random) -> Vec<u8> {
    let len = random.below(MESSAGE_BYTES_MAX);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        match random.below(8) {
            0..=3 => {
                let payload = random.below(20);
                bytes.push(random.byte(16) << 3 | 2);
                bytes.push(if random.below(10) == 0 {
                    random.byte(256)
                } else {
                    random.byte(payload + 1)
                });
                (0..payload).for_each(|_| bytes.push(random.byte(256)));
            }
            4 | 5 => {
                bytes.push(random.byte(16) << 3);
                prost::encoding::encode_varint(random.next() >> random.below(64), &mut bytes);
            }
            6 => bytes.extend([random.byte(16) << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 1]),
            _ => bytes.push(random.byte(256)),
        }
    }
    bytes
}
