/// Limits of a store. The defaults are for production; the simulator makes them small so that every edge is common.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most keys visited under one hold of the index lock.
    pub index_chunk_keys: usize,
    /// Most rows that one step of a compaction reads.
    pub compaction_batch_rows: usize,
    /// Most bytes of rows that one read of the backend takes, beyond the first row.
    pub scan_batch_bytes: usize,
    /// Most rows that one read of the backend takes.
    pub scan_batch_rows: usize,
    /// Most bytes of recent events kept in memory for watchers; older ones come from the backend.
    pub event_log_bytes_max: usize,
    /// How many of the newest creations and deletions of keys are remembered, so that counting at a recent revision
    /// needs no walk.
    pub recent_births_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            index_chunk_keys: 512,
            compaction_batch_rows: 1000,
            scan_batch_bytes: 4 << 20,
            scan_batch_rows: 4096,
            event_log_bytes_max: 16 << 20,
            recent_births_max: 4096,
        }
    }
}
