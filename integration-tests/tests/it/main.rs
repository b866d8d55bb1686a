//! Tests of the server as a process.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod backups;
mod bad_disk;
mod bad_input;
mod cluster;
mod crash;
mod ctl;
mod lines;
mod membership;
mod metrics;
mod operators;
mod process;
mod raw;
mod replay;
