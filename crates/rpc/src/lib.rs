//! The front door: gRPC services, health and metrics on one port.

mod clock;
mod deadline;
mod frame;
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
mod status;
mod thread;
mod worker;

pub use clock::Clock;
pub use message::Message;
pub use metadata::{ClientApiVersion, Metadata};
pub use method::{Kind, Lookup, Method};
pub use metrics::{Histogram, HistogramSnapshot, MetricKind, Registry, Text, ThreadMetrics};
pub use options::{GRPC_OVERHEAD_BYTES, Options, STREAMS_MAX};
pub use seam::{Answer, HttpRequest, HttpResponse, Inbound, Later, Outbound, Service};
pub use status::{Code, Status};
pub use worker::{FrontDoor, Stop, THREADS_MAX, Worker};
