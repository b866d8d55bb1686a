//! The front door: gRPC services, health and metrics on one port.
//!
//! ```text
//! socket -> net: HTTP/2 or HTTP/1.1? -> http2: one task a connection, calls polled in it -> seam: method, metadata, bytes
//!        -> service: validate, limits, who asks -> engine: batches of submissions, one wake-up of the engine
//! engine: batches of outcomes, one wake-up of the thread -> service -> encode: around bytes already encoded -> socket
//! ```
//!
//! Each connection belongs to one thread with a runtime, counters, a watch hub and a mailbox of its own; nothing on the way
//! of a call is shared but the engine's queue and the stores' readers.
//!
//! | what a client can make grow | limit |
//! |---|---|
//! | connections | [`Options::max_connections`]; more wait in the kernel |
//! | streams of a connection, of a thread | [`Options::max_concurrent_streams`], [`STREAMS_MAX`]; [`Options::thread_streams_max`], refused |
//! | a request message | [`Options::max_message_bytes`], refused by its prefix; as much when unpacked |
//! | unfinished messages of a thread | [`Options::thread_unfinished_max_bytes`], the call is refused |
//! | answers that are not read, on a stream | [`Options::stream_unsent_max_bytes`], the sender waits |
//! | on a connection, on a thread | [`Options::connection_unsent_max_bytes`], [`Options::thread_unsent_max_bytes`]: senders wait and new calls are held back; far beyond, and when nothing moves while memory is short, the connection is cut |
//! | calls that are held back | their decoded headers, 8 MiB a connection; then it is cut |
//! | large answers | 1 GiB in the whole process, from before they are read until they are sent; more wait in line, then are refused |
//! | pings, settings, early resets, header lists | constants with grpc-go's or tighter values; the connection is closed |
//!
//! Reads of more than a few keys, and hashes, are made beside the connection's thread, so that nobody else on it waits.
//! A stop ends conversations (watches, lease renewals) at once and lets other calls end.
//!
//! Anything can stand behind the door that implements [`Service`]; [`Services`] is the real one.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use quorate_rpc::{
//!     Answer, Clock, FrontDoor, HttpRequest, HttpResponse, Inbound, Later, Metadata, Method, Options, Outbound, Registry,
//!     Service, Status,
//! };
//!
//! /// Refuses every call.
//! struct Closed;
//!
//! impl Service for Closed {
//!     fn unary(&self, _: Method, _: Metadata, _: Bytes) -> Answer {
//!         Answer::Now(Err(Status::STOPPED))
//!     }
//!     fn stream(&self, _: Method, _: Metadata, _: Inbound, _: Outbound) -> Later<Result<(), Status>> {
//!         Box::pin(async { Err(Status::STOPPED) })
//!     }
//!     fn http(&self, _: HttpRequest) -> Later<HttpResponse> {
//!         Box::pin(async { HttpResponse { status: 503, headers: vec![], body: Bytes::new() } })
//!     }
//!     fn stop(&self) {}
//!     fn tick(&self, _now_ms: u64) {}
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let options = Options { threads: 2, ..Options::default() };
//! let registry = Arc::new(Registry::new(options.threads));
//! let door = FrontDoor::new(vec![listener], &options, Clock::start(), &registry)?;
//! door.stop.stop();
//! for worker in door.workers {
//!     worker.run(|| Closed)?;
//! }
//! # Ok(())
//! # }
//! ```

mod background;
mod beside;
mod clock;
mod deadline;
mod encode;
mod engine;
mod frame;
pub mod fuzz;
mod gzip;
mod http1;
mod http2;
mod leader;
mod merge;
mod message;
mod metadata;
mod method;
mod metrics;
mod metrics_door;
mod net;
mod options;
mod seam;
mod send;
mod service;
mod status;
mod thread;
mod worker;

pub use background::{Pace, give_way};
pub use clock::Clock;
pub use engine::Mailboxes;
pub use leader::{Asked, Leader, LeaderLink, LeaseTime, Refused};
pub use message::Message;
pub use metadata::{ClientApiVersion, Metadata};
pub use method::{Kind, Lookup, Method};
pub use metrics::{
    Defragmenting, Histogram, HistogramSnapshot, Maintenance, Measuring, MetricKind, Registry,
    Report, Reporter, Text, ThreadMetrics, member_source,
};
pub use metrics_door::MetricsDoor;
pub use options::{GRPC_OVERHEAD_BYTES, Options, STREAMS_MAX};
pub use seam::{Answer, HttpRequest, HttpResponse, Inbound, Later, Outbound, Service};
pub use service::{DefragmentLog, DefragmentNews, ServiceOptions, Services};
pub use status::{Code, Status};
pub use worker::{FrontDoor, Stop, THREADS_MAX, Worker};
