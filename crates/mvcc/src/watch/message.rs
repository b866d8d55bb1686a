use std::borrow::Cow;

use bytes::Bytes;
use quorate_proto::etcdserverpb::WatchCreateRequest;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;

use super::encode::EventBatch;

/// Names a stream of one [`WatchHub`](crate::WatchHub). Not used again after the stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// What a client asks of a new watcher, as it came off the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchCreate {
    /// The key, or the first key; empty means one zero byte.
    pub key: Bytes,
    /// Empty for one key, one zero byte for everything from the key on, else the exclusive end.
    pub range_end: Bytes,
    /// The first revision wanted; 0 for what comes after now.
    pub start_revision: i64,
    /// Whether to report progress now and then while there are no events.
    pub progress_notify: bool,
    /// Whether to leave out puts.
    pub no_put: bool,
    /// Whether to leave out deletions.
    pub no_delete: bool,
    /// Whether events carry the pair they replaced.
    pub prev_kv: bool,
    /// The wanted number; 0 to be given one.
    pub watch_id: i64,
    /// Whether large responses may be split.
    pub fragment: bool,
}

impl From<WatchCreateRequest> for WatchCreate {
    fn from(request: WatchCreateRequest) -> Self {
        let filter = |filter: FilterType| request.filters.contains(&i32::from(filter));
        WatchCreate {
            no_put: filter(FilterType::Noput),
            no_delete: filter(FilterType::Nodelete),
            key: request.key,
            range_end: request.range_end,
            start_revision: request.start_revision,
            progress_notify: request.progress_notify,
            prev_kv: request.prev_kv,
            watch_id: request.watch_id,
            fragment: request.fragment,
        }
    }
}

/// One answer on a stream: `etcdserverpb.WatchResponse` without cluster, member and term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchResponse {
    /// The watcher; [`WatchResponse::NO_WATCH_ID`] for refusals and for progress of the whole stream.
    pub watch_id: i64,
    /// Revision of the header.
    pub revision: i64,
    /// Whether this answers a create request.
    pub created: bool,
    /// Whether the watcher is gone, or was refused when `created` is set too.
    pub canceled: bool,
    /// Whether the next response holds more events of the same revisions.
    pub fragment: bool,
    /// Not 0 when the watcher is gone because revisions it needs are compacted: the oldest one that can be watched.
    pub compact_revision: i64,
    /// Why the watcher was refused; else empty.
    pub cancel_reason: Cow<'static, str>,
    /// The events, encoded. With none, and no flag set, this is progress: the watcher, or every watcher of the stream,
    /// was sent all events up to `revision`.
    pub events: EventBatch,
}

impl WatchResponse {
    /// The watch id of responses that concern no single watcher.
    pub const NO_WATCH_ID: i64 = -1;

    /// Returns what the response costs in a queue, in bytes.
    pub fn queued_bytes(&self) -> usize {
        size_of::<WatchResponse>() + self.events.bytes().len() + self.cancel_reason.len()
    }
}
