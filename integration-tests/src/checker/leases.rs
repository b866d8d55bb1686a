//! How long leases lived.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::{Complaints, Rule};
use super::order::Sightings;
use super::record::{Call, Op, Recording, Reply, Request, Txn};

/// What the errors of a put say when there is no such lease.
const NO_LEASE: &str = "requested lease not found";
const US_PER_S: u64 = 1_000_000;

/// What clients know about one lease.
#[derive(Debug, Default)]
struct Life {
    /// Begin of a grant or renewal and the end of the time it promised, of those that were acknowledged.
    promises: Vec<(u64, u64)>,
    /// When somebody first asked for its end.
    revoked_us: Option<u64>,
}

impl Life {
    /// The latest time until which it was promised before `at`, unless its end was asked for.
    fn promised(&self, at: u64) -> Option<u64> {
        if self.revoked_us.is_some_and(|revoked| revoked < at) {
            return None;
        }
        let made = self.promises.iter().filter(|(begun, _)| *begun < at);
        made.map(|(_, until)| *until).max()
    }
}

/// Checks that no lease ended early. `ended` has the revisions that deleted a lease's keys.
pub(super) fn check_leases(
    recording: &Recording,
    sightings: &Sightings,
    ended: &[(i64, i64)],
    complaints: &mut Complaints,
) {
    let lives = lives(&recording.calls);
    let mut complain = |lease: i64, at: u64, what: String| {
        let promised = lives.get(&lease).and_then(|life| life.promised(at));
        if let Some(until) = promised.filter(|until| *until > at) {
            let text = format!("lease {lease:x} was promised until {until}, and at {at} {what}");
            complaints.add(Rule::Lease, text);
        }
    };
    for (lease, revision) in ended {
        if let Some(at) = sightings.first(*revision) {
            complain(
                *lease,
                at,
                format!("revision {revision} had deleted its keys"),
            );
        }
    }
    for call in &recording.calls {
        match (&call.request, &call.reply) {
            (Request::Renew(lease), Reply::Done(answer)) if answer.ttl <= 0 => {
                complain(*lease, call.ended_us, format!("it was gone: {call:?}"));
            }
            (Request::Keys(txn), Reply::Refused(text)) if text.contains(NO_LEASE) => {
                if let Some(lease) = only_lease(txn) {
                    complain(lease, call.ended_us, format!("it was gone: {call:?}"));
                }
            }
            _ => {}
        }
    }
}

/// Checks that no key was tied to a lease that had ended before.
pub(super) fn check_ties(
    recording: &Recording,
    ended: &[(i64, i64)],
    puts: impl Iterator<Item = (i64, i64)>,
    complaints: &mut Complaints,
) {
    // The ids of leases are not used again.
    let ended: BTreeMap<i64, i64> = ended.iter().copied().collect();
    let granted = recording
        .calls
        .iter()
        .filter_map(|call| match call.request {
            Request::Grant { lease, .. } => Some(lease),
            _ => None,
        });
    let granted: BTreeSet<i64> = granted.collect();
    for (revision, lease) in puts {
        let text = match ended.get(&lease) {
            Some(end) if *end < revision => {
                format!("revision {revision} ties a key to lease {lease:x}, which ended with {end}")
            }
            None if !granted.contains(&lease) => {
                format!("revision {revision} ties a key to lease {lease:x}, which nobody made")
            }
            _ => continue,
        };
        complaints.add(Rule::Lease, text);
    }
}

fn lives(calls: &[Call]) -> BTreeMap<i64, Life> {
    let mut lives: BTreeMap<i64, Life> = BTreeMap::new();
    for call in calls {
        let lease = match &call.request {
            Request::Grant { lease, .. } | Request::Renew(lease) | Request::Revoke(lease) => *lease,
            Request::Keys(_) | Request::Compact(_) => continue,
        };
        let life = lives.entry(lease).or_default();
        if matches!(call.request, Request::Revoke(_)) {
            let earliest = life
                .revoked_us
                .map_or(call.begun_us, |at| at.min(call.begun_us));
            life.revoked_us = Some(earliest);
        } else if let Some(answer) = call.reply.answer()
            && let Ok(ttl @ 1..) = u64::try_from(answer.ttl)
        {
            let until = call.begun_us + ttl * US_PER_S;
            life.promises.push((call.begun_us, until));
        }
    }
    lives
}

/// The lease that all puts of a transaction name.
fn only_lease(txn: &Txn) -> Option<i64> {
    let mut leases = txn.then.iter().filter_map(|op| match op {
        Op::Put { lease, .. } if *lease != 0 => Some(*lease),
        _ => None,
    });
    let first = leases.next()?;
    leases.all(|lease| lease == first).then_some(first)
}
