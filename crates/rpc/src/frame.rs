//! The length-prefixed messages of gRPC: one flag byte, four bytes of length, the message.
use bytes::{Buf, Bytes, BytesMut};

use crate::gzip;
use crate::status::{Code, Status};

/// How long the prefix of a message is.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Messages up to this size are copied out of the connection's read buffer.
///
/// What decodes from a message shares its memory: a slice of the read buffer would keep all of it, with the messages of
/// others, for as long as the smallest key of it lives.
const COPY_MAX_BYTES: usize = 8 * 1024;

/// The most memory reserved for a message on the word of its prefix alone.
const TRUST_MAX_BYTES: usize = 64 * 1024;

/// Puts messages together from the data frames of one stream.
///
/// **Shape**: byte 0 is 0 for plain or 1 for compressed; bytes 1 to 4 are the length, big endian; the message follows.
#[derive(Debug)]
pub(crate) struct MessageReader {
    max_bytes: usize,
    is_gzip: bool,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    body: BytesMut,
    /// What is not looked at yet; not empty only after a message was taken or before the first.
    rest: Bytes,
}

impl MessageReader {
    /// Reads messages of up to `max_bytes`, unpacked; `is_gzip` says that they may be packed.
    pub(crate) fn new(max_bytes: usize, is_gzip: bool) -> Self {
        Self {
            max_bytes,
            is_gzip,
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            body: BytesMut::new(),
            rest: Bytes::new(),
        }
    }

    /// Takes in the payload of the next data frame.
    ///
    /// # Panics
    ///
    /// When [`MessageReader::next`] was not called until it gave `None`.
    pub(crate) fn push(&mut self, data: Bytes) {
        assert!(
            self.rest.is_empty(),
            "messages are taken before more data is pushed"
        );
        self.rest = data;
    }

    /// Returns how many bytes of an unfinished message are held.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.body.len()
    }

    /// Says whether the data so far ends with a whole message.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.prefix_len == 0 && self.rest.is_empty()
    }

    /// Gives the next whole message, or `None` when more data is needed.
    ///
    /// # Errors
    ///
    /// What grpc-go answers to a message that is too large, compressed or of an unknown form. The stream is of no more
    /// use then.
    ///
    /// Source: grpc-go v1.82.1 rpc_util.go `recvMsg`, `checkRecvPayload`.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while self.prefix_len < PREFIX_BYTES {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let take = self.rest.len().min(PREFIX_BYTES - self.prefix_len);
            self.prefix[self.prefix_len..self.prefix_len + take]
                .copy_from_slice(&self.rest[..take]);
            self.prefix_len += take;
            self.rest.advance(take);
        }
        let [flag, length @ ..] = self.prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            let max = self.max_bytes;
            let text = format!("grpc: received message larger than max ({length} vs. {max})");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        let Some(message) = self.take_body(length) else {
            return Ok(None);
        };
        self.prefix_len = 0;
        self.unpack(flag, message).map(Some)
    }

    fn take_body(&mut self, length: usize) -> Option<Bytes> {
        if self.body.is_empty() && self.rest.len() >= length {
            let message = self.rest.split_to(length);
            if length <= COPY_MAX_BYTES {
                return Some(Bytes::copy_from_slice(&message));
            }
            return Some(message);
        }
        if self.body.capacity() == 0 {
            self.body.reserve(length.min(TRUST_MAX_BYTES));
        }
        let take = self.rest.len().min(length - self.body.len());
        self.body.extend_from_slice(&self.rest.split_to(take));
        (self.body.len() == length).then(|| std::mem::take(&mut self.body).freeze())
    }

    /// Source: grpc-go v1.82.1 rpc_util.go `checkRecvPayload`, `decompress`.
    fn unpack(&self, flag: u8, message: Bytes) -> Result<Bytes, Status> {
        match flag {
            0 => Ok(message),
            1 if self.is_gzip => match gzip::unpack(&message, self.max_bytes) {
                Ok(Some(plain)) => Ok(plain),
                Ok(None) => {
                    let max = self.max_bytes;
                    let text =
                        format!("grpc: received message after decompression larger than max {max}");
                    Err(Status::new(Code::ResourceExhausted, text))
                }
                Err(error) => {
                    let text = format!("grpc: failed to decompress the message: {error}");
                    Err(Status::new(Code::Internal, text))
                }
            },
            1 => Err(Status::fixed(
                Code::Internal,
                "grpc: compressed flag set with identity or empty encoding",
            )),
            other => Err(Status::new(
                Code::Internal,
                format!("grpc: received unexpected payload format {other}"),
            )),
        }
    }
}

/// Returns what a call with an encoding is answered that nobody here can decode.
pub(crate) fn no_decompressor(encoding: &str) -> Status {
    let text = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
    Status::new(Code::Unimplemented, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut out = vec![flag];
        out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        out.extend_from_slice(message);
        out
    }

    fn read_all(
        reader: &mut MessageReader,
        wire: &[u8],
        chunk: usize,
    ) -> Result<Vec<Bytes>, Status> {
        let mut messages = Vec::new();
        for part in wire.chunks(chunk) {
            reader.push(Bytes::copy_from_slice(part));
            while let Some(message) = reader.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_come_out_whole_however_the_data_is_cut() {
        let large = vec![7_u8; COPY_MAX_BYTES + 1];
        let mut wire = framed(0, b"one");
        wire.extend(framed(0, b""));
        wire.extend(framed(0, &large));
        wire.extend(framed(0, b"end"));
        for chunk in [1, 2, 3, 5, 8, 100, COPY_MAX_BYTES, wire.len()] {
            let mut reader = MessageReader::new(1 << 20, false);
            let messages = read_all(&mut reader, &wire, chunk).unwrap();
            assert_eq!(
                messages,
                [&b"one"[..], b"", &large, b"end"],
                "chunk {chunk}"
            );
            assert!(reader.is_between_messages());
            assert_eq!(reader.unfinished_bytes(), 0);
        }
    }

    #[test]
    fn message_over_the_limit_is_refused_before_its_body_comes() {
        let mut reader = MessageReader::new(10, false);
        let error = read_all(&mut reader, &[0, 0, 0, 0, 11], 5).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(
            error.message(),
            "grpc: received message larger than max (11 vs. 10)"
        );
    }

    #[test]
    fn flags_are_judged_as_grpc_go_does() {
        let cases = [
            (
                1,
                false,
                Code::Internal,
                "grpc: compressed flag set with identity or empty encoding",
            ),
            (
                2,
                true,
                Code::Internal,
                "grpc: received unexpected payload format 2",
            ),
            (
                2,
                false,
                Code::Internal,
                "grpc: received unexpected payload format 2",
            ),
        ];
        for (flag, is_gzip, code, text) in cases {
            let mut reader = MessageReader::new(100, is_gzip);
            let error = read_all(&mut reader, &framed(flag, b"x"), 100).unwrap_err();
            assert_eq!((error.code(), error.message()), (code, text));
        }
    }

    #[test]
    fn packed_messages_are_unpacked_up_to_the_limit() {
        let read = |flag, body: &[u8]| {
            let mut reader = MessageReader::new(100, true);
            read_all(&mut reader, &framed(flag, body), 100)
        };
        let packed = |len| gzip::pack(&vec![b'x'; len]);
        assert_eq!(read(1, &packed(100)).unwrap(), [&[b'x'; 100][..]]);
        assert_eq!(read(0, b"plain").unwrap(), [&b"plain"[..]]);
        let error = read(1, &packed(101)).unwrap_err();
        let text = "grpc: received message after decompression larger than max 100";
        assert_eq!(
            (error.code(), error.message()),
            (Code::ResourceExhausted, text)
        );
        let error = read(1, b"garbage").unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(
            error
                .message()
                .starts_with("grpc: failed to decompress the message: ")
        );
    }

    #[test]
    fn cut_message_is_not_between_messages() {
        let mut reader = MessageReader::new(100, false);
        assert!(reader.is_between_messages());
        assert!(
            read_all(&mut reader, &framed(0, b"hello")[..7], 100)
                .unwrap()
                .is_empty()
        );
        assert!(!reader.is_between_messages());
        assert_eq!(reader.unfinished_bytes(), 2);
    }
}
