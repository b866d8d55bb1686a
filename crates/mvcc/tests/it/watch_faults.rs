//! What went wrong in etcd's watchers over the years, one test each, and loads beyond the ordinary.

use std::collections::BTreeSet;

use quorate_mvcc::{StreamId, WatchCreate, WatchHub, WatchOptions, WatchResponse, WatchStats};

use crate::watch_store::{Client, TestStore, Write, decode};

const LOG_BYTES: usize = 1 << 20;

fn hub(store: &TestStore) -> WatchHub<TestStore> {
    WatchHub::new(store.clone(), WatchOptions::default())
}

fn create(key: &'static str, start_revision: i64) -> WatchCreate {
    WatchCreate {
        key: key.into(),
        start_revision,
        ..WatchCreate::default()
    }
}

fn all_keys(start_revision: i64) -> WatchCreate {
    WatchCreate {
        range_end: "\0".into(),
        start_revision,
        prev_kv: true,
        ..WatchCreate::default()
    }
}

/// Lets everything through that a stream has coming.
fn drain(hub: &mut WatchHub<TestStore>, stream: StreamId) -> Vec<WatchResponse> {
    let mut all = Vec::new();
    loop {
        let has_more = hub.advance().unwrap();
        let responses = hub.take(stream, usize::MAX);
        if !has_more && responses.is_empty() {
            return all;
        }
        all.extend(responses);
    }
}

fn revisions(responses: &[WatchResponse], watch_id: i64) -> Vec<i64> {
    let of_watcher = responses
        .iter()
        .filter(|response| response.watch_id == watch_id);
    of_watcher
        .flat_map(decode)
        .map(|event| event.kv.unwrap().mod_revision)
        .collect()
}

#[test]
fn a_restored_snapshot_sends_no_old_events_again_15271() {
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    hub.create(stream, create("a", 0));
    for value in ["1", "2", "3"] {
        store.put("a", value);
    }
    assert_eq!(revisions(&drain(&mut hub, stream), 0), [2, 3, 4]);
    let restored = store.snapshot(vec![vec![Write::Put("a".into(), "4".into())]], LOG_BYTES);
    hub.restored(restored.clone());
    restored.put("a", "5");
    assert_eq!(revisions(&drain(&mut hub, stream), 0), [5, 6]);
}

#[test]
fn a_restored_snapshot_sends_no_old_events_to_a_future_watcher_20221() {
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    store.put("a", "1");
    hub.create(stream, create("a", 5));
    hub.create(stream, create("a", i64::MAX - 2));
    hub.create(stream, create("a", i64::MAX));
    let further = || vec![Write::Put("a".into(), "x".into())];
    let restored = store.snapshot(vec![further(), further()], LOG_BYTES);
    hub.restored(restored.clone());
    assert_eq!(restored.revision(), 4);
    restored.put("a", "5");
    restored.put("a", "6");
    let responses = drain(&mut hub, stream);
    assert_eq!(revisions(&responses, 0), [5, 6]);
    assert_eq!(
        (revisions(&responses, 1), revisions(&responses, 2)),
        (vec![], vec![])
    );
    // And again, beyond its start.
    let restored = restored.snapshot(vec![further(), further()], LOG_BYTES);
    hub.restored(restored);
    assert_eq!(revisions(&drain(&mut hub, stream), 0), [7, 8]);
}

#[test]
fn watchers_survive_a_restored_snapshot_whatever_their_state_8411() {
    let store = TestStore::new(0);
    let options = WatchOptions {
        outbox_bytes_per_watcher: 300,
        ..WatchOptions::default()
    };
    let mut hub = WatchHub::new(store.clone(), options);
    let (stuck, stream) = (hub.open_stream(0), hub.open_stream(0));
    hub.create(stuck, create("a", 0));
    hub.create(stream, create("a", 0));
    for value in 0..10 {
        store.put("a", &format!("{value:0100}"));
        while hub.advance().unwrap() {}
    }
    assert_eq!(hub.stats().slow_watchers, 2);
    let (told_stuck, told) = (hub.take(stuck, 100), hub.take(stream, usize::MAX));
    hub.create(stream, create("a", 2));
    let restored = store.snapshot(vec![vec![Write::Put("a".into(), "x".into())]], LOG_BYTES);
    hub.restored(restored.clone());
    restored.put("a", "y");
    let all: Vec<i64> = (2..=13).collect();
    let (more, more_stuck) = (drain(&mut hub, stream), drain(&mut hub, stuck));
    assert_eq!([revisions(&told, 0), revisions(&more, 0)].concat(), all);
    assert_eq!(
        [revisions(&told_stuck, 0), revisions(&more_stuck, 0)].concat(),
        all
    );
    assert_eq!(revisions(&more, 1), all);
    assert_eq!(hub.stats().slow_watchers, 0);
}

#[test]
fn requested_progress_does_not_overtake_queued_events_15220() {
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    let mut client = Client::default();
    for key in ["a", "b"] {
        client.asked.push_back(create(key, 0));
        hub.create(stream, create(key, 0));
    }
    // Written and not handed out; handed out and not taken; taken in part: progress is behind the events each time.
    for round in 0..30 {
        store.put("a", "1");
        store.put("b", "1");
        if round % 3 > 0 {
            hub.advance().unwrap();
        }
        if round % 3 > 1 {
            hub.take(stream, 1)
                .iter()
                .for_each(|response| client.receive(&store, response));
        }
        hub.request_progress(stream);
    }
    drain(&mut hub, stream)
        .iter()
        .for_each(|response| client.receive(&store, response));
    assert_eq!(client.progress.len(), 30);
    client.check_complete(&store);
}

#[test]
fn progress_is_not_requested_in_vain_while_a_watcher_is_blocked_15220() {
    let store = TestStore::new(LOG_BYTES);
    let options = WatchOptions {
        outbox_bytes_per_watcher: 1000,
        ..WatchOptions::default()
    };
    let mut hub = WatchHub::new(store.clone(), options);
    let stream = hub.open_stream(0);
    hub.create(stream, create("a", 0));
    for _ in 0..20 {
        store.put("a", &"x".repeat(100));
        hub.request_progress(stream);
    }
    let told = hub.take(stream, usize::MAX);
    let last = told.last().unwrap();
    assert!(last.revision < store.revision());
    // All that was granted was true.
    let mut seen = 1;
    for response in &told[1..] {
        if response.events.is_empty() {
            assert_eq!(response.revision, seen);
        }
        seen = seen.max(response.revision);
    }
    let rest = drain(&mut hub, stream);
    assert_eq!(
        [revisions(&told, 0), revisions(&rest, 0)].concat(),
        (2..=21).collect::<Vec<_>>()
    );
    hub.request_progress(stream);
    assert_eq!(
        hub.take(stream, usize::MAX)
            .last()
            .map(|response| response.revision),
        Some(21)
    );
}

#[test]
fn a_starving_watcher_that_compaction_passes_is_cancelled_17529() {
    let store = TestStore::new(0);
    let mut hub = WatchHub::new(
        store.clone(),
        WatchOptions {
            outbox_bytes_per_watcher: 0,
            stretches_kept: 0,
            ..WatchOptions::default()
        },
    );
    let stream = hub.open_stream(0);
    for _ in 0..20 {
        store.put("a", "x");
        store.put("b", "x");
    }
    hub.create(stream, create("a", 2));
    hub.create(stream, create("b", 2));
    hub.advance().unwrap();
    // The queue is full; both keep their places until they are lost.
    store.compact(30);
    store.scrub();
    let responses = drain(&mut hub, stream);
    for watch_id in [0, 1] {
        let of_watcher: Vec<&WatchResponse> = responses
            .iter()
            .filter(|response| response.watch_id == watch_id)
            .collect();
        let last = of_watcher.last().unwrap();
        assert!(
            last.canceled && last.compact_revision == 30 && last.revision == 0,
            "{last:?}"
        );
        let seen = revisions(&responses, watch_id);
        assert!(
            seen.windows(2).all(|pair| pair[0] + 2 == pair[1]),
            "{seen:?} has a gap"
        );
    }
}

#[test]
fn rows_removed_while_history_is_read_are_not_taken_for_its_whole_17529() {
    let store = TestStore::new(0);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    for value in 0..10 {
        store.put("a", &value.to_string());
    }
    hub.create(stream, create("a", 5));
    store.compact_in_next_read(9);
    let responses = drain(&mut hub, stream);
    assert_eq!(revisions(&responses, 0), []);
    let last = responses.last().unwrap();
    assert!(last.canceled && last.compact_revision == 9);
}

#[test]
fn a_watcher_of_the_future_is_not_cancelled_in_the_middle_of_a_publication() {
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    store.put("a", "1");
    // Readers are shown revisions 3 and 4 and their compaction before the log is.
    store.compact_ahead_of_log(4);
    hub.create(stream, create("a", 0));
    store.put("a", "2");
    store.put("a", "3");
    let responses = drain(&mut hub, stream);
    assert_eq!(revisions(&responses, 0), [3, 4]);
    assert!(responses.iter().all(|response| !response.canceled));
}

#[test]
fn the_deletion_at_the_compact_revision_is_told_18089() {
    let store = TestStore::new(0);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    store.put("a", "1");
    let deleted = store.delete("a");
    store.put("b", "1");
    store.compact(deleted);
    store.scrub();
    hub.create(stream, create("a", deleted));
    assert_eq!(revisions(&drain(&mut hub, stream), 0), [deleted]);
}

#[test]
fn deletions_are_told_once_from_wherever_they_are_read_17247() {
    for log_bytes in [0, 500, LOG_BYTES] {
        let store = TestStore::new(log_bytes);
        let mut hub = hub(&store);
        let stream = hub.open_stream(0);
        let mut client = Client::default();
        for round in 0..30 {
            client.asked.push_back(all_keys(round % 5));
            hub.create(stream, all_keys(round % 5));
            store.commit(vec![
                Write::Put("a".into(), "1".into()),
                Write::Put("b".into(), "1".into()),
            ]);
            store.commit(vec![Write::Delete("a".into()), Write::Delete("b".into())]);
            store.commit(vec![Write::Delete("a".into())]);
            if round % 2 == 0 {
                drain(&mut hub, stream)
                    .iter()
                    .for_each(|response| client.receive(&store, response));
            }
        }
        drain(&mut hub, stream)
            .iter()
            .for_each(|response| client.receive(&store, response));
        client.check_complete(&store);
    }
}

#[test]
fn ten_thousand_watchers_that_do_not_read_cost_little_and_lose_nothing() {
    const SLOW: usize = 10_000;
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let slow: Vec<StreamId> = (0..SLOW).map(|_| hub.open_stream(0)).collect();
    for &stream in &slow {
        hub.create(stream, create("a", 0));
    }
    let healthy = hub.open_stream(0);
    hub.create(healthy, create("a", 0));
    let value = "v".repeat(1000);
    let mut seen = Vec::new();
    for _ in 0..200 {
        let revision = store.put("a", &value);
        hub.advance().unwrap();
        // The healthy one has it at once, whatever the others do.
        seen.extend(revisions(&hub.take(healthy, usize::MAX), 0));
        assert_eq!(seen.last(), Some(&revision));
    }
    let stats = hub.stats();
    assert_eq!(stats.slow_watchers, SLOW);
    assert!(
        stats.pending_bytes <= SLOW * (64 << 10),
        "{} bytes queued",
        stats.pending_bytes
    );
    let all: Vec<i64> = (2..=201).collect();
    assert_eq!(seen, all);
    for &stream in slow.iter().step_by(997) {
        assert_eq!(revisions(&drain(&mut hub, stream), 0), all);
    }
}

#[test]
fn a_hundred_thousand_watchers_of_one_stream_are_told_in_bounded_pieces() {
    const WATCHERS: usize = 100_000;
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    for number in 0..WATCHERS {
        // Half of them watch one key, the other half a key of their own.
        let key = if number % 2 == 0 {
            "a".to_owned()
        } else {
            format!("b{number}")
        };
        hub.create(
            stream,
            WatchCreate {
                key: key.into(),
                ..WatchCreate::default()
            },
        );
    }
    assert_eq!(drain(&mut hub, stream).len(), WATCHERS);
    store.put("a", "1");
    store.put("b7", "1");
    store.put("a", "2");
    let (mut told, mut most) = (0, 0);
    let mut twice = BTreeSet::new();
    loop {
        let has_more = hub.advance().unwrap();
        most = most.max(hub.stats().pending_bytes);
        let responses = hub.take(stream, 64 << 10);
        assert!(
            responses.len() < 1000,
            "{} responses at once",
            responses.len()
        );
        if responses.is_empty() && !has_more {
            break;
        }
        for response in &responses {
            for event in decode(response) {
                let revision = event.kv.unwrap().mod_revision;
                assert!(
                    twice.insert((response.watch_id, revision)),
                    "{revision} twice for {}",
                    response.watch_id
                );
                told += 1;
            }
        }
    }
    assert_eq!(told, WATCHERS + 1);
    assert!(
        most <= WatchOptions::default().outbox_bytes_max,
        "{most} bytes queued"
    );
    hub.close_stream(stream);
    let mut steps = 0;
    while hub.advance().unwrap() {
        steps += 1;
    }
    assert!(steps > 10, "a large stream goes in pieces");
    let left = WatchStats {
        events_sent: hub.stats().events_sent,
        ..WatchStats::default()
    };
    assert_eq!(hub.stats(), left);
}

#[test]
fn watchers_of_one_stretch_of_history_share_its_reading() {
    let store = TestStore::new(0);
    let mut hub = hub(&store);
    for value in 0..500 {
        store.put("a", &value.to_string());
        store.put("b", &value.to_string());
    }
    let streams: Vec<StreamId> = (0..50).map(|_| hub.open_stream(0)).collect();
    for (&stream, start) in streams.iter().zip(2..) {
        hub.create(
            stream,
            WatchCreate {
                prev_kv: true,
                ..create("a", start)
            },
        );
    }
    while hub.advance().unwrap() {}
    for (&stream, start) in streams.iter().zip(2..) {
        let want: Vec<i64> = (start..=1001)
            .filter(|revision| revision % 2 == 0)
            .collect();
        assert_eq!(revisions(&drain(&mut hub, stream), 0), want);
    }
    assert!(
        store.rows_read() <= 1100,
        "{} rows read for 1000",
        store.rows_read()
    );
    assert!(
        store.value_reads() <= 1000,
        "{} previous pairs read for 499",
        store.value_reads()
    );
}

#[test]
fn history_is_read_once_for_a_client_that_takes_it_slowly() {
    let store = TestStore::new(0);
    let mut hub = hub(&store);
    for _ in 0..800 {
        store.put("a", &"v".repeat(200));
    }
    let stream = hub.open_stream(0);
    hub.create(stream, create("a", 2));
    let (mut seen, mut turns) = (Vec::new(), 0);
    while seen.len() < 800 {
        hub.advance().unwrap();
        seen.extend(revisions(&hub.take(stream, 10_000), 0));
        turns += 1;
    }
    assert_eq!(seen, (2..=801).collect::<Vec<_>>());
    assert!(turns > 5);
    // The newest one is in the log.
    assert!(store.rows_read() <= 800, "{} rows read", store.rows_read());
}

#[test]
fn a_client_that_keeps_up_with_a_burst_is_not_slow() {
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    hub.create(stream, create("a", 0));
    for _ in 0..200 {
        store.put("a", &"v".repeat(1000));
    }
    let mut seen = Vec::new();
    while hub.advance().unwrap() || seen.len() < 200 {
        assert_eq!(hub.stats().slow_watchers, 0);
        seen.extend(revisions(&hub.take(stream, usize::MAX), 0));
    }
    assert_eq!(seen, (2..=201).collect::<Vec<_>>());
}

#[test]
fn a_watcher_far_behind_does_not_hold_up_one_close_by() {
    for log_bytes in [0, LOG_BYTES] {
        let store = TestStore::new(log_bytes);
        let options = WatchOptions {
            stretch_rows: 10,
            ..WatchOptions::default()
        };
        let mut hub = WatchHub::new(store.clone(), options);
        for _ in 0..3000 {
            store.put("a", "x");
        }
        let (far, near) = (hub.open_stream(0), hub.open_stream(0));
        hub.create(far, create("a", 2));
        hub.advance().unwrap();
        hub.create(near, create("a", 2990));
        let mut seen = revisions(&hub.take(near, usize::MAX), 0);
        for _ in 0..6 {
            hub.advance().unwrap();
            hub.take(far, usize::MAX);
            seen.extend(revisions(&hub.take(near, usize::MAX), 0));
        }
        assert_eq!(seen, (2990..=3001).collect::<Vec<_>>());
    }
}

#[test]
fn a_failed_read_loses_nothing_and_is_tried_again() {
    for log_bytes in [0, LOG_BYTES] {
        let store = TestStore::new(log_bytes);
        let mut hub = hub(&store);
        let stream = hub.open_stream(0);
        let mut client = Client::default();
        for start_revision in [0, 2] {
            let request = WatchCreate {
                prev_kv: true,
                ..create("a", start_revision)
            };
            client.asked.push_back(request.clone());
            hub.create(stream, request);
        }
        for value in ["1", "2", "3"] {
            store.put("a", value);
        }
        store.fail_reads(true);
        hub.request_progress(stream);
        for _ in 0..3 {
            hub.advance().unwrap_err();
        }
        hub.take(stream, usize::MAX)
            .iter()
            .for_each(|response| client.receive(&store, response));
        store.fail_reads(false);
        drain(&mut hub, stream)
            .iter()
            .for_each(|response| client.receive(&store, response));
        client.check_complete(&store);
    }
}

#[test]
fn a_round_of_progress_ends_with_its_stream() {
    for seed in 0..8 {
        let options = WatchOptions {
            watchers_per_step: 1,
            seed,
            ..WatchOptions::default()
        };
        let mut hub = WatchHub::new(TestStore::new(LOG_BYTES), options);
        let notified = WatchCreate {
            progress_notify: true,
            ..create("a", 0)
        };
        let streams = [hub.open_stream(0), hub.open_stream(0)];
        for number in 0..40 {
            // Depending on the seed, the round of the small stream waits for that of the large one.
            hub.create(streams[usize::from(number == 0)], notified.clone());
        }
        assert!(
            hub.next_tick_ms()
                .is_some_and(|due| (600_000..660_000).contains(&due))
        );
        hub.tick(700_000);
        hub.close_stream(streams[1]);
        while hub.advance().unwrap() {}
        assert_eq!((hub.stats().streams, hub.stats().watchers), (1, 39));
        // Its place is taken again.
        let other = hub.open_stream(700_000);
        hub.create(other, notified);
        while hub.advance().unwrap() {}
        assert_eq!(hub.take(other, usize::MAX).len(), 1);
        assert!(hub.take(streams[1], usize::MAX).is_empty() && !hub.has_room(streams[1]));
        hub.close_stream(streams[0]);
        while hub.advance().unwrap() {}
        assert_eq!((hub.stats().streams, hub.stats().watchers), (1, 1));
    }
}

#[test]
fn a_stream_full_of_answers_asks_for_no_more_requests() {
    let store = TestStore::new(LOG_BYTES);
    let mut hub = hub(&store);
    let stream = hub.open_stream(0);
    let mut answered = 0;
    while hub.has_room(stream) {
        hub.refuse(stream, "rpc error".to_owned());
        answered += 1;
        assert!(answered < 1000);
    }
    assert_eq!(hub.take(stream, usize::MAX).len(), answered);
    assert!(hub.has_room(stream));
}
