use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::record::{KeyVersion, Record, put_keys_only};
use crate::view::{Stop, View};
use crate::{Error, KeyRange};

/// The answer to a range request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The store's revision when it was read; not the revision asked for.
    pub revision: i64,
    /// Encoded `mvccpb.KeyValue` messages, ready to be spliced into an answer.
    pub kvs: Vec<Bytes>,
    /// Whether the limit left keys out.
    pub more: bool,
    /// How many keys the range has at the revision, whatever the limit and the filters.
    pub count: i64,
}

/// What the count of a result is to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// All keys of the range.
    All,
    /// Only what was looked at.
    Fetched,
}

/// One key that may be in the answer.
struct Found {
    version: KeyVersion,
    /// Place of the encoded answer in [`Fetched::keys_only`].
    keys_only: Range<usize>,
}

/// What a range was found to have.
#[derive(Default)]
struct Fetched {
    /// In key order.
    found: Vec<Found>,
    /// Encoded answers one after the other, when only keys are wanted and the index alone gives them.
    keys_only: Option<Vec<u8>>,
    count: usize,
}

impl Fetched {
    /// Adds a key and returns how many bytes it takes.
    fn push(&mut self, key: (&[u8], &[u8]), version: KeyVersion) -> usize {
        let place = match &mut self.keys_only {
            None => 0..0,
            Some(out) => {
                let start = out.len();
                put_keys_only(out, key, &version, 0);
                start..out.len()
            }
        };
        let bytes = size_of::<Found>() + place.len();
        self.found.push(Found {
            version,
            keys_only: place,
        });
        bytes
    }
}

/// Reads a range at the revision it asks for, of a store at `current` that is compacted up to `compact`.
///
/// Fetch, filter, sort, cut, in that order. With the default order only one key beyond the limit is fetched, and that
/// is also so when a sort target other than the key comes without an order: then what was fetched is sorted and cut.
/// Filters and all sorts but by value need the index alone, so only records that are answered are read.
///
/// Source: etcd v3.7.1 `server/etcdserver/txn/range.go` `executeRange`. Differs from etcd: equal sort keys stay in key
/// order, where etcd's order is unspecified.
pub(crate) fn read(
    view: &View<'_>,
    request: &RangeRequest,
    current: i64,
    compact: i64,
    counting: Counting,
) -> Result<RangeResult, Stop> {
    let at = resolve_revision(request.revision, current, compact)?;
    let range = KeyRange::from_wire(&request.key, &request.range_end);
    if request.count_only {
        let count = signed(view.count(&range, at)?);
        return Ok(RangeResult {
            revision: current,
            count,
            ..RangeResult::default()
        });
    }
    let fetched = fetch(view, request, &range, at, counting)?;
    let count = fetched.count;
    let (kvs, more) = match target(request) {
        Some(SortTarget::Value) => by_value(view, request, &fetched.found)?,
        _ => by_index(view, request, fetched)?,
    };
    Ok(RangeResult {
        revision: current,
        kvs,
        more,
        count: signed(count),
    })
}

/// Checks a requested revision, 0 and below meaning the current one, and returns the one to read at.
pub(crate) fn resolve_revision(revision: i64, current: i64, compact: i64) -> Result<i64, Error> {
    if revision > current {
        Err(Error::FutureRevision)
    } else if revision <= 0 {
        Ok(current)
    } else if revision < compact {
        Err(Error::Compacted)
    } else {
        Ok(revision)
    }
}

/// Returns whether keys come in the order they are stored in.
///
/// Source: etcd v3.7.1 `server/etcdserver/txn/range.go` `IsDefaultOrdering`.
pub(crate) fn is_default_order(request: &RangeRequest) -> bool {
    match order(request) {
        Some(SortOrder::None) => true,
        Some(SortOrder::Ascend) => target(request) == Some(SortTarget::Key),
        Some(SortOrder::Descend) | None => false,
    }
}

/// Returns whether keys are filtered by their revisions.
pub(crate) fn has_revision_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn order(request: &RangeRequest) -> Option<SortOrder> {
    SortOrder::try_from(request.sort_order).ok()
}

fn target(request: &RangeRequest) -> Option<SortTarget> {
    SortTarget::try_from(request.sort_target).ok()
}

/// Collects the keys that may be answered, in key order, and counts those of the range.
fn fetch(
    view: &View<'_>,
    request: &RangeRequest,
    range: &KeyRange,
    at: i64,
    counting: Counting,
) -> Result<Fetched, Stop> {
    let keys_only = request.keys_only && target(request) != Some(SortTarget::Value);
    let mut fetched = Fetched {
        keys_only: keys_only.then(Vec::new),
        ..Fetched::default()
    };
    if let Some(key) = range.as_single() {
        if let Some(version) = view.get(key, at)? {
            fetched.count = 1;
            if passes_filters(request, &version) {
                fetched.push((key, &[]), version);
            }
        }
        return Ok(fetched);
    }
    let limit = fetch_limit(request);
    let mut last = None;
    let held = Cell::new(0);
    let visitor = |key: (&[u8], &[u8]), version| {
        fetched.count += 1;
        if passes_filters(request, &version) {
            held.set(held.get() + fetched.push(key, version));
        }
        if fetched.count == limit {
            last = Some([key.0, key.1].concat());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    view.walk(range, at, visitor, || {
        view.hold(held.take())?;
        Ok(ControlFlow::Continue(()))
    })?;
    if let (Some(last), Counting::All) = (last, counting) {
        fetched.count += view.count(&range.after(&last), at)?;
    }
    Ok(fetched)
}

/// Returns how many keys to look at.
///
/// Source: etcd v3.7.1 `server/etcdserver/txn/range.go` `rangeLimit`.
fn fetch_limit(request: &RangeRequest) -> usize {
    if request.limit <= 0 || !is_default_order(request) || has_revision_filters(request) {
        return usize::MAX;
    }
    usize::try_from(request.limit).map_or(usize::MAX, |limit| limit.saturating_add(1))
}

fn passes_filters(request: &RangeRequest, version: &KeyVersion) -> bool {
    let (modified, created) = (version.revision.main, version.create_revision);
    let above = |max: i64, revision: i64| max != 0 && revision > max;
    let below = |min: i64, revision: i64| min != 0 && revision < min;
    !(above(request.max_mod_revision, modified)
        || below(request.min_mod_revision, modified)
        || above(request.max_create_revision, created)
        || below(request.min_create_revision, created))
}

/// Sorts and cuts by what the index knows, and reads only what is left.
fn by_index(
    view: &View<'_>,
    request: &RangeRequest,
    fetched: Fetched,
) -> Result<(Vec<Bytes>, bool), Stop> {
    let Fetched {
        mut found,
        keys_only,
        ..
    } = fetched;
    match target(request) {
        Some(SortTarget::Key) | None => {
            if order(request) == Some(SortOrder::Descend) {
                found.reverse();
            }
        }
        Some(SortTarget::Version) => sort(request, &mut found, |found| found.version.version),
        Some(SortTarget::Create) => {
            sort(request, &mut found, |found| found.version.create_revision)
        }
        Some(SortTarget::Mod) => sort(request, &mut found, |found| found.version.revision.main),
        Some(SortTarget::Value) => unreachable!("values are not in the index"),
    }
    let more = cut(request, &mut found);
    if let Some(keys_only) = keys_only {
        let keys_only = Bytes::from(keys_only);
        let slice = |found: Found| keys_only.slice(found.keys_only);
        return Ok((found.into_iter().map(slice).collect(), more));
    }
    let mut kvs = Vec::new();
    view.records(found.iter().map(|found| found.version.revision), &mut kvs)?;
    Ok((kvs, more))
}

/// Reads everything that was found, sorts it by value and cuts it.
fn by_value(
    view: &View<'_>,
    request: &RangeRequest,
    found: &[Found],
) -> Result<(Vec<Bytes>, bool), Stop> {
    let mut bytes = Vec::new();
    view.records(found.iter().map(|found| found.version.revision), &mut bytes)?;
    let mut records: Vec<(Bytes, Record)> = Vec::with_capacity(found.len());
    for (found, bytes) in found.iter().zip(bytes) {
        let record = Record::parse_stored(&bytes, found.version.revision)?;
        records.push((bytes, record));
    }
    sort_by(request, &mut records, |a, b| value_of(a).cmp(value_of(b)));
    let more = cut(request, &mut records);
    let kvs = records
        .into_iter()
        .map(|(bytes, record)| {
            if request.keys_only {
                without_value(&bytes, &record)
            } else {
                bytes
            }
        })
        .collect();
    Ok((kvs, more))
}

fn value_of((bytes, record): &(Bytes, Record)) -> &[u8] {
    &bytes[record.value.clone()]
}

/// Encodes a record again without its value; the lease stays.
fn without_value(bytes: &Bytes, record: &Record) -> Bytes {
    let version = KeyVersion {
        revision: quorate_backend::Revision {
            main: record.mod_revision,
            sub: 0,
        },
        create_revision: record.create_revision,
        version: record.version,
    };
    let mut out = Vec::new();
    put_keys_only(
        &mut out,
        (&bytes[record.key.clone()], &[]),
        &version,
        record.lease,
    );
    out.into()
}

fn sort(request: &RangeRequest, found: &mut [Found], key: impl Fn(&Found) -> i64) {
    sort_by(request, found, |a, b| key(a).cmp(&key(b)));
}

/// Sorts by a target other than the key; no order given means ascending.
fn sort_by<T>(request: &RangeRequest, items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    match order(request) {
        Some(SortOrder::None | SortOrder::Ascend) => items.sort_by(compare),
        Some(SortOrder::Descend) => items.sort_by(|a, b| compare(b, a)),
        None => {}
    }
}

fn cut<T>(request: &RangeRequest, items: &mut Vec<T>) -> bool {
    let limit =
        usize::try_from(request.limit).unwrap_or(if request.limit > 0 { usize::MAX } else { 0 });
    let more = limit > 0 && items.len() > limit;
    if more {
        items.truncate(limit);
    }
    more
}

/// Turns a count of keys into what answers carry.
pub(crate) fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("fewer than 2^63 keys fit into memory")
}
