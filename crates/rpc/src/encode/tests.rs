use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use quorate_mvcc::{Changes, OpResult, RangeResult, TxnResult, WatchResponse};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::mvccpb::KeyValue;

use super::*;

fn key_value() -> impl Strategy<Value = KeyValue> {
    let value_len = prop_oneof![0_usize..300, 2_000_usize..5_000];
    (
        vec(any::<u8>(), 0..40),
        value_len,
        any::<[i64; 3]>(),
        0_i64..3,
    )
        .prop_map(|(key, len, [create, modified, version], lease)| KeyValue {
            key: key.into(),
            value: vec![b'v'; len].into(),
            create_revision: create,
            mod_revision: modified,
            version,
            lease,
        })
}

fn header() -> impl Strategy<Value = ResponseHeader> {
    let number = prop_oneof![Just(0_u64), 1_u64..300, any::<u64>()];
    (number.clone(), number.clone(), number.clone(), number).prop_map(
        |(cluster_id, member_id, revision, raft_term)| ResponseHeader {
            cluster_id,
            member_id,
            revision: revision.cast_signed(),
            raft_term,
        },
    )
}

fn range_result() -> impl Strategy<Value = (RangeResult, pb::RangeResponse)> {
    (
        vec(key_value(), 0..6),
        any::<bool>(),
        0_i64..1000,
        1_i64..1_000_000,
    )
        .prop_map(|(kvs, more, count, revision)| {
            let encoded = kvs
                .iter()
                .map(|kv| Bytes::from(kv.encode_to_vec()))
                .collect();
            let header = Some(ResponseHeader {
                revision,
                ..Default::default()
            });
            (
                RangeResult {
                    revision,
                    kvs: encoded,
                    more,
                    count,
                },
                pb::RangeResponse {
                    header,
                    kvs,
                    more,
                    count,
                },
            )
        })
}

fn op() -> impl Strategy<Value = (OpResult, pb::ResponseOp)> {
    let inner = |revision| {
        Some(ResponseHeader {
            revision,
            ..Default::default()
        })
    };
    let wrap = |response| pb::ResponseOp {
        response: Some(response),
    };
    let range = range_result().prop_map(move |(ours, theirs)| {
        (OpResult::Range(ours), wrap(Response::ResponseRange(theirs)))
    });
    let put = (1_i64..1_000_000, proptest::option::of(key_value())).prop_map(
        move |(revision, prev_kv)| {
            let prev = prev_kv.as_ref().map(|kv| Bytes::from(kv.encode_to_vec()));
            let theirs = pb::PutResponse {
                header: inner(revision),
                prev_kv,
            };
            (
                OpResult::Put { revision, prev },
                wrap(Response::ResponsePut(theirs)),
            )
        },
    );
    let delete = (1_i64..1_000_000, 0_i64..50, vec(key_value(), 0..4)).prop_map(
        move |(revision, deleted, prev_kvs)| {
            let prevs = prev_kvs
                .iter()
                .map(|kv| Bytes::from(kv.encode_to_vec()))
                .collect();
            let theirs = pb::DeleteRangeResponse {
                header: inner(revision),
                deleted,
                prev_kvs,
            };
            (
                OpResult::Delete {
                    revision,
                    deleted,
                    prevs,
                },
                wrap(Response::ResponseDeleteRange(theirs)),
            )
        },
    );
    let empty = Just((OpResult::Empty, pb::ResponseOp { response: None }));
    prop_oneof![range, put, delete, empty].prop_recursive(4, 30, 5, move |op| {
        (any::<bool>(), vec(op, 0..5)).prop_map(move |(succeeded, ops)| {
            let (ours, theirs) = ops.into_iter().unzip();
            let theirs = pb::TxnResponse {
                header: Some(ResponseHeader::default()),
                succeeded,
                responses: theirs,
            };
            (
                OpResult::Txn {
                    succeeded,
                    responses: ours,
                },
                wrap(Response::ResponseTxn(theirs)),
            )
        })
    })
}

fn check(ours: Message, theirs: &impl prost::Message) {
    let plain = Message::encode(theirs);
    assert_eq!(ours.count(), 1);
    assert_eq!(ours.to_wire(), plain.to_wire());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn ranges_are_encoded_as_prost_does(header in header(), (ours, theirs) in range_result()) {
        let theirs = pb::RangeResponse { header: Some(header), ..theirs };
        check(range(&header, &ours), &theirs);
        let chunk = pb::RangeStreamResponse { range_response: Some(theirs.clone()) };
        check(range_chunk(Some((&header, ours.more, ours.count)), &ours.kvs), &chunk);
        let inner = pb::RangeResponse { kvs: theirs.kvs, ..Default::default() };
        check(range_chunk(None, &ours.kvs), &pb::RangeStreamResponse { range_response: Some(inner) });
    }

    #[test]
    fn writes_are_encoded_as_prost_does(header in header(), kvs in vec(key_value(), 0..4), deleted in any::<i64>()) {
        let encoded: Vec<Bytes> = kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
        check(put(&header, encoded.first()), &pb::PutResponse { header: Some(header), prev_kv: kvs.first().cloned() });
        let theirs = pb::DeleteRangeResponse { header: Some(header), deleted, prev_kvs: kvs };
        check(delete_range(&header, deleted, &encoded), &theirs);
    }

    #[test]
    fn transactions_are_encoded_as_prost_does(header in header(), succeeded in any::<bool>(), ops in vec(op(), 0..6)) {
        let (responses, theirs) = ops.into_iter().unzip();
        let changes = Changes { revision: 1, attached: Vec::new(), deleted: Vec::new() };
        let ours = TxnResult { revision: 1, succeeded, responses, changes };
        check(txn(&header, &ours), &pb::TxnResponse { header: Some(header), succeeded, responses: theirs });
    }

    #[test]
    fn watch_answers_are_encoded_as_prost_does(
        header in header(),
        answers in vec((any::<[i64; 3]>(), any::<[bool; 3]>(), "[a-z ]{0,200}"), 0..5),
    ) {
        let (ours, theirs): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .map(|([watch_id, revision, compact_revision], [created, canceled, fragment], cancel_reason)| {
                let theirs = pb::WatchResponse {
                    header: Some(ResponseHeader { revision, ..header }),
                    watch_id,
                    created,
                    canceled,
                    compact_revision,
                    cancel_reason: cancel_reason.clone(),
                    fragment,
                    events: Vec::new(),
                };
                let ours = WatchResponse {
                    watch_id,
                    revision,
                    created,
                    canceled,
                    fragment,
                    compact_revision,
                    cancel_reason: cancel_reason.into(),
                    ..WatchResponse::default()
                };
                (ours, theirs)
            })
            .unzip();
        let expected: Vec<u8> = theirs.iter().flat_map(|t| Message::encode(t).to_wire()).collect();
        let message = watch(header, &ours);
        prop_assert_eq!(message.count(), theirs.len());
        prop_assert_eq!(message.to_wire(), expected);
    }

    #[test]
    fn numbers_have_the_length_they_are_written_with(value in any::<u64>(), shift in 0_u32..64) {
        let value = value >> shift;
        let mut out = Gather::with_capacity(16);
        out.begin(varint_len(value));
        out.put_varint(value);
        prop_assert_eq!(out.finish().body_len(), varint_len(value));
    }
}
