use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_proto::etcdserverpb::Compare;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::KeyRange;
use crate::index::KeyParts;
use crate::record::{KeyVersion, Record};
use crate::view::{Stop, View};

/// Returns whether all compares hold at a main revision.
pub(crate) fn all_hold(view: &View<'_>, at: i64, compares: &[Compare]) -> Result<bool, Stop> {
    for compare in compares {
        if !holds(view, at, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether a compare holds: for every key of its range, or for what stands for an absent key when there is none.
///
/// Source: etcd v3.7.1 `server/etcdserver/txn/txn.go` `applyCompare`.
fn holds(view: &View<'_>, at: i64, compare: &Compare) -> Result<bool, Stop> {
    let range = KeyRange::from_wire(&compare.key, &compare.range_end);
    if let Some(key) = range.as_single() {
        return match view.get(key, at)? {
            Some(version) => key_holds(view, compare, &version),
            None => Ok(absent_holds(compare)),
        };
    }
    let chunk = std::cell::RefCell::new(Vec::new());
    let (mut any, mut all) = (false, true);
    let visitor = |_: KeyParts<'_>, version: KeyVersion| {
        chunk.borrow_mut().push(version);
        ControlFlow::Continue(())
    };
    view.walk(&range, at, visitor, || {
        for version in chunk.borrow_mut().drain(..) {
            any = true;
            if !key_holds(view, compare, &version)? {
                all = false;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(if any { all } else { absent_holds(compare) })
}

/// Compares an absent key: its numbers are 0, and its value is like nothing, not even unlike.
fn absent_holds(compare: &Compare) -> bool {
    let numbers = KeyVersion {
        revision: quorate_backend::Revision { main: 0, sub: 0 },
        create_revision: 0,
        version: 0,
    };
    match target(compare) {
        Some(CompareTarget::Value) => false,
        Some(CompareTarget::Lease) => satisfies(compare, 0.cmp(&given_lease(compare))),
        _ => satisfies(compare, number_ordering(compare, &numbers)),
    }
}

fn key_holds(view: &View<'_>, compare: &Compare, version: &KeyVersion) -> Result<bool, Stop> {
    let ordering = match target(compare) {
        Some(CompareTarget::Value) => {
            let (bytes, record) = read(view, version)?;
            let given: &[u8] = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value,
                _ => &[],
            };
            bytes[record.value].cmp(given)
        }
        Some(CompareTarget::Lease) => read(view, version)?.1.lease.cmp(&given_lease(compare)),
        _ => number_ordering(compare, version),
    };
    Ok(satisfies(compare, ordering))
}

fn read(view: &View<'_>, version: &KeyVersion) -> Result<(Bytes, Record), Stop> {
    let bytes = view.record(version.revision)?;
    let record = Record::parse_stored(&bytes, version.revision)?;
    Ok((bytes, record))
}

/// Compares what the index knows with what is given; given under another name counts as 0.
fn number_ordering(compare: &Compare, version: &KeyVersion) -> Ordering {
    match (target(compare), &compare.target_union) {
        (Some(CompareTarget::Version), Some(TargetUnion::Version(given))) => {
            version.version.cmp(given)
        }
        (Some(CompareTarget::Version), _) => version.version.cmp(&0),
        (Some(CompareTarget::Create), Some(TargetUnion::CreateRevision(given))) => {
            version.create_revision.cmp(given)
        }
        (Some(CompareTarget::Create), _) => version.create_revision.cmp(&0),
        (Some(CompareTarget::Mod), Some(TargetUnion::ModRevision(given))) => {
            version.revision.main.cmp(given)
        }
        (Some(CompareTarget::Mod), _) => version.revision.main.cmp(&0),
        // An unknown target is equal to anything.
        _ => Ordering::Equal,
    }
}

fn given_lease(compare: &Compare) -> i64 {
    match compare.target_union {
        Some(TargetUnion::Lease(lease)) => lease,
        _ => 0,
    }
}

fn satisfies(compare: &Compare, ordering: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        // An unknown operator holds always.
        Err(_) => true,
    }
}

fn target(compare: &Compare) -> Option<CompareTarget> {
    CompareTarget::try_from(compare.target).ok()
}
