//! Fuzz targets: plain functions of a seed, for every decoder of bytes that come from another member.
//!
//! Each makes input from the seed, feeds it to a decoder, and checks what must hold for any input. They panic on a
//! violation; the seed repeats it.
use bytes::{Buf as _, Bytes};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb::Member;
use quorate_proto::raftpb::{Entry, Message, MessageType};

use crate::codec::{Chunks, Decoder, StreamKind, Unsealer, encode_batch, encode_heartbeat, seal};
use crate::inbound::is_taken;
use crate::time::parse_rfc3339;
use crate::url::PeerUrl;
use crate::version::Version;
use crate::{HashKv, headers, json};

/// A fuzz target: panics when the input made from the seed breaks what must hold.
pub type Target = fn(u64);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("transport_round_trip", round_trip),
    ("transport_spoilt_stream", spoilt_stream),
    ("transport_sealed", sealed),
    ("transport_texts", texts),
];

/// Says whether a message still comes out of a sealed stream with one of its bits turned round, which must never be.
///
/// For simulations, in which messages travel without a stream.
pub fn pass_damaged(message: &Message, bit: u64) -> bool {
    let mut sealed = seal(encode_batch(StreamKind::Message, vec![message.clone()]));
    let mut bytes = sealed.copy_to_bytes(sealed.remaining()).to_vec();
    let bits = bytes.len() as u64 * 8;
    let position = usize::try_from(bit % bits / 8).unwrap_or(0);
    bytes[position] ^= 1 << (bit % 8);
    let mut unsealer = Unsealer::default();
    unsealer.push(&bytes);
    matches!(unsealer.next(), Ok(Some(_)))
}

/// Says whether the image of a snapshot is still taken with one of its bits turned round, or one of its checksum's, which must
/// never be.
///
/// For simulations, as [`pass_damaged`].
pub fn pass_damaged_image(image: &[u8], bit: u64) -> bool {
    const PIECE_BYTES: usize = 32 << 10;
    let mut sealed = image.to_vec();
    sealed.extend_from_slice(&crc32fast::hash(image).to_be_bytes());
    let position = usize::try_from(bit / 8 % sealed.len() as u64).unwrap_or(0);
    sealed[position] ^= 1 << (bit % 8);
    is_taken(&sealed, PIECE_BYTES)
}

/// A small generator of numbers; the same seed gives the same ones.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.next().to_le_bytes();
        byte
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..self.below(max + 1)).map(|_| self.byte()).collect()
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    fn kind(&mut self) -> StreamKind {
        self.pick(&[StreamKind::MsgApp, StreamKind::Message])
    }

    pub(crate) fn message(&mut self) -> Message {
        let index = self.next() >> self.below(64);
        let entries = (0..self.below(5)).map(|at| {
            let length = self.pick(&[0, 1, 7, 100, 8191, 8192, 20_000]);
            let data = vec![self.byte(); length];
            Entry {
                term: Some(3),
                index: Some(index.wrapping_add(at as u64 + 1)),
                r#type: (self.below(2) == 0).then_some(0),
                data: (self.below(4) > 0).then(|| Bytes::from(data)),
            }
        });
        Message {
            entries: entries.collect(),
            r#type: Some(MessageType::MsgApp.into()),
            from: Some(1),
            to: Some(2),
            term: Some(self.next()),
            index: Some(index),
            reject: (self.below(2) == 0).then_some(true),
            context: (self.below(3) == 0).then(|| Bytes::from(self.bytes(8))),
            ..Message::default()
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        (0..self.below(5)).map(|_| self.message()).collect()
    }

    /// Changes bytes in one of several ways.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.below(bytes.len());
        match self.below(4) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + 1 + self.below(50)).min(bytes.len()))),
            _ => {
                let insert = self.bytes(30);
                bytes.splice(at..at, insert);
            }
        }
    }
}

pub(crate) fn flat(mut chunks: Chunks) -> Vec<u8> {
    let mut flat = vec![0; chunks.remaining()];
    chunks.copy_to_slice(&mut flat);
    flat
}

pub(crate) fn decoder(kind: StreamKind) -> Decoder {
    Decoder::new(kind, MemberId(2), MemberId(1))
}

/// Decodes bytes cut into pieces, until the end or a fault; tells whether there was one.
fn decode(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> (Vec<Message>, bool) {
    let mut messages = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        decoder.push(part);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

/// What is encoded is decoded, however it is cut.
fn round_trip(seed: u64) {
    let mut random = Random(seed);
    let kind = random.kind();
    let messages = random.messages();
    let mut bytes = flat(encode_batch(kind, messages.clone()));
    bytes.extend_from_slice(&encode_heartbeat(kind));
    let piece = random.pick(&[1, 3, 17, 1000, usize::MAX]);
    let mut decoder = decoder(kind);
    let (mut decoded, is_broken) = decode(&mut decoder, &bytes, piece);
    assert!(!is_broken, "what was encoded is refused");
    let heartbeat = decoded.pop().map(|message| message.r#type());
    assert_eq!(
        heartbeat,
        Some(MessageType::MsgHeartbeat),
        "heartbeat is lost"
    );
    assert!(decoded == messages, "messages changed");
    assert!(decoder.is_between_messages(), "bytes are left");
}

/// Spoilt bytes never panic, and what comes whole before them is what was sent.
fn spoilt_stream(seed: u64) {
    let mut random = Random(seed);
    let kind = random.kind();
    let mut bytes = if random.below(4) == 0 {
        random.bytes(200)
    } else {
        let messages = random.messages();
        flat(encode_batch(kind, messages))
    };
    let whole = bytes.clone();
    random.spoil(&mut bytes);
    let same = whole.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
    let piece = 1 + random.below(300);
    let (before, _) = decode(&mut decoder(kind), &whole[..same], piece);
    let mut after = decoder(kind);
    let (decoded, is_broken) = decode(&mut after, &bytes, piece);
    assert!(
        decoded.starts_with(&before),
        "messages before the fault changed"
    );
    if is_broken {
        after.push(&encode_heartbeat(kind));
        assert!(after.next().is_err(), "a broken stream goes on");
    }
}

/// Sealed batches come out whole, in their order, or not at all.
fn sealed(seed: u64) {
    let mut random = Random(seed);
    let batches: Vec<Vec<u8>> = (0..1 + random.below(4))
        .map(|_| random.bytes(2000))
        .collect();
    let seals = batches
        .iter()
        .map(|batch| seal(Chunks::from(Bytes::from(batch.clone()))));
    let whole: Vec<u8> = seals.flat_map(flat).collect();
    let mut bytes = whole.clone();
    if random.below(10) > 0 {
        random.spoil(&mut bytes);
    }
    let piece = 1 + random.below(500);
    let (mut unsealer, mut unsealed, mut is_refused) = (Unsealer::default(), Vec::new(), false);
    'feeding: for part in bytes.chunks(piece) {
        unsealer.push(part);
        loop {
            match unsealer.next() {
                Ok(Some(batch)) => unsealed.push(batch.to_vec()),
                Ok(None) => break,
                Err(_) => {
                    is_refused = true;
                    break 'feeding;
                }
            }
        }
    }
    // A batch that is lost whole is a message lost, which raft makes good; none may change, or come out of turn.
    let mut sent = batches.iter();
    let in_turn = unsealed.iter().all(|batch| sent.any(|sent| sent == batch));
    assert!(in_turn, "a batch changed");
    let is_noticed = is_refused || !unsealer.is_between_batches();
    assert!(
        is_noticed || bytes == whole || unsealed.len() < batches.len(),
        "spoilt bytes are not noticed"
    );
    let is_all = unsealed == batches && !is_noticed;
    assert!(bytes != whole || is_all, "whole batches are refused");
}

/// Texts never panic their parsers, and what is written is read.
fn texts(seed: u64) {
    let mut random = Random(seed);
    let member = Member {
        id: random.next(),
        name: String::from_utf8_lossy(&random.bytes(12)).into_owned(),
        peer_ur_ls: vec!["http://h:1".to_owned(); random.below(3)],
        client_ur_ls: vec![String::from_utf8_lossy(&random.bytes(5)).into_owned(); random.below(2)],
        is_learner: random.below(2) == 0,
    };
    let hash = HashKv {
        revision: i64::from_le_bytes(random.next().to_le_bytes()),
        hash: u32::from(random.byte()),
        compact_revision: i64::from(random.byte()),
        hash_revision: 0,
    };
    let ns = i64::from_le_bytes((random.next() >> 2).to_le_bytes());
    let written = [
        json::write_members(vec![member.clone()]),
        json::write_hash(&hash),
        json::write_probe(ns),
    ];
    let members = json::parse_members(written[0].as_bytes());
    assert_eq!(members, Some(vec![member]), "a member changed");
    let read = json::parse_hash(written[1].as_bytes());
    assert_eq!(read, Some(hash), "a hash changed");
    let read = json::parse_probe(written[2].as_bytes());
    assert_eq!(read, Some(ns), "a time changed");
    for text in written {
        let mut bytes = text.into_bytes();
        random.spoil(&mut bytes);
        let _ = (json::parse_members(&bytes), json::parse_hash(&bytes));
        let _ = (json::parse_probe(&bytes), json::parse_versions(&bytes));
        let _ = json::parse_hash_request(&bytes);
    }
    let mut text = random
        .pick(&[
            "2026-11-21T12:00:00.5+01:30",
            "3.7.1",
            "http://h:2380",
            "beef",
        ])
        .to_owned();
    let mut bytes = text.clone().into_bytes();
    random.spoil(&mut bytes);
    text = String::from_utf8_lossy(&bytes).into_owned();
    let _ = (parse_rfc3339(&text), Version::parse(&text));
    let _ = (PeerUrl::parse(&text), headers::parse_id(&text));
}
