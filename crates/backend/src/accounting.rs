//! The sizes that quotas and dashboards see, counted near to how etcd's file would measure.
//!
//! The real file is no measure: it grows in large steps and holds pages that wait for their reuse. So the rows are counted.

/// Bytes of a row beside its key and value. Source: bbolt 1.5 `internal/common/page.go`, size of a leaf element.
const ROW_OVERHEAD_BYTES: u64 = 16;
/// Page size that sizes are rounded up to, in bytes.
const PAGE_BYTES: u64 = 4096;
/// Bytes of rows that one page takes. Source: etcd 3.7.1 fills the pages of bucket `key` to 90 %.
const PAGE_PAYLOAD_BYTES: u64 = PAGE_BYTES / 10 * 9;
/// Size of a database without rows, in bytes. Source: bbolt 1.5, two meta pages, a free list and a root.
const BASE_BYTES: u64 = 4 * PAGE_BYTES;

/// What [`Backend::sizes`](crate::Backend::sizes) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// What quotas compare: the most that was in use since the last defragmentation, in bytes.
    pub total_bytes: u64,
    /// What all rows take, in bytes. **Invariant:** at most `total_bytes`.
    pub in_use_bytes: u64,
    /// Length of the real file in bytes.
    pub file_bytes: u64,
}

/// Returns what a row counts, in bytes.
pub(crate) fn row_cost(key_bytes: usize, value_bytes: usize) -> u64 {
    key_bytes as u64 + value_bytes as u64 + ROW_OVERHEAD_BYTES
}

/// Returns the size of a database whose rows count so much, in bytes.
pub(crate) fn database_bytes(rows_bytes: u64) -> u64 {
    BASE_BYTES + rows_bytes.div_ceil(PAGE_PAYLOAD_BYTES) * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_pages_near_etcds() {
        assert_eq!(database_bytes(0), 16_384);
        assert_eq!(database_bytes(1), 20_480);
        assert_eq!(database_bytes(PAGE_PAYLOAD_BYTES), 20_480);
        assert_eq!(database_bytes(PAGE_PAYLOAD_BYTES + 1), 24_576);
    }
}
