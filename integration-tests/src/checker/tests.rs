//! Histories that must pass and histories that must not.

use bytes::Bytes;

use super::*;

/// Builds a recording of one member, with the truth watched by client 100.
struct Story {
    recording: Recording,
    clock_us: u64,
}

fn kv(key: &str, value: &str, created: i64, modified: i64, version: i64) -> Kv {
    Kv {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        created,
        modified,
        version,
        lease: 0,
    }
}

fn put(kv: Kv) -> Event {
    Event {
        is_put: true,
        kv,
        previous: None,
    }
}

fn delete(key: &str, revision: i64) -> Event {
    Event {
        is_put: false,
        kv: kv(key, "", 0, revision, 0),
        previous: None,
    }
}

fn done(revision: i64, results: Vec<OpResult>) -> Reply {
    Reply::Done(Answer {
        revision,
        succeeded: true,
        results,
        ttl: 0,
    })
}

fn range(key: &str, reading: Reading, at: i64) -> Request {
    Request::one(Op::Range(KeyRange::single(key.as_bytes())), reading, at)
}

fn delete_key(key: &str) -> Request {
    let op = Op::Delete {
        range: KeyRange::single(key.as_bytes()),
        previous: false,
    };
    Request::one(op, Reading::Linearizable, 0)
}

fn replace(key: &str, modified: i64, value: &str) -> Request {
    let Request::Keys(mut txn) = Request::put(key.as_bytes(), value.as_bytes(), 0) else {
        unreachable!("a put is a request of keys")
    };
    let condition = Comparison::Modified(
        Bytes::copy_from_slice(key.as_bytes()),
        Relation::Equal,
        modified,
    );
    txn.conditions.push(condition);
    Request::Keys(txn)
}

const S: u64 = 1_000_000;

impl Story {
    fn new() -> Story {
        Story {
            recording: Recording::default(),
            clock_us: 0,
        }
    }

    /// A call after everything so far.
    fn call(&mut self, request: Request, reply: Reply) -> &mut Call {
        let begun_us = self.clock_us + 10;
        self.clock_us = begun_us + 10;
        self.recording.calls.push(Call {
            client: 1,
            member: 0,
            life: Some(1),
            begun_us,
            ended_us: self.clock_us,
            request,
            reply,
        });
        self.recording.calls.last_mut().unwrap()
    }

    fn put(&mut self, key: &str, value: &str, revision: i64) -> &mut Call {
        let request = Request::put(key.as_bytes(), value.as_bytes(), 0);
        self.call(request, done(revision, vec![OpResult::Put(None)]))
    }

    fn read(&mut self, key: &str, reading: Reading, revision: i64, kvs: Vec<Kv>) -> &mut Call {
        self.call(
            range(key, reading, 0),
            done(revision, vec![OpResult::Range(kvs)]),
        )
    }

    /// A watch of everything from the first revision on, at the end, one message a revision.
    fn watch(&mut self, events: Vec<Event>) -> &mut Watch {
        let at_us = self.clock_us + 1_000;
        let mut messages: Vec<Message> = vec![Message {
            at_us,
            revision: 1,
            is_created: true,
            ..Message::default()
        }];
        for event in events {
            let last = messages.last_mut().unwrap();
            let is_same = |m: &Message| {
                m.events
                    .last()
                    .is_some_and(|e| e.kv.modified == event.kv.modified)
            };
            if is_same(last) {
                last.events.push(event);
                continue;
            }
            messages.push(Message {
                at_us,
                revision: event.kv.modified,
                events: vec![event],
                ..Message::default()
            });
        }
        self.recording.watches.push(Watch {
            client: 100,
            member: self.recording.watches.len(),
            range: KeyRange::all(),
            from: 1,
            previous: false,
            messages,
        });
        self.recording.watches.last_mut().unwrap()
    }

    #[track_caller]
    fn passes(&self) -> Verdict {
        let verdict = check(&self.recording);
        assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        verdict
    }

    #[track_caller]
    fn breaks(&self, rule: Rule) {
        let violations = check(&self.recording).violations;
        assert!(violations.iter().any(|v| v.rule == rule), "{violations:#?}");
    }
}

/// Two puts, a read between them, a replacement that holds and one that does not, a delete.
fn plain() -> (Story, Vec<Event>) {
    let mut story = Story::new();
    story.put("a", "1", 2);
    story.read("a", Reading::Linearizable, 2, vec![kv("a", "1", 2, 2, 1)]);
    story.put("b", "2", 3);
    story.call(replace("a", 2, "3"), done(4, vec![OpResult::Put(None)]));
    let failed = story.call(replace("a", 2, "4"), done(4, vec![]));
    if let Reply::Done(answer) = &mut failed.reply {
        answer.succeeded = false;
    }
    story.call(delete_key("b"), done(5, vec![OpResult::Delete(1, vec![])]));
    story.call(delete_key("b"), done(5, vec![OpResult::Delete(0, vec![])]));
    story.read("b", Reading::Serializable, 5, vec![]);
    let events = vec![
        put(kv("a", "1", 2, 2, 1)),
        put(kv("b", "2", 3, 3, 1)),
        put(kv("a", "3", 2, 4, 2)),
        delete("b", 5),
    ];
    (story, events)
}

#[test]
fn a_right_history_passes() {
    let (mut story, events) = plain();
    story.watch(events.clone());
    story.watch(events);
    let verdict = story.passes();
    assert_eq!((verdict.revisions, verdict.acknowledged), (5, 4));
    assert_eq!(
        (verdict.linearizable_reads, verdict.serializable_reads),
        (3, 1)
    );
    assert_eq!((verdict.watches, verdict.events), (2, 8));
}

#[test]
fn a_lost_write_is_refused() {
    let (mut story, events) = plain();
    story.put("c", "5", 6);
    story.watch(events);
    story.breaks(Rule::Lost);
}

#[test]
fn a_write_of_something_else_is_refused() {
    let (mut story, mut events) = plain();
    events[1] = put(kv("b", "another", 3, 3, 1));
    story.watch(events);
    story.breaks(Rule::Lost);
}

#[test]
fn half_a_transaction_is_refused() {
    let two = |values: [&str; 2]| {
        let op = |(key, value): (&str, &str)| Op::Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: 0,
            previous: false,
        };
        Request::Keys(Txn {
            conditions: vec![],
            then: ["x", "y"].into_iter().zip(values).map(op).collect(),
            otherwise: vec![],
            reading: Reading::Linearizable,
            at: 0,
        })
    };
    for reply in [
        done(2, vec![OpResult::Put(None), OpResult::Put(None)]),
        Reply::Unknown("no answer".to_owned()),
    ] {
        let mut story = Story::new();
        story.call(two(["1", "2"]), reply.clone());
        story.watch(vec![put(kv("x", "1", 2, 2, 1))]);
        story.breaks(Rule::Lost);
        let mut story = Story::new();
        story.call(two(["1", "2"]), reply);
        story.watch(vec![put(kv("x", "1", 2, 2, 1)), put(kv("y", "2", 2, 2, 1))]);
        story.passes();
    }
}

#[test]
fn a_wrong_answer_is_refused() {
    let (mut story, events) = plain();
    story.read("a", Reading::Linearizable, 5, vec![kv("a", "1", 2, 2, 1)]);
    story.watch(events);
    story.breaks(Rule::Answer);
}

#[test]
fn a_read_of_what_was_never_there_is_refused() {
    for (revision, kvs) in [
        (5, vec![kv("a", "never", 2, 4, 2)]),
        (5, vec![]),
        (9, vec![kv("a", "3", 2, 4, 2)]),
    ] {
        let (mut story, events) = plain();
        story.read("a", Reading::Serializable, revision, kvs);
        story.watch(events);
        story.breaks(Rule::Answer);
    }
}

#[test]
fn a_read_at_a_revision_is_held_against_that() {
    let at = |at: i64, kvs: Vec<Kv>| {
        let (mut story, events) = plain();
        let reply = done(5, vec![OpResult::Range(kvs)]);
        story.call(range("a", Reading::Serializable, at), reply);
        story.watch(events);
        story
    };
    at(3, vec![kv("a", "1", 2, 2, 1)]).passes();
    at(4, vec![kv("a", "1", 2, 2, 1)]).breaks(Rule::Answer);
    at(6, vec![kv("a", "3", 2, 4, 2)]).breaks(Rule::Answer);
}

#[test]
fn a_stale_linearizable_read_is_refused() {
    let (mut story, events) = plain();
    story.read("a", Reading::Linearizable, 3, vec![kv("a", "1", 2, 2, 1)]);
    story.watch(events);
    story.breaks(Rule::Order);
}

#[test]
fn a_stale_read_is_no_violation_while_the_write_is_under_way() {
    let mut story = Story::new();
    story.put("a", "1", 2);
    let write = story.put("a", "2", 3);
    write.ended_us += 1_000;
    story.read("a", Reading::Linearizable, 2, vec![kv("a", "1", 2, 2, 1)]);
    story.watch(vec![put(kv("a", "1", 2, 2, 1)), put(kv("a", "2", 2, 3, 2))]);
    story.passes();
    // Somebody else has seen it before.
    let seen = story.read("a", Reading::Linearizable, 3, vec![kv("a", "2", 2, 3, 2)]);
    seen.begun_us = 1;
    seen.ended_us = 45;
    story.breaks(Rule::Order);
}

#[test]
fn a_linearizable_read_is_not_older_than_an_event_seen_before() {
    let mut story = Story::new();
    story.put("a", "1", 2);
    story.put("a", "2", 3).ended_us += 1_000_000;
    story.watch(vec![put(kv("a", "1", 2, 2, 1)), put(kv("a", "2", 2, 3, 2))]);
    story.clock_us += 5_000;
    story.read("a", Reading::Linearizable, 2, vec![kv("a", "1", 2, 2, 1)]);
    story.breaks(Rule::Order);
}

#[test]
fn reordered_revisions_are_refused() {
    let mut story = Story::new();
    story.put("a", "1", 3);
    story.put("b", "2", 2);
    story.watch(vec![put(kv("b", "2", 2, 2, 1)), put(kv("a", "1", 3, 3, 1))]);
    story.breaks(Rule::Order);
}

#[test]
fn a_write_that_takes_effect_before_it_is_asked_for_is_refused() {
    let mut story = Story::new();
    story.put("a", "1", 3);
    let request = Request::put(b"b", b"2", 0);
    story.call(request, Reply::Unknown("no answer".to_owned()));
    story.watch(vec![put(kv("b", "2", 2, 2, 1)), put(kv("a", "1", 3, 3, 1))]);
    story.breaks(Rule::Order);
}

#[test]
fn one_revision_for_two_writes_is_refused() {
    let (mut story, events) = plain();
    story.put("a", "another", 4);
    story.watch(events);
    story.breaks(Rule::Duplicate);
}

#[test]
fn a_replacement_that_should_have_failed_is_refused() {
    let (mut story, mut events) = plain();
    story.call(replace("a", 2, "5"), done(6, vec![OpResult::Put(None)]));
    events.push(put(kv("a", "5", 2, 6, 3)));
    story.watch(events);
    story.breaks(Rule::Lost);
}

#[test]
fn a_replacement_that_should_have_held_is_refused() {
    let (mut story, events) = plain();
    let failed = story.call(replace("a", 4, "5"), done(5, vec![]));
    if let Reply::Done(answer) = &mut failed.reply {
        answer.succeeded = false;
    }
    story.watch(events);
    story.breaks(Rule::Answer);
}

#[test]
fn requests_without_an_answer_may_have_happened_once_or_never() {
    let unknown = || Reply::Unknown("no answer".to_owned());
    let mut story = Story::new();
    story.put("a", "1", 2);
    story.call(Request::put(b"a", b"2", 0), unknown());
    story.call(delete_key("a"), unknown());
    story.call(Request::put(b"a", b"3", 0), unknown());
    story.watch(vec![
        put(kv("a", "1", 2, 2, 1)),
        put(kv("a", "2", 2, 3, 2)),
        delete("a", 4),
    ]);
    let verdict = story.passes();
    assert_eq!(
        (verdict.unanswered_done, verdict.unanswered_not_done),
        (2, 1)
    );
    assert_eq!(verdict.acknowledged, 1);
    story.recording.watches.clear();
    let twice = vec![
        put(kv("a", "1", 2, 2, 1)),
        put(kv("a", "2", 2, 3, 2)),
        put(kv("a", "2", 2, 4, 3)),
    ];
    story.watch(twice);
    story.breaks(Rule::Duplicate);
}

#[test]
fn what_nobody_asked_for_is_refused() {
    let (mut story, mut events) = plain();
    events.push(put(kv("z", "9", 6, 6, 1)));
    story.watch(events);
    story.breaks(Rule::Duplicate);
    let (mut story, mut events) = plain();
    events.push(delete("a", 6));
    story.watch(events);
    story.breaks(Rule::Duplicate);
}

#[test]
fn what_was_refused_must_not_happen() {
    let (mut story, mut events) = plain();
    let request = Request::put(b"z", b"9", 0);
    story.call(request, Reply::Refused("no".to_owned()));
    events.push(put(kv("z", "9", 6, 6, 1)));
    story.watch(events);
    story.breaks(Rule::Duplicate);
}

#[test]
fn a_hole_in_the_revisions_is_refused() {
    let mut story = Story::new();
    story.put("a", "1", 2);
    story.put("b", "2", 4);
    story.watch(vec![put(kv("a", "1", 2, 2, 1)), put(kv("b", "2", 4, 4, 1))]);
    story.breaks(Rule::Dense);
}

#[test]
fn members_that_differ_are_refused() {
    let (mut story, mut events) = plain();
    story.watch(events.clone());
    events[2] = put(kv("a", "3", 2, 4, 3));
    story.watch(events);
    story.breaks(Rule::Members);
}

#[test]
fn serializable_reads_of_a_member_do_not_go_back() {
    let old = vec![kv("a", "1", 2, 2, 1)];
    let (mut story, events) = plain();
    story.read("a", Reading::Serializable, 3, old.clone());
    story.watch(events);
    story.breaks(Rule::Backwards);
    // On another member, or in another life of this one, nothing is promised.
    let read = story.recording.calls.last_mut().unwrap();
    read.member = 1;
    story.passes();
    story.recording.calls.last_mut().unwrap().member = 0;
    story.recording.calls.last_mut().unwrap().life = Some(2);
    story.passes();
}

#[test]
fn watches_with_gaps_copies_or_disorder_are_refused() {
    let twisted: [fn(&mut Vec<Message>); 6] = [
        |messages| drop(messages.remove(2)),
        |messages| messages.push(messages[4].clone()),
        |messages| messages.insert(2, messages[1].clone()),
        |messages| messages.swap(1, 2),
        // Progress that overtakes an event.
        |messages| {
            let mut early = messages[4].clone();
            early.events.clear();
            messages.insert(2, early);
        },
        |messages| messages[3].events[0].kv.version += 1,
    ];
    for twist in twisted {
        let (mut story, events) = plain();
        story.watch(events.clone());
        story.watch(events);
        story.passes();
        twist(&mut story.recording.watches[1].messages);
        story.breaks(Rule::Watch);
    }
}

#[test]
fn a_watch_of_a_range_from_a_revision_is_held_against_that() {
    let watch = |from: i64, key: &str, events: Vec<Event>| {
        let (mut story, truth) = plain();
        story.watch(truth);
        let watch = story.watch(events);
        watch.range = KeyRange::single(key.as_bytes());
        watch.from = from;
        watch.previous = true;
        story
    };
    let mut replaced = put(kv("a", "3", 2, 4, 2));
    watch(3, "a", vec![replaced.clone()]).breaks(Rule::Watch);
    replaced.previous = Some(kv("a", "1", 2, 2, 1));
    watch(3, "a", vec![replaced.clone()]).passes();
    // What has been compacted is not shown.
    let mut unknown = replaced.clone();
    unknown.previous = None;
    let mut story = watch(3, "a", vec![unknown]);
    story.call(Request::Compact(4), done(5, vec![])).begun_us = 0;
    story.passes();
    watch(3, "b", vec![replaced.clone()]).breaks(Rule::Watch);
    watch(2, "a", vec![replaced]).breaks(Rule::Watch);
}

#[test]
fn a_revision_comes_whole() {
    let mut story = Story::new();
    let op = |key: &'static str, value: &'static str| Op::Put {
        key: key.into(),
        value: value.into(),
        lease: 0,
        previous: false,
    };
    let txn = Txn {
        conditions: vec![],
        then: vec![op("x", "1"), op("y", "2")],
        otherwise: vec![],
        reading: Reading::Linearizable,
        at: 0,
    };
    let results = vec![OpResult::Put(None), OpResult::Put(None)];
    story.call(Request::Keys(txn), done(2, results));
    let events = vec![put(kv("x", "1", 2, 2, 1)), put(kv("y", "2", 2, 2, 1))];
    story.watch(events.clone());
    story.watch(events);
    story.passes();
    let messages = &mut story.recording.watches[1].messages;
    let mut second = messages[1].clone();
    second.events.remove(0);
    messages[1].events.pop();
    messages.push(second);
    story.breaks(Rule::Watch);
}

#[test]
fn only_what_was_compacted_is_refused_as_compacted() {
    let refused =
        || Reply::Refused("etcdserver: mvcc: required revision has been compacted".to_owned());
    let (mut story, events) = plain();
    story.call(range("a", Reading::Linearizable, 3), refused());
    story.watch(events.clone());
    story.breaks(Rule::Compacted);
    let (mut story, _) = plain();
    story.call(Request::Compact(4), done(5, vec![]));
    story.call(range("a", Reading::Linearizable, 3), refused());
    story.watch(events.clone());
    story.passes();
    // A watch behind the compaction may be cancelled, one ahead of it may not.
    let cancel = Message {
        at_us: story.clock_us + 2_000,
        compacted: 4,
        ..Message::default()
    };
    let watch = story.watch(Vec::new());
    watch.messages.push(cancel.clone());
    story.passes();
    story.watch(events).messages.push(cancel);
    story.breaks(Rule::Watch);
}

/// A lease of two seconds with a key, which ends at `ended_us` and is renewed at one second.
fn lease_story(ended_us: u64) -> Story {
    let mut story = Story::new();
    let granted = |ttl: i64| {
        Reply::Done(Answer {
            revision: 1,
            ttl,
            ..Answer::default()
        })
    };
    story.call(Request::Grant { lease: 7, ttl: 2 }, granted(2));
    story.call(
        Request::put(b"l", b"1", 7),
        done(2, vec![OpResult::Put(None)]),
    );
    story.clock_us = S;
    story.call(Request::Renew(7), granted(2));
    story.clock_us = ended_us;
    let mut tied = put(kv("l", "1", 2, 2, 1));
    tied.kv.lease = 7;
    story.watch(vec![tied, delete("l", 3)]);
    story
}

#[test]
fn a_lease_lives_as_long_as_promised() {
    assert_eq!(lease_story(3 * S + 100).passes().leases_ended, 1);
    lease_story(3 * S - 10_000).breaks(Rule::Lease);
    // Unless somebody asked for its end.
    let mut story = lease_story(2 * S);
    story.clock_us = 2 * S - 100;
    story.call(Request::Revoke(7), Reply::Unknown("no answer".to_owned()));
    story.passes();
}

#[test]
fn a_lease_that_is_gone_early_for_a_client_is_refused() {
    for (request, reply) in [
        (Request::Renew(7), done(3, vec![])),
        (
            Request::put(b"l", b"2", 7),
            Reply::Refused("etcdserver: requested lease not found".to_owned()),
        ),
    ] {
        let mut story = lease_story(3 * S + 100);
        story.call(request.clone(), reply.clone());
        story.passes();
        story.recording.calls.last_mut().unwrap().begun_us = 2 * S;
        story.recording.calls.last_mut().unwrap().ended_us = 2 * S + 10;
        story.breaks(Rule::Lease);
    }
}

#[test]
fn a_key_tied_to_a_lease_that_ended_or_never_was_is_refused() {
    for lease in [7, 8] {
        let mut story = lease_story(3 * S + 100);
        story.clock_us = 4 * S;
        let request = Request::put(b"m", b"3", lease);
        story.call(request, done(4, vec![OpResult::Put(None)]));
        let mut tied = put(kv("m", "3", 4, 4, 1));
        tied.kv.lease = lease;
        let messages = &mut story.recording.watches[0].messages;
        messages.push(Message {
            at_us: 5 * S,
            revision: 4,
            events: vec![tied],
            ..Message::default()
        });
        story.breaks(Rule::Lease);
    }
}

#[test]
fn different_hashes_are_refused() {
    let (mut story, events) = plain();
    story.watch(events);
    let hash = |member: &str, compacted: i64, hash: u32| Hash {
        member: member.to_owned(),
        revision: 5,
        compacted,
        hash,
    };
    story.recording.hashes = vec![hash("m0", -1, 1), hash("m1", -1, 1), hash("m2", 3, 2)];
    story.passes();
    story.recording.hashes.push(hash("m3", 3, 1));
    story.breaks(Rule::Hash);
}

#[test]
fn every_lie_about_a_plain_history_is_noticed() {
    let (mut story, events) = plain();
    story.read("a", Reading::Linearizable, 5, vec![kv("a", "3", 2, 4, 2)]);
    story.read("a", Reading::Serializable, 5, vec![kv("a", "3", 2, 4, 2)]);
    story.watch(events.clone());
    story.watch(events);
    let hash = Hash {
        member: "m".to_owned(),
        revision: 5,
        compacted: -1,
        hash: 1,
    };
    story.recording.hashes = vec![hash.clone(), hash];
    story.passes();
    for lie in Lie::ALL.into_iter().filter(|lie| *lie != Lie::EarlyEnd) {
        let mut recording = story.recording.clone();
        assert!(lie.tell(&mut recording), "{lie:?}");
        assert!(!check(&recording).violations.is_empty(), "{lie:?}");
    }
}

#[test]
fn a_hundred_thousand_operations_are_no_trouble() {
    let mut story = Story::new();
    let mut events = Vec::new();
    for step in 0..100_000_i64 {
        let (key, value) = (format!("k{}", step % 100), format!("v{step}"));
        let round = step / 100;
        story.put(&key, &value, step + 2);
        events.push(put(kv(&key, &value, step % 100 + 2, step + 2, round + 1)));
        if step % 3 == 0 {
            let shown = events.last().unwrap().kv.clone();
            story.read(&key, Reading::Linearizable, step + 2, vec![shown]);
        }
    }
    story.watch(events.clone());
    story.watch(events);
    assert_eq!(story.passes().acknowledged, 100_000);
}
