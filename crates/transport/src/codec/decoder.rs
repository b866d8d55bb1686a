//! Reads messages from a stream's bytes, however they are cut.
use bytes::{Buf, BytesMut};
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Entry, Message, MessageType};

use super::{MESSAGE_BYTES_MAX, StreamKind};
use crate::Error;

const TYPE_HEARTBEAT: u8 = 0;
const TYPE_ENTRIES: u8 = 1;
const TYPE_MSG_APP: u8 = 2;

/// What an entry counts beside its bytes: about what it takes in memory.
const ENTRY_BYTES: usize = 96;

/// Field numbers of repeated messages, from `raft.proto`.
const FIELD_ENTRIES: u32 = 7;
const FIELD_RESPONSES: u32 = 14;

/// What must come next.
#[derive(Debug)]
enum State {
    Start,
    MessageLength,
    Message {
        bytes: usize,
    },
    EntryCount,
    EntryLength(Continued),
    Entry {
        bytes: usize,
        so_far: Continued,
    },
    Commit(Continued),
    /// The stream broke the format; nothing more can be read from it.
    Broken,
}

/// A message that continues the one before, as far as it has come.
#[derive(Debug, Default)]
struct Continued {
    entries: Vec<Entry>,
    left: u64,
    /// Bytes of the entries so far.
    bytes: usize,
}

/// Takes bytes in and gives messages out. Memory is bounded by the bytes given, not by lengths they claim.
#[derive(Debug)]
pub(crate) struct Decoder {
    kind: StreamKind,
    local: MemberId,
    remote: MemberId,
    bytes_max: usize,
    buffer: BytesMut,
    state: State,
    /// Term and index of the last entry sent, from which a continuing message goes on.
    term: u64,
    index: u64,
}

impl Decoder {
    pub(crate) fn new(kind: StreamKind, local: MemberId, remote: MemberId) -> Self {
        Self {
            kind,
            local,
            remote,
            bytes_max: MESSAGE_BYTES_MAX,
            buffer: BytesMut::new(),
            state: State::Start,
            term: 0,
            index: 0,
        }
    }

    /// Lowers the limit of a message's length.
    pub(crate) fn with_limit(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Tells whether the stream could end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        let is_at_begin = match self.state {
            State::Start => true,
            State::MessageLength => self.kind == StreamKind::Message,
            _ => false,
        };
        is_at_begin && self.buffer.is_empty()
    }

    /// Returns what was read beyond the last message.
    pub(crate) fn into_rest(self) -> BytesMut {
        self.buffer
    }

    /// Returns the next message, or `None` when more bytes are needed. Link heartbeats come out too.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] and [`Error::TooLarge`], from then on at every call.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        match self.step() {
            Err(error) => {
                self.state = State::Broken;
                self.buffer = BytesMut::new();
                Err(error)
            }
            step => step,
        }
    }

    fn step(&mut self) -> Result<Option<Message>, Error> {
        loop {
            match std::mem::replace(&mut self.state, State::Broken) {
                State::Start => match self.start()? {
                    Some(Start::Go) => {}
                    Some(Start::Heartbeat) => return Ok(Some(link_heartbeat())),
                    None => return Ok(None),
                },
                State::MessageLength => match self.length()? {
                    Some(bytes) => self.state = State::Message { bytes },
                    None => return self.wait(State::MessageLength),
                },
                State::Message { bytes } => {
                    if self.buffer.len() < bytes {
                        return self.wait(State::Message { bytes });
                    }
                    return self.message(bytes).map(Some);
                }
                State::EntryCount => match self.number() {
                    Some(left) => self.begin_entries(left)?,
                    None => return self.wait(State::EntryCount),
                },
                State::EntryLength(so_far) => match self.length()? {
                    Some(bytes) => self.state = State::Entry { bytes, so_far },
                    None => return self.wait(State::EntryLength(so_far)),
                },
                State::Entry { bytes, so_far } => {
                    if self.buffer.len() < bytes {
                        return self.wait(State::Entry { bytes, so_far });
                    }
                    self.entry(bytes, so_far)?;
                }
                State::Commit(so_far) => match self.number() {
                    Some(commit) => return Ok(Some(self.continued(so_far, commit))),
                    None => return self.wait(State::Commit(so_far)),
                },
                State::Broken => return Err(Error::Malformed("the stream is broken")),
            }
        }
    }

    fn wait(&mut self, state: State) -> Result<Option<Message>, Error> {
        self.state = state;
        Ok(None)
    }

    fn start(&mut self) -> Result<Option<Start>, Error> {
        if self.kind == StreamKind::Message {
            self.state = State::MessageLength;
            return Ok(Some(Start::Go));
        }
        if self.buffer.is_empty() {
            self.state = State::Start;
            return Ok(None);
        }
        match self.buffer.get_u8() {
            TYPE_HEARTBEAT => {
                self.state = State::Start;
                return Ok(Some(Start::Heartbeat));
            }
            TYPE_ENTRIES if self.term == 0 => {
                return Err(Error::Malformed("entries continue no message"));
            }
            TYPE_ENTRIES => self.state = State::EntryCount,
            TYPE_MSG_APP => self.state = State::MessageLength,
            _ => return Err(Error::Malformed("unknown type on a msgapp stream")),
        }
        Ok(Some(Start::Go))
    }

    fn number(&mut self) -> Option<u64> {
        (self.buffer.len() >= 8).then(|| self.buffer.get_u64())
    }

    fn length(&mut self) -> Result<Option<usize>, Error> {
        let Some(bytes) = self.number() else {
            return Ok(None);
        };
        match usize::try_from(bytes) {
            Ok(fits) if fits <= self.bytes_max => Ok(Some(fits)),
            _ => Err(Error::TooLarge {
                bytes,
                limit: self.bytes_max as u64,
            }),
        }
    }

    fn message(&mut self, bytes: usize) -> Result<Message, Error> {
        let message = decode_message(&self.buffer[..bytes], self.bytes_max)?;
        self.buffer.advance(bytes);
        self.state = State::Start;
        if self.kind == StreamKind::MsgApp {
            self.term = message.term();
            self.index = message
                .entries
                .last()
                .map_or_else(|| message.index(), Entry::index);
        }
        Ok(message)
    }

    fn begin_entries(&mut self, left: u64) -> Result<(), Error> {
        let most = (self.bytes_max / ENTRY_BYTES) as u64;
        if left > most {
            return Err(Error::TooLarge {
                bytes: left.saturating_mul(ENTRY_BYTES as u64),
                limit: self.bytes_max as u64,
            });
        }
        self.next_entry(Continued {
            left,
            ..Continued::default()
        });
        Ok(())
    }

    fn next_entry(&mut self, so_far: Continued) {
        self.state = if so_far.left == 0 {
            State::Commit(so_far)
        } else {
            State::EntryLength(so_far)
        };
    }

    fn entry(&mut self, bytes: usize, mut so_far: Continued) -> Result<(), Error> {
        so_far.bytes += bytes + ENTRY_BYTES;
        if so_far.bytes > self.bytes_max {
            return Err(Error::TooLarge {
                bytes: so_far.bytes as u64,
                limit: self.bytes_max as u64,
            });
        }
        let entry = Entry::decode(&self.buffer[..bytes])
            .map_err(|_| Error::Malformed("not a raft entry"))?;
        self.buffer.advance(bytes);
        so_far.entries.push(entry);
        so_far.left -= 1;
        self.next_entry(so_far);
        Ok(())
    }

    fn continued(&mut self, so_far: Continued, commit: u64) -> Message {
        self.state = State::Start;
        let before = self.index;
        self.index = before.saturating_add(so_far.entries.len() as u64);
        Message {
            r#type: Some(MessageType::MsgApp.into()),
            from: Some(self.remote.0),
            to: Some(self.local.0),
            term: Some(self.term),
            log_term: Some(self.term),
            index: Some(before),
            entries: so_far.entries,
            commit: Some(commit),
            ..Message::default()
        }
    }
}

/// Decodes one message. Decoding from a slice gives every entry bytes of its own: a small value that is kept for long does
/// not hold a whole batch in memory.
///
/// # Errors
///
/// [`Error::Malformed`] for what is no message, or has the fields of messages between threads; [`Error::TooLarge`] if its
/// entries would take far more memory than their bytes.
pub(crate) fn decode_message(bytes: &[u8], memory_max: usize) -> Result<Message, Error> {
    let malformed = |_| Error::Malformed("not a raft message");
    let mut rest = bytes;
    let mut memory = bytes.len();
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        match field {
            FIELD_ENTRIES => memory += ENTRY_BYTES,
            FIELD_RESPONSES => return Err(Error::Malformed("a message with answers inside")),
            _ => {}
        }
        skip_field(wire_type, field, &mut rest, DecodeContext::default()).map_err(malformed)?;
    }
    if memory > memory_max.saturating_add(memory_max / 8) {
        return Err(Error::TooLarge {
            bytes: memory as u64,
            limit: memory_max as u64,
        });
    }
    Message::decode(bytes).map_err(malformed)
}

enum Start {
    Go,
    Heartbeat,
}

fn link_heartbeat() -> Message {
    Message {
        r#type: Some(MessageType::MsgHeartbeat.into()),
        ..Message::default()
    }
}
