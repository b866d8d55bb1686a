//! What can go wrong.

use crate::Identity;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// An error of the snapshot files, grouped by what the caller does next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The body is larger than the format takes; nothing was written.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The largest size in bytes.
        bytes_max: u64,
    },
    /// A newer release wrote the file.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// The file belongs to another member or cluster.
    ForeignIdentity {
        /// The file.
        path: PathBuf,
        /// Who opens it.
        expected: Identity,
        /// Whose it is.
        found: Identity,
    },
    /// The file is one of etcd's.
    NotASnapshot {
        /// The file.
        path: PathBuf,
    },
    /// The file is no database image of etcd.
    NotAnImage {
        /// The file.
        path: PathBuf,
    },
    /// A newer release of etcd's storage engine wrote the image.
    NewerImage {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// The image is cut short or damaged.
    ImageDamaged {
        /// The file.
        path: PathBuf,
        /// How.
        damage: Damage,
    },
    /// An image cannot hold the row.
    UnfitRow {
        /// Size of its key.
        key_bytes: usize,
        /// Size of its value.
        value_bytes: usize,
    },
    /// The rows that an image was to be written of are not those that were measured.
    LayoutChanged,
    /// Whoever takes an image being written refused more.
    Output(io::Error),
    /// The system refused.
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong.
    pub what: &'static str,
    /// Byte offset of the field that shows it.
    pub offset: u64,
    /// The value that should be there; the same as the one that is there when no single one would be right.
    pub expected: u64,
    /// The value that is there.
    pub found: u64,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TooLarge { bytes, bytes_max } => {
                write!(
                    f,
                    "snapshot of {bytes} bytes exceeds the limit of {bytes_max}"
                )
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
            Error::NotASnapshot { path } => {
                write!(f, "{} is a snapshot file of etcd", path.display())
            }
            Error::NotAnImage { path } => {
                write!(f, "{} is not a database image of etcd", path.display())
            }
            Error::NewerImage {
                path,
                found,
                supported,
            } => write!(
                f,
                "{} has image version {found}, this release reads up to {supported}",
                path.display()
            ),
            Error::ImageDamaged { path, damage } => {
                write!(f, "{} is damaged: {damage}", path.display())
            }
            Error::UnfitRow {
                key_bytes,
                value_bytes,
            } => write!(
                f,
                "an image cannot hold a key of {key_bytes} bytes with a value of {value_bytes} bytes"
            ),
            Error::LayoutChanged => f.write_str("rows changed while an image was written"),
            Error::Output(source) => write!(f, "cannot write an image: {source}"),
            Error::Io {
                action,
                path,
                source,
            } => write!(f, "cannot {action} {}: {source}", path.display()),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage {
            what,
            offset,
            expected,
            found,
        } = self;
        if expected == found {
            return write!(f, "{what} at byte {offset}");
        }
        write!(
            f,
            "{what} at byte {offset}: expected {expected:#x}, found {found:#x}"
        )
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } | Error::Output(source) => Some(source),
            _ => None,
        }
    }
}
