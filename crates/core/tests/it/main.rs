//! A whole member on a simulated disk, stepped by hand.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
mod downgrade;
mod elections;
mod following;
mod harness;
mod leases;
mod member;
mod publishing;
mod tally;
