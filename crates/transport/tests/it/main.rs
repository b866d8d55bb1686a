//! Links between members, over loopback.
#![allow(
    clippy::unwrap_used,
    reason = "a failure of a test's own set-up may panic"
)]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod etcd;
mod faults;
mod forms;
mod kindred;
mod member;
mod messages;
mod proxy;
mod statuses;

use std::time::Duration;

/// Longest time for anything to happen: the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);
