//! What can go wrong.
use std::fmt;

use quorate_proto::LeaseId;

/// Why an operation of the lessor failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The TTL is above [`TTL_MAX_S`](crate::TTL_MAX_S).
    TtlTooLarge,
    /// The id is taken.
    Exists,
    /// There is no such lease.
    NotFound,
    /// Only the primary lessor renews; ask the leader.
    NotPrimary,
    /// The lease is past its end and its revocation is under way: wait until it is gone or this lessor is demoted.
    Expired,
    /// The lease has a checkpointed remaining time, which must be cleared through the log before it can be renewed.
    CheckpointStored,
    /// A row of the table `lease` is damaged.
    Corrupt {
        /// The row's key.
        key: Vec<u8>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The backend cannot be read.
    Backend(quorate_backend::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TtlTooLarge => f.write_str("too large lease TTL"),
            Error::Exists => f.write_str("lease already exists"),
            Error::NotFound => f.write_str("lease not found"),
            Error::NotPrimary => f.write_str("not a primary lessor"),
            Error::Expired => f.write_str("lease expired"),
            Error::CheckpointStored => f.write_str("lease has a stored checkpoint"),
            Error::Corrupt { key, what } => match <[u8; 8]>::try_from(&key[..]) {
                Ok(id) => write!(
                    f,
                    "lease {} is corrupt: {what}",
                    LeaseId(i64::from_be_bytes(id))
                ),
                Err(_) => write!(f, "lease with key {key:02x?} is corrupt: {what}"),
            },
            Error::Backend(source) => write!(f, "leases cannot be read: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Backend(source) => Some(source),
            _ => None,
        }
    }
}

impl From<quorate_backend::Error> for Error {
    fn from(source: quorate_backend::Error) -> Error {
        Error::Backend(source)
    }
}
