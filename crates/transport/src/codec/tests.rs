//! Codecs against each other, and against bytes that nobody meant.
use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb::{Entry, Message, MessageType};

use super::{Decoder, StreamKind, encode_batch, encode_heartbeat, encode_message};
use crate::Error;
use crate::fuzz::{Random, TARGETS, decoder, flat};

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
fn fuzz_targets_find_nothing_in_a_few_seeds() {
    for (name, target) in TARGETS {
        for seed in 0..2000 {
            let run = std::panic::catch_unwind(|| target(seed));
            assert!(run.is_ok(), "{name}, seed {seed}");
        }
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
