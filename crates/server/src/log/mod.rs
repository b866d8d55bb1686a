//! The log: lines of zap's shape, written by a thread of its own.
//!
//! A line is built on the thread that logs it and put into a bounded queue; a writer thread writes what is queued
//! with one call per output. Nothing that logs ever waits: lines that find the queue full are counted, and the writer
//! reports how many were lost. Equal messages are sampled as zap does.
//!
//! Two ways lead in: the macros of `tracing`, and [`Record`] for lines with lists or more fields than a macro takes.
//!
//! ```
//! use quorate_server::log::{Level, Logger, Options, Record};
//!
//! let logger = Logger::start(&Options::default()).expect("the standard error can be opened");
//! logger.write(&Record::new(Level::Info, "configuring client listeners").list("listen-client-urls", ["http://a:1"]));
//! assert!(logger.flush());
//! ```

mod caller;
mod encode;
mod level;
mod logger;
mod options;
mod panics;
mod record;
mod rotation;
mod sampler;
mod subscriber;
mod timestamp;

pub use level::Level;
pub use logger::{Logger, QUEUE_BYTES_MAX, QUEUE_LINES_MAX};
pub use options::{Format, Options, Output};
pub use record::Record;
pub use rotation::Rotation;

#[cfg(test)]
pub(crate) fn fields_for_test() -> encode::Fields {
    encode::Fields::new(Format::Json)
}
