use std::path::Path;

use quorate_backend::Revision;
use quorate_core::{Applied, AuthAnswer, AutoCompaction, Error, Outcome, Request, Submission};
use quorate_disk::{CrashPolicy, SECTOR_BYTES};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;

use crate::harness::{DATABASE, Harness, config, put};

fn started() -> Harness {
    let mut harness = Harness::new();
    harness.sync();
    harness.run_ms(300);
    assert!(harness.ready, "published itself");
    harness
}

#[test]
fn a_first_start_publishes_the_member_and_the_cluster_version() {
    let harness = started();
    let view = harness.member.view();
    assert_eq!(&*view.cluster_version(), "3.7.0");
    assert_eq!(&*view.storage_version(), "3.7.0");
    let members = view.members();
    assert_eq!((members.len(), members[0].name.as_str()), (1, "m"));
    assert_eq!(members[0].client_ur_ls, ["http://c:1"]);
    assert!(view.reads_are_linearizable());
}

#[test]
fn bookkeeping_consumes_no_revision() {
    let mut harness = started();
    assert_eq!(harness.member.stores().kv.current_revision(), 1);
    assert_eq!(harness.put("a", "1"), 2);
}

#[test]
fn faults_2_a_write_is_answered_only_after_the_log_has_synced_it() {
    let mut harness = started();
    let token = harness.submit(put("a", "1", 0));
    for _ in 0..5 {
        harness.tick();
    }
    assert!(harness.reply(token).is_none(), "answered before the sync");
    assert_eq!(harness.value("a"), None, "visible before the sync");
    harness.sync();
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::Applied(Applied::Put(_)))
    ));
    assert_eq!(harness.value("a").unwrap(), b"1");
}

#[test]
fn a_member_that_cannot_read_its_database_ends_though_nobody_writes() {
    let mut harness = started();
    let value = "v".repeat(1_000);
    for i in 0..50 {
        harness.put(&i.to_string(), &value);
    }
    harness.run_ms(5_000);
    let path = Path::new(DATABASE);
    for sector in 0..harness.disk.peek(path).unwrap().len() / SECTOR_BYTES {
        harness.disk.spoil_sector(path, sector).unwrap();
    }
    let backend = harness.member.stores().backend.clone();
    harness.now_ms += 100;
    harness.member.handle_tick(harness.now_ms);
    harness.collect();
    assert!(!backend.is_unreadable(), "nobody has read it");
    let revisions: Vec<_> = (2..52).map(|main| Revision::new(main, 0)).collect();
    let read = backend.values(&revisions, usize::MAX);
    assert!(read.is_err());
    assert!(!backend.is_poisoned(), "no write has failed");
    harness.now_ms += 100;
    harness.member.handle_tick(harness.now_ms);
    let fatal = harness.member.take_actions().fatal;
    assert_eq!(fatal.unwrap(), "the database cannot be read any more");
}

#[test]
fn several_batches_can_be_on_their_way_to_the_disk() {
    let mut harness = started();
    let tokens: Vec<_> = (0..10)
        .map(|i| harness.submit(put("a", &i.to_string(), 0)))
        .collect();
    assert_eq!(
        harness.unsynced.len(),
        10,
        "no batch waits for the one before"
    );
    harness.sync();
    let revisions: Vec<i64> = tokens
        .iter()
        .map(|t| match harness.reply(*t) {
            Some(Outcome::Applied(Applied::Put(result))) => result.revision,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(revisions, (2..12).collect::<Vec<_>>());
}

#[test]
fn acknowledged_writes_survive_a_crash_at_any_point() {
    for seed in 0..60_u64 {
        let mut harness = started();
        let mut acknowledged = Vec::new();
        for i in 0..(seed % 37) {
            let (key, value) = (format!("k{}", i % 7), format!("{i}"));
            harness.put(&key, &value);
            acknowledged.push((key, value));
            if i % 3 == 0 {
                harness.tick();
            }
        }
        // One more that nobody was told of: it may be there or not.
        harness.submit(put("unsure", "1", 0));
        let mut harness = harness.crash(&CrashPolicy::Seeded(seed), config());
        harness.sync();
        harness.run_ms(300);
        let mut latest = std::collections::BTreeMap::new();
        latest.extend(acknowledged);
        for (key, value) in latest {
            assert_eq!(
                harness.value(&key).as_deref(),
                Some(value.as_bytes()),
                "seed {seed} key {key}"
            );
        }
        let revision = harness.put("after", "1");
        let acknowledged = i64::try_from(seed % 37).unwrap();
        assert!(
            revision == acknowledged + 2 || revision == acknowledged + 3,
            "revisions are dense"
        );
    }
}

#[test]
fn a_restart_after_snapshots_replays_only_what_the_backend_lacks() {
    let mut harness = started();
    for i in 0..100 {
        harness.put("a", &i.to_string());
        harness.tick();
        harness.sync();
    }
    assert!(
        harness.saved_snapshots.len() >= 3,
        "{:?}",
        harness.saved_snapshots
    );
    assert!(harness.released > 0);
    let digest = harness.member.stores().backend.applied().digest;
    let applied = harness.member.stores().backend.applied().index;
    let mut harness = harness.crash(&CrashPolicy::KeepAll, config());
    harness.sync();
    harness.run_ms(200);
    assert_eq!(harness.value("a").unwrap(), b"99");
    assert!(harness.member.stores().backend.applied().index > applied);
    let _ = digest;
}

#[test]
fn a_lease_ends_in_time_and_takes_its_keys_along() {
    let mut harness = started();
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 2 });
    assert!(matches!(
        harness.call(grant),
        Outcome::Applied(Applied::LeaseGrant {
            id: LeaseId(5),
            ttl_s: 2
        })
    ));
    harness.call(put("leased", "1", 5));
    harness.run_ms(1_900);
    assert!(harness.value("leased").is_some(), "ended early");
    harness.run_ms(600);
    assert!(harness.value("leased").is_none());
    let token = harness.send(|token| Submission::LeaseTimeToLive {
        token,
        id: LeaseId(5),
        keys: true,
    });
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::LeaseTimeToLive {
            remaining_s: -1,
            ..
        })
    ));
}

#[test]
fn a_renewed_lease_lives_on_and_nothing_expires_early_after_a_restart() {
    let mut harness = started();
    harness.call(Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 2 }));
    harness.call(put("leased", "1", 5));
    for _ in 0..5 {
        harness.run_ms(1_500);
        let token = harness.send(|token| Submission::LeaseRenew {
            token,
            id: LeaseId(5),
        });
        assert!(matches!(
            harness.reply(token),
            Some(Outcome::LeaseRenewed { ttl_s: 2 })
        ));
    }
    let mut harness = harness.crash(&CrashPolicy::KeepNone, config());
    harness.sync();
    harness.run_ms(1_900);
    assert!(
        harness.value("leased").is_some(),
        "a new leader gives the full time again"
    );
    harness.run_ms(2_000);
    assert!(harness.value("leased").is_none());
}

#[test]
fn a_lease_of_id_zero_gets_a_positive_one() {
    let mut harness = started();
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { id: 0, ttl: 60 });
    match harness.call(grant) {
        Outcome::Applied(Applied::LeaseGrant { id, ttl_s: 60 }) => assert!(id.0 > 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_renewal_waits_for_the_revocation_and_finds_nothing() {
    let mut harness = started();
    harness.call(Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 1 }));
    for _ in 0..15 {
        harness.tick();
    }
    let token = harness.send(|token| Submission::LeaseRenew {
        token,
        id: LeaseId(5),
    });
    assert!(harness.reply(token).is_none());
    harness.sync();
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::LeaseRenewed { ttl_s: 0 })
    ));
}

#[test]
fn no_space_raises_the_alarm_before_the_caller_is_told() {
    let mut harness = Harness::with(quorate_core::Config {
        quota_bytes: 30_000,
        ..config()
    });
    harness.sync();
    harness.run_ms(300);
    let big = "x".repeat(9_000);
    let refused = (0..20).find_map(|i| match harness.call(put(&format!("k{i}"), &big, 0)) {
        Outcome::Failed(error) => Some(error),
        _ => None,
    });
    assert!(matches!(refused, Some(Error::NoSpace)), "{refused:?}");
    assert_eq!(harness.member.view().alarms().len(), 1);
    assert!(matches!(
        harness.call(put("more", "1", 0)),
        Outcome::Failed(Error::NoSpace)
    ));
    let delete = pb::DeleteRangeRequest {
        key: "k0".into(),
        ..Default::default()
    };
    assert!(matches!(
        harness.call(Request::DeleteRange(delete)),
        Outcome::Applied(_)
    ));
    // The alarm is there after a crash (faults 11: it must not make the member unbootable).
    let mut harness = harness.crash(&CrashPolicy::KeepNone, config());
    harness.sync();
    harness.run_ms(200);
    assert_eq!(harness.member.view().alarms().len(), 1);
    let disarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Deactivate.into(),
        member_id: crate::harness::MEMBER,
        alarm: pb::AlarmType::Nospace.into(),
    };
    harness.call(Request::Alarm(disarm));
    assert!(matches!(
        harness.call(put("more", "1", 0)),
        Outcome::Applied(_)
    ));
}

#[test]
fn a_physical_compaction_is_answered_when_it_is_done() {
    let mut harness = started();
    for i in 0..10 {
        harness.put("a", &i.to_string());
    }
    let token = harness.submit(Request::Compaction(pb::CompactionRequest {
        revision: 9,
        physical: true,
    }));
    harness.sync();
    assert!(!harness.member.view().is_compacting());
    let before = harness.member.stores().backend.durable().index;
    assert!(before > 0, "what asked for it was flushed first");
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::Applied(Applied::Compaction { revision: 11 }))
    ));
}

#[test]
fn a_request_that_is_too_large_is_refused_and_changes_nothing() {
    let mut harness = started();
    let huge = "x".repeat(1 << 20);
    let token = harness.submit(put("a", &huge, 0));
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::Failed(Error::RequestTooLarge))
    ));
    assert!(harness.unsynced.is_empty());
}

#[test]
fn a_request_that_is_never_synced_times_out_once() {
    let mut harness = started();
    let token = harness.submit(put("a", "1", 0));
    for _ in 0..69 {
        harness.tick();
    }
    assert!(harness.reply(token).is_none());
    for _ in 0..3 {
        harness.tick();
    }
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::Failed(Error::Timeout))
    ));
    harness.sync();
    assert!(harness.reply(token).is_none(), "answered twice");
    assert_eq!(harness.value("a").unwrap(), b"1", "it may still be applied");
}

#[test]
fn reads_wait_for_a_leader_and_are_answered_when_there_is_one() {
    let mut harness = Harness::new();
    let token = harness.send(|token| Submission::ReadIndex { token });
    assert!(harness.reply(token).is_none());
    harness.sync();
    harness.run_ms(100);
    assert!(matches!(harness.reply(token), Some(Outcome::ReadReady)));
}

#[test]
fn stopping_tells_everyone() {
    let mut harness = started();
    let token = harness.submit(put("a", "1", 0));
    harness.member.stop();
    harness.collect();
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::Failed(Error::Stopped))
    ));
    assert!(!harness.member.view().reads_are_linearizable());
}

#[test]
fn history_is_compacted_by_itself() {
    let auto_compaction = AutoCompaction::Periodic { period_ms: 1_000 };
    let mut harness = Harness::with(quorate_core::Config {
        auto_compaction,
        ..config()
    });
    harness.sync();
    for i in 0..40 {
        harness.put("a", &i.to_string());
        harness.run_ms(100);
    }
    assert!(harness.member.stores().kv.reader().compact_revision() > 1);
}

#[test]
fn equal_runs_have_equal_digests() {
    let run = || {
        let mut harness = started();
        for i in 0..50 {
            harness.put(&format!("k{}", i % 5), &i.to_string());
            harness.tick();
            harness.sync();
        }
        harness.member.stores().backend.applied()
    };
    assert_eq!(run(), run());
}

#[test]
fn entries_without_rows_become_durable_too_and_hold_up_no_compaction() {
    let mut harness = started();
    for i in 0..5 {
        harness.put("a", &i.to_string());
    }
    let token = harness.submit(Request::Compaction(pb::CompactionRequest {
        revision: 5,
        physical: true,
    }));
    // A transaction that changes nothing is applied right behind it.
    harness.submit(Request::Txn(pb::TxnRequest {
        failure: vec![],
        compare: vec![],
        success: vec![],
    }));
    harness.sync();
    harness.run_ms(300);
    assert!(harness.reply(token).is_some(), "the compaction ends");
    for _ in 0..30 {
        harness.call(Request::AuthStatus(pb::AuthStatusRequest {}));
    }
    harness.run_ms(6_000);
    let backend = &harness.member.stores().backend;
    assert_eq!(backend.durable().index, backend.applied().index);
    assert!(
        !harness.saved_snapshots.is_empty(),
        "such entries count for snapshots of the log"
    );
}

#[test]
fn a_deeply_nested_transaction_that_was_accepted_survives_a_crash() {
    use prost::Message as _;
    use quorate_proto::etcdserverpb::request_op;
    let mut op = pb::RequestOp {
        request: Some(request_op::Request::RequestPut(pb::PutRequest {
            key: "deep".into(),
            ..Default::default()
        })),
    };
    let mut deepest = None;
    for _ in 0..70 {
        let txn = pb::TxnRequest {
            success: vec![op],
            ..Default::default()
        };
        let body = bytes::Bytes::from(txn.encode_to_vec());
        if pb::TxnRequest::decode(body.clone()).is_ok() {
            deepest = Some((txn.clone(), body));
        }
        op = pb::RequestOp {
            request: Some(request_op::Request::RequestTxn(txn)),
        };
    }
    let (txn, raw) = deepest.unwrap();
    let mut harness = started();
    let token = harness.submit_raw(Request::Txn(txn), Some(raw));
    harness.sync();
    assert!(matches!(
        harness.reply(token),
        Some(Outcome::Applied(Applied::Txn(_)))
    ));
    let mut harness = harness.crash(&CrashPolicy::KeepNone, config());
    harness.sync();
    harness.run_ms(200);
    assert!(harness.value("deep").is_some());
}

#[test]
fn a_cancelled_late_renewal_leaves_nothing_behind() {
    let mut harness = started();
    harness.call(Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 1 }));
    for _ in 0..15 {
        harness.tick();
    }
    let token = harness.send(|token| Submission::LeaseRenew {
        token,
        id: LeaseId(5),
    });
    harness
        .member
        .handle_submissions(vec![Submission::Cancel { token }]);
    harness.collect();
    harness.sync();
    assert!(harness.reply(token).is_none());
}

/// etcd's members give the same name, so that a token of one kind of member is good on the other.
#[test]
fn a_token_is_named_after_the_entry_before_its_own() {
    let mut harness = started();
    let (root, hash) = ("root".to_owned(), "aGFzaA==".to_owned());
    let setup = [
        Request::AuthUserAdd(pb::AuthUserAddRequest {
            name: root.clone(),
            hashed_password: hash,
            ..Default::default()
        }),
        Request::AuthRoleAdd(pb::AuthRoleAddRequest { name: root.clone() }),
        Request::AuthUserGrantRole(pb::AuthUserGrantRoleRequest {
            user: root.clone(),
            role: root.clone(),
        }),
        Request::AuthEnable(pb::AuthEnableRequest {}),
    ];
    for request in setup {
        let outcome = harness.call(request);
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
    let before = harness.member.view().applied();
    let outcome = harness.call(Request::Authenticate(pb::InternalAuthenticateRequest {
        name: root,
        simple_token: "letters".to_owned(),
        ..Default::default()
    }));
    let expected = format!("letters.{before}");
    assert!(
        matches!(&outcome, Outcome::Applied(Applied::Auth { answer: AuthAnswer::Token(token), .. }) if *token == expected),
        "{outcome:?}"
    );
}
