//! Members that come, go, come back and fall behind.
//!
//! Each test names the rows of the fault catalogue it is about. A real etcd takes part where one is at hand, and clusters of both.
#![expect(clippy::print_stdout, reason = "what is skipped is shown")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use quorate_integration_tests::checker::Hash;
use quorate_integration_tests::cluster::{Cluster, Place, Setup};
use quorate_integration_tests::{Binary, Failure, Outcome};
use quorate_proto::authpb::{Permission, permission};
use quorate_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthUserAddRequest, AuthUserAddResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthenticateRequest, AuthenticateResponse,
    MemberAddRequest, MemberAddResponse, MemberUpdateRequest, MemberUpdateResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse,
};
use tonic::{Code, Status};

use crate::cluster::one_at_a_time;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// So few entries are kept that whoever misses some needs a snapshot.
const SMALL_LOG: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=50"];

/// The programs of clusters to try, one after the other.
fn subjects() -> Vec<Vec<Binary>> {
    let etcd = Binary::reference().unwrap();
    let quorate = Binary::quorate().unwrap();
    let mut subjects = vec![vec![quorate.clone()]];
    subjects.extend(etcd.map(|etcd| vec![quorate, etcd]));
    subjects
}

/// Runs a test on a cluster of three of each kind.
pub(crate) fn on_clusters(args: &[&str], test: fn(&mut Cluster)) {
    let _turn = one_at_a_time();
    for binaries in subjects() {
        let setup = Setup::three(binaries, args);
        let mut cluster = Cluster::start(&setup).unwrap();
        println!("{}", cluster.describe());
        test(&mut cluster);
    }
}

pub(crate) fn eventually<T>(what: &str, mut step: impl FnMut() -> Outcome<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match step() {
            Ok(done) => return done,
            Err(failure) if Instant::now() > deadline => panic!("{what}: {failure}"),
            Err(_) => thread::sleep(LOOK),
        }
    }
}

fn put(cluster: &Cluster, place: Place, key: &str) -> Result<PutResponse, Status> {
    let request = PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: "value".into(),
        ..PutRequest::default()
    };
    cluster.ask(place, "KV/Put", request)
}

fn fill(cluster: &Cluster, place: Place, count: usize) {
    for number in 0..count {
        eventually("a put", || {
            Ok(put(cluster, place, &format!("key-{number:04}"))?)
        });
    }
}

fn keys(cluster: &Cluster, place: Place, serializable: bool) -> Result<usize, Status> {
    let request = RangeRequest {
        key: "key-".into(),
        range_end: "key.".into(),
        serializable,
        keys_only: true,
        ..RangeRequest::default()
    };
    let answer: RangeResponse = cluster.ask(place, "KV/Range", request)?;
    Ok(answer.kvs.len())
}

/// Returns the place of the leader, and of one that follows it.
pub(crate) fn follower(cluster: &Cluster) -> (Place, Place) {
    let leader = cluster.wait_leader().unwrap();
    let follower = cluster.places().into_iter().find(|place| *place != leader);
    (leader, follower.unwrap())
}

#[track_caller]
fn assert_equal_hashes(cluster: &Cluster) {
    let hashes: Vec<Hash> = cluster.hashes().unwrap();
    assert!(
        hashes.iter().all(|hash| hash.hash == hashes[0].hash),
        "{hashes:?}"
    );
}

/// O3, N1, L1: what a minority may and may not do.
#[test]
fn without_a_quorum_nothing_is_written_and_serializable_reads_go_on() {
    on_clusters(&[], |cluster| {
        let (leader, other) = follower(cluster);
        fill(cluster, leader, 5);
        cluster.converge().unwrap();
        let lone = cluster
            .places()
            .into_iter()
            .find(|place| ![leader, other].contains(place));
        let lone = lone.unwrap();
        cluster.kill(leader).unwrap();
        cluster.kill(other).unwrap();
        assert!(put(cluster, lone, "key-lost").is_err());
        assert!(keys(cluster, lone, false).is_err());
        assert_eq!(keys(cluster, lone, true).unwrap(), 5);
        cluster.begin_start(leader).unwrap();
        cluster.begin_start(other).unwrap();
        cluster.end_start(leader).unwrap();
        cluster.end_start(other).unwrap();
        fill(cluster, lone, 10);
        assert_equal_hashes(cluster);
    });
}

/// N9, D6, 2.37: a removed member ends itself and is not let in again.
#[test]
fn a_removed_member_ends_and_does_not_come_back() {
    on_clusters(&[], |cluster| {
        let (leader, gone) = follower(cluster);
        fill(cluster, leader, 5);
        cluster.remove(gone).unwrap();
        let before = cluster.status(leader).unwrap();
        cluster.begin_start(gone).unwrap();
        eventually("the end of a removed member", || {
            match cluster.has_ended(gone) {
                Ok(true) => Ok(()),
                Ok(false) => Err(cluster.failure("it runs")),
                Err(failure) => Err(failure),
            }
        });
        let after = cluster.status(leader).unwrap();
        assert_eq!(
            (before.raft_term, before.leader),
            (after.raft_term, after.leader)
        );
        assert_eq!(cluster.list().unwrap().len(), 2);
        fill(cluster, leader, 10);
    });
}

/// 2.38, O3: one member goes on alone, and a cluster grows from it.
#[test]
fn a_member_goes_on_alone_when_forced_and_others_join_it() {
    on_clusters(&SMALL_LOG, |cluster| {
        let (leader, other) = follower(cluster);
        fill(cluster, leader, 150);
        // An etcd member that goes on alone drops its last entry when nothing behind it says that it is committed.
        eventually("a put", || Ok(put(cluster, leader, "last")?));
        cluster.converge().unwrap();
        let places = cluster.places();
        for place in &places {
            cluster.kill(*place).unwrap();
        }
        for place in places.iter().filter(|place| **place != other) {
            cluster.forget(*place);
        }
        cluster.start_with(other, &["--force-new-cluster"]).unwrap();
        assert_eq!(cluster.list().unwrap().len(), 1);
        assert_eq!(keys(cluster, other, false).unwrap(), 150);
        cluster.begin_stop(other).unwrap();
        cluster.end_stop(other).unwrap();
        cluster.start_with(other, &[]).unwrap();
        assert_eq!(
            cluster.list().unwrap().len(),
            1,
            "who was left behind comes back"
        );
        for place in places.iter().filter(|place| **place != other) {
            cluster.add(*place, None, false).unwrap();
        }
        fill(cluster, other, 200);
        assert_eq!(cluster.list().unwrap().len(), 3);
        assert_equal_hashes(cluster);
    });
}

/// 2.36, 2.37: what a learner may do, and that a promotion is remembered.
#[test]
fn a_learner_is_a_learner_until_it_is_promoted_and_never_again() {
    on_clusters(&SMALL_LOG, |cluster| {
        let (leader, _) = follower(cluster);
        fill(cluster, leader, 150);
        let learner = cluster.spare().unwrap();
        cluster.add(learner, None, true).unwrap();
        let refused = put(cluster, learner, "key-x").unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (
                Code::FailedPrecondition,
                "etcdserver: rpc not supported for learner"
            )
        );
        let moved = cluster.move_leader(cluster.wait_leader().unwrap(), learner);
        assert_eq!(
            moved.unwrap_err().message(),
            "etcdserver: bad leader transferee"
        );
        let nowhere = "http://127.0.0.1:9";
        eventually("a refusal", || {
            refused_as(
                cluster,
                leader,
                nowhere,
                true,
                "too many learner members in cluster",
            )
        });
        cluster.promote(learner).unwrap();
        eventually("a put on a promoted member", || {
            Ok(put(cluster, learner, "key-0000")?)
        });
        let places = cluster.places();
        for place in &places {
            cluster.kill(*place).unwrap();
        }
        for place in &places {
            cluster.begin_start(*place).unwrap();
        }
        for place in &places {
            cluster.end_start(*place).unwrap();
        }
        cluster.wait_leader().unwrap();
        let listed = eventually("the list", || cluster.list());
        assert!(
            listed.len() == 4 && listed.iter().all(|member| !member.is_learner),
            "{listed:?}"
        );
        eventually("a put on a promoted member", || {
            Ok(put(cluster, learner, "key-0000")?)
        });
        assert_equal_hashes(cluster);
    });
}

/// Adds a member, which must be refused with this text.
fn refused_as(cluster: &Cluster, place: Place, url: &str, is_learner: bool, text: &str) -> Outcome {
    let request = MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    };
    let added: Result<MemberAddResponse, Status> = cluster.ask(place, "Cluster/MemberAdd", request);
    match added {
        Err(status) if status.message() == format!("etcdserver: {text}") => Ok(()),
        other => Err(Failure::new(format!("{other:?}"))),
    }
}

/// N5, 2.37: changes that would cost the quorum are refused, and so are those that make no sense.
#[test]
fn changes_of_members_are_refused_while_the_cluster_is_not_whole() {
    on_clusters(&[], |cluster| {
        let (leader, down) = follower(cluster);
        // Until links have been sound for a while, everything is refused for that.
        let url = cluster.member(down).peer_url();
        eventually("a refusal", || {
            refused_as(cluster, leader, &url, false, "Peer URLs already exists")
        });
        cluster.kill(down).unwrap();
        // A link that has just broken may not be known as broken at once.
        thread::sleep(Duration::from_secs(2));
        refused_as(
            cluster,
            leader,
            "http://127.0.0.1:9",
            false,
            "unhealthy cluster",
        )
        .unwrap();
        let id = cluster.list().unwrap()[0].id;
        let request = MemberUpdateRequest {
            id: id.wrapping_add(1),
            peer_ur_ls: vec!["http://127.0.0.1:9".to_owned()],
        };
        let unknown: Result<MemberUpdateResponse, Status> =
            cluster.ask(leader, "Cluster/MemberUpdate", request);
        assert_eq!(
            unknown.unwrap_err().message(),
            "etcdserver: member not found"
        );
        cluster.begin_start(down).unwrap();
        cluster.end_start(down).unwrap();
        assert_eq!(cluster.list().unwrap().len(), 3);
    });
}

/// D6: a member that comes with yesterday's directory has forgotten what it has acknowledged and voted. Whatever becomes of it, the
/// others go on and nothing is lost.
#[test]
fn an_old_copy_of_a_directory_harms_nobody() {
    let _turn = one_at_a_time();
    let setup = Setup::three(vec![Binary::quorate().unwrap()], &[]);
    let mut cluster = Cluster::start(&setup).unwrap();
    let (leader, old) = follower(&cluster);
    fill(&cluster, leader, 20);
    cluster.converge().unwrap();
    let (data, copy) = (
        cluster.member(old).data_dir(),
        cluster.dir().join("yesterday"),
    );
    cluster.begin_stop(old).unwrap();
    cluster.end_stop(old).unwrap();
    copy_tree(&data, &copy);
    cluster.begin_start(old).unwrap();
    cluster.end_start(old).unwrap();
    fill(&cluster, leader, 60);
    cluster.converge().unwrap();
    cluster.kill(old).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy_tree(&copy, &data);
    cluster.begin_start(old).unwrap();
    let ended = eventually("an end, or what it has missed", || {
        if cluster.has_ended(old)? {
            return Ok(true);
        }
        match keys(&cluster, old, true) {
            Ok(60) => Ok(false),
            other => Err(Failure::new(format!("{other:?}"))),
        }
    });
    let log = std::fs::read_to_string(cluster.member(old).log_path()).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    println!("it ended: {ended}");
    fill(&cluster, leader, 80);
    if ended {
        assert!(log.contains("lost"), "it says why: {log}");
        cluster.remove(old).unwrap();
        cluster.add(old, None, false).unwrap();
    }
    assert_eq!(keys(&cluster, old, false).unwrap(), 80);
    assert_equal_hashes(&cluster);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// N5, N8: a member that is moved is reached where it is now.
#[test]
fn a_member_is_reached_at_its_new_address() {
    on_clusters(&[], |cluster| {
        let (leader, moved) = follower(cluster);
        fill(cluster, leader, 5);
        cluster.kill(moved).unwrap();
        let url = cluster.move_door(moved).unwrap();
        let id = cluster.id(moved);
        let request = MemberUpdateRequest {
            id,
            peer_ur_ls: vec![url.clone()],
        };
        let _: MemberUpdateResponse = cluster
            .ask(leader, "Cluster/MemberUpdate", request)
            .unwrap();
        fill(cluster, leader, 20);
        cluster.begin_start(moved).unwrap();
        cluster.end_start(moved).unwrap();
        let listed = cluster.list().unwrap();
        assert!(
            listed
                .iter()
                .any(|m| m.id == id && m.peer_ur_ls == [url.clone()]),
            "{listed:?}"
        );
        assert_eq!(keys(cluster, moved, false).unwrap(), 20);
        assert_equal_hashes(cluster);
    });
}

/// 2.4, 2.5, 2.35, A1: users and roles come with a snapshot, and every member decides alike.
#[test]
fn a_member_caught_up_by_snapshot_knows_users_and_roles() {
    on_clusters(&SMALL_LOG, |cluster| {
        let (leader, behind) = follower(cluster);
        cluster.kill(behind).unwrap();
        enable_auth(cluster, leader);
        let root = token(cluster, leader, "root");
        for number in 0..200 {
            let key = format!("a/{number}");
            eventually("a put", || Ok(put_as(cluster, leader, &root, &key)?));
        }
        cluster.begin_start(behind).unwrap();
        eventually("a member that serves", || cluster.end_start(behind));
        for place in cluster.places() {
            let user = eventually("a token", || Ok(try_token(cluster, place, "user")?));
            eventually("a put", || Ok(put_as(cluster, place, &user, "a/own")?));
            let denied = put_as(cluster, place, &user, "b/other").unwrap_err();
            assert_eq!(denied.message(), "etcdserver: permission denied");
            // A token of one member is good on every other.
            let elsewhere = if place == leader { behind } else { leader };
            eventually("a put", || Ok(put_as(cluster, elsewhere, &user, "a/own")?));
        }
        let root = token(cluster, leader, "root");
        let _: AuthDisableResponse = cluster
            .ask_as(
                leader,
                Some(&root),
                "Auth/AuthDisable",
                AuthDisableRequest {},
            )
            .unwrap();
        assert_equal_hashes(cluster);
    });
}

fn enable_auth(cluster: &Cluster, place: Place) {
    for (user, role) in [("root", "root"), ("user", "writer")] {
        let name = user.to_owned();
        let _: AuthUserAddResponse = cluster
            .ask(
                place,
                "Auth/UserAdd",
                AuthUserAddRequest {
                    name: name.clone(),
                    password: "secret".to_owned(),
                    ..AuthUserAddRequest::default()
                },
            )
            .unwrap();
        let request = AuthRoleAddRequest {
            name: role.to_owned(),
        };
        let _: AuthRoleAddResponse = cluster.ask(place, "Auth/RoleAdd", request).unwrap();
        let request = AuthUserGrantRoleRequest {
            user: name,
            role: role.to_owned(),
        };
        let _: AuthUserGrantRoleResponse =
            cluster.ask(place, "Auth/UserGrantRole", request).unwrap();
    }
    let request = AuthRoleGrantPermissionRequest {
        name: "writer".to_owned(),
        perm: Some(Permission {
            perm_type: permission::Type::Readwrite.into(),
            key: "a/".into(),
            range_end: "a0".into(),
        }),
    };
    let _: AuthRoleGrantPermissionResponse = cluster
        .ask(place, "Auth/RoleGrantPermission", request)
        .unwrap();
    let _: AuthEnableResponse = cluster
        .ask(place, "Auth/AuthEnable", AuthEnableRequest {})
        .unwrap();
}

fn try_token(cluster: &Cluster, place: Place, name: &str) -> Result<String, Status> {
    let request = AuthenticateRequest {
        name: name.to_owned(),
        password: "secret".to_owned(),
    };
    let answer: AuthenticateResponse = cluster.ask(place, "Auth/Authenticate", request)?;
    Ok(answer.token)
}

fn token(cluster: &Cluster, place: Place, name: &str) -> String {
    eventually("a token", || Ok(try_token(cluster, place, name)?))
}

fn put_as(cluster: &Cluster, place: Place, token: &str, key: &str) -> Result<PutResponse, Status> {
    let request = PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: "value".into(),
        ..PutRequest::default()
    };
    cluster.ask_as(place, Some(token), "KV/Put", request)
}
