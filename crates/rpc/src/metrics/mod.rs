//! Counters of the front door and the text in which Prometheus reads them.
//!
//! Each connection thread writes an array of its own; a scrape sums them. Nothing on the way of a request looks up a name.
mod checks;
mod counters;
mod member;
mod registry;
mod text;

pub(crate) use checks::Check;
pub use counters::ThreadMetrics;
pub use member::member_source;
pub use registry::Registry;
pub(crate) use text::CONTENT_TYPE as TEXT_CONTENT_TYPE;
pub use text::{Histogram, HistogramSnapshot, MetricKind, Text};
