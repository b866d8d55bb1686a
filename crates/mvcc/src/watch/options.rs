/// Limits and times of a [`WatchHub`](crate::WatchHub). The defaults are for production; tests make the limits small so
/// that every edge is common.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// A response of this many bytes or more is split when its watcher asked for fragments: the largest request plus
    /// 512 KiB.
    pub fragment_bytes: usize,
    /// Time between two rounds of periodic progress on a stream, before up to 10 % are added. At least 100 ms.
    pub progress_interval_ms: u64,
    /// What the additions to the interval and the shape of the search trees are drawn from. Clients should not be able
    /// to guess it.
    pub seed: u64,
    /// Most bytes queued on a stream for each of its watchers, with the overhead of each response. A response that is
    /// larger is queued only alone.
    pub outbox_bytes_per_watcher: usize,
    /// Most bytes queued on a stream, however many watchers it has.
    pub outbox_bytes_max: usize,
    /// Most revisions read from the event log for synced watchers in one step.
    pub live_revisions_per_step: usize,
    /// No further revision joins those that synced watchers get in one response when it would have more than about this
    /// many bytes.
    pub live_batch_bytes: usize,
    /// Most rows that a stretch of history for lagging watchers holds. A revision with more comes whole.
    pub stretch_rows: usize,
    /// Most bytes that a stretch of history for lagging watchers holds. A revision with more comes whole.
    pub stretch_bytes: usize,
    /// Most stretches read from the backend that are remembered for the next reader.
    pub stretches_kept: usize,
    /// Most lagging watchers, notified watchers or watchers of closed streams handled in one step.
    pub watchers_per_step: usize,
    /// Most revisions merged in one response to a lagging watcher.
    ///
    /// Source: etcd v3.7.1 `server/storage/mvcc/watcher_group.go` `watchBatchMaxRevs`.
    pub batch_revisions_max: usize,
    /// No further revision is added to a response to a lagging watcher that has this many bytes.
    pub batch_bytes: usize,
}

impl WatchOptions {
    /// The least time between two rounds of periodic progress.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/api/v3rpc/watch.go` `minWatchProgressInterval`.
    pub const PROGRESS_INTERVAL_MS_MIN: u64 = 100;
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            fragment_bytes: (1536 + 512) << 10,
            progress_interval_ms: 600_000,
            seed: 0,
            outbox_bytes_per_watcher: 48 << 10,
            outbox_bytes_max: 4 << 20,
            live_revisions_per_step: 256,
            live_batch_bytes: 12 << 10,
            stretch_rows: 1000,
            stretch_bytes: 256 << 10,
            stretches_kept: 8,
            watchers_per_step: 4096,
            batch_revisions_max: 1000,
            batch_bytes: 32 << 10,
        }
    }
}
