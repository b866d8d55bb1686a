//! A write-ahead log with group commit, repair and checksums that carry identity.
