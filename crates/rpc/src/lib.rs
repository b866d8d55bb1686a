//! The front door: gRPC services, health and metrics on one port.

mod clock;
mod deadline;
mod encode;
mod engine;
mod frame;
pub mod fuzz;
mod http1;
mod http2;
mod message;
mod metadata;
mod method;
mod metrics;
mod net;
mod options;
mod seam;
mod send;
mod service;
mod status;
mod thread;
mod worker;

pub use clock::Clock;
pub use engine::Mailboxes;
pub use message::Message;
pub use metadata::{ClientApiVersion, Metadata};
pub use method::{Kind, Lookup, Method};
pub use metrics::{
    Histogram, HistogramSnapshot, MetricKind, Registry, Text, ThreadMetrics, member_source,
};
pub use options::{GRPC_OVERHEAD_BYTES, Options, STREAMS_MAX};
pub use seam::{Answer, HttpRequest, HttpResponse, Inbound, Later, Outbound, Service};
pub use service::{ServiceOptions, Services};
pub use status::{Code, Status};
pub use worker::{FrontDoor, Stop, THREADS_MAX, Worker};
