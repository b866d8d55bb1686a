//! Writes messages, referring to large entries instead of copying them.
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use quorate_proto::raftpb::{Entry, Message, MessageType};

use super::{Chunks, StreamKind};

/// A batch is closed when it is this large.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 20;

/// Data of an entry from this length on is referred to; below, copying it is cheaper than another piece of a write.
const REFERRED_BYTES_MIN: usize = 8 << 10;

/// Field numbers, from `raft.proto`.
const MESSAGE_ENTRIES: u32 = 7;
const ENTRY_DATA: u32 = 4;

const TYPE_HEARTBEAT: u8 = 0;
const TYPE_MSG_APP: u8 = 2;

/// Collects what is written: small things one after the other in one buffer, large ones by reference.
#[derive(Default)]
struct Writer {
    chunks: Chunks,
    buffer: BytesMut,
}

impl Writer {
    fn refer(&mut self, bytes: Bytes) {
        let before = self.buffer.split().freeze();
        self.chunks.push(before);
        self.chunks.push(bytes);
    }

    fn finish(mut self) -> Chunks {
        self.chunks.push(self.buffer.freeze());
        self.chunks
    }
}

/// Returns about how many bytes a message is, without walking its fields.
pub(crate) fn weigh(message: &Message) -> usize {
    const MESSAGE_BYTES: usize = 64;
    const ENTRY_BYTES: usize = 24;
    let entries = message.entries.iter();
    let data: usize = entries
        .map(|entry| ENTRY_BYTES + entry.data.as_ref().map_or(0, Bytes::len))
        .sum();
    MESSAGE_BYTES + data + message.context.as_ref().map_or(0, Bytes::len)
}

/// Encodes messages for a stream, in order.
pub(crate) fn encode_batch(kind: StreamKind, messages: Vec<Message>) -> Chunks {
    let mut writer = Writer::default();
    let small: usize = messages.iter().map(weigh).sum();
    writer.buffer.reserve(small.min(BATCH_BYTES_MAX));
    for message in messages {
        if kind == StreamKind::MsgApp {
            writer.buffer.put_u8(TYPE_MSG_APP);
        }
        write_framed(&mut writer, message);
    }
    writer.finish()
}

/// Encodes a link heartbeat.
pub(crate) fn encode_heartbeat(kind: StreamKind) -> Bytes {
    match kind {
        StreamKind::MsgApp => Bytes::from_static(&[TYPE_HEARTBEAT]),
        StreamKind::Message => {
            // A heartbeat without sender and receiver: 8 bytes length, then the type alone.
            Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 2, 8, MessageType::MsgHeartbeat as u8])
        }
    }
}

/// Encodes one message behind its length: how a snapshot's body begins.
pub(crate) fn encode_message(message: Message) -> Chunks {
    let mut writer = Writer::default();
    write_framed(&mut writer, message);
    writer.finish()
}

fn write_framed(writer: &mut Writer, mut message: Message) {
    let is_large = |entry: &Entry| {
        entry
            .data
            .as_ref()
            .is_some_and(|data| data.len() >= REFERRED_BYTES_MIN)
    };
    if !message.entries.iter().any(is_large) {
        writer.buffer.put_u64(message.encoded_len() as u64);
        message
            .encode(&mut writer.buffer)
            .expect("a growing buffer has room");
        return;
    }
    // The order of fields does not matter to a decoder, so the entries go last, each around its own bytes.
    let entries = std::mem::take(&mut message.entries);
    let bodies = entries.into_iter().map(EntryParts::new);
    let bodies: Vec<EntryParts> = bodies.collect();
    let length = message.encoded_len() + bodies.iter().map(EntryParts::field_len).sum::<usize>();
    writer.buffer.put_u64(length as u64);
    message
        .encode(&mut writer.buffer)
        .expect("a growing buffer has room");
    for body in bodies {
        body.write(writer);
    }
}

/// An entry's small fields and its data.
struct EntryParts {
    head: Entry,
    data: Option<Bytes>,
    /// Bytes of the whole entry.
    len: usize,
}

impl EntryParts {
    fn new(mut entry: Entry) -> Self {
        let len = entry.encoded_len();
        let data = entry.data.take();
        Self {
            head: entry,
            data,
            len,
        }
    }

    /// Returns the bytes of the entry as a field of a message.
    fn field_len(&self) -> usize {
        1 + encoded_len_varint(self.len as u64) + self.len
    }

    fn write(self, writer: &mut Writer) {
        encode_key(
            MESSAGE_ENTRIES,
            WireType::LengthDelimited,
            &mut writer.buffer,
        );
        encode_varint(self.len as u64, &mut writer.buffer);
        self.head
            .encode(&mut writer.buffer)
            .expect("a growing buffer has room");
        let Some(data) = self.data else {
            return;
        };
        encode_key(ENTRY_DATA, WireType::LengthDelimited, &mut writer.buffer);
        encode_varint(data.len() as u64, &mut writer.buffer);
        if data.len() < REFERRED_BYTES_MIN {
            writer.buffer.put_slice(&data);
        } else {
            writer.refer(data);
        }
    }
}
