//! Tests of whole processes: a harness that starts, kills and restarts servers, a player of recorded answers, and a crash loop.
//!
//! The server under test is the binary `quorate` that lies beside the test's own executable, or what `QUORATE_BIN` names. With
//! `QUORATE_REFERENCE_ETCD` set to a real etcd 3.7 the tests also run against that, which checks the tests themselves.

mod binary;
pub mod checker;
mod client;
pub mod cluster;
mod crash;
mod failure;
mod history;
mod ledger;
mod mask;
mod ports;
mod random;
mod replay;
mod server;
mod wire;

pub use binary::Binary;
pub use client::{Client, Sender, error_text};
pub use crash::{CrashOptions, CrashReport, crash_loop};
pub use failure::{Failure, Outcome};
pub use ports::free_port;
pub use random::Random;
pub use replay::{Replayed, replay_file, replay_group};
pub use server::{Server, Site};
