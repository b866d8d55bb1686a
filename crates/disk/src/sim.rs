//! The simulated disk.

mod disk;
mod fault;
mod file;
mod random;
mod state;
mod tree;

pub use disk::SimDisk;
pub use fault::{Fault, Mishap, Operation, OperationKind};
pub use file::SECTOR_BYTES;
pub use state::{CrashPolicy, Unsynced};
