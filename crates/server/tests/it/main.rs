//! The binary as its users meet it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod config;
