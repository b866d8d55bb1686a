//! An encoded response: a gather list of bytes, with gRPC's prefix in front.
use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::PREFIX_BYTES;

/// Pieces up to this size are copied; larger ones are referred to.
const COPY_MAX_BYTES: usize = 2048;

/// A whole length-prefixed message, ready for the wire.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// **Invariant:** no piece is empty.
    pieces: Vec<Bytes>,
    wire_len: usize,
}

impl Message {
    /// Encodes a message by Protobuf's own rules.
    pub fn encode<M: prost::Message>(message: &M) -> Self {
        let len = message.encoded_len();
        let mut gather = Gather::new(len, len);
        // A `BytesMut` grows as it must, so there is always room.
        message
            .encode(&mut gather.buf)
            .expect("a growing buffer has room");
        gather.finish()
    }

    /// Returns the length with the prefix, in bytes.
    pub fn wire_len(&self) -> usize {
        self.wire_len
    }

    /// Returns the length of the message itself, in bytes.
    pub fn body_len(&self) -> usize {
        self.wire_len.saturating_sub(PREFIX_BYTES)
    }

    /// Returns the message itself in one piece, without the prefix.
    pub fn to_body(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.wire_len);
        for piece in &self.pieces {
            all.extend_from_slice(piece);
        }
        all.freeze().slice(PREFIX_BYTES.min(self.wire_len)..)
    }

    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
}

/// Builds a [`Message`] whose length is known beforehand, from copied and from shared bytes.
#[derive(Debug)]
pub(crate) struct Gather {
    pieces: Vec<Bytes>,
    buf: BytesMut,
    body_len: usize,
    spliced: usize,
}

impl Gather {
    /// Starts a message of exactly `body_len` bytes, of which about `copied_len` will be copied.
    ///
    /// # Panics
    ///
    /// When the message is longer than a length prefix can say; what the store returns is bounded far below it.
    pub(crate) fn new(body_len: usize, copied_len: usize) -> Self {
        let prefix = u32::try_from(body_len).expect("a response is shorter than 4 GiB");
        let mut buf = BytesMut::with_capacity(PREFIX_BYTES + copied_len);
        buf.put_u8(0);
        buf.put_u32(prefix);
        Self {
            pieces: Vec::new(),
            buf,
            body_len,
            spliced: 0,
        }
    }

    pub(crate) fn put_slice(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    pub(crate) fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The low seven bits and the mark that more follow.
            self.buf
                .put_u8(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(u8::try_from(value).expect("below 0x80"));
    }

    /// Appends bytes, by reference when they are many.
    pub(crate) fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_MAX_BYTES {
            self.buf.put_slice(bytes);
            return;
        }
        self.cut();
        self.spliced += bytes.len();
        self.pieces.push(bytes.clone());
    }

    fn cut(&mut self) {
        if !self.buf.is_empty() {
            self.spliced += self.buf.len();
            self.pieces.push(self.buf.split().freeze());
        }
    }

    /// Ends the message.
    ///
    /// # Panics
    ///
    /// When what was put in is not as long as was said: the bytes on the wire would be out of step for good.
    pub(crate) fn finish(mut self) -> Message {
        self.cut();
        assert_eq!(
            self.spliced,
            PREFIX_BYTES + self.body_len,
            "an encoder measures what it writes"
        );
        Message {
            pieces: self.pieces,
            wire_len: self.spliced,
        }
    }

    /// Says whether bytes of this length would be copied.
    pub(crate) fn copies(len: usize) -> bool {
        len <= COPY_MAX_BYTES
    }
}
