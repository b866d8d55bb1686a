//! Encoded responses: a gather list of bytes, each message with gRPC's prefix in front.
use std::sync::Arc;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

use crate::beside::Room;
use crate::frame::PREFIX_BYTES;
use crate::status::{Code, Status};

/// The longest message that may be sent. Source: etcd v3.7.1 server/etcdserver/api/v3rpc/grpc.go, `maxSendBytes`.
pub(crate) const MESSAGE_MAX_BYTES: usize = 0x7fff_ffff;

/// Pieces up to this size are copied; larger ones are referred to.
const COPY_MAX_BYTES: usize = 2048;

/// From this length on, in bytes, a message is large: copying all of it would take as much memory again.
const LARGE_BYTES: usize = 64 * 1024;

/// Pieces of large messages up to this size are copied.
const COPY_MAX_BYTES_LARGE: usize = 256;

/// Most bytes of a piece that are its own: a tag and a length.
const OWN_BYTES_MAX: usize = 7;

/// A few bytes of its own and shared ones behind them.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    own: [u8; OWN_BYTES_MAX],
    own_len: u8,
    shared: Bytes,
}

impl Piece {
    fn of(shared: Bytes) -> Self {
        Self {
            own: [0; OWN_BYTES_MAX],
            own_len: 0,
            shared,
        }
    }

    /// Returns the bytes in two parts, of which the first may be empty.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.own[..usize::from(self.own_len)], &self.shared)
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.own_len) + self.shared.len()
    }

    /// Drops bytes in front; there are more.
    pub(crate) fn advance(&mut self, count: usize) {
        let of_own = count.min(usize::from(self.own_len));
        self.own.copy_within(of_own.., 0);
        // No more than what fits the number.
        self.own_len -= u8::try_from(of_own).unwrap_or(self.own_len);
        self.shared.advance(count - of_own);
    }
}

/// One or more whole length-prefixed messages, ready for the wire.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// **Invariant:** no piece is empty.
    pieces: Vec<Piece>,
    wire_len: usize,
    count: usize,
    /// Length of the longest message, in bytes.
    longest: usize,
    /// What it takes of the room for large answers, for as long as it lives.
    room: Option<Arc<Room>>,
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
            let (own, shared) = piece.parts();
            all.extend_from_slice(own);
            all.extend_from_slice(shared);
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

    /// Keeps room for as long as the message lives, on its way to the wire included.
    pub(crate) fn keep_room(&mut self, room: Room) {
        self.room = Some(Arc::new(room));
    }

    /// Takes the message apart: its pieces, and the room it keeps.
    pub(crate) fn into_parts(self) -> (Vec<Piece>, Option<Arc<Room>>) {
        (self.pieces, self.room)
    }
}

/// Builds a [`Message`] from copied and from shared bytes; the length of each message is known before its bytes.
#[derive(Debug)]
pub(crate) struct Gather {
    pieces: Vec<Piece>,
    buf: BytesMut,
    copy_max: usize,
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
            copy_max: COPY_MAX_BYTES,
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

    /// Starts with room for the fields of one message of so many bytes that are copied: `fixed`, and those of the spliced
    /// ones that are small.
    pub(crate) fn with_spliced(
        body_len: usize,
        fixed: usize,
        spliced: impl Iterator<Item = usize>,
    ) -> Self {
        let copy_max = if body_len >= LARGE_BYTES {
            COPY_MAX_BYTES_LARGE
        } else {
            COPY_MAX_BYTES
        };
        let copied = |len| {
            if len <= copy_max {
                OWN_BYTES_MAX + len
            } else {
                0
            }
        };
        Self {
            copy_max,
            ..Self::with_capacity(fixed + spliced.map(copied).sum::<usize>())
        }
    }

    /// Appends bytes, by reference when they are many.
    pub(crate) fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() <= self.copy_max {
            self.buf.put_slice(bytes);
            return;
        }
        self.cut();
        self.refer(Piece::of(bytes.clone()));
    }

    /// Appends a field with its tag and length, its content by reference when it is long.
    pub(crate) fn splice_field(&mut self, tag: u8, content: &Bytes) {
        let mut own = [tag, 0, 0, 0, 0, 0, 0];
        let mut own_len = 1;
        let mut len = content.len();
        // A field of 4 GiB would not fit a message.
        while own_len < OWN_BYTES_MAX {
            let [low, ..] = len.to_le_bytes();
            len >>= 7;
            own[own_len] = if len == 0 { low & 0x7f } else { low | 0x80 };
            own_len += 1;
            if len == 0 {
                break;
            }
        }
        if content.len() <= self.copy_max {
            self.buf.put_slice(&own[..own_len]);
            self.buf.put_slice(content);
            return;
        }
        self.cut();
        self.refer(Piece {
            own,
            own_len: u8::try_from(own_len).unwrap_or(0),
            shared: content.clone(),
        });
    }

    fn refer(&mut self, piece: Piece) {
        self.cut += piece.len();
        self.pieces.push(piece);
    }

    fn cut(&mut self) {
        if !self.buf.is_empty() {
            let copied = self.buf.split().freeze();
            self.refer(Piece::of(copied));
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
            room: None,
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
