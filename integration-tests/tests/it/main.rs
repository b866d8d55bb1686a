//! Tests of the server as a process.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod crash;
mod process;
mod replay;
