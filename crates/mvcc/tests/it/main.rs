//! What the store promises, shown from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod compaction;
mod concurrency;
mod etcd_hashes;
mod harness;
mod limits;
mod model;
mod quirks;
mod random;
mod watch_faults;
mod watch_model;
mod watch_real;
mod watch_script;
mod watch_store;
