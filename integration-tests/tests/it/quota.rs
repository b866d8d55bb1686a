//! A cluster whose space is used up, and how it is made to serve again.

use quorate_integration_tests::cluster::{Cluster, Place};
use quorate_integration_tests::{Failure, Outcome};
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse,
    DefragmentRequest, DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse,
};
use tonic::{Code, Status};

use crate::membership::{eventually, follower, on_clusters};
use crate::metrics::get;

/// Space that a few large values take up.
const QUOTA: &str = "--quota-backend-bytes=16777216";
const VALUE_BYTES: usize = 500_000;
/// Puts after which the space is certainly used up.
const PUTS_MAX: usize = 200;

fn put(cluster: &Cluster, place: Place, key: &str, bytes: usize) -> Result<PutResponse, Status> {
    let request = PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: vec![7; bytes].into(),
        ..PutRequest::default()
    };
    cluster.ask(place, "KV/Put", request)
}

fn alarm(
    cluster: &Cluster,
    place: Place,
    action: AlarmAction,
    member_id: u64,
) -> Outcome<Vec<AlarmMember>> {
    let request = AlarmRequest {
        action: action.into(),
        member_id,
        alarm: AlarmType::Nospace.into(),
    };
    let answer: AlarmResponse = cluster.ask(place, "Maintenance/Alarm", request)?;
    Ok(answer.alarms)
}

/// Fills the space; gives the revision of the last put that was taken.
fn fill(cluster: &Cluster, place: Place) -> i64 {
    let mut revision = 0;
    for number in 0..PUTS_MAX {
        match put(cluster, place, &format!("big-{number}"), VALUE_BYTES) {
            Ok(answer) => revision = answer.header.unwrap().revision,
            Err(status) if status.code() == Code::ResourceExhausted => return revision,
            // A leader may have changed.
            Err(_) => {}
        }
    }
    panic!("the space does not end");
}

/// Every member tells of the alarm and writes nothing, whoever raised it; all of them answer reads.
fn assert_without_space(cluster: &Cluster) {
    for place in cluster.places() {
        eventually("the alarm", || {
            let found = alarm(cluster, place, AlarmAction::Get, 0)?;
            let nospace = AlarmType::Nospace as i32;
            match found.iter().all(|one| one.alarm == nospace) && !found.is_empty() {
                true => Ok(()),
                false => Err(Failure::new(format!("{found:x?}"))),
            }
        });
        let refused = put(cluster, place, "small", 1).unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded"
            )
        );
        let read = RangeRequest {
            key: "big-0".into(),
            ..RangeRequest::default()
        };
        let read: RangeResponse = cluster.ask(place, "KV/Range", read).unwrap();
        assert_eq!(read.count, 1);
        let health = get(&cluster.member(place).endpoint(), "/health");
        assert!(
            health.contains(" 503 ") && health.contains("ALARM NOSPACE"),
            "{health}"
        );
    }
}

/// Deletes and compacts what there is, and gives its space back; both are allowed all along.
fn make_space(cluster: &Cluster, place: Place) {
    let request = DeleteRangeRequest {
        key: "big-".into(),
        range_end: "big.".into(),
        prev_kv: false,
    };
    let deleted: DeleteRangeResponse = cluster.ask(place, "KV/DeleteRange", request).unwrap();
    assert!(deleted.deleted > 10, "{deleted:?}");
    let request = CompactionRequest {
        revision: deleted.header.unwrap().revision,
        physical: true,
    };
    let _: CompactionResponse = cluster.ask(place, "KV/Compact", request).unwrap();
    for place in cluster.places() {
        let before = cluster.status(place).unwrap().db_size;
        eventually("a member gives its space back", || {
            let _: DefragmentResponse =
                cluster.ask(place, "Maintenance/Defragment", DefragmentRequest {})?;
            let after = cluster.status(place)?.db_size;
            match after < before / 4 {
                true => Ok(()),
                false => Err(Failure::new(format!("{before} bytes, then {after}"))),
            }
        });
    }
}

#[test]
fn without_space_nobody_writes_until_it_is_made_and_the_alarm_is_taken_back() {
    on_clusters(&[QUOTA], |cluster| {
        let (leader, other) = follower(cluster);
        assert!(fill(cluster, other) > 10);
        assert_without_space(cluster);
        make_space(cluster, other);
        let refused = put(cluster, leader, "small", 1).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "the alarm stays");
        // Each member may have raised its own.
        eventually("the end of the alarms", || {
            for one in alarm(cluster, other, AlarmAction::Get, 0)? {
                alarm(cluster, other, AlarmAction::Deactivate, one.member_id)?;
            }
            Ok(put(cluster, leader, "small", 1)?)
        });
        for place in cluster.places() {
            eventually("a put", || Ok(put(cluster, place, "after", VALUE_BYTES)?));
            let left = eventually("the list", || alarm(cluster, place, AlarmAction::Get, 0));
            assert!(left.is_empty(), "{left:x?}");
        }
        let hashes = cluster.hashes().unwrap();
        assert!(
            hashes.iter().all(|hash| hash.hash == hashes[0].hash),
            "{hashes:?}"
        );
    });
}
