use std::fmt;

/// What can go wrong, grouped by what the caller does next.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    // The request is wrong; nothing was changed.
    /// A key is missing where one is needed.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` names an absent key, or an operation of a transaction is empty.
    KeyNotFound,
    /// A value comes with `ignore_value`.
    ValueProvided,
    /// A lease comes with `ignore_lease`.
    LeaseProvided,
    /// A transaction holds more operations than allowed.
    TooManyOps,
    /// A branch of a transaction changes a key twice.
    DuplicateKey,
    /// The sort order or sort target is not a known number.
    InvalidSortOption,
    /// A streamed range asks for an order other than by key.
    StreamSortOrder,
    /// A streamed range has a revision filter.
    StreamRevisionFilter,
    /// The lease named by a put does not exist.
    LeaseNotFound,

    // The revision is not there; nothing was changed.
    /// The revision lies below the compact revision.
    Compacted,
    /// The revision lies above the current revision.
    FutureRevision,

    // The answer is larger than the caller allows; nothing was changed.
    /// A read was to look at more keys or to hold more bytes than its [`ReadLimit`](crate::ReadLimit) allows.
    TooLarge,

    // The store cannot go on; the member must stop and recover.
    /// A stored record does not decode, or one that must exist is missing.
    Corrupt {
        /// Main revision of the record.
        main: i64,
        /// Sub revision of the record.
        sub: i64,
        /// What was expected of it.
        expected: &'static str,
    },
    /// A value in the `meta` table does not decode.
    CorruptMeta {
        /// Name of the key in the `meta` table.
        key: &'static str,
        /// Length of the value found, in bytes.
        found_len: usize,
    },
    /// An earlier failure left a write half done; only a restart repairs that.
    Poisoned,
    /// The backend failed.
    Backend(quorate_backend::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::EmptyKey => f.write_str("key is not provided"),
            Error::KeyNotFound => f.write_str("key not found"),
            Error::ValueProvided => f.write_str("value is provided"),
            Error::LeaseProvided => f.write_str("lease is provided"),
            Error::TooManyOps => f.write_str("too many operations in transaction"),
            Error::DuplicateKey => f.write_str("duplicate key in transaction"),
            Error::InvalidSortOption => f.write_str("invalid sort option"),
            Error::StreamSortOrder => {
                f.write_str("streamed range does not support custom sort orders")
            }
            Error::StreamRevisionFilter => {
                f.write_str("streamed range does not support revision filters")
            }
            Error::LeaseNotFound => f.write_str("lease not found"),
            Error::TooLarge => f.write_str("the read is larger than allowed"),
            Error::Compacted => f.write_str("required revision has been compacted"),
            Error::FutureRevision => f.write_str("required revision is a future revision"),
            Error::Corrupt {
                main,
                sub,
                expected,
            } => {
                write!(
                    f,
                    "record at revision {main}_{sub} is damaged: expected {expected}"
                )
            }
            Error::CorruptMeta { key, found_len } => {
                write!(
                    f,
                    "value of {key} is damaged: expected 17 bytes, found {found_len}"
                )
            }
            Error::Poisoned => f.write_str("an earlier failure left the store unusable"),
            Error::Backend(error) => write!(f, "backend failed: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Backend(error) => Some(error),
            _ => None,
        }
    }
}

impl From<quorate_backend::Error> for Error {
    fn from(error: quorate_backend::Error) -> Self {
        Error::Backend(error)
    }
}
