//! Members whose data is not what it should be, and nobody has noticed: the disk has changed a value under a right checksum.
//!
//! Each test names the rows of the fault catalogue it is about.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use prost::Message as _;
use quorate_backend::{Backend, Options, Revision, Table};
use quorate_core::BACKEND_FILE;
use quorate_disk::RealDisk;
use quorate_integration_tests::cluster::{Cluster, Place, Setup};
use quorate_integration_tests::{Binary, Failure, Outcome};
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse,
    Compare, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse, alarm_request::AlarmAction, compare,
};
use quorate_proto::mvccpb::KeyValue;
use tonic::{Code, Status};

use crate::cluster::one_at_a_time;
use crate::membership::follower;
use crate::metrics::get;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// What a member says that holds another state than the others.
const DIVERGED: &str = "this member holds another state than a majority of the cluster";
/// The key that the disk changes, and what it holds.
const KEY: &str = "damaged";
const RIGHT: &str = "right";
const WRONG: &str = "wrong";
const WORSE: &str = "worse";

fn start(binaries: Vec<Binary>, args: &[&str]) -> Cluster {
    let setup = Setup::three(binaries, args);
    Cluster::start(&setup).unwrap()
}

fn three(args: &[&str]) -> Cluster {
    start(vec![Binary::quorate().unwrap()], args)
}

fn eventually<T>(what: &str, mut step: impl FnMut() -> Outcome<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match step() {
            Ok(done) => return done,
            Err(failure) if Instant::now() > deadline => panic!("{what}: {failure}"),
            Err(_) => thread::sleep(LOOK),
        }
    }
}

fn put(cluster: &Cluster, place: Place, key: &str, value: &str) -> Result<PutResponse, Status> {
    let request = PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        ..PutRequest::default()
    };
    cluster.ask(place, "KV/Put", request)
}

fn fill(cluster: &Cluster, place: Place, count: usize) {
    for number in 0..count {
        let key = format!("key-{number:03}");
        eventually("a put", || Ok(put(cluster, place, &key, "value")?));
    }
}

fn value(cluster: &Cluster, place: Place, serializable: bool) -> Result<String, Status> {
    let request = RangeRequest {
        key: KEY.into(),
        serializable,
        ..RangeRequest::default()
    };
    let answer: RangeResponse = cluster.ask(place, "KV/Range", request)?;
    Ok(String::from_utf8(answer.kvs[0].value.to_vec()).unwrap())
}

fn log(cluster: &Cluster, place: Place) -> String {
    std::fs::read_to_string(cluster.member(place).log_path()).unwrap()
}

/// Changes a value in the database of a member that is down. Index, digest and checksums stay those of the right state, as if
/// the member had written this itself.
fn damage(cluster: &Cluster, place: Place, value: &'static str) {
    let snap = cluster.member(place).data_dir().join("member/snap");
    let path = snap.join(BACKEND_FILE);
    let options = Options {
        create: false,
        ..Options::default()
    };
    let backend = Backend::open(Arc::new(RealDisk), &path, options).unwrap();
    let before = backend.applied();
    let mut found = None;
    let read = backend.read().unwrap();
    let (from, to) = (Revision::new(0, 0), Revision::new(i64::MAX, 0));
    let look = |rev: Revision, tombstone: bool, record: &[u8]| {
        let kv = KeyValue::decode(record).unwrap();
        if kv.key == KEY.as_bytes() && kv.value == RIGHT.as_bytes() {
            found = Some((rev.table_key(tombstone), kv));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    read.visit_revisions(from, to, look).unwrap();
    drop(read);
    let (key, mut kv) = found.expect("the value has reached the database");
    kv.value = value.into();
    let mut txn = backend.maintenance().unwrap();
    txn.put(Table::Key, key.as_bytes(), kv.encode_to_vec().into());
    txn.commit().unwrap();
    assert_eq!(backend.applied(), before);
}

/// A cluster whose members have the key and others after it, and one of them, which does not lead, stopped and changed on disk.
fn with_damage(cluster: &mut Cluster) -> (Place, Place) {
    let (leader, damaged) = follower(cluster);
    damage_at(cluster, leader, damaged);
    (leader, damaged)
}

fn damage_at(cluster: &mut Cluster, leader: Place, damaged: Place) {
    eventually("a put", || Ok(put(cluster, leader, KEY, RIGHT)?));
    fill(cluster, leader, 20);
    cluster.converge().unwrap();
    cluster.begin_stop(damaged).unwrap();
    cluster.end_stop(damaged).unwrap();
    damage(cluster, damaged, WRONG);
}

fn start_damaged(cluster: &mut Cluster, damaged: Place) {
    start_with(cluster, damaged, WRONG);
}

fn start_with(cluster: &mut Cluster, damaged: Place, wrong: &str) {
    cluster.begin_start(damaged).unwrap();
    cluster.end_start(damaged).unwrap();
    cluster.converge().unwrap();
    assert_eq!(
        value(cluster, damaged, true).unwrap(),
        wrong,
        "the damage works"
    );
}

/// Writes one thing where the right value stands, and another where a wrong one does, each in its own way.
fn decide(cluster: &Cluster, place: Place) -> Result<TxnResponse, Status> {
    let holds = |value: &str| Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Value.into(),
        key: KEY.into(),
        target_union: Some(compare::TargetUnion::Value(value.to_owned().into())),
        ..Compare::default()
    };
    let put = |value: &str| RequestOp {
        request: Some(Op::RequestPut(PutRequest {
            key: "decided".into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        })),
    };
    let wrong = TxnRequest {
        compare: vec![holds(WRONG)],
        success: vec![put("no")],
        failure: vec![put("never")],
    };
    let request = TxnRequest {
        compare: vec![holds(RIGHT)],
        success: vec![put("yes")],
        failure: vec![RequestOp {
            request: Some(Op::RequestTxn(wrong)),
        }],
    };
    cluster.ask(place, "KV/Txn", request)
}

/// Waits until a member has ended by itself.
fn wait_end(cluster: &mut Cluster, place: Place) {
    eventually("the end of a member that diverged", || {
        match cluster.has_ended(place) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new("it runs")),
            Err(failure) => Err(failure),
        }
    });
}

fn alarms(cluster: &Cluster, place: Place) -> Outcome<Vec<AlarmMember>> {
    let request = AlarmRequest {
        action: AlarmAction::Get.into(),
        ..AlarmRequest::default()
    };
    let answer: AlarmResponse = cluster.ask(place, "Maintenance/Alarm", request)?;
    Ok(answer.alarms)
}

/// Waits for the alarm of corrupt data, of one member or, with id 0, of nobody in particular, on every member; then what etcd
/// refuses is refused, and what it answers is answered.
fn assert_alarmed(cluster: &Cluster, leader: Place, id: u64) {
    for place in cluster.running() {
        eventually("the alarm", || {
            let found = alarms(cluster, place)?;
            let corrupt = AlarmType::Corrupt as i32;
            match &found[..] {
                [only] if only.alarm == corrupt && only.member_id == id => Ok(()),
                _ => Err(Failure::new(format!("{found:x?}, not one of {id:x}"))),
            }
        });
        let refused = put(cluster, place, "refused", "").unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::DataLoss, "etcdserver: corrupt cluster")
        );
        let health = get(&cluster.member(place).endpoint(), "/health");
        assert!(
            health.contains(" 503 ") && health.contains("ALARM CORRUPT"),
            "{health}"
        );
    }
    assert_eq!(value(cluster, leader, false).unwrap(), RIGHT);
}

/// Throws the damaged member out, takes its alarm back and puts a new one in its place: everything is well again.
fn assert_cured(cluster: &mut Cluster, leader: Place, damaged: Place, id: u64) {
    cluster.kill(damaged).unwrap();
    cluster.remove(damaged).unwrap();
    eventually("the end of the alarm", || {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: id,
            alarm: AlarmType::Corrupt.into(),
        };
        let _: AlarmResponse = cluster.ask(leader, "Maintenance/Alarm", request)?;
        Ok(put(cluster, leader, "after", "")?)
    });
    assert_replaced(cluster, leader, damaged);
}

fn assert_replaced(cluster: &mut Cluster, leader: Place, damaged: Place) {
    cluster.add(damaged, None, false).unwrap();
    fill(cluster, leader, 30);
    let hashes = cluster.hashes().unwrap();
    assert!(
        hashes.len() == 3 && hashes.iter().all(|hash| hash.hash == hashes[0].hash),
        "{hashes:?}"
    );
    assert_eq!(value(cluster, damaged, false).unwrap(), RIGHT);
}

/// D3, D5: what a follower holds differs from what the others hold; when that shows, it stops and says so, again after each start,
/// and the others go on.
#[test]
fn a_follower_whose_state_differs_stops_and_the_others_go_on() {
    let _turn = one_at_a_time();
    let mut cluster = three(&[]);
    let (leader, damaged) = with_damage(&mut cluster);
    start_damaged(&mut cluster, damaged);
    let decided = eventually("a transaction", || Ok(decide(&cluster, leader)?));
    let begun = Instant::now();
    assert!(decided.succeeded);
    wait_end(&mut cluster, damaged);
    println!(
        "the member that differs was found and had ended after {:?}",
        begun.elapsed()
    );
    assert!(log(&cluster, damaged).contains(DIVERGED));
    fill(&cluster, leader, 50);
    assert!(cluster.running().len() == 2 && alarms(&cluster, leader).unwrap().is_empty());
    // It does not get away with a restart.
    let words = |cluster: &Cluster| log(cluster, damaged).matches(DIVERGED).count();
    let before = words(&cluster);
    cluster.begin_start(damaged).unwrap();
    wait_end(&mut cluster, damaged);
    assert!(words(&cluster) > before, "it says so again");
    cluster.remove(damaged).unwrap();
    let leader = cluster.wait_leader().unwrap();
    assert_replaced(&mut cluster, leader, damaged);
}

/// D3, D5: the same when the member that differs leads: it is the one that stops.
#[test]
fn a_leader_whose_state_differs_stops_and_the_others_go_on() {
    let _turn = one_at_a_time();
    let mut cluster = three(&[]);
    let (_, damaged) = with_damage(&mut cluster);
    start_damaged(&mut cluster, damaged);
    eventually("the damaged member leads", || {
        let leader = cluster.wait_leader()?;
        if leader != damaged {
            cluster.move_leader(leader, damaged)?;
            return Err(Failure::new("not yet"));
        }
        Ok(())
    });
    eventually("a transaction", || Ok(decide(&cluster, damaged)?));
    wait_end(&mut cluster, damaged);
    assert!(log(&cluster, damaged).contains(DIVERGED));
    let leader = cluster.wait_leader().unwrap();
    assert_ne!(leader, damaged);
    fill(&cluster, leader, 50);
    assert_eq!(value(&cluster, leader, false).unwrap(), RIGHT);
    cluster.remove(damaged).unwrap();
    assert_replaced(&mut cluster, leader, damaged);
}

/// D3: when two differ and the third is down nobody can say who is right: the alarm names no member, and nothing is written.
#[test]
fn without_a_majority_that_agrees_the_alarm_names_nobody() {
    let _turn = one_at_a_time();
    let mut cluster = three(&[]);
    let (leader, damaged) = with_damage(&mut cluster);
    start_damaged(&mut cluster, damaged);
    let third = cluster
        .places()
        .into_iter()
        .find(|place| ![leader, damaged].contains(place));
    cluster.kill(third.unwrap()).unwrap();
    let leader = cluster.wait_leader().unwrap();
    eventually("a transaction", || Ok(decide(&cluster, leader)?));
    let right = if leader == damaged {
        cluster
            .running()
            .into_iter()
            .find(|place| *place != damaged)
            .unwrap()
    } else {
        leader
    };
    assert_alarmed(&cluster, right, 0);
    assert_eq!(cluster.running().len(), 2, "nobody stops");
}

/// D3: the same when all three differ from each other: whoever leads, nobody stops.
#[test]
fn when_all_differ_from_each_other_nobody_stops_and_the_alarm_names_nobody() {
    let _turn = one_at_a_time();
    let mut cluster = three(&[]);
    let (leader, damaged) = with_damage(&mut cluster);
    start_damaged(&mut cluster, damaged);
    let places = cluster.places();
    let is_sound = |place: &&Place| ![leader, damaged].contains(place);
    let worse = *places.iter().find(is_sound).unwrap();
    cluster.begin_stop(worse).unwrap();
    cluster.end_stop(worse).unwrap();
    damage(&cluster, worse, WORSE);
    start_with(&mut cluster, worse, WORSE);
    let right = leader;
    eventually("a transaction", || Ok(decide(&cluster, right)?));
    assert_alarmed(&cluster, right, 0);
    assert_eq!(cluster.running().len(), 3, "nobody stops");
    for place in places {
        assert!(!log(&cluster, place).contains(DIVERGED));
    }
}

/// D3: a member that is to look before it serves does not serve.
#[test]
fn a_check_at_the_start_refuses_what_differs() {
    let _turn = one_at_a_time();
    let mut cluster = three(&[]);
    let (leader, damaged) = with_damage(&mut cluster);
    let checked = ["--feature-gates=InitialCorruptCheck=true"];
    let refused = cluster.start_with(damaged, &checked).unwrap_err();
    assert!(
        refused.to_string().contains("ended with"),
        "it ends by itself: {refused}"
    );
    let words = "found data inconsistency with peers";
    assert!(log(&cluster, damaged).contains(words), "{refused}");
    fill(&cluster, leader, 30);
    // Who holds what the others hold is let through.
    let sound = cluster
        .places()
        .into_iter()
        .find(|place| ![leader, damaged].contains(place) && cluster.member(*place).is_running());
    let sound = sound.unwrap();
    start_damaged(&mut cluster, damaged);
    cluster.begin_stop(sound).unwrap();
    cluster.end_stop(sound).unwrap();
    cluster.begin_stop(damaged).unwrap();
    cluster.end_stop(damaged).unwrap();
    cluster.start_with(sound, &checked).unwrap();
    assert!(log(&cluster, sound).contains("initial corruption checking passed; no corruption"));
}

/// The periodic check, the check of compactions: D3.
fn assert_found_by(binaries: Vec<Binary>, args: &[&str], disturb: fn(&Cluster, Place)) {
    let _turn = one_at_a_time();
    let foreign = binaries.len() - 1;
    let mut cluster = start(binaries, args);
    // In a cluster of several programs the last member is Quorate's, and one of the others is to find it out.
    let (leader, damaged) = if foreign > 0 {
        let first = cluster.wait_leader().unwrap();
        if first == foreign {
            cluster.move_leader(first, 0).unwrap();
        }
        let leader = cluster.wait_leader().unwrap();
        assert_ne!(leader, foreign);
        damage_at(&mut cluster, leader, foreign);
        (leader, foreign)
    } else {
        with_damage(&mut cluster)
    };
    start_damaged(&mut cluster, damaged);
    disturb(&cluster, leader);
    let id = cluster.id(damaged);
    assert_alarmed(&cluster, leader, id);
    assert_cured(&mut cluster, leader, damaged, id);
}

const PERIODIC: &[&str] = &["--corrupt-check-time=1s"];
const OF_COMPACTIONS: &[&str] = &[
    "--feature-gates=CompactHashCheck=true",
    "--compact-hash-check-time=1s",
];

fn nothing(_: &Cluster, _: Place) {}

fn compact(cluster: &Cluster, leader: Place) {
    let revision = cluster.converge().unwrap() - 2;
    let request = CompactionRequest {
        revision,
        physical: true,
    };
    let _: CompactionResponse = cluster.ask(leader, "KV/Compact", request).unwrap();
}

#[test]
fn the_periodic_check_raises_the_alarm_of_the_member_that_differs() {
    let quorate = Binary::quorate().unwrap();
    assert_found_by(vec![quorate], PERIODIC, nothing);
}

#[test]
fn the_check_of_compactions_raises_the_alarm_of_the_member_that_differs() {
    let quorate = Binary::quorate().unwrap();
    assert_found_by(vec![quorate], OF_COMPACTIONS, compact);
}

/// The same with etcd as the leader that finds out.
#[test]
fn etcd_finds_a_member_of_quorate_that_differs() {
    let Some(etcd) = Binary::reference().unwrap() else {
        return;
    };
    let binaries = vec![etcd.clone(), etcd, Binary::quorate().unwrap()];
    assert_found_by(binaries.clone(), PERIODIC, nothing);
    assert_found_by(binaries, OF_COMPACTIONS, compact);
}
