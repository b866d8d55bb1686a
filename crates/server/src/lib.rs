//! The quorate server: configuration, threads, recovery and shutdown.

pub mod config;
pub mod log;
pub mod version;
