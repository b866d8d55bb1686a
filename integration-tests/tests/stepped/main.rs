//! Whole clusters in one thread: real members over simulated disks and links, stepped from one seed.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
mod check;
mod clocks;
mod crashes;
mod leaders;
mod members;
mod node;
mod random;
mod scenarios;
mod snapshots;
mod world;
