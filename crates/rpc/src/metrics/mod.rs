//! Counters of the front door and the text in which Prometheus reads them.
//!
//! Each connection thread writes an array of its own; a scrape sums them. Nothing on the way of a request looks up a name.
mod counters;
mod registry;
mod text;

pub use counters::ThreadMetrics;
pub use registry::Registry;
pub use text::{Histogram, HistogramSnapshot, MetricKind, Text};
