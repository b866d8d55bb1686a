//! Messages on streams: how they are framed, encoded around the bytes of their entries, and decoded.
mod chunks;
mod decoder;
mod encoder;
mod sealed;
#[cfg(test)]
mod tests;

pub(crate) use chunks::Chunks;
pub(crate) use decoder::{Decoder, decode_message};
pub(crate) use encoder::{BATCH_BYTES_MAX, encode_batch, encode_heartbeat, encode_message, weigh};
pub(crate) use sealed::{Unsealer, seal};

/// Longest message on a stream.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/msg_codec.go `readBytesLimit`.
pub(crate) const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// The two streams of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamKind {
    /// `MsgApp` alone.
    ///
    /// **Shape**: a type byte, then, big-endian:
    ///
    /// | type | what follows |
    /// |---|---|
    /// | 0 | nothing: a link heartbeat |
    /// | 1 | 8 bytes count, per entry 8 bytes length and the entry, 8 bytes commit: continues the message before |
    /// | 2 | 8 bytes length, a message |
    ///
    /// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/msgappv2_codec.go.
    MsgApp,
    /// Everything else but snapshots.
    ///
    /// **Shape**: 8 bytes length, big-endian, and a message; a heartbeat of nobody to nobody is the link's.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/msg_codec.go.
    Message,
}

impl StreamKind {
    /// Returns the kind's name in the stream's path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            StreamKind::MsgApp => "msgapp",
            StreamKind::Message => "message",
        }
    }

    /// Returns etcd's name of the kind, for logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            StreamKind::MsgApp => "stream MsgApp v2",
            StreamKind::Message => "stream Message",
        }
    }
}
