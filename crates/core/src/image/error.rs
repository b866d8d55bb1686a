//! What can go wrong with images.
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why an image cannot be made, read or restored.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImageError {
    /// A row is not what its bucket holds.
    Row {
        /// Name of the bucket.
        bucket: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A state from another member is not what such a member sends.
    State(&'static str),
    /// The image has a bucket that this release does not know.
    UnknownBucket(String),
    /// A newer release wrote the image.
    NewerStorage(String),
    /// The hash behind the image is not its own.
    BrokenSeal(PathBuf),
    /// There is no hash behind the image, and one was asked for.
    NoSeal(PathBuf),
    /// The data directory holds something.
    NotEmpty(PathBuf),
    /// The log's directory is there.
    WalDirExists(PathBuf),
    /// The member restored is not among those of the cluster.
    UnknownMember(String),
    /// A revision would be larger than a revision can be.
    RevisionOverflow,
    /// A directory or file cannot be used.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image's file.
    Image(quorate_snap::Error),
    /// The database.
    Backend(quorate_backend::Error),
    /// The log.
    Wal(quorate_wal::Error),
}

/// Names the file that an error of the disk is about.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ImageError + use<> {
    let path = path.to_owned();
    |source| ImageError::Io { path, source }
}

impl ImageError {
    /// Says whether the database that an image is made of cannot be read: not until it is opened anew.
    #[must_use]
    pub fn is_of_database(&self) -> bool {
        matches!(self, Self::Backend(_))
    }

    /// Finds what went wrong in what an [`ImageStream`](super::ImageStream) says while it is read.
    #[must_use]
    pub fn in_read(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { bucket, what } => {
                write!(f, "snapshot is damaged: a row of bucket {bucket} is {what}")
            }
            Self::State(what) => write!(f, "received state is {what}"),
            Self::UnknownBucket(name) => write!(
                f,
                "snapshot is foreign or newer: bucket {name:?} is not known"
            ),
            Self::NewerStorage(version) => {
                write!(f, "snapshot has storage version {version}, which is newer")
            }
            Self::BrokenSeal(path) => write!(
                f,
                "snapshot {} is damaged: its sha256 does not match",
                path.display()
            ),
            Self::NoSeal(_) => f.write_str("snapshot missing hash but --skip-hash-check=false"),
            Self::NotEmpty(path) => write!(
                f,
                "data-dir \"{}\" not empty or could not be read",
                path.display()
            ),
            Self::WalDirExists(path) => write!(f, "wal-dir \"{}\" exists", path.display()),
            Self::UnknownMember(name) => write!(
                f,
                "couldn't find local name \"{name}\" in the initial cluster configuration"
            ),
            Self::RevisionOverflow => f.write_str("revision is too large to be bumped so far"),
            Self::Io { path, source } => write!(f, "cannot use {}: {source}", path.display()),
            Self::Image(e) => e.fmt(f),
            Self::Backend(e) => e.fmt(f),
            Self::Wal(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Image(e) => Some(e),
            Self::Backend(e) => Some(e),
            Self::Wal(e) => Some(e),
            _ => None,
        }
    }
}

impl From<quorate_snap::Error> for ImageError {
    fn from(e: quorate_snap::Error) -> Self {
        Self::Image(e)
    }
}

impl From<quorate_backend::Error> for ImageError {
    fn from(e: quorate_backend::Error) -> Self {
        Self::Backend(e)
    }
}

impl From<quorate_wal::Error> for ImageError {
    fn from(e: quorate_wal::Error) -> Self {
        Self::Wal(e)
    }
}
