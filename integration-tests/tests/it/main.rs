//! Tests of the server as a process.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod backups;
mod bad_disk;
mod bad_input;
mod catalogue;
mod cluster;
mod corruption;
mod crash;
mod ctl;
mod defragment;
mod lines;
mod membership;
mod metrics;
mod operators;
mod overload;
mod pauses;
mod peer_metrics;
mod process;
mod quota;
mod raw;
mod replay;
mod snapshots;
mod wall_clock;
