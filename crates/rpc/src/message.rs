//! Encoded responses: a gather list of bytes, each message with gRPC's prefix in front.
use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::PREFIX_BYTES;

/// Pieces up to this size are copied; larger ones are referred to.
const COPY_MAX_BYTES: usize = 2048;

/// One or more whole length-prefixed messages, ready for the wire.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// **Invariant:** no piece is empty.
    pieces: Vec<Bytes>,
    wire_len: usize,
    count: usize,
}

impl Message {
    /// Encodes a message by Protobuf's own rules.
    ///
    /// # Panics
    ///
    /// When the message is longer than a length prefix can say; every answer is bounded far below that.
    pub fn encode<M: prost::Message>(message: &M) -> Self {
        let len = message.encoded_len();
        let mut gather = Gather::with_capacity(len);
        gather.begin(len);
        let mut buf = std::mem::take(&mut gather.buf);
        // A `BytesMut` grows as it must, so there is always room.
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
        }
    }

    /// Starts a message of exactly `body_len` bytes.
    ///
    /// # Panics
    ///
    /// When the message is longer than a length prefix can say.
    pub(crate) fn begin(&mut self, body_len: usize) {
        self.buf.put_u8(0);
        self.buf
            .put_u32(u32::try_from(body_len).expect("an answer is shorter than 4 GiB"));
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
        }
    }

    /// Returns how many of so many spliced bytes will be copied.
    pub(crate) fn copied(len: usize) -> usize {
        if len <= COPY_MAX_BYTES { len } else { 0 }
    }
}
