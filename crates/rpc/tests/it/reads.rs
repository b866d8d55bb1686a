//! Large reads beside small ones.
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Op;

use crate::echo::{call, framed, post, run};
use crate::member::{Client, Served};
use prost::Message as _;

const KEYS: usize = 30_000;
const COUNT: i64 = 30_000;
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const STREAM: &str = "/etcdserverpb.KV/RangeStream";

fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Default::default()
    }
}

/// Puts many keys, a hundred at a time.
async fn fill(client: &Client) {
    let value = "v".repeat(100);
    for first in (0..KEYS).step_by(100) {
        let puts = (first..first + 100).map(|n| pb::RequestOp {
            request: Some(Op::RequestPut(pb::PutRequest {
                key: format!("key/{n:08}").into(),
                value: value.clone().into(),
                ..Default::default()
            })),
        });
        let txn = pb::TxnRequest {
            success: puts.collect(),
            ..Default::default()
        };
        client.call::<pb::TxnResponse>(TXN, &txn).await.unwrap();
    }
}

#[test]
fn a_huge_list_holds_up_nobody_on_its_connection() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        fill(&client).await;
        let list_in_txn = pb::TxnRequest {
            success: vec![pb::RequestOp {
                request: Some(Op::RequestRange(everything())),
            }],
            ..Default::default()
        };
        let lists = [
            (RANGE, everything().encode_to_vec()),
            (TXN, list_in_txn.encode_to_vec()),
        ];
        for (path, list) in lists {
            let mut http = client.http().clone().ready().await.unwrap();
            let request = post(path).body(()).unwrap();
            let (answer, mut send) = http.send_request(request, false).unwrap();
            send.send_data(framed(&list), true).unwrap();
            let mut answer = std::pin::pin!(answer);
            // The list came first, and everything that comes with it is answered before.
            let get = client.get("key/00000007");
            tokio::select! {
                biased;
                _ = &mut answer => panic!("the list was made before anyone else was looked at"),
                got = get => assert_eq!(got.unwrap().count, 1),
            }
            let answer = crate::echo::collect(answer.await.unwrap()).await.unwrap();
            assert_eq!(answer.status().0, 0);
            assert!(answer.data.len() > KEYS * 100);
        }
    });
}

#[test]
fn large_and_small_reads_answer_alike() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        fill(&client).await;
        let whole: pb::RangeResponse = client.call(RANGE, &everything()).await.unwrap();
        assert_eq!(
            (whole.count, whole.kvs.len(), whole.more),
            (COUNT, KEYS, false)
        );
        for limit in [1, 100, 1_000, 5_000] {
            let part = pb::RangeRequest {
                limit,
                ..everything()
            };
            let part: pb::RangeResponse = client.call(RANGE, &part).await.unwrap();
            assert_eq!((part.count, part.more), (COUNT, true));
            assert_eq!(part.header, whole.header);
            assert_eq!(part.kvs, whole.kvs[..usize::try_from(limit).unwrap()]);
        }
        let count = pb::RangeRequest {
            count_only: true,
            ..everything()
        };
        let count: pb::RangeResponse = client.call(RANGE, &count).await.unwrap();
        assert_eq!((count.count, count.kvs.len()), (COUNT, 0));

        let mut stream = client.open(STREAM).await;
        stream.send(&everything());
        stream.finish();
        let (mut kvs, mut last, mut pieces) = (Vec::new(), None, 0);
        while let Ok(piece) = stream.next::<pb::RangeStreamResponse>().await {
            let piece = piece.range_response.unwrap();
            kvs.extend(piece.kvs);
            last = Some((piece.header, piece.more, piece.count));
            pieces += 1;
        }
        assert!(pieces > 3);
        assert_eq!(kvs, whole.kvs);
        assert_eq!(last, Some((whole.header, false, COUNT)));
        let called = call(
            client.http(),
            post(RANGE).body(()).unwrap(),
            Some(framed(
                &pb::RangeRequest {
                    revision: 1 << 40,
                    ..everything()
                }
                .encode_to_vec(),
            )),
        )
        .await
        .unwrap();
        assert_eq!(called.status().0, 11);
    });
}
