use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

use super::*;
use crate::model::{Entry, EntryKind, tagged};

const ELECTION_MS: u64 = 1_000;

struct Case {
    model: Model,
    times: LeaseTimes,
    term: u64,
}

impl Case {
    fn new() -> Self {
        Self {
            model: Model::new(1, 1),
            times: LeaseTimes::new(ELECTION_MS),
            term: 1,
        }
    }

    /// Commits a request of machine 1 when the clocks say so.
    fn commit(
        &mut self,
        clocks: &[(u64, u64)],
        machine: u64,
        set: impl FnOnce(&mut InternalRaftRequest),
    ) -> Result<(), Violation> {
        let mut request = InternalRaftRequest {
            header: Some(pb::RequestHeader {
                id: machine << 48 | 1,
                ..Default::default()
            }),
            ..Default::default()
        };
        set(&mut request);
        self.entry(clocks, machine, request.encode_to_vec().into())
    }

    fn entry(&mut self, clocks: &[(u64, u64)], machine: u64, data: Bytes) -> Result<(), Violation> {
        let entry = Entry {
            index: self.model.index() + 1,
            term: self.term,
            kind: EntryKind::Normal,
            data,
        };
        self.entry_at(entry.index - 1, clocks, machine, &entry)
    }

    fn entry_at(
        &mut self,
        known: u64,
        clocks: &[(u64, u64)],
        machine: u64,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let step = self.model.apply(entry).unwrap().clone();
        let clocks: Clocks = clocks.iter().copied().collect();
        let own_ms = clocks.get(&machine).copied().unwrap_or(0);
        let origin = Origin {
            machine,
            applied: known,
            at_ms: own_ms,
            own_ms,
        };
        self.times.committed(&step, &clocks, Some(machine), &origin)
    }

    fn grant(&mut self, clocks: &[(u64, u64)], ttl: i64) {
        let grant = pb::LeaseGrantRequest { id: 7, ttl };
        self.commit(clocks, 1, |r| r.lease_grant = Some(grant))
            .unwrap();
    }

    fn expire(&mut self, clocks: &[(u64, u64)], machine: u64) -> Result<(), Violation> {
        let revoke = pb::LeaseRevokeRequest { id: 7 };
        self.commit(clocks, machine, |r| r.lease_revoke = Some(revoke))
    }

    fn renew(&mut self, since: &[(u64, u64)], ttl_s: i64) -> Result<(), Violation> {
        let since: Clocks = since.iter().copied().collect();
        let (place, now_ms) = (self.model.index(), since[&1]);
        self.times
            .renewed(&self.model, 7, ttl_s, (&since, place), now_ms)
    }
}

#[test]
fn a_lease_may_end_in_its_time_and_not_before_by_the_clock_of_who_ends_it() {
    let mut case = Case::new();
    case.grant(&[(1, 100), (2, 9_000)], 5);
    assert_eq!(case.expire(&[(1, 5_100), (2, 9_001)], 1), Ok(()));
    case.grant(&[(1, 100), (2, 9_000)], 5);
    let early = case.expire(&[(1, 5_100), (2, 12_000)], 2).unwrap_err();
    assert_eq!(early.check, "leases last as long as granted");
}

#[test]
fn a_revocation_of_who_has_not_applied_a_grant_is_for_the_lease_before() {
    // 1000176, 1000313: a client ends a lease and grants its id anew while the leader's revocation waits for its majority.
    let mut case = Case::new();
    case.grant(&[(1, 0)], 5);
    let raw = tagged(&pb::LeaseRevokeRequest { id: 7 }, 3);
    let len = u8::try_from(raw.len()).unwrap();
    let data = [&[9 << 3 | 2, len], &raw[..]].concat();
    case.entry(&[(1, 5_000)], 1, data.into()).unwrap();
    case.grant(&[(1, 5_001)], 5);
    let revoke = InternalRaftRequest {
        header: Some(pb::RequestHeader {
            id: 1 << 48 | 1,
            ..Default::default()
        }),
        lease_revoke: Some(pb::LeaseRevokeRequest { id: 7 }),
        ..Default::default()
    };
    let entry = Entry {
        index: case.model.index() + 1,
        term: 1,
        kind: EntryKind::Normal,
        data: revoke.encode_to_vec().into(),
    };
    let ends = |known, ms| {
        let mut case = case.clone_times();
        case.entry_at(known, &[(1, ms)], 1, &entry)
    };
    assert_eq!(ends(1, 5_002), Ok(()));
    assert!(ends(1, 2_000).is_err());
    assert!(ends(3, 5_002).is_err());
    assert!(ends(0, 5_002).is_err());
}

#[test]
fn a_renewal_begins_the_time_anew() {
    let mut case = Case::new();
    case.grant(&[(1, 0)], 5);
    case.renew(&[(1, 4_000)], 5).unwrap();
    assert!(case.clone_times().expire(&[(1, 6_000)], 1).is_err());
    assert_eq!(case.expire(&[(1, 9_000)], 1), Ok(()));
    assert!(case.renew(&[(1, 9_500)], 5).is_err());
}

#[test]
fn a_renewal_is_for_the_granted_time() {
    let mut case = Case::new();
    case.grant(&[(1, 0)], 5);
    assert!(case.renew(&[(1, 1)], 6).is_err());
}

#[test]
fn a_client_may_end_a_lease_at_any_time() {
    let mut case = Case::new();
    case.grant(&[(1, 0)], 5);
    let raw = tagged(&pb::LeaseRevokeRequest { id: 7 }, 3);
    let len = u8::try_from(raw.len()).unwrap();
    let data = [&[9 << 3 | 2, len], &raw[..]].concat();
    assert_eq!(case.entry(&[(1, 1)], 1, data.into()), Ok(()));
}

fn checkpoint(remaining_ttl: i64) -> impl FnOnce(&mut InternalRaftRequest) {
    move |r| {
        r.lease_checkpoint = Some(pb::LeaseCheckpointRequest {
            checkpoints: vec![pb::LeaseCheckpoint {
                id: 7,
                remaining_ttl,
            }],
        });
    }
}

#[test]
fn a_later_leader_may_go_by_the_checkpoint_and_its_maker_may_not() {
    let mut case = Case::new();
    case.grant(&[(1, 0), (2, 0)], 9);
    // The clock of the second is six seconds behind.
    case.commit(&[(1, 7_000), (2, 1_000)], 1, checkpoint(2))
        .unwrap();
    let ends = |term, machine, ms| {
        let mut case = case.clone_times();
        case.term = term;
        case.expire(&[(1, ms + 6_000), (2, ms)], machine)
    };
    assert!(ends(1, 1, 2_000).is_err());
    assert!(ends(1, 2, 3_000).is_err());
    assert!(ends(2, 2, 2_000).is_err());
    assert_eq!(ends(2, 2, 3_000), Ok(()));
    assert_eq!(ends(2, 1, 3_000), Ok(()));
}

#[test]
fn a_leader_goes_by_the_checkpoint_before_its_term_whatever_it_says_itself() {
    // 1021244, 1022122: the leader's own checkpoints took the place of the one that it was promoted with.
    let mut case = Case::new();
    case.grant(&[(1, 0), (2, 0)], 9);
    case.commit(&[(1, 1_000), (2, 7_000)], 2, checkpoint(2))
        .unwrap();
    case.term = 2;
    case.commit(&[(1, 2_900)], 1, checkpoint(1)).unwrap();
    let mut next = case.clone_times();
    assert_eq!(case.clone_times().expire(&[(1, 3_000)], 1), Ok(()));
    case.commit(&[(1, 2_950)], 1, checkpoint(0)).unwrap();
    assert_eq!(case.clone_times().expire(&[(1, 3_000)], 1), Ok(()));
    // Who leads next goes by the last one, or by none when that was taken back.
    next.term = 3;
    assert!(next.clone_times().expire(&[(1, 3_000)], 1).is_err());
    assert_eq!(next.expire(&[(1, 3_900)], 1), Ok(()));
    case.term = 3;
    assert!(case.clone_times().expire(&[(1, 3_900)], 1).is_err());
    // A renewal ends what was left before.
    case.term = 2;
    case.renew(&[(1, 2_950)], 9).unwrap();
    assert!(case.expire(&[(1, 3_900)], 1).is_err());
}

#[test]
fn a_checkpoint_leaves_what_is_left_for_its_maker() {
    let mut case = Case::new();
    case.grant(&[(1, 0)], 9);
    let says = |case: &Case, ms, left_s| {
        let mut case = case.clone_times();
        case.commit(&[(1, ms)], 1, checkpoint(left_s))
    };
    assert_eq!(says(&case, 1_000, 8), Ok(()));
    let short = says(&case, 1_000, 7).unwrap_err();
    assert_eq!(short.check, "checkpoints leave what is left");
    // An election timeout may come on top, and seconds are whole.
    assert_eq!(says(&case, 1_000, 11), Ok(()));
    let long = says(&case, 1_000, 14).unwrap_err();
    assert_eq!(long.check, "checkpoints leave what is left");
    // It takes an earlier one back.
    assert_eq!(says(&case, 1_000, 0), Ok(()));
    // One that may have crossed with a renewal goes by the time before.
    case.renew(&[(1, 5_000)], 9).unwrap();
    assert_eq!(says(&case, 5_000, 4), Ok(()));
    assert!(says(&case, 5_001, 4).is_err());
    assert_eq!(says(&case, 5_001, 9), Ok(()));
}

#[test]
fn ends_are_spread_over_as_long_as_the_most_leases_need() {
    let mut case = Case::new();
    case.grant(&[(1, 0)], 9);
    assert_eq!(case.times.spread_s(), 0);
    for (leases, rate, spread_s) in [(1, 3, 2), (7, 3, 4), (7, 7, 2), (1_000, 3, 60)] {
        let mut times = case.clone_times().times.with_spread(Some(rate));
        times.leases_most = leases;
        assert_eq!(times.spread_s(), spread_s);
    }
    assert_eq!(case.times.leases_most, 1);
}

#[test]
fn a_checkpoint_takes_nothing_from_a_renewal_told_of_after_it_was_made() {
    let mut case = Case::new();
    case.grant(&[(1, 0), (2, 0)], 9);
    case.renew(&[(1, 3_000), (2, 3_000)], 9).unwrap();
    let mut overtaken = case.clone_times();
    overtaken.renew(&[(1, 8_000), (2, 5_000)], 9).unwrap();
    for (case, is_overtaken) in [(&mut case, false), (&mut overtaken, true)] {
        // The clock of the second is three seconds behind.
        case.commit(&[(1, 7_000), (2, 4_000)], 1, checkpoint(5))
            .unwrap();
        case.term = 2;
        let ends = case.clone_times().expire(&[(2, 9_500)], 2);
        assert_eq!(ends.is_err(), is_overtaken);
        assert_eq!(case.expire(&[(2, 14_000)], 2), Ok(()));
    }
}

#[test]
fn who_has_not_applied_a_grant_does_not_mean_that_lease() {
    // 1020374: a checkpoint for the lease before was applied to the one after.
    let mut case = Case::new();
    case.grant(&[(1, 0)], 5);
    assert!(!case.times.is_for_present(7, 0));
    assert!(case.times.is_for_present(7, 1));
    assert!(!case.times.is_for_present(8, 1));
}

#[test]
fn leases_that_are_there_must_be_found_as_they_are() {
    let mut case = Case::new();
    case.grant(&[(1, 0)], 5);
    let place = case.model.index();
    assert!(case.times.missed(&case.model, 7, place).is_err());
    assert_eq!(case.times.missed(&case.model, 7, 0), Ok(()));
    let told = |left, granted, keys: &[Bytes]| {
        case.times
            .told(&case.model, (7, place), (left, granted), Some(keys))
    };
    assert_eq!(told(6, 5, &[]), Ok(()));
    assert!(told(7, 5, &[]).is_err());
    assert!(told(4, 6, &[]).is_err());
    assert!(told(4, 5, &["a".into()]).is_err());
}

impl Case {
    fn clone_times(&self) -> Self {
        Self {
            model: self.model.clone(),
            times: LeaseTimes {
                ends_per_s: self.times.ends_per_s,
                leases_most: self.times.leases_most,
                slack_ms: self.times.slack_ms,
                election_ms: self.times.election_ms,
                running: self.times.running.clone(),
                former: self.times.former.clone(),
            },
            term: self.term,
        }
    }
}
