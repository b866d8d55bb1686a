//! The service `Watch` over a real member.
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb;

use crate::echo::run;
use crate::member::{Served, Stream};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn create(request: pb::WatchCreateRequest) -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    }
}

fn key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

async fn next(stream: &mut Stream) -> pb::WatchResponse {
    stream.next().await.unwrap()
}

#[test]
fn events_come_in_order_after_the_answer_to_create() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        client.put("w", "old").await.unwrap();
        let mut stream = client.open(WATCH).await;
        stream.send(&create(pb::WatchCreateRequest {
            start_revision: 2,
            prev_kv: true,
            ..key("w")
        }));
        let created = next(&mut stream).await;
        assert!(created.created && !created.canceled);
        assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 2));
        assert_eq!(created.header.unwrap().cluster_id, 7);
        client.put("w", "new").await.unwrap();
        client.put("other", "x").await.unwrap();
        let delete = pb::DeleteRangeRequest {
            key: "w".into(),
            ..Default::default()
        };
        client
            .call::<pb::DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", &delete)
            .await
            .unwrap();
        let mut events: Vec<mvccpb::Event> = Vec::new();
        while events.len() < 3 {
            events.extend(next(&mut stream).await.events);
        }
        let revisions: Vec<i64> = events
            .iter()
            .map(|e| e.kv.as_ref().unwrap().mod_revision)
            .collect();
        assert_eq!(revisions, [2, 3, 5]);
        assert_eq!(
            events[2].r#type,
            i32::from(mvccpb::event::EventType::Delete)
        );
        assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "old");
        assert_eq!(events[2].prev_kv.as_ref().unwrap().value, "new");
    });
}

#[test]
fn half_closed_stream_keeps_its_events() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let mut stream = client.open(WATCH).await;
        stream.send(&create(key("w")));
        assert!(next(&mut stream).await.created);
        stream.finish();
        for n in 0..50 {
            client.put("w", &n.to_string()).await.unwrap();
        }
        let mut count = 0;
        while count < 50 {
            count += next(&mut stream).await.events.len();
        }
    });
}

#[test]
fn refusals_cancels_and_progress_are_answered_in_the_stream() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let mut stream = client.open(WATCH).await;
        stream.send(&create(pb::WatchCreateRequest {
            start_revision: -1,
            ..key("w")
        }));
        let refused = next(&mut stream).await;
        assert!(refused.created && refused.canceled);
        assert_eq!(refused.watch_id, -1);
        assert_eq!(
            refused.cancel_reason,
            "etcdserver: mvcc: required revision has been compacted"
        );
        stream.send(&create(pb::WatchCreateRequest {
            range_end: "a".into(),
            ..key("b")
        }));
        assert_eq!(
            next(&mut stream).await.cancel_reason,
            "mvcc: watcher range is empty"
        );
        // A request of no known kind is ignored.
        stream.send(&pb::WatchRequest {
            request_union: None,
        });
        stream.send(&create(pb::WatchCreateRequest {
            watch_id: 9,
            ..key("w")
        }));
        assert_eq!(next(&mut stream).await.watch_id, 9);
        let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        stream.send(&pb::WatchRequest {
            request_union: Some(progress),
        });
        let answer = next(&mut stream).await;
        assert_eq!(
            (
                answer.watch_id,
                answer.header.unwrap().revision,
                answer.events.len()
            ),
            (-1, 1, 0)
        );
        let cancel = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 9 });
        stream.send(&pb::WatchRequest {
            request_union: Some(cancel),
        });
        let canceled = next(&mut stream).await;
        assert!(canceled.canceled && !canceled.created);
        assert_eq!(canceled.watch_id, 9);
    });
}

#[test]
fn many_watchers_and_streams_all_get_every_event() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = client.open(WATCH).await;
            for _ in 0..50 {
                stream.send(&create(key("w")));
            }
            streams.push(stream);
        }
        for stream in &mut streams {
            for _ in 0..50 {
                assert!(next(stream).await.created);
            }
        }
        // All are read at once: what is not read of one would take the window of the others.
        let reads: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                tokio::task::spawn_local(async move {
                    let mut count = 0;
                    while count < 5 * 50 {
                        count += next(&mut stream).await.events.len();
                    }
                })
            })
            .collect();
        for n in 0..5 {
            client.put("w", &n.to_string()).await.unwrap();
        }
        for read in reads {
            read.await.unwrap();
        }
    });
}

#[test]
fn reader_that_falls_behind_gets_everything_in_fewer_messages() {
    const PUTS: usize = 3_000;
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let writer = served.client().await;
        let mut stream = client.open(WATCH).await;
        stream.send(&create(key("w")));
        assert!(next(&mut stream).await.created);
        let writes: Vec<_> = (0..PUTS)
            .map(|_| {
                let writer = writer.clone();
                tokio::task::spawn_local(
                    async move { writer.put("w", &"v".repeat(100)).await.unwrap() },
                )
            })
            .collect();
        for write in writes {
            write.await.unwrap();
        }
        let (mut revisions, mut messages) = (Vec::new(), 0);
        while revisions.len() < PUTS {
            let response = next(&mut stream).await;
            messages += 1;
            let last = response
                .events
                .last()
                .unwrap()
                .kv
                .as_ref()
                .unwrap()
                .mod_revision;
            assert!(response.header.unwrap().revision >= last);
            revisions.extend(
                response
                    .events
                    .iter()
                    .map(|e| e.kv.as_ref().unwrap().mod_revision),
            );
        }
        assert_eq!(revisions, (2..).take(PUTS).collect::<Vec<i64>>());
        assert!(messages < PUTS / 2, "{messages} messages");
    });
}
