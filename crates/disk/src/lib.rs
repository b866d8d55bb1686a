//! The file seam: real files, and a simulated disk that can crash.
//!
//! Everything durable in the project goes through two small traits, [`Disk`] (one directory tree) and [`File`] (one open
//! file with explicit positions). There are two implementations:
//!
//! - [`RealDisk`] calls the operating system;
//! - [`SimDisk`] keeps everything in memory, knows for every 512-byte sector and every directory entry whether it has been
//!   synced, and can lose power, fail, lie, or run out of space at any operation. The same seed gives the same run.
//!
//! # What is durable, and when
//!
//! | done | durable after |
//! |---|---|
//! | bytes written, file grown or cut | [`File::sync_data`] or [`File::sync_all`] on that file |
//! | file or directory created, renamed, removed | [`Disk::sync_dir`] on the directory that holds the name |
//!
//! Until then a power loss keeps or loses each 512-byte sector and each directory change by itself, in any order. A sync that
//! fails must not be repeated: the kernel may already have dropped what it could not write, and the next sync then succeeds
//! without it. [`SimDisk`] does the same.
//!
//! # Past the cache
//!
//! [`Disk::open_direct`] opens a file whose writes go straight to the device. They are durable only after a sync as well, but
//! cost no page of the system's cache, whose making and writing back takes ten times as long as the copy does.
//!
//! # Example
//!
//! ```
//! use quorate_disk::{CrashPolicy, Disk, OpenMode, SimDisk, read_exact_at};
//! use std::path::Path;
//!
//! let disk = SimDisk::new(7);
//! let path = Path::new("/data/log");
//! disk.create_dir_all(Path::new("/data"))?;
//! disk.sync_dir(Path::new("/"))?;
//! let file = disk.open(path, OpenMode::Create)?;
//! file.write_all_at(b"kept", 0)?;
//! file.sync_data()?;
//! disk.sync_dir(Path::new("/data"))?;
//! file.write_all_at(b"lost", 0)?;
//!
//! let after = disk.crash(&CrashPolicy::KeepNone);
//! let mut found = [0; 4];
//! read_exact_at(&*after.open(path, OpenMode::Read)?, &mut found, 0)?;
//! assert_eq!(&found, b"kept");
//! # Ok::<(), std::io::Error>(())
//! ```

mod atomic;
mod direct;
mod mapped;
mod real;
mod seam;
mod sim;

pub use atomic::replace_atomic;
pub use mapped::Mapped;
pub use real::RealDisk;
pub use seam::{Disk, File, OpenMode, read_exact_at};
pub use sim::{
    CrashPolicy, Fault, Mishap, Operation, OperationKind, SECTOR_BYTES, SimDisk, Unsynced,
};
