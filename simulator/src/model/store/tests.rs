use bytes::Bytes;
use quorate_proto::raftpb::ConfChangeType;

use super::*;
use crate::model::{OpAnswer, tagged};

/// Feeds a model with requests and tells their outcomes.
struct Log {
    model: Model,
}

impl Log {
    fn new() -> Self {
        Self {
            model: Model::new(2, 1),
        }
    }

    fn entry(&mut self, kind: EntryKind, data: Bytes) -> Outcome {
        let entry = Entry {
            index: self.model.index() + 1,
            term: 1,
            kind,
            data,
        };
        self.model.apply(&entry).unwrap().outcome.clone()
    }

    fn request(&mut self, set: impl FnOnce(&mut pb::InternalRaftRequest)) -> Outcome {
        self.request_of("", 0, set)
    }

    fn request_of(
        &mut self,
        name: &str,
        auth_revision: u64,
        set: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Outcome {
        let mut request = pb::InternalRaftRequest {
            header: Some(pb::RequestHeader {
                id: 5,
                username: name.to_owned(),
                auth_revision,
            }),
            ..Default::default()
        };
        set(&mut request);
        self.entry(EntryKind::Normal, request.encode_to_vec().into())
    }

    fn put(&mut self, key: &'static str, value: &'static str, lease: i64) -> Outcome {
        self.request(|r| {
            r.put = Some(pb::PutRequest {
                key: key.into(),
                value: value.into(),
                lease,
                prev_kv: true,
                ..Default::default()
            });
        })
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Outcome {
        self.request(|r| r.lease_grant = Some(pb::LeaseGrantRequest { id, ttl }))
    }

    fn revoke(&mut self, id: i64) -> Outcome {
        self.request(|r| r.lease_revoke = Some(pb::LeaseRevokeRequest { id }))
    }

    fn compact(&mut self, revision: i64) -> Outcome {
        self.request(|r| {
            r.compaction = Some(pb::CompactionRequest {
                revision,
                physical: false,
            });
        })
    }

    fn alarm(&mut self, action: i32, alarm: i32) -> Outcome {
        self.request(|r| {
            r.alarm = Some(pb::AlarmRequest {
                action,
                member_id: 3,
                alarm,
            });
        })
    }

    fn count(&self, index: u64, revision: i64) -> Result<i64, Refusal> {
        let request = pb::RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            revision,
            ..Default::default()
        };
        self.model.range(index, &request).map(|answer| answer.count)
    }
}

#[test]
fn reads_go_back_to_any_index() {
    let mut log = Log::new();
    log.entry(EntryKind::Normal, Bytes::new()).unwrap();
    log.put("a", "1", 0).unwrap();
    let Ok(Answer::Put {
        revision: 3,
        prev: Some(prev),
    }) = log.put("a", "2", 0)
    else {
        panic!()
    };
    assert_eq!((prev.value, prev.mod_revision), ("1".into(), 2));
    log.put("b", "1", 0).unwrap();
    log.compact(3).unwrap();
    assert_eq!(
        (log.count(1, 0), log.count(3, 0), log.count(4, 0)),
        (Ok(0), Ok(1), Ok(2))
    );
    assert_eq!(
        (log.count(4, 2), log.count(5, 2)),
        (Ok(1), Err(Refusal::Compacted))
    );
    assert_eq!(log.count(3, 4), Err(Refusal::FutureRevision));
    assert_eq!(log.model.first_index_of(3), Some(3));
    assert_eq!(log.model.first_index_of(1), Some(0));
    assert_eq!(log.model.first_index_of(9), None);
    assert!(log.model.was_compacted_at(3) && !log.model.was_compacted_at(2));
}

#[test]
fn compactions_may_not_repeat_or_run_ahead() {
    let mut log = Log::new();
    assert_eq!(log.compact(0), Ok(Answer::Compaction(1)));
    assert_eq!(log.compact(0), Err(Refusal::Compacted));
    assert_eq!(log.compact(2), Err(Refusal::FutureRevision));
    assert_eq!(log.compact(1), Ok(Answer::Compaction(1)));
}

#[test]
fn a_lease_takes_its_keys_with_it_in_one_write() {
    let mut log = Log::new();
    assert_eq!(log.put("a", "1", 7), Err(Refusal::LeaseNotFound));
    assert_eq!(log.grant(7, 1), Ok(Answer::Grant { id: 7, ttl_s: 2 }));
    assert_eq!(log.grant(7, 1), Err(Refusal::LeaseExists));
    for key in ["b", "a", "c"] {
        log.put(key, "1", 7).unwrap();
    }
    log.put("c", "2", 0).unwrap();
    assert_eq!(log.model.keys_of_lease(7, log.model.index()), ["a", "b"]);
    assert_eq!(log.revoke(7), Ok(Answer::Revoke(6)));
    let gone: Vec<_> = log.model.changes_of(6).iter().map(|c| &c.key[..]).collect();
    assert_eq!(gone, [b"a", b"b"]);
    assert_eq!(log.revoke(7), Err(Refusal::LeaseNotFound));
    assert_eq!(log.model.leases().all_at(6), [7]);
    assert!(log.model.keys_of_lease(7, log.model.index()).is_empty());
}

#[test]
fn alarms_stop_what_the_reference_says() {
    let mut log = Log::new();
    assert_eq!(log.alarm(1, NOSPACE), Ok(Answer::Alarms(vec![(3, 1)])));
    assert_eq!(log.put("a", "1", 0), Err(Refusal::NoSpace));
    assert_eq!(log.grant(7, 1), Err(Refusal::NoSpace));
    assert_eq!(log.compact(0), Ok(Answer::Compaction(1)));
    log.alarm(1, CORRUPT).unwrap();
    assert_eq!(log.put("a", "1", 0), Err(Refusal::Corrupt));
    assert_eq!(log.compact(1), Err(Refusal::Corrupt));
    assert_eq!(log.alarm(0, 0), Ok(Answer::Alarms(vec![(3, 1), (3, 2)])));
    assert_eq!(log.alarm(2, CORRUPT), Ok(Answer::Alarms(vec![(3, 2)])));
    assert_eq!(log.alarm(2, CORRUPT), Ok(Answer::Alarms(vec![])));
    assert_eq!(log.alarm(1, 0), Ok(Answer::Alarms(vec![])));
    let nested_put = pb::TxnRequest {
        failure: vec![pb::RequestOp {
            request: Some(Request::RequestTxn(pb::TxnRequest {
                success: vec![pb::RequestOp {
                    request: Some(Request::RequestPut(pb::PutRequest::default())),
                }],
                ..Default::default()
            })),
        }],
        ..Default::default()
    };
    let refused = log.request(|r| r.txn = Some(nested_put));
    assert_eq!(refused, Err(Refusal::NoSpace));
}

#[test]
fn identities_are_judged_when_they_are_applied() {
    let mut log = Log::new();
    for name in ["root", "u"] {
        log.request(|r| {
            r.auth_user_add = Some(pb::AuthUserAddRequest {
                name: name.into(),
                ..Default::default()
            });
        })
        .unwrap();
    }
    log.request(|r| {
        r.auth_user_grant_role = Some(pb::AuthUserGrantRoleRequest {
            user: "root".into(),
            role: "root".into(),
        });
    })
    .unwrap();
    log.request(|r| r.auth_enable = Some(pb::AuthEnableRequest {}))
        .unwrap();
    assert_eq!(log.put("a", "1", 0), Err(Refusal::UserEmpty));
    let put = |r: &mut pb::InternalRaftRequest| {
        r.put = Some(pb::PutRequest {
            key: "a".into(),
            ..Default::default()
        });
    };
    let revision = log.model.auth_at(log.model.index()).revision();
    assert_eq!(
        log.request_of("u", revision, put),
        Err(Refusal::PermissionDenied)
    );
    assert_eq!(
        log.request_of("u", revision - 1, put),
        Err(Refusal::AuthOldRevision)
    );
    assert!(log.request_of("root", revision, put).is_ok());
    // Grants are judged at the door alone.
    assert!(log.grant(9, 5).is_ok());
    assert!(!log.model.auth_at(3).is_enabled() && log.model.auth_at(4).is_enabled());
}

#[test]
fn members_come_from_the_log_too() {
    let mut log = Log::new();
    let add = ConfChange {
        id: Some(3),
        r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
        node_id: Some(8),
        context: Some(r#"{"id":8,"peerURLs":["http://a"]}"#.into()),
    };
    let Ok(Answer::Members(members)) = log.entry(EntryKind::ConfChange, add.encode_to_vec().into())
    else {
        panic!()
    };
    assert_eq!((members.len(), members[0].id), (1, 8));
    let again = log.entry(EntryKind::ConfChange, add.encode_to_vec().into());
    assert_eq!(again, Err(Refusal::MemberExists));
}

#[test]
fn marks_find_their_entries() {
    let mut log = Log::new();
    let put = pb::PutRequest {
        key: "a".into(),
        ..Default::default()
    };
    let raw = tagged(&put, 42);
    let data = [&[4 << 3 | 2, u8::try_from(raw.len()).unwrap()], &raw[..]].concat();
    log.entry(EntryKind::Normal, data.into()).unwrap();
    assert_eq!(log.model.places(42), [1]);
    assert!(log.model.places(43).is_empty());
}

#[test]
fn transactions_are_entries_like_others() {
    let mut log = Log::new();
    let delete = pb::RequestOp {
        request: Some(Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: "a".into(),
            ..Default::default()
        })),
    };
    let txn = pb::TxnRequest {
        success: vec![delete],
        ..Default::default()
    };
    let answer = log.request(|r| r.txn = Some(txn));
    let expected = TxnAnswer {
        revision: 1,
        succeeded: true,
        ops: vec![OpAnswer::Delete(1, 0, vec![])],
    };
    assert_eq!(answer, Ok(Answer::Txn(expected)));
}
