//! What can go wrong.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why an operation of the backend failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file does not exist and [`Options::create`](crate::Options::create) is off.
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the file open. Nothing was touched.
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a database of this project. Nothing was touched.
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// The file belongs to another member or another cluster. Nothing was touched.
    ForeignIdentity {
        /// The file.
        path: PathBuf,
        /// Who asked.
        expected: crate::Identity,
        /// Who wrote the file; `None` when it was created for nobody in particular.
        found: Option<crate::Identity>,
    },
    /// The file was written by a newer release. Nothing was touched.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format version of the file.
        found: u32,
        /// The newest format version this release knows.
        supported: u32,
    },
    /// The file is damaged. What was read before stays right; nothing that failed its checksum was used.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes, when that is known.
        offset: Option<u64>,
        /// What is wrong there.
        what: String,
    },
    /// The operating system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A defragmentation is under way already.
    Defragmenting,
    /// Too much changed between two steps of a defragmentation. Nothing was touched.
    Overtaken,
    /// Another file takes the place of this one, so that it is not defragmented any more.
    Replaced,
    /// An earlier write failed; what is durable will not change any more until the file is opened again.
    Poisoned,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound { path } => write!(f, "database {} does not exist", path.display()),
            Error::Locked { path } => {
                write!(
                    f,
                    "database {} is in use by another process",
                    path.display()
                )
            }
            Error::ForeignFile { path, found } => {
                write!(f, "{} is not a quorate database: {found}", path.display())
            }
            Error::ForeignIdentity {
                path,
                expected,
                found: Some(found),
            } => write!(
                f,
                "database {} belongs to {found}, expected {expected}",
                path.display()
            ),
            Error::ForeignIdentity {
                path,
                expected,
                found: None,
            } => write!(
                f,
                "database {} belongs to no member, expected {expected}",
                path.display()
            ),
            Error::NewerFormat {
                path,
                found,
                supported,
            } => write!(
                f,
                "database {} has format version {found}, newest supported is {supported}",
                path.display()
            ),
            Error::Corrupt {
                path,
                offset: Some(offset),
                what,
            } => write!(
                f,
                "database {} is corrupt at byte {offset}: {what}",
                path.display()
            ),
            Error::Corrupt {
                path,
                offset: None,
                what,
            } => write!(f, "database {} is corrupt: {what}", path.display()),
            Error::Io { path, source } => write!(f, "database {}: {source}", path.display()),
            Error::Defragmenting => write!(f, "the database is being defragmented already"),
            Error::Overtaken => write!(f, "the database changes faster than it is defragmented"),
            Error::Replaced => write!(f, "the database was replaced while it was defragmented"),
            Error::Poisoned => write!(f, "an earlier write to the database failed"),
        }
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
