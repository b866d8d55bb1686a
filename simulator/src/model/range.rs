//! What a range request gives.
use std::cmp::Ordering;

use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;
use quorate_proto::mvccpb::KeyValue;

use super::{Keys, RangeAnswer, Refusal, Span};

/// Orders, as they are numbered on the wire.
const NONE: i32 = 0;
const ASCEND: i32 = 1;
const DESCEND: i32 = 2;

/// Sort targets, as they are numbered on the wire.
const KEY: i32 = 0;
const VERSION: i32 = 1;
const CREATE: i32 = 2;
const MOD: i32 = 3;
const VALUE: i32 = 4;

/// Answers a range on a store at revision `current` that is compacted up to `compact`.
///
/// Fetch, filter, sort, cut. Keys that are equal to the sort stay in the order of keys: where etcd leaves the order open,
/// this is ours.
///
/// # Errors
/// The revision asked for lies ahead, or is gone.
///
/// # Panics
/// When there are more keys than an `i64` counts.
pub fn range(
    keys: &Keys,
    current: i64,
    compact: i64,
    request: &RangeRequest,
) -> Result<RangeAnswer, Refusal> {
    let at = match request.revision {
        ahead if ahead > current => return Err(Refusal::FutureRevision),
        newest if newest <= 0 => current,
        gone if gone < compact => return Err(Refusal::Compacted),
        at => at,
    };
    let mut found = keys.all_at(&Span::new(&request.key, &request.range_end), at);
    let count = i64::try_from(found.len()).expect("few keys");
    if request.count_only {
        return Ok(RangeAnswer {
            revision: current,
            count,
            ..RangeAnswer::default()
        });
    }
    let limit = usize::try_from(request.limit).ok().filter(|l| *l > 0);
    let (order, target) = (request.sort_order, request.sort_target);
    let is_default = order == NONE || (order == ASCEND && target == KEY);
    if is_default
        && !is_filtered(request)
        && let Some(limit) = limit
    {
        found.truncate(limit.saturating_add(1));
    }
    found.retain(|kv| passes(request, kv));
    let ascend = order == ASCEND || (order == NONE && target != KEY);
    if ascend {
        found.sort_by(|a, b| compare(target, a, b));
    } else if order == DESCEND {
        found.sort_by(|a, b| compare(target, b, a));
    }
    let more = limit.is_some_and(|limit| found.len() > limit);
    if let Some(limit) = limit {
        found.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut found {
            kv.value = Bytes::new();
            // The index, which answers alone unless values are sorted by, knows no leases.
            if target != VALUE {
                kv.lease = 0;
            }
        }
    }
    Ok(RangeAnswer {
        revision: current,
        kvs: found,
        more,
        count,
    })
}

fn is_filtered(request: &RangeRequest) -> bool {
    [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ]
    .iter()
    .any(|bound| *bound != 0)
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let at_most = |max: i64, is: i64| max == 0 || is <= max;
    let at_least = |min: i64, is: i64| min == 0 || is >= min;
    at_most(request.max_mod_revision, kv.mod_revision)
        && at_least(request.min_mod_revision, kv.mod_revision)
        && at_most(request.max_create_revision, kv.create_revision)
        && at_least(request.min_create_revision, kv.create_revision)
}

fn compare(target: i32, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        VERSION => a.version.cmp(&b.version),
        CREATE => a.create_revision.cmp(&b.create_revision),
        MOD => a.mod_revision.cmp(&b.mod_revision),
        VALUE => a.value.cmp(&b.value),
        _ => a.key.cmp(&b.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Revisions: c=1 at 2, a=3 at 3, b=2 at 4, a=4 at 5.
    fn keys() -> Keys {
        let mut keys = Keys::default();
        for (key, value, lease) in [("c", "1", 7), ("a", "3", 0), ("b", "2", 0), ("a", "4", 0)] {
            let mut write = keys.write();
            write.put(&key.into(), value.into(), lease);
            write.finish();
        }
        keys
    }

    fn all() -> RangeRequest {
        RangeRequest {
            key: "a".into(),
            range_end: "\0".into(),
            ..Default::default()
        }
    }

    fn names(answer: &RangeAnswer) -> String {
        let names = answer.kvs.iter().map(|kv| kv.key.clone());
        String::from_utf8(names.collect::<Vec<_>>().concat()).unwrap()
    }

    fn read(request: &RangeRequest) -> RangeAnswer {
        range(&keys(), 5, -1, request).unwrap()
    }

    #[test]
    fn revisions_are_checked_as_the_reference_says() {
        let at = |revision, compact| {
            let request = RangeRequest { revision, ..all() };
            range(&keys(), 5, compact, &request).map(|answer| answer.count)
        };
        assert_eq!(at(0, 4), Ok(3));
        assert_eq!(at(-3, 4), Ok(3));
        assert_eq!(at(4, 4), Ok(3));
        assert_eq!(at(3, 4), Err(Refusal::Compacted));
        assert_eq!(at(6, 4), Err(Refusal::FutureRevision));
        assert_eq!(at(1, -1), Ok(0));
    }

    #[test]
    fn limits_count_what_they_leave_out() {
        let answer = read(&RangeRequest { limit: 2, ..all() });
        assert_eq!(
            (names(&answer).as_str(), answer.more, answer.count),
            ("ab", true, 3)
        );
        let answer = read(&RangeRequest { limit: 3, ..all() });
        assert_eq!((answer.more, answer.count, answer.revision), (false, 3, 5));
        let counted = read(&RangeRequest {
            limit: 1,
            count_only: true,
            ..all()
        });
        assert_eq!(
            (counted.kvs.len(), counted.more, counted.count),
            (0, false, 3)
        );
    }

    #[test]
    fn sorts_go_by_the_target_alone() {
        let sorted = |sort_order, sort_target| {
            names(&read(&RangeRequest {
                sort_order,
                sort_target,
                ..all()
            }))
        };
        assert_eq!(sorted(DESCEND, KEY), "cba");
        assert_eq!(sorted(ASCEND, VERSION), "bca");
        assert_eq!(sorted(ASCEND, CREATE), "cab");
        assert_eq!(sorted(DESCEND, MOD), "abc");
        assert_eq!(sorted(ASCEND, VALUE), "cba");
        assert_eq!(sorted(NONE, VALUE), "cba");
    }

    #[test]
    fn a_target_without_order_sorts_what_the_limit_fetched() {
        let answer = read(&RangeRequest {
            sort_target: VALUE,
            limit: 1,
            ..all()
        });
        assert_eq!((names(&answer).as_str(), answer.more), ("b", true));
    }

    #[test]
    fn filters_come_before_the_limit() {
        let answer = read(&RangeRequest {
            min_mod_revision: 4,
            limit: 1,
            ..all()
        });
        assert_eq!(
            (names(&answer).as_str(), answer.more, answer.count),
            ("a", true, 3)
        );
        let answer = read(&RangeRequest {
            max_create_revision: 2,
            ..all()
        });
        assert_eq!((names(&answer).as_str(), answer.count), ("c", 3));
    }

    #[test]
    fn keys_alone_have_no_lease_unless_values_were_read() {
        let lease = |sort_target| {
            let request = RangeRequest {
                keys_only: true,
                sort_target,
                ..all()
            };
            let kvs = read(&request).kvs;
            assert!(kvs.iter().all(|kv| kv.value.is_empty()));
            kvs.iter().map(|kv| kv.lease).max()
        };
        assert_eq!((lease(KEY), lease(VALUE)), (Some(0), Some(7)));
    }
}
