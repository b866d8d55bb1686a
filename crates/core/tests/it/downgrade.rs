//! What a lower cluster version does to the log and to the storage version.
use prost::Message as _;
use quorate_core::{Config, Request};
use quorate_disk::CrashPolicy;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::membershippb::DowngradeInfoSetRequest;
use quorate_proto::raftpb::{Entry, EntryType, Message, MessageType};

use crate::harness::{Harness, MEMBER, config};

/// Snapshots come only when they are forced.
fn rarely_saving() -> Config {
    Config {
        snapshot_count: 100_000,
        ..config()
    }
}

fn started() -> Harness {
    let mut harness = Harness::with(rarely_saving());
    harness.sync();
    harness.run_ms(500);
    harness.sync();
    harness.put("a", "1");
    assert_eq!(versions(&harness), ("3.7.0".into(), "3.7.0".into()));
    harness
}

fn versions(harness: &Harness) -> (String, String) {
    let view = harness.member.view();
    let (cluster, storage) = (view.cluster_version(), view.storage_version());
    (cluster.to_string(), storage.to_string())
}

fn downgrade(harness: &mut Harness, enabled: bool, version: &str) {
    let ver = version.to_owned();
    harness.call(Request::DowngradeInfoSet(DowngradeInfoSetRequest {
        enabled,
        ver,
    }));
    for _ in 0..100 {
        harness.run_ms(100);
        harness.sync();
    }
}

/// Puts the entry with which etcd tests downgrades into the log, as another member's proposal.
fn need_version(harness: &mut Harness, version: &str) {
    let request = pb::InternalRaftRequest {
        downgrade_version_test: Some(pb::DowngradeVersionTestRequest {
            ver: version.to_owned(),
        }),
        ..pb::InternalRaftRequest::default()
    };
    let entry = Entry {
        r#type: Some(EntryType::EntryNormal.into()),
        data: Some(request.encode_to_vec().into()),
        ..Entry::default()
    };
    let message = Message {
        r#type: Some(MessageType::MsgProp.into()),
        to: Some(MEMBER),
        from: Some(0x77),
        entries: vec![entry],
        ..Message::default()
    };
    let before = harness.member.view().applied();
    harness.member.handle_messages(vec![message]);
    harness.collect();
    harness.sync();
    assert_eq!(harness.member.view().applied(), before + 1);
}

#[test]
fn a_lower_cluster_version_forces_a_snapshot_and_a_higher_one_does_not() {
    let mut harness = started();
    assert!(harness.saved_snapshots.is_empty());
    let before = harness.member.view().applied();
    downgrade(&mut harness, true, "3.6.0");
    assert_eq!(versions(&harness), ("3.6.0".into(), "3.6.0".into()));
    assert_eq!(harness.saved_snapshots.len(), 1, "one, and no more");
    assert!(harness.saved_snapshots[0] > before);
    downgrade(&mut harness, false, "");
    assert_eq!(versions(&harness), ("3.7.0".into(), "3.7.0".into()));
    assert_eq!(harness.saved_snapshots.len(), 1);
}

#[test]
fn the_storage_version_waits_until_a_snapshot_covers_what_needs_the_higher_one() {
    for crash in [false, true] {
        let mut harness = started();
        need_version(&mut harness, "3.7.0");
        if crash {
            harness = harness.crash(&CrashPolicy::KeepAll, rarely_saving());
            harness.sync();
            harness.run_ms(500);
            harness.sync();
        }
        downgrade(&mut harness, true, "3.6.0");
        assert_eq!(versions(&harness), ("3.6.0".into(), "3.7.0".into()));
        assert_eq!(harness.saved_snapshots.len(), 1);
        harness.put("a", "2");
        assert_eq!(versions(&harness), ("3.6.0".into(), "3.6.0".into()));
    }
}

#[test]
fn what_the_lower_version_knows_holds_nothing_up() {
    let mut harness = started();
    need_version(&mut harness, "3.6.0");
    downgrade(&mut harness, true, "3.6.0");
    assert_eq!(versions(&harness), ("3.6.0".into(), "3.6.0".into()));
}

#[test]
fn a_complete_downgrade_ends_when_the_next_look_is_due() {
    for (check_ms, ends) in [(2_000, true), (0, false)] {
        let mut harness = started();
        downgrade(&mut harness, true, "3.6.0");
        let target = |harness: &Harness| harness.member.view().downgrade_target();
        assert_eq!(target(&harness).as_deref(), Some("3.6.0"));
        // The program is replaced by one of the version before.
        let older = Config {
            cluster_version: "3.6.0".to_owned(),
            downgrade_check_ms: check_ms,
            ..rarely_saving()
        };
        harness = harness.crash(&CrashPolicy::KeepAll, older);
        harness.sync();
        let before = harness.now_ms;
        let is_over = |harness: &Harness| target(harness).is_none();
        while !is_over(&harness) && harness.now_ms < before + 20_000 {
            harness.run_ms(100);
            harness.sync();
        }
        assert_eq!(is_over(&harness), ends);
        let took_ms = harness.now_ms - before;
        assert!(took_ms >= 1_800, "looked after {took_ms} ms");
        assert_eq!(versions(&harness), ("3.6.0".into(), "3.6.0".into()));
    }
}
