//! How a backend is opened.

use std::fmt;

/// Whose data a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member of that cluster.
    pub member_id: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "member {:x} of cluster {:x}",
            self.member_id, self.cluster_id
        )
    }
}

/// How [`Backend::open`](crate::Backend::open) opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether a file that does not exist is made.
    pub create: bool,
    /// Written into a new file, compared with an existing one. `None` makes a file of nobody and opens anybody's.
    pub identity: Option<Identity>,
    /// Memory for pages of the file, in bytes; up to half of it holds pages that a flush is about to write.
    pub page_cache_bytes: usize,
    /// Memory for values that were read from the file, in bytes; 0 turns the cache off.
    pub value_cache_bytes: u64,
}

/// Default of [`Options::page_cache_bytes`].
pub const PAGE_CACHE_BYTES_DEFAULT: usize = 24 << 20;
/// Default of [`Options::value_cache_bytes`].
pub const VALUE_CACHE_BYTES_DEFAULT: u64 = 32 << 20;

impl Default for Options {
    fn default() -> Options {
        Options {
            create: true,
            identity: None,
            page_cache_bytes: PAGE_CACHE_BYTES_DEFAULT,
            value_cache_bytes: VALUE_CACHE_BYTES_DEFAULT,
        }
    }
}
