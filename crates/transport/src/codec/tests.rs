//! Codecs against each other, and against bytes that nobody meant.
use bytes::{Buf, Bytes};
use prost::Message as _;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Entry, Message, MessageType};

use super::{
    Chunks, Decoder, StreamKind, Unsealer, encode_batch, encode_heartbeat, encode_message, seal,
};
use crate::Error;

const KINDS: [StreamKind; 2] = [StreamKind::MsgApp, StreamKind::Message];

/// A small generator of numbers; the same seed gives the same ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn message(&mut self) -> Message {
        let index = self.next() >> self.below(64);
        let sizes = [0, 1, 7, 100, 8191, 8192, 20_000];
        let entries = (0..self.below(5) as u64).map(|at| {
            let length = sizes[self.below(sizes.len())];
            Entry {
                term: Some(3),
                index: Some(index.wrapping_add(at + 1)),
                r#type: (self.below(2) == 0).then_some(0),
                data: (self.below(4) > 0).then(|| Bytes::from(self.bytes(length))),
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
}

fn flat(mut chunks: Chunks) -> Vec<u8> {
    let mut flat = vec![0; chunks.remaining()];
    chunks.copy_to_slice(&mut flat);
    flat
}

fn decoder(kind: StreamKind) -> Decoder {
    Decoder::new(kind, MemberId(2), MemberId(1))
}

/// Decodes bytes cut into pieces of at most `piece` bytes.
fn decode(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece);
        while let Some(message) = decoder.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

#[test]
fn what_is_encoded_is_decoded_however_it_is_cut() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let kind = KINDS[random.below(2)];
        let messages: Vec<Message> = (0..random.below(6)).map(|_| random.message()).collect();
        let mut bytes = flat(encode_batch(kind, messages.clone()));
        bytes.extend_from_slice(&encode_heartbeat(kind));
        let piece = [1, 3, 17, 1000, usize::MAX][random.below(5)];
        let mut decoder = decoder(kind);
        let mut decoded = decode(&mut decoder, &bytes, piece).unwrap();
        let heartbeat = decoded.pop().unwrap();
        assert_eq!(heartbeat.r#type(), MessageType::MsgHeartbeat, "seed {seed}");
        assert!(decoded == messages, "seed {seed}");
        assert!(decoder.is_between_messages(), "seed {seed}");
    }
}

#[test]
fn messages_are_framed_as_etcd_does() {
    let message = Message {
        r#type: Some(MessageType::MsgAppResp.into()),
        to: Some(2),
        ..Message::default()
    };
    let framed = [0, 0, 0, 0, 0, 0, 0, 4, 8, 4, 16, 2];
    assert_eq!(flat(encode_message(message.clone())), framed);
    let in_batch = flat(encode_batch(StreamKind::Message, vec![message.clone()]));
    assert_eq!(in_batch, framed);
    let mut typed = vec![2];
    typed.extend_from_slice(&framed);
    assert_eq!(flat(encode_batch(StreamKind::MsgApp, vec![message])), typed);
    assert_eq!(encode_heartbeat(StreamKind::MsgApp)[..], [0]);
    let beat = [0, 0, 0, 0, 0, 0, 0, 2, 8, 8];
    assert_eq!(encode_heartbeat(StreamKind::Message)[..], beat);
}

#[test]
fn entries_alone_continue_the_message_before() {
    let entry = |index| Entry {
        term: Some(5),
        index: Some(index),
        data: Some(Bytes::from_static(b"v")),
        ..Entry::default()
    };
    let first = Message {
        r#type: Some(MessageType::MsgApp.into()),
        from: Some(1),
        to: Some(2),
        term: Some(5),
        log_term: Some(4),
        index: Some(10),
        entries: vec![entry(11), entry(12)],
        commit: Some(9),
        ..Message::default()
    };
    let mut bytes = flat(encode_batch(StreamKind::MsgApp, vec![first.clone()]));
    for entries in [&[13_u64, 14][..], &[], &[15]] {
        bytes.push(1);
        bytes.extend_from_slice(&(entries.len() as u64).to_be_bytes());
        for index in entries {
            let encoded = entry(*index).encode_to_vec();
            bytes.extend_from_slice(&(encoded.len() as u64).to_be_bytes());
            bytes.extend_from_slice(&encoded);
        }
        bytes.extend_from_slice(&12_u64.to_be_bytes());
    }
    for piece in [1, 5, usize::MAX] {
        let decoded = decode(&mut decoder(StreamKind::MsgApp), &bytes, piece).unwrap();
        assert_eq!(decoded.len(), 4);
        assert_eq!(decoded[0], first);
        let continued = [
            (12, vec![entry(13), entry(14)]),
            (14, vec![]),
            (14, vec![entry(15)]),
        ];
        for (message, (index, entries)) in decoded[1..].iter().zip(continued) {
            let expected = Message {
                log_term: Some(5),
                index: Some(index),
                entries,
                commit: Some(12),
                ..first.clone()
            };
            assert_eq!(*message, expected);
        }
    }
}

#[test]
fn lengths_are_refused_before_anything_is_kept() {
    let long = (super::MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes();
    let mut message = vec![];
    message.extend_from_slice(&long);
    let result = decode(&mut decoder(StreamKind::Message), &message, 8);
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");

    let first = flat(encode_batch(StreamKind::MsgApp, vec![Random(1).message()]));
    for (lengths, what) in [
        (&[long][..], "count"),
        (&[1_u64.to_be_bytes(), long], "entry"),
    ] {
        let mut bytes = first.clone();
        bytes.push(1);
        lengths
            .iter()
            .for_each(|length| bytes.extend_from_slice(length));
        let result = decode(&mut decoder(StreamKind::MsgApp), &bytes, 100);
        assert!(
            matches!(result, Err(Error::TooLarge { .. })),
            "{what} {result:?}"
        );
    }
    let huge = u64::MAX.to_be_bytes();
    assert!(decode(&mut decoder(StreamKind::Message), &huge, 8).is_err());
}

#[test]
fn small_bytes_cannot_grow_to_much_memory() {
    // Two bytes make an entry, or a message inside a message.
    for (field, limit) in [(0x3a_u8, 1 << 16), (0x72, usize::MAX)] {
        let body: Vec<u8> = [field, 0].repeat(10_000);
        let mut bytes = (body.len() as u64).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        let mut decoder = decoder(StreamKind::Message).with_limit(limit.min(1 << 20));
        if field == 0x3a {
            decoder = decoder.with_limit(limit);
        }
        assert!(decode(&mut decoder, &bytes, 4096).is_err(), "{field:x}");
    }
    let mut bytes = flat(encode_batch(StreamKind::MsgApp, vec![Random(1).message()]));
    bytes.push(1);
    bytes.extend_from_slice(&1000_u64.to_be_bytes());
    bytes.extend_from_slice(&[0; 8000]);
    let mut decoder = decoder(StreamKind::MsgApp).with_limit(50_000);
    assert!(decode(&mut decoder, &bytes, 4096).is_err());
}

#[test]
fn entries_that_continue_nothing_are_refused() {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&[0; 16]);
    assert!(decode(&mut decoder(StreamKind::MsgApp), &bytes, 17).is_err());
    assert!(decode(&mut decoder(StreamKind::MsgApp), &[3], 1).is_err());
}

#[test]
fn broken_stream_stays_broken() {
    let mut decoder = decoder(StreamKind::MsgApp);
    decoder.push(&[9]);
    assert!(decoder.next().is_err());
    decoder.push(&encode_heartbeat(StreamKind::MsgApp));
    assert!(decoder.next().is_err());
    assert!(!decoder.is_between_messages());
}

/// Changes bytes in one of several ways.
fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..(at + 1 + random.below(50)).min(bytes.len()))),
        _ => {
            let length = random.below(30);
            let insert = random.bytes(length);
            bytes.splice(at..at, insert);
        }
    }
}

#[test]
fn spoilt_bytes_never_panic_and_what_comes_before_them_stays() {
    for seed in 0..3000 {
        let mut random = Random(seed);
        let kind = KINDS[random.below(2)];
        let mut bytes = if random.below(4) == 0 {
            let length = random.below(200);
            random.bytes(length)
        } else {
            let messages = (0..1 + random.below(4)).map(|_| random.message()).collect();
            flat(encode_batch(kind, messages))
        };
        let whole = bytes.clone();
        spoil(&mut random, &mut bytes);
        let same = whole.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        let piece = 1 + random.below(300);
        let mut before = decoder(kind);
        let expected = decode(&mut before, &whole[..same], piece);
        let mut after = decoder(kind);
        let mut decoded = Vec::new();
        for part in bytes.chunks(piece) {
            after.push(part);
            while let Ok(Some(message)) = after.next() {
                decoded.push(message);
            }
        }
        if let Ok(expected) = expected {
            assert!(decoded.starts_with(&expected), "seed {seed}");
        }
    }
}

#[test]
fn sealed_batches_come_out_whole_or_not_at_all() {
    for seed in 0..3000 {
        let mut random = Random(seed);
        let batches: Vec<Vec<u8>> = (0..1 + random.below(4))
            .map(|_| {
                let length = random.below(2000);
                random.bytes(length)
            })
            .collect();
        let sealed = batches
            .iter()
            .map(|batch| flat(seal(Chunks::from(Bytes::from(batch.clone())))));
        let mut bytes: Vec<u8> = sealed.flatten().collect();
        let is_spoilt = random.below(10) > 0;
        let whole = bytes.clone();
        if is_spoilt {
            spoil(&mut random, &mut bytes);
        }
        let mut unsealer = Unsealer::default();
        let mut unsealed = Vec::new();
        let mut is_refused = false;
        let piece = 1 + random.below(500);
        'feeding: for piece in bytes.chunks(piece) {
            unsealer.push(piece);
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
        assert!(batches.starts_with(&unsealed), "seed {seed}");
        let is_noticed = is_refused || !unsealer.is_between_batches();
        let lost_whole_batches = whole.starts_with(&bytes) || unsealed.len() == batches.len();
        assert!(
            is_noticed || !is_spoilt || lost_whole_batches,
            "seed {seed}"
        );
        assert!(
            is_spoilt || (unsealed == batches && !is_noticed),
            "seed {seed}"
        );
    }
}
