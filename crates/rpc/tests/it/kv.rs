//! The service `KV` over a real member.
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_rpc::ServiceOptions;

use crate::echo::run;
use crate::member::{Client, MEMBER, Served, refused};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

#[test]
fn writes_and_reads_are_answered_with_full_headers() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let first = client.put("a", "1").await.unwrap();
        let header = first.header.unwrap();
        assert_eq!(
            (header.cluster_id, header.member_id, header.revision),
            (7, MEMBER, 2)
        );
        assert!(header.raft_term > 0);
        let again: pb::PutResponse = client
            .call(
                PUT,
                &pb::PutRequest {
                    prev_kv: true,
                    ..put("a", "2")
                },
            )
            .await
            .unwrap();
        let prev = again.prev_kv.unwrap();
        assert_eq!(
            (&prev.value[..], prev.mod_revision, prev.version),
            (&b"1"[..], 2, 1)
        );
        let got = client.get("a").await.unwrap();
        assert_eq!((got.count, got.header.unwrap().revision), (1, 3));
        assert_eq!(&got.kvs[0].value[..], b"2");
        let delete = pb::DeleteRangeRequest {
            key: "a".into(),
            prev_kv: true,
            ..Default::default()
        };
        let deleted: pb::DeleteRangeResponse = client
            .call("/etcdserverpb.KV/DeleteRange", &delete)
            .await
            .unwrap();
        assert_eq!(
            (
                deleted.deleted,
                deleted.prev_kvs.len(),
                deleted.header.unwrap().revision
            ),
            (1, 1, 4)
        );
        let large = "v".repeat(1_000_000);
        client.put("large", &large).await.unwrap();
        assert_eq!(client.get("large").await.unwrap().kvs[0].value, large);
    });
}

#[test]
fn writes_of_many_clients_all_get_their_own_revision() {
    let served = Served::start();
    run(async {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(served.client().await);
        }
        let writes: Vec<_> = (0..400)
            .map(|n| {
                let client: Client = clients[n % 4].clone();
                tokio::task::spawn_local(async move {
                    client
                        .put(&format!("k{n}"), "v")
                        .await
                        .unwrap()
                        .header
                        .unwrap()
                        .revision
                })
            })
            .collect();
        let mut revisions = Vec::new();
        for write in writes {
            revisions.push(write.await.unwrap());
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (2..402).collect::<Vec<i64>>());
    });
}

#[test]
fn transactions_write_or_read_by_their_compares() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let get = op(Op::RequestRange(pb::RangeRequest {
            key: "t".into(),
            ..Default::default()
        }));
        let nested = pb::TxnRequest {
            success: vec![get.clone()],
            ..Default::default()
        };
        let txn = pb::TxnRequest {
            success: vec![
                op(Op::RequestPut(put("t", "1"))),
                get.clone(),
                op(Op::RequestTxn(nested)),
            ],
            ..Default::default()
        };
        let done: pb::TxnResponse = client.call(TXN, &txn).await.unwrap();
        assert!(done.succeeded);
        assert_eq!(done.header.unwrap().revision, 2);
        assert_eq!(done.responses.len(), 3);
        let read: pb::TxnResponse = client
            .call(
                TXN,
                &pb::TxnRequest {
                    success: vec![get],
                    ..Default::default()
                },
            )
            .await
            .unwrap();
        assert_eq!(read.header.unwrap().revision, 2);
        assert!(read.header.unwrap().raft_term > 0);
    });
}

#[test]
fn bad_reads_have_etcds_words() {
    let served = Served::with(
        0,
        ServiceOptions {
            max_txn_ops: 1,
            ..ServiceOptions::default()
        },
    );
    run(async {
        let client = served.client().await;
        let range = pb::RangeRequest::default();
        assert_eq!(
            client.call::<pb::RangeResponse>(RANGE, &range).await,
            Err(refused(3, "etcdserver: key is not provided"))
        );
        let range = pb::RangeRequest {
            key: "a".into(),
            revision: 100,
            ..Default::default()
        };
        let future = refused(
            11,
            "etcdserver: mvcc: required revision is a future revision",
        );
        assert_eq!(
            client.call::<pb::RangeResponse>(RANGE, &range).await,
            Err(future.clone())
        );
        let txn = pb::TxnRequest {
            success: vec![op(Op::RequestRange(range.clone()))],
            ..Default::default()
        };
        assert_eq!(client.call::<pb::TxnResponse>(TXN, &txn).await, Err(future));
        let two = pb::TxnRequest {
            success: vec![
                op(Op::RequestRange(range.clone())),
                op(Op::RequestRange(range)),
            ],
            ..Default::default()
        };
        let too_many = refused(3, "etcdserver: too many operations in txn request");
        assert_eq!(
            client.call::<pb::TxnResponse>(TXN, &two).await,
            Err(too_many)
        );
    });
}

#[test]
fn bad_writes_have_etcds_words() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let leased = pb::PutRequest {
            lease: 99,
            ..put("a", "")
        };
        let no_lease = refused(5, "etcdserver: requested lease not found");
        assert_eq!(
            client.call::<pb::PutResponse>(PUT, &leased).await,
            Err(no_lease)
        );
        let large = put("a", &"v".repeat(1536 * 1024));
        let too_large = refused(3, "etcdserver: request is too large");
        assert_eq!(
            client.call::<pb::PutResponse>(PUT, &large).await,
            Err(too_large)
        );
        let compact = pb::CompactionRequest {
            revision: 9,
            ..Default::default()
        };
        let future = refused(
            11,
            "etcdserver: mvcc: required revision is a future revision",
        );
        assert_eq!(
            client
                .call::<pb::CompactionResponse>("/etcdserverpb.KV/Compact", &compact)
                .await,
            Err(future)
        );
        // A field that is longer than what there is.
        let garbage = crate::echo::unary(
            &crate::echo::connect(served.addr).await.0,
            RANGE,
            &[0x0a, 0x7f, 1],
        )
        .await;
        let text =
            "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
        assert_eq!(garbage.status(), refused(13, text));
    });
}

#[test]
fn range_stream_gives_everything_once_and_ends_with_the_count() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        for n in 0..200 {
            client
                .put(&format!("k{n:03}"), &"v".repeat(1_000))
                .await
                .unwrap();
        }
        let mut stream = client.open("/etcdserverpb.KV/RangeStream").await;
        stream.send(&pb::RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..Default::default()
        });
        stream.finish();
        let (mut keys, mut last) = (Vec::new(), None);
        while let Ok(chunk) = stream.next::<pb::RangeStreamResponse>().await {
            let chunk = chunk.range_response.unwrap();
            assert!(last.is_none(), "only the last has a header");
            keys.extend(chunk.kvs.into_iter().map(|kv| kv.key));
            last = chunk.header.map(|header| (header.revision, chunk.count));
        }
        assert_eq!(
            keys,
            (0..200).map(|n| format!("k{n:03}")).collect::<Vec<_>>()
        );
        assert_eq!(last, Some((201, 200)));
        let mut stream = client.open("/etcdserverpb.KV/RangeStream").await;
        stream.send(&pb::RangeRequest {
            key: "k".into(),
            sort_order: 2,
            ..Default::default()
        });
        stream.finish();
        let text = "RangeStream does not support custom sort orders";
        assert_eq!(
            stream.next::<pb::RangeStreamResponse>().await,
            Err(refused(12, text))
        );
    });
}

#[test]
fn full_quota_raises_the_alarm_and_refuses_until_it_is_cleared() {
    let served = Served::with(60_000, ServiceOptions::default());
    run(async {
        let client = served.client().await;
        let mut outcome = Ok(());
        for n in 0..200 {
            outcome = client
                .put(&format!("k{n}"), &"v".repeat(1_000))
                .await
                .map(|_| ());
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(
            outcome,
            Err(refused(8, "etcdserver: mvcc: database space exceeded"))
        );
        let alarms: pb::AlarmResponse = client
            .call(
                "/etcdserverpb.Maintenance/Alarm",
                &pb::AlarmRequest::default(),
            )
            .await
            .unwrap();
        assert_eq!(
            alarms.alarms,
            [pb::AlarmMember {
                member_id: MEMBER,
                alarm: 1
            }]
        );
        assert!(client.put("small", "").await.is_err());
        let delete = pb::DeleteRangeRequest {
            key: "k0".into(),
            ..Default::default()
        };
        assert!(
            client
                .call::<pb::DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", &delete)
                .await
                .is_ok()
        );
    });
}
