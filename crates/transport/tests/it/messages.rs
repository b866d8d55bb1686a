//! Messages between members that are well.
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::MemberId;
use quorate_proto::raftpb::MessageType;

use crate::PATIENCE;
use crate::member::{
    TestMember, append, cluster, config, image, message, runtime, snapshot, wait, wait_for_links,
};

#[test]
fn messages_of_all_kinds_reach_every_member() {
    let runtime = runtime();
    let members = cluster(&runtime, 3);
    wait_for_links(&runtime, &members.iter().collect::<Vec<_>>());
    for from in &members {
        let others = members.iter().filter(|member| member.id != from.id);
        let messages = others.flat_map(|to| {
            [
                message(MessageType::MsgHeartbeat, from.id, to.id, 0),
                append(from.id, to.id, 7, Bytes::from_static(b"data")),
                message(MessageType::MsgAppResp, from.id, to.id, 3),
                message(MessageType::MsgProp, from.id, to.id, 0),
            ]
        });
        from.transport.send(messages.collect());
    }
    for to in &members {
        wait(&runtime, "eight messages arrive", || {
            to.heard(|h| h.messages.len()) == 8
        });
        for from in members.iter().filter(|member| member.id != to.id) {
            let sent = append(from.id, to.id, 7, Bytes::from_static(b"data"));
            assert!(to.heard(|h| h.messages.contains(&sent)));
        }
        assert!(to.heard(|h| h.messages.iter().all(|m| m.to() == to.id)));
    }
}

#[test]
fn appends_keep_their_order_and_bytes_under_load() {
    let runtime = runtime();
    let members = cluster(&runtime, 2);
    let [one, two] = &members[..] else {
        unreachable!()
    };
    wait_for_links(&runtime, &[one, two]);
    let sizes = [0, 1, 100, 4096, 8192, 70_000, 1 << 20];
    let batch: Vec<_> = (1..=200_u64)
        .map(|index| {
            let size = sizes[usize::try_from(index).unwrap() % sizes.len()];
            append(1, 2, index, Bytes::from(image(index, size)))
        })
        .collect();
    one.transport.send(batch.clone());
    wait(&runtime, "all appends arrive", || {
        two.heard(|h| h.messages.iter().filter(|m| m.index() > 0).count()) == batch.len()
    });
    let arrived = two.heard(|h| h.messages.clone());
    let arrived: Vec<_> = arrived.into_iter().filter(|m| m.index() > 0).collect();
    assert!(arrived == batch, "appends differ or changed their order");
    assert!(one.metrics(2).sent_bytes > 1 << 20);
    assert_eq!(one.metrics(2).sent_failures, 0);
}

#[test]
fn probes_measure_round_trip_and_clock() {
    let runtime = runtime();
    let members = cluster(&runtime, 2);
    wait(&runtime, "probe is answered", || {
        members[0].metrics(2).smoothed_round_trip.is_some()
    });
    let metrics = members[0].metrics(2);
    assert!(metrics.probe_is_healthy);
    assert!(metrics.round_trip_time.count > 0);
    // Both are on one clock: what is measured is the asymmetry of the round trip.
    let slowest = Duration::from_secs_f64(metrics.round_trip_time.sum_s);
    let difference = Duration::from_nanos(metrics.clock_difference_ns.unwrap().unsigned_abs());
    assert!(difference <= slowest + Duration::from_secs(1));
}

#[test]
fn snapshot_arrives_whole_and_both_ways() {
    let runtime = runtime();
    let members = cluster(&runtime, 2);
    let [one, two] = &members[..] else {
        unreachable!()
    };
    for (from, to, index, bytes) in [(one, two, 5, 3_000_001), (two, one, 9, 1)] {
        *from.images.bytes.lock().unwrap() = bytes;
        from.transport.send(vec![snapshot(from.id, to.id, index)]);
        wait(&runtime, "snapshot is acknowledged", || {
            from.heard(|h| h.snapshots_sent == [(to.id, true)])
        });
        let (message, path) = to.heard(|h| h.snapshots.pop()).unwrap();
        assert_eq!(message, snapshot(from.id, to.id, index));
        assert!(std::fs::read(&path).unwrap() == image(index, bytes));
        assert_eq!(to.files(), [format!("{index:016x}.snap.db")]);
        let (sent, received) = (from.metrics(to.id), to.metrics(from.id));
        assert_eq!((sent.snapshots_sent, received.snapshots_received), (1, 1));
        assert_eq!(sent.snapshot_send_time.count, 1);
        assert!(received.received_bytes >= bytes as u64);
    }
}

#[test]
fn links_of_a_removed_peer_end_and_the_last_messages_arrive() {
    let runtime = runtime();
    let members = cluster(&runtime, 2);
    let [one, two] = &members[..] else {
        unreachable!()
    };
    wait_for_links(&runtime, &[one, two]);
    one.transport
        .send(vec![message(MessageType::MsgHeartbeat, 1, 2, 99)]);
    one.transport.remove_peer(MemberId(2));
    wait(&runtime, "last message arrives", || {
        two.heard(|h| h.messages.iter().any(|m| m.index() == 99))
    });
    assert_eq!(one.transport.active_since(MemberId(2)), None);
    wait(&runtime, "the other side sees the end", || {
        two.transport.active_since(MemberId(1)).is_none()
    });
    assert_eq!(two.heard(|h| h.removed), 0);
}

#[test]
fn a_member_dials_from_the_address_it_was_given() {
    let runtime = runtime();
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0");
    let listener = runtime.block_on(listening).unwrap();
    let address = IpAddr::from([127, 0, 0, 9]);
    let mut config = config(1);
    config.local_address = Some(address);
    let member = TestMember::start(&runtime, config);
    member.add_at(2, &format!("http://{}", listener.local_addr().unwrap()));
    // Two streams and a probe.
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let accepted = async { tokio::time::timeout(PATIENCE, listener.accept()).await };
        let (socket, from) = runtime.block_on(accepted).unwrap().unwrap();
        assert_eq!(from.ip(), address);
        sockets.push(socket);
    }
}
