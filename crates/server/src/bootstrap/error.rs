//! Why a data directory cannot be opened.
use std::fmt;
use std::path::PathBuf;

use quorate_core::ImageError;

use crate::recovery;

/// Why a data directory cannot be opened. Nothing in it was changed unless the variant says so.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The directory or a file in it cannot be used.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses it.
    InUse(PathBuf),
    /// It belongs to etcd.
    Etcd(PathBuf),
    /// There is no data, and nobody said what to begin with.
    NothingToStart,
    /// There is a database but no log: acknowledged writes may be missing.
    LogMissing {
        /// Where the log should be.
        wal_dir: PathBuf,
        /// What the database says was applied.
        applied: u64,
    },
    /// The database is ahead of the log: acknowledged writes may be missing.
    LogTooShort {
        /// Last index of the log.
        last: u64,
        /// What the database says was applied.
        applied: u64,
    },
    /// The log begins after what the database holds: the database is an older copy.
    BackendTooOld {
        /// What the database says was applied.
        applied: u64,
        /// Where the log begins.
        first: u64,
    },
    /// The log.
    Wal(quorate_wal::Error),
    /// The database.
    Backend(quorate_backend::Error),
    /// Snapshot files.
    Snap(quorate_snap::Error),
    /// The state in the database.
    Recovery(recovery::Error),
    /// The image of a received snapshot.
    Install(ImageError),
    /// The stored configuration of the cluster is damaged.
    ConfState,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "cannot use {}: {source}", path.display()),
            Self::InUse(path) => write!(
                f,
                "data directory {} is in use by another process",
                path.display()
            ),
            Self::Etcd(path) => write!(
                f,
                "data directory {} belongs to etcd; opening etcd's files is not built yet",
                path.display()
            ),
            Self::NothingToStart => f.write_str("there is no data and no initial cluster"),
            Self::LogMissing { wal_dir, applied } => write!(
                f,
                "no write-ahead log in {}, but the database holds entries up to {applied}",
                wal_dir.display()
            ),
            Self::LogTooShort { last, applied } => {
                write!(
                    f,
                    "the write-ahead log ends at {last}, but the database holds entries up to {applied}"
                )
            }
            Self::BackendTooOld { applied, first } => {
                write!(
                    f,
                    "failed to find database snapshot file (snap: snapshot file doesn't exist): the database ends at \
                     {applied}, but the write-ahead log begins after {first}"
                )
            }
            Self::Wal(e) => e.fmt(f),
            Self::Backend(e) => e.fmt(f),
            Self::Snap(e) => e.fmt(f),
            Self::Recovery(e) => e.fmt(f),
            Self::Install(e) => write!(f, "cannot install a snapshot from the leader: {e}"),
            Self::ConfState => f.write_str("the stored configuration of the cluster is damaged"),
        }
    }
}

impl std::error::Error for Error {}
