//! Counters of the front door and the text in which Prometheus reads them.
//!
//! Each connection thread writes an array of its own; a scrape sums them. Nothing on the way of a request looks up a name:
//! kinds, methods and codes are numbers, and a clock is read where a histogram needs it, twice a request.
mod checks;
mod counters;
mod families;
mod histogram;
mod maintenance;
mod member;
mod negotiate;
mod registry;
mod report;
mod standing;
mod text;

pub(crate) use checks::Check;
pub use counters::ThreadMetrics;
pub(crate) use counters::{CallStart, Read, StreamApi, WatchSent};
pub use histogram::{Histogram, HistogramSnapshot};
pub use maintenance::{Defragmenting, Maintenance};
pub use member::member_source;
pub(crate) use negotiate::content_type;
pub use registry::Registry;
pub use report::{Measuring, Report, Reporter};
pub use text::{MetricKind, Text};
