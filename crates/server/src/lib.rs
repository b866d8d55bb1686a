//! The quorate server: configuration, threads, recovery and shutdown.
//!
//! A thin composition root: what decides anything lives in the crates below. [`run`] opens the data directory
//! ([`bootstrap`]), restores everything replicated ([`recovery`]), and starts the threads.
//!
//! | thread | does |
//! |---|---|
//! | `engine` | the member: raft, proposals, applying |
//! | `wal` | appends to the log and syncs, batch after batch; a lone small append the engine does itself |
//! | `backend` | flushes to the database, steps of compaction |
//! | `chores` | snapshot files, next log segments |
//! | `peers` | links to other members, and what they ask |
//! | `snapshot`, `install`, `close` | come and go with snapshots received from the leader |
//! | `conn-N` | connections: framing, decoding, reads, watches, encoding |
//! | `log` | writes log lines |
//! | `signals` | waits for SIGTERM and SIGINT |
//! | main | starts and ends the others, and says how they come by a processor |

mod alone;
pub mod bootstrap;
mod calls;
pub mod config;
mod data_dir;
mod defragment;
mod engine;
mod installer;
mod join;
pub mod log;
mod log_writer;
mod metrics;
mod no_sync;
mod observe;
mod peers;
mod queue;
mod raft_lines;
pub mod recovery;
mod run;
mod scheduling;
mod settings;
mod signals;
mod start_lines;
mod tell;
pub mod version;
mod workers;

pub use run::run;
