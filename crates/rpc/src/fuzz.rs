//! Fuzz targets: plain functions of a seed, for every decoder of bytes that come from a client.
//!
//! Each makes input from the seed, feeds it to a decoder, and checks what must hold for any input. They panic on a
//! violation; the seed repeats it.
use bytes::Bytes;

use crate::frame::MessageReader;
use crate::metadata::{decode_grpc_message, encode_grpc_message, parse_timeout_ms};
use crate::net::{FrameScanner, Protocol, judge};

/// A fuzz target: panics when the input made from the seed breaks what must hold.
pub type Target = fn(u64);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("rpc_messages", messages),
    ("rpc_frames", frames),
    ("rpc_timeout", timeout),
    ("rpc_percent_encoding", percent_encoding),
    ("rpc_protocol", protocol),
];

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

    /// Cuts bytes into pieces that are not empty.
    fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let max = if self.below(4) == 0 {
                bytes.len()
            } else {
                bytes.len().min(9)
            };
            let (piece, rest) = bytes.split_at(1 + self.below(max));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

/// Reads length-prefixed messages out of random bytes: however they are cut, the same messages and the same end.
///
/// # Panics
///
/// When that does not hold.
pub fn messages(seed: u64) {
    let mut random = Random(seed);
    let mut wire = Vec::new();
    for _ in 0..random.below(8) {
        let message = random.bytes(40);
        wire.push(u8::from(random.below(20) == 0));
        let lie = random.below(30) == 0;
        let length = if lie {
            random.below(1 << 20)
        } else {
            message.len()
        };
        wire.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        wire.extend_from_slice(&message);
    }
    wire.extend(random.bytes(6));
    let max_bytes = 1 + random.below(60);
    let is_gzip = random.below(3) == 0;
    let read = |pieces: Vec<&[u8]>| {
        let mut reader = MessageReader::new(max_bytes, is_gzip);
        let mut messages = Vec::new();
        for piece in pieces {
            reader.push(Bytes::copy_from_slice(piece));
            loop {
                match reader.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(status) => return (messages, Some(status), false),
                }
            }
        }
        let is_whole = reader.is_between_messages();
        (messages, None, is_whole)
    };
    let whole = if wire.is_empty() {
        Vec::new()
    } else {
        vec![&wire[..]]
    };
    let expected = read(whole);
    assert!(
        expected.0.iter().all(|m| m.len() <= max_bytes),
        "a message over the limit came out"
    );
    let pieces = random.cut(&wire);
    assert_eq!(
        read(pieces),
        expected,
        "what comes out depends on how the data is cut"
    );
}

/// Follows frames through random bytes: however they are cut, the same frames.
///
/// # Panics
///
/// When that does not hold.
pub fn frames(seed: u64) {
    let mut random = Random(seed);
    let skip = random.below(30);
    let mut wire = random.bytes(200);
    // Small lengths, so that there are several frames.
    for byte in wire.iter_mut().step_by(3) {
        *byte = 0;
    }
    let read = |pieces: Vec<&[u8]>| {
        let mut scanner = FrameScanner::new(skip);
        let mut seen = Vec::new();
        for piece in pieces {
            let result: Result<(), std::convert::Infallible> = scanner.scan(piece, |frame| {
                seen.push(frame);
                Ok(())
            });
            let Ok(()) = result;
        }
        (seen, scanner.is_at_boundary())
    };
    let expected = read(vec![&wire]);
    let pieces = random.cut(&wire);
    assert_eq!(
        read(pieces),
        expected,
        "what is seen depends on how the bytes are cut"
    );
}

/// Parses random time-outs: never a panic, and never more than eight digits of hours.
///
/// # Panics
///
/// When that does not hold.
pub fn timeout(seed: u64) {
    let mut random = Random(seed);
    let mut text = random.bytes(10);
    if random.below(2) == 0 {
        for byte in &mut text {
            *byte = b'0' + *byte % 10;
        }
        if let Some(last) = text.last_mut() {
            *last = b"HMSmunx"[random.below(7)];
        }
    }
    if let Ok(ms) = parse_timeout_ms(&text) {
        assert!((2..=9).contains(&text.len()), "accepted {text:?}");
        assert!(ms <= 99_999_999 * 3_600_000, "accepted {text:?} as {ms} ms");
    }
}

/// Encodes and decodes random error messages.
///
/// # Panics
///
/// When that does not hold.
pub fn percent_encoding(seed: u64) {
    let mut random = Random(seed);
    let bytes = random.bytes(60);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let encoded = encode_grpc_message(&text);
    assert!(
        encoded.bytes().all(|b| (b' '..=b'~').contains(&b)),
        "not printable: {encoded:?}"
    );
    assert_eq!(decode_grpc_message(encoded.as_bytes()), text);
    // Anything at all decodes to something.
    let _ = decode_grpc_message(&bytes);
}

/// Tells protocols apart by random first bytes: the verdict never changes with more of them.
///
/// # Panics
///
/// When that does not hold.
pub fn protocol(seed: u64) {
    let mut random = Random(seed);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len());
        bytes[at] = random.byte();
    }
    let verdict = judge(&bytes);
    for cut in 0..=bytes.len() {
        let early = judge(&bytes[..cut]);
        assert!(early.is_none() || early == verdict, "the verdict changed");
    }
    if verdict == Some(Protocol::Http2) {
        assert!(bytes.starts_with(b"PRI * HTTP/2"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hold_for_many_seeds() {
        for (name, target) in TARGETS {
            for seed in 0..2_000 {
                target(seed);
            }
            assert!(name.starts_with("rpc_"));
        }
    }
}
