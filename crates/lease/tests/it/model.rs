//! Random histories against a model that is a map.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use quorate_lease::{Error, Lessor, Options, REMAINING_FOREVER_S};
use quorate_proto::LeaseId;

use crate::Store;

#[derive(Clone, Debug)]
enum Step {
    Grant(i64, i64),
    Revoke(i64),
    Renew(i64),
    Attach(u8, i64),
    Detach(u8),
    Checkpoint(i64, i64, bool),
    Tick(u64, usize),
    Promote(u64),
    Demote,
    Restart { reopen: bool },
}

/// Ids on both sides of zero and of the sign.
fn id() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![1, 2, 3, 4, 5, 6, -1, -2, -3, i64::MAX, i64::MIN])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (id(), -2..40i64).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        2 => id().prop_map(Step::Revoke),
        6 => id().prop_map(Step::Renew),
        5 => (0..8u8, prop_oneof![4 => id(), 1 => Just(0)]).prop_map(|(key, id)| Step::Attach(key, id)),
        2 => (0..8u8).prop_map(Step::Detach),
        2 => (id(), 0..30i64, any::<bool>()).prop_map(|(id, left, persist)| Step::Checkpoint(id, left, persist)),
        10 => (prop_oneof![
                0..500u64,
                0..20_000u64,
                (0..8u64).prop_map(|s| s * 1_000)
            ], prop_oneof![Just(1_000usize), 0..4usize])
            .prop_map(|(by, limit)| Step::Tick(by, limit)),
        3 => prop_oneof![0..3_000u64, Just(0)].prop_map(Step::Promote),
        1 => Just(Step::Demote),
        1 => any::<bool>().prop_map(|reopen| Step::Restart { reopen }),
    ]
}

#[derive(Clone, Debug)]
struct Lease {
    ttl_s: i64,
    remaining_s: i64,
    stored_remaining_s: i64,
    /// The end lies between these two, which differ only after ends were spread.
    end_ms: (u64, u64),
    /// When it may be handed out again.
    again_ms: u64,
    /// Orders leases that end at the same time: the step in which the end was set.
    turn: u64,
}

#[derive(Default)]
struct Model {
    now_ms: u64,
    primary: bool,
    leases: BTreeMap<i64, Lease>,
    keys: BTreeMap<u8, i64>,
    turn: u64,
}

const MIN_TTL_S: i64 = 2;
const RETRY_MS: u64 = 3_000;

fn key(n: u8) -> Bytes {
    Bytes::from(vec![b'k', n])
}

impl Model {
    fn promote(&mut self, extend_ms: u64, spread_at: u64) {
        self.primary = true;
        let count = self.leases.len() as u64;
        let slack_ms = if count >= spread_at {
            (count + 1) * 1_000 / (spread_at * 3 / 4)
        } else {
            0
        };
        for lease in self.leases.values_mut() {
            let span_s = if lease.remaining_s > 0 {
                lease.remaining_s
            } else {
                lease.ttl_s
            };
            let end_ms = self.now_ms + extend_ms + span_s as u64 * 1_000;
            lease.end_ms = (end_ms, end_ms + slack_ms);
            lease.again_ms = 0;
            lease.turn = self.turn;
        }
    }

    /// Leases that may be, and that must be, handed out now.
    fn due(&self) -> (BTreeSet<LeaseId>, BTreeSet<LeaseId>) {
        let due = |end: fn(&Lease) -> u64| {
            let due = self
                .leases
                .iter()
                .filter(|(_, l)| end(l) <= self.now_ms && l.again_ms <= self.now_ms);
            due.map(|(&id, _)| LeaseId(id)).collect()
        };
        if self.primary {
            (due(|l| l.end_ms.0), due(|l| l.end_ms.1))
        } else {
            Default::default()
        }
    }
}

struct World {
    store: Store,
    lessor: Lessor,
    model: Model,
    options: Options,
}

impl World {
    fn new(options: Options) -> Self {
        let store = Store::new();
        Self {
            lessor: store.lessor(options),
            store,
            model: Model::default(),
            options,
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let Self {
            store,
            lessor,
            model,
            ..
        } = self;
        model.turn += 1;
        let now_ms = model.now_ms;
        match *step {
            Step::Grant(id, ttl_s) => {
                let got = store.apply(|txn| lessor.grant(txn, LeaseId(id), ttl_s, now_ms));
                if model.leases.contains_key(&id) {
                    prop_assert!(matches!(got, Err(Error::Exists)));
                    return Ok(());
                }
                let ttl_s = ttl_s.max(MIN_TTL_S);
                prop_assert_eq!(got.unwrap().ttl_s, ttl_s);
                let end_ms = now_ms + ttl_s as u64 * 1_000;
                let lease = Lease {
                    ttl_s,
                    remaining_s: 0,
                    stored_remaining_s: 0,
                    end_ms: (end_ms, end_ms),
                    again_ms: 0,
                    turn: model.turn,
                };
                model.leases.insert(id, lease);
            }
            Step::Revoke(id) => {
                let got = store.apply(|txn| lessor.revoke(txn, LeaseId(id)));
                prop_assert_eq!(got.is_ok(), model.leases.remove(&id).is_some());
                model.keys.retain(|_, lease| *lease != id);
            }
            Step::Renew(id) => self.renew(id)?,
            Step::Attach(k, id) => {
                let known = id == 0 || model.leases.contains_key(&id);
                prop_assert_eq!(lessor.attach(key(k), LeaseId(id)), known);
                model.keys.remove(&k);
                if known && id != 0 {
                    model.keys.insert(k, id);
                }
            }
            Step::Detach(k) => {
                lessor.detach(&key(k));
                model.keys.remove(&k);
            }
            Step::Checkpoint(id, left, persist) => {
                store.apply(|txn| lessor.checkpoint(txn, LeaseId(id), left, persist));
                if let Some(lease) = model.leases.get_mut(&id) {
                    lease.remaining_s = left;
                    if persist {
                        lease.stored_remaining_s = left;
                    }
                }
            }
            Step::Tick(by_ms, limit) => self.tick(by_ms, limit)?,
            Step::Promote(extend_ms) => {
                lessor.promote(now_ms, extend_ms);
                model.promote(extend_ms, self.options.revokes_per_second);
            }
            Step::Demote => {
                lessor.demote();
                model.primary = false;
            }
            Step::Restart { reopen } => self.restart(reopen),
        }
        self.compare()
    }

    fn renew(&mut self, id: i64) -> Result<(), TestCaseError> {
        let Model {
            now_ms,
            primary,
            leases,
            turn,
            ..
        } = &mut self.model;
        let got = self.lessor.renew(LeaseId(id), *now_ms);
        match (leases.get_mut(&id), got) {
            (_, Err(Error::NotPrimary)) => prop_assert!(!*primary),
            (None, Err(Error::NotFound)) => {}
            (Some(lease), Err(Error::Expired)) => prop_assert!(lease.end_ms.0 <= *now_ms),
            (Some(lease), Err(Error::CheckpointStored)) => {
                prop_assert!(lease.end_ms.1 > *now_ms && lease.remaining_s > 0);
            }
            (Some(lease), Ok(ttl_s)) => {
                prop_assert!(*primary && lease.end_ms.1 > *now_ms && lease.remaining_s == 0);
                prop_assert_eq!(ttl_s, lease.ttl_s);
                let end_ms = *now_ms + ttl_s as u64 * 1_000;
                lease.end_ms = (end_ms, end_ms);
                lease.turn = *turn;
            }
            (lease, got) => prop_assert!(false, "{lease:?} gives {got:?}"),
        }
        Ok(())
    }

    fn tick(&mut self, by_ms: u64, limit: usize) -> Result<(), TestCaseError> {
        self.model.now_ms += by_ms;
        let got = self.lessor.expired(self.model.now_ms, limit);
        let set: BTreeSet<LeaseId> = got.iter().copied().collect();
        prop_assert_eq!(set.len(), got.len(), "twice in one batch");
        let (may, must) = self.model.due();
        prop_assert!(
            set.is_subset(&may),
            "early, or again too soon: {:?} of {:?}",
            set,
            may
        );
        prop_assert!(got.len() <= limit);
        prop_assert!(
            got.len() == limit || must.is_subset(&set),
            "late: {:?} of {:?}",
            set,
            must
        );
        for id in set {
            let lease = self.model.leases.get_mut(&id.0).unwrap();
            lease.again_ms = self.model.now_ms + RETRY_MS;
            // Now it is known to have ended.
            lease.end_ms.1 = lease.end_ms.1.min(self.model.now_ms);
        }
        Ok(())
    }

    fn restart(&mut self, reopen: bool) {
        if reopen {
            self.store.reopen();
        }
        self.lessor = self.store.lessor(self.options);
        let model = &mut self.model;
        let pairs = model
            .keys
            .iter()
            .map(|(&k, &id)| (key(k), LeaseId(id)))
            .collect();
        assert_eq!(self.lessor.attach_restored(pairs), 0);
        model.primary = false;
        for lease in model.leases.values_mut() {
            lease.remaining_s = lease.stored_remaining_s;
        }
    }

    /// Everything that can be asked for is as in the model.
    fn compare(&self) -> Result<(), TestCaseError> {
        let Self { lessor, model, .. } = self;
        prop_assert_eq!(lessor.is_primary(), model.primary);
        prop_assert_eq!(
            (lessor.lease_count(), lessor.key_count()),
            (model.leases.len(), model.keys.len())
        );
        for k in 0..8 {
            prop_assert_eq!(
                lessor.lease_of(&key(k)).0,
                model.keys.get(&k).copied().unwrap_or(0)
            );
        }
        let left = |end_ms: u64| (end_ms as i64 - model.now_ms as i64) / 1_000;
        for (&id, lease) in &model.leases {
            let id = LeaseId(id);
            let got = lessor.time_to_live(id, model.now_ms).unwrap();
            prop_assert_eq!(got.granted_s, lease.ttl_s);
            if model.primary {
                let range = left(lease.end_ms.0)..=left(lease.end_ms.1);
                prop_assert!(
                    range.contains(&got.remaining_s),
                    "{} in {:?}",
                    got.remaining_s,
                    range
                );
            } else {
                prop_assert_eq!(got.remaining_s, REMAINING_FOREVER_S);
            }
            let keys: Vec<Bytes> = model
                .keys
                .iter()
                .filter(|(_, l)| **l == id.0)
                .map(|(&k, _)| key(k))
                .collect();
            prop_assert_eq!(lessor.keys(id), Some(keys));
        }
        let exact = model.leases.values().all(|l| l.end_ms.0 == l.end_ms.1);
        if exact {
            let rank = |l: &Lease| {
                if model.primary {
                    (l.end_ms.0, l.turn)
                } else {
                    (0, 0)
                }
            };
            let ranked = model.leases.iter().map(|(&id, l)| (rank(l), id as u64));
            let mut order: Vec<((u64, u64), u64)> = ranked.collect();
            order.sort_unstable();
            let order: Vec<LeaseId> = order
                .into_iter()
                .map(|(_, id)| LeaseId(id as i64))
                .collect();
            prop_assert_eq!(lessor.leases(), order);
        }
        Ok(())
    }
}

fn options(revokes_per_second: u64) -> Options {
    Options {
        min_ttl_s: MIN_TTL_S,
        revoke_retry_ms: RETRY_MS,
        checkpoint_interval_ms: None,
        revokes_per_second,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new(options(1_000));
        for step in &steps {
            world.run(step)?;
        }
    }

    #[test]
    fn behaves_as_the_model_when_ends_are_spread(steps in prop::collection::vec(step(), 1..80), at in 2..6u64) {
        let mut world = World::new(options(at));
        for step in &steps {
            world.run(step)?;
        }
    }
}
