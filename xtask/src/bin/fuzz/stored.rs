//! Rows of the tables that are not what their owners wrote: restoring them gives an error or something that can be used.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_auth::AuthStore;
use quorate_backend::{ApplyTxn, Backend, Revision, Table};
use quorate_disk::SimDisk;
use quorate_lease::Lessor;
use quorate_mvcc::{Reader, Store};
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use quorate_proto::{LeaseId, authpb, leasepb, mvccpb};

use crate::random::Random;

/// Most rows that are drawn.
const ROWS_MAX: u64 = 24;
/// Names few enough to meet again.
const NAMES: [&str; 5] = ["a", "b", "root", "rolé", ""];

/// Restores a store from rows of the revision table and marks of compactions, then reads, writes and compacts it.
pub(crate) fn mvcc(seed: u64) {
    let random = &mut Random::new(seed);
    let backend = backend(seed, |txn| {
        let mut rev = Revision::new(1, 0);
        for _ in 0..random.below(ROWS_MAX) {
            if random.below(3) == 0 {
                rev.sub += signed(1 + random.below(3));
            } else {
                let far = random.below(40) == 0;
                let step = random.below(if far { u64::MAX >> 2 } else { 5 });
                rev = Revision::new(rev.main.saturating_add(1 + signed(step)), 0);
            }
            if rev.main == i64::MAX {
                break;
            }
            let tombstone = random.below(4) == 0;
            let record = record(random, rev, tombstone);
            txn.put_revision(rev, tombstone, record);
        }
        for key in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
            if random.below(3) == 0 {
                let main = signed(random.below(60));
                let mark = Revision::new(main, 0).table_key(false).as_bytes().to_vec();
                txn.put(Table::Meta, key, damage(random, mark, 4));
            }
        }
    });
    let Ok((mut store, _)) = Store::restore(&backend, quorate_mvcc::Options::default()) else {
        return;
    };
    let reader = store.reader();
    read(random, &reader);
    if let Some(mut job) = store.pending_compaction() {
        let _ = job.run();
    }
    let mut txn = backend.begin_apply(2, 1);
    for _ in 0..random.below(8) {
        let key = Bytes::from_static(NAMES[random.place(4)].as_bytes());
        let done = if random.below(3) == 0 {
            let request = DeleteRangeRequest {
                key,
                range_end: Bytes::from_static(b"\0"),
                prev_kv: random.below(2) == 0,
            };
            store.delete_range(&mut txn, &request).map(|_| ())
        } else {
            let request = PutRequest {
                key,
                ignore_value: random.below(2) == 0,
                prev_kv: random.below(2) == 0,
                ..PutRequest::default()
            };
            store.put(&mut txn, &request, |_| true).map(|_| ())
        };
        // What damaged records do to a write may poison the store, which says so from then on.
        let _ = done;
    }
    let compaction = store.compact(&mut txn, store.current_revision());
    txn.commit(0);
    store.publish();
    if let Some(flush) = backend.seal() {
        flush.run().expect("the disk is sound");
    }
    if let Ok(mut job) = compaction {
        let _ = job.run();
    }
    read(random, &reader);
}

fn read(random: &mut Random, reader: &Reader) {
    for (keys_only, count_only) in [(false, false), (true, false), (false, true)] {
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            revision: signed(random.below(50)),
            sort_target: i32::try_from(random.below(6)).unwrap_or_default(),
            sort_order: i32::try_from(random.below(3)).unwrap_or_default(),
            keys_only,
            count_only,
            ..RangeRequest::default()
        };
        let _ = reader.range(&request);
    }
    let _ = reader.history(signed(random.below(50)), i64::MAX, 100, 10_000);
    let _ = reader.hash_kv(signed(random.below(50)));
    let _ = reader.hash();
}

fn record(random: &mut Random, rev: Revision, tombstone: bool) -> Bytes {
    let number = |random: &mut Random, usual: i64| match random.below(12) {
        0 => random.next().cast_signed() >> random.below(64),
        _ => usual,
    };
    let usual = 1 + signed(random.below(4));
    let mut kv = mvccpb::KeyValue {
        key: NAMES[random.place(4)].into(),
        ..mvccpb::KeyValue::default()
    };
    if !tombstone {
        kv.create_revision = number(random, rev.main.min(2));
        kv.mod_revision = number(random, rev.main);
        kv.version = number(random, usual);
        kv.lease = number(random, 0);
        kv.value = vec![b'v'; random.place(30)].into();
    }
    damage(random, kv.encode_to_vec(), 8)
}

/// Restores a lessor from rows of the lease table, then lets time pass.
pub(crate) fn lease(seed: u64) {
    let random = &mut Random::new(seed);
    let number = |random: &mut Random| match random.below(3) {
        0 => random.next().cast_signed() >> random.below(64),
        _ => signed(random.below(100)),
    };
    let backend = backend(seed, |txn| {
        for _ in 0..random.below(ROWS_MAX) {
            let lease = leasepb::Lease {
                id: number(random),
                ttl: number(random),
                remaining_ttl: number(random),
            };
            let key = damage(random, lease.id.to_be_bytes().to_vec(), 30);
            txn.put(
                Table::Lease,
                &key,
                damage(random, lease.encode_to_vec(), 20),
            );
        }
    });
    let options = quorate_lease::Options {
        checkpoint_interval_ms: Some(quorate_lease::CHECKPOINT_INTERVAL_MS),
        ..quorate_lease::Options::default()
    };
    let Ok(mut lessor) = Lessor::restore(&backend, options) else {
        return;
    };
    let ids = lessor.leases();
    lessor.attach_restored(
        ids.iter()
            .map(|id| (Bytes::from_static(b"k"), *id))
            .collect(),
    );
    let mut now_ms = 0;
    lessor.promote(now_ms, random.below(10_000));
    for _ in 0..20 {
        let bits = random.below(40);
        now_ms += random.below(1 << bits);
        for id in lessor.expired(now_ms, 10) {
            assert!(lessor.exists(id), "seed {seed}: an unknown lease expires");
        }
        let _ = lessor.checkpoints_due(now_ms, 10);
        if let Some(id) = ids.get(random.place(ROWS_MAX)) {
            let _ = lessor.renew(*id, now_ms);
            let _ = lessor.time_to_live(*id, now_ms);
        }
    }
    let mut txn = backend.begin_apply(2, 1);
    for id in ids.into_iter().chain([LeaseId(1)]) {
        lessor.checkpoint(&mut txn, id, number(random), true);
        let _ = lessor.revoke(&mut txn, id);
    }
    assert_eq!(lessor.lease_count(), 0, "seed {seed}: leases stay");
}

/// Restores users and roles from their rows, then asks for them.
pub(crate) fn auth(seed: u64) {
    let random = &mut Random::new(seed);
    let backend = backend(seed, |txn| {
        for _ in 0..random.below(ROWS_MAX) {
            let name = NAMES[random.place(5)];
            let names = |random: &mut Random| -> Vec<String> {
                (0..random.below(4))
                    .map(|_| NAMES[random.place(5)].to_owned())
                    .collect()
            };
            let (table, row) = if random.below(2) == 0 {
                let user = authpb::User {
                    name: Bytes::from_static(name.as_bytes()),
                    password: Bytes::from(random.bytes(70)),
                    roles: names(random),
                    options: None,
                };
                (Table::AuthUsers, user.encode_to_vec())
            } else {
                let role = authpb::Role {
                    name: Bytes::from_static(name.as_bytes()),
                    key_permission: (0..random.below(3))
                        .map(|_| authpb::Permission {
                            perm_type: i32::try_from(random.below(5)).unwrap_or_default(),
                            key: Bytes::from(random.bytes(3)),
                            range_end: Bytes::from(random.bytes(3)),
                        })
                        .collect(),
                };
                (Table::AuthRoles, role.encode_to_vec())
            };
            txn.put(table, name.as_bytes(), damage(random, row, 20));
        }
        if random.below(2) == 0 {
            let enabled = random.bytes(2);
            txn.put(Table::Auth, b"authEnabled", enabled.into());
            let revision = random.below(100).to_be_bytes().to_vec();
            txn.put(Table::Auth, b"authRevision", damage(random, revision, 10));
        }
    });
    let Ok(mut store) = AuthStore::restore(&backend, quorate_auth::Options::default()) else {
        return;
    };
    let reader = store.reader();
    for name in NAMES {
        let _ = store.user_get(name);
        let _ = store.role_get(name);
        let _ = reader.password_check(name).map(|check| check.verify("x"));
    }
    let mut txn = backend.begin_apply(2, 1);
    let _ = store.enable(&mut txn);
    store.publish();
    for name in NAMES {
        let identity = reader.identity_of_common_name(name);
        let _ = reader.recheck(&identity);
    }
}

/// Makes a backend with what `fill` writes, in its file as at a start.
fn backend(seed: u64, fill: impl FnOnce(&mut ApplyTxn)) -> Backend {
    let disk = Arc::new(SimDisk::new(seed));
    let backend = Backend::open(disk, Path::new("/db"), quorate_backend::Options::default())
        .expect("the disk is sound");
    let mut txn = backend.begin_apply(1, 1);
    fill(&mut txn);
    txn.commit(0);
    if let Some(job) = backend.seal() {
        job.run().expect("the disk is sound");
    }
    backend
}

/// Damages one in so many.
fn damage(random: &mut Random, mut bytes: Vec<u8>, one_in: u64) -> Bytes {
    if random.below(one_in) == 0 {
        let at = random.place(40).min(bytes.len());
        match random.below(3) {
            0 => bytes.truncate(at),
            1 => bytes.extend(random.bytes(6)),
            _ => {
                let new = random.bytes(4);
                let place = bytes.get_mut(at..).unwrap_or_default();
                place.iter_mut().zip(new).for_each(|(to, from)| *to = from);
            }
        }
    }
    bytes.into()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
