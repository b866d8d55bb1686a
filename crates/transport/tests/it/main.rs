//! Links between members, over loopback.
#![allow(
    clippy::unwrap_used,
    reason = "a failure of a test's own set-up may panic"
)]

mod etcd;
mod member;
mod messages;

use std::time::Duration;

/// Longest time for anything to happen: the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);
