use super::group::VariantId;

/// One watcher of one stream.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) watch_id: i64,
    pub(super) stream: u32,
    pub(super) variant: VariantId,
    /// The first revision the client asked for; 0 when it asked for what comes.
    pub(super) start_revision: i64,
    /// Whether large responses may be split.
    pub(super) fragment: bool,
    /// Whether periodic progress is wanted.
    pub(super) notify: bool,
    /// Whether no events were sent since the last round of periodic progress.
    pub(super) quiet: bool,
    pub(super) state: State,
}

/// Where a watcher stands. `next` is the first revision whose events it has not been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Has seen everything up to the hub's cursor; a member of its variant at this position.
    Synced { position: u32 },
    /// Wants nothing before `next`, which lies beyond the hub's cursor and the revision after it.
    Future { next: i64 },
    /// Needs history from `next`, which is not beyond the hub's cursor.
    Lagging { next: i64 },
    /// As lagging, but its stream is full. The ticket is its place in the stream's queue.
    Blocked { next: i64, ticket: u64 },
    /// Was told that revisions it needs are compacted; holds its number until the client cancels it.
    Compacted,
}
