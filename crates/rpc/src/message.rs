//! Encoded responses: a gather list of bytes, each message with gRPC's prefix in front.
use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::PREFIX_BYTES;
use crate::status::{Code, Status};

/// The longest message that may be sent. Source: etcd v3.7.1 server/etcdserver/api/v3rpc/grpc.go, `maxSendBytes`.
const MESSAGE_MAX_BYTES: usize = 0x7fff_ffff;

/// Pieces up to this size are copied; larger ones are referred to.
const COPY_MAX_BYTES: usize = 2048;

/// One or more whole length-prefixed messages, ready for the wire.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// **Invariant:** no piece is empty.
    pieces: Vec<Bytes>,
    wire_len: usize,
    count: usize,
    /// Length of the longest message, in bytes.
    longest: usize,
}

impl Message {
    /// Encodes a message by Protobuf's own rules.
    ///
    /// # Panics
    ///
    /// Never: the buffer grows as it must.
    pub fn encode<M: prost::Message>(message: &M) -> Self {
        let len = message.encoded_len();
        let mut gather = Gather::with_capacity(len);
        gather.begin(len);
        let mut buf = std::mem::take(&mut gather.buf);
        message.encode(&mut buf).expect("a growing buffer has room");
        gather.buf = buf;
        gather.finish()
    }

    /// Returns the length with the prefixes, in bytes.
    pub fn wire_len(&self) -> usize {
        self.wire_len
    }

    /// Returns how many messages there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the length of the messages themselves, in bytes.
    pub fn body_len(&self) -> usize {
        self.wire_len - self.count * PREFIX_BYTES
    }

    /// Returns everything in one piece, with the prefixes.
    pub fn to_wire(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.wire_len);
        for piece in &self.pieces {
            all.extend_from_slice(piece);
        }
        all.freeze()
    }

    /// Refuses what no client would take; a caller may ask for more than fits one answer.
    pub(crate) fn check(self) -> Result<Self, Status> {
        if self.longest <= MESSAGE_MAX_BYTES {
            return Ok(self);
        }
        let text = format!(
            "grpc: trying to send message larger than max ({} vs. {MESSAGE_MAX_BYTES})",
            self.longest
        );
        Err(Status::new(Code::ResourceExhausted, text))
    }

    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
}

/// Builds a [`Message`] from copied and from shared bytes; the length of each message is known before its bytes.
#[derive(Debug)]
pub(crate) struct Gather {
    pieces: Vec<Bytes>,
    buf: BytesMut,
    /// Bytes in `pieces`.
    cut: usize,
    /// Bytes that were announced, prefixes included.
    announced: usize,
    count: usize,
    longest: usize,
}

impl Gather {
    /// Starts with room for so many copied bytes.
    pub(crate) fn with_capacity(copied_len: usize) -> Self {
        let buf = BytesMut::with_capacity(PREFIX_BYTES + copied_len);
        Self {
            pieces: Vec::new(),
            buf,
            cut: 0,
            announced: 0,
            count: 0,
            longest: 0,
        }
    }

    /// Starts a message of exactly `body_len` bytes. One that is too long gets a wrong prefix, and is never sent: see
    /// [`Message::check`].
    pub(crate) fn begin(&mut self, body_len: usize) {
        self.longest = self.longest.max(body_len);
        self.buf.put_u8(0);
        self.buf
            .put_u32(u32::try_from(body_len).unwrap_or(u32::MAX));
        self.announced += PREFIX_BYTES + body_len;
        self.count += 1;
    }

    pub(crate) fn put_slice(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    pub(crate) fn put_varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.buf.put_u8(low & 0x7f);
                return;
            }
            self.buf.put_u8(low | 0x80);
        }
    }

    /// Appends bytes, by reference when they are many.
    pub(crate) fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_MAX_BYTES {
            self.buf.put_slice(bytes);
            return;
        }
        self.cut();
        self.cut += bytes.len();
        self.pieces.push(bytes.clone());
    }

    fn cut(&mut self) {
        if !self.buf.is_empty() {
            self.cut += self.buf.len();
            self.pieces.push(self.buf.split().freeze());
        }
    }

    /// Ends the last message.
    ///
    /// # Panics
    ///
    /// When what was put in is not as long as was said: the bytes on the wire would be out of step for good.
    pub(crate) fn finish(mut self) -> Message {
        self.cut();
        assert_eq!(
            self.cut, self.announced,
            "an encoder measures what it writes"
        );
        Message {
            pieces: self.pieces,
            wire_len: self.cut,
            count: self.count,
            longest: self.longest,
        }
    }

    /// Returns the bytes that were put in, of which no message was begun.
    pub(crate) fn into_unframed(self) -> Vec<u8> {
        debug_assert!(self.count == 0 && self.pieces.is_empty());
        self.buf.into()
    }

    /// Returns how many of so many spliced bytes will be copied.
    pub(crate) fn copied(len: usize) -> usize {
        if len <= COPY_MAX_BYTES { len } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_no_client_would_take_is_refused_and_not_sent() {
        // Many references to one large value make an answer of any length out of little memory.
        let value = Bytes::from(vec![0; 1 << 20]);
        let count = 2_100;
        let mut gather = Gather::with_capacity(0);
        gather.begin(value.len() * count);
        for _ in 0..count {
            gather.splice(&value);
        }
        let status = gather.finish().check().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let message = Message::encode(&quorate_proto::etcdserverpb::PutResponse::default());
        assert!(message.check().is_ok());
    }
}
