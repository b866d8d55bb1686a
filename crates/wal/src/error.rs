//! What can go wrong.

use crate::Identity;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// An error of the log, grouped by what the caller does next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for what no correct caller asks for; nothing was written and the log goes on.
    OutOfOrder {
        /// What is out of order.
        what: &'static str,
        /// The bound that was broken.
        bound: u64,
        /// What the caller gave.
        found: u64,
    },
    /// An entry or an append is larger than the format takes; nothing was written and the log goes on.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The largest size in bytes.
        bytes_max: u64,
    },
    /// The directory holds no log.
    NotFound {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds a log already.
    AlreadyExists {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has the log open.
    InUse {
        /// The locked file.
        path: PathBuf,
    },
    /// A file with the name of a segment is none of ours, for example etcd's.
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// A newer release wrote the log.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// The log belongs to another member or cluster.
    ForeignIdentity {
        /// The file.
        path: PathBuf,
        /// Who opens it.
        expected: Identity,
        /// Whose it is.
        found: Identity,
    },
    /// A segment between others is missing.
    MissingSegment {
        /// The directory.
        dir: PathBuf,
        /// Its sequence number.
        sequence: u64,
    },
    /// Entries are missing: the oldest do not reach back to the snapshot mark, or the newest not up to the commit index.
    MissingEntries {
        /// The directory.
        dir: PathBuf,
        /// First entry that is missing.
        first_index: u64,
        /// Last entry that is missing.
        last_index: u64,
    },
    /// What was durable is damaged. Nothing was changed on disk.
    Corrupt(Box<Corruption>),
    /// The system refused; the log goes on if this came from making or removing a segment, else it is poisoned.
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write or sync failed. The process must end; opening again recovers.
    Poisoned,
}

/// Where and how a log is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub path: PathBuf,
    /// Byte offset of the damaged head or record.
    pub offset: u64,
    /// Index of the entry at that place, or of the next entry expected there.
    pub index: u64,
    /// What is wrong.
    pub what: &'static str,
    /// The value that should be there, such as a checksum or a position.
    pub expected: u64,
    /// The value that is there.
    pub found: u64,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfOrder { what, bound, found } => {
                write!(f, "{what}: bound is {bound}, got {found}")
            }
            Error::TooLarge { bytes, bytes_max } => {
                write!(f, "{bytes} bytes exceed the limit of {bytes_max}")
            }
            Error::NotFound { dir } => write!(f, "no log in {}", dir.display()),
            Error::AlreadyExists { dir } => {
                write!(f, "{} holds a log already", dir.display())
            }
            Error::InUse { path } => {
                write!(f, "{} is in use by another process", path.display())
            }
            Error::NotALog { path } => {
                write!(f, "{} is not a segment of a quorate log", path.display())
            }
            Error::NewerFormat {
                path,
                found,
                supported,
            } => write!(
                f,
                "{} has format version {found}, this release reads up to {supported}",
                path.display()
            ),
            Error::ForeignIdentity {
                path,
                expected,
                found,
            } => write!(
                f,
                "{} belongs to {found}, not to {expected}",
                path.display()
            ),
            Error::MissingSegment { dir, sequence } => {
                write!(f, "segment {sequence:016x} is missing in {}", dir.display())
            }
            Error::MissingEntries {
                dir,
                first_index,
                last_index,
            } => write!(
                f,
                "entries {first_index} to {last_index} are missing in {}",
                dir.display()
            ),
            Error::Corrupt(corruption) => corruption.fmt(f),
            Error::Io {
                action,
                path,
                source,
            } => write!(f, "cannot {action} {}: {source}", path.display()),
            Error::Poisoned => f.write_str("an earlier write or sync of the log failed"),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is corrupt at byte {}, index {}: {}: expected {:#x}, found {:#x}",
            self.path.display(),
            self.offset,
            self.index,
            self.what,
            self.expected,
            self.found
        )
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
