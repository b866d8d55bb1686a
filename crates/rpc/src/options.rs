//! What the front door is told at start, and the limits that protect it.

/// How many bytes a request message may be longer than the largest replicated request.
///
/// Source: etcd v3.7.1 server/embed, `grpcOverheadBytes`.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// The front door's settings, with etcd's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many connection threads there are; at least 1, at most 256.
    pub threads: usize,
    /// The largest replicated request, in bytes (`max-request-bytes`).
    pub max_request_bytes: usize,
    /// Streams that one connection may have open (`max-concurrent-streams`); never more than [`STREAMS_MAX`] are allowed.
    pub max_concurrent_streams: u32,
    /// The shortest allowed time between two pings of a client (`grpc-keepalive-min-time`), in milliseconds.
    pub keepalive_min_ms: u64,
    /// How long a connection may be silent before it is pinged (`grpc-keepalive-interval`), in milliseconds; 0 is never.
    pub keepalive_interval_ms: u64,
    /// How long a ping may stay without an answer before the connection is closed (`grpc-keepalive-timeout`), in milliseconds.
    pub keepalive_timeout_ms: u64,
    /// Connections open at one time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// How long a stop waits for the calls under way before it cuts them, in milliseconds.
    pub drain_ms: u64,
    /// The most bytes of answers that wait to be read on one connection before its streams wait and new calls on it are
    /// held back; at four times as many it is cut, but for large answers, which have a limit for the whole process.
    pub connection_unsent_max_bytes: usize,
    /// The most bytes of answers that wait to be read on one connection thread; beyond it, connections that have any wait
    /// as they do beyond a limit of their own; at four times as many those are cut that add to it.
    pub thread_unsent_max_bytes: usize,
    /// Calls under way on one connection thread; more are refused.
    pub thread_streams_max: usize,
    /// How long a connection may take nothing of what waits for it, while memory for answers is short, before it is
    /// closed, in milliseconds.
    pub stall_ms: u64,
    /// The most bytes that one stream may have queued for a reader that does not keep up; the sender waits, and what
    /// waits for it can be put together.
    pub stream_unsent_max_bytes: usize,
    /// The most bytes of unfinished request messages on one connection thread; a call that goes over it is refused.
    pub thread_unfinished_max_bytes: usize,
}

/// The most streams a connection may have open, whatever the options say.
///
/// Differs from etcd: its default is no limit at all, which lets one client take all memory.
pub const STREAMS_MAX: u32 = 100_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            max_request_bytes: 1536 * 1024,
            max_concurrent_streams: u32::MAX,
            keepalive_min_ms: 5_000,
            keepalive_interval_ms: 2 * 60 * 60 * 1000,
            keepalive_timeout_ms: 20_000,
            max_connections: 100_000,
            drain_ms: 5_000,
            connection_unsent_max_bytes: 32 * 1024 * 1024,
            thread_unsent_max_bytes: 256 * 1024 * 1024,
            thread_streams_max: 1_000_000,
            stall_ms: 30_000,
            stream_unsent_max_bytes: 64 * 1024,
            thread_unfinished_max_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Options {
    /// Returns the largest request message taken, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }
}
