//! What operators and their tools see of a cluster: lines of the log, versions on the way down and up again, changes of members
//! that meet a change of leaders.
//!
//! The same tests hold a real etcd to what they demand, where one is at hand.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use quorate_integration_tests::cluster::{Cluster, DiskKind, Place, Setup};
use quorate_integration_tests::{Binary, Client};
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb::{
    DowngradeRequest, DowngradeResponse, MemberAddRequest, MemberAddResponse, MemberRemoveRequest,
    MemberRemoveResponse, PutRequest, PutResponse,
};
use tonic::Status;

use crate::cluster::one_at_a_time;
use crate::membership::follower;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// A snapshot of the log is due after so few entries.
pub(crate) const SMALL_LOG: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=50"];

fn start(binary: Binary, args: &[&str]) -> Cluster {
    let setup = Setup {
        binaries: vec![binary],
        members: 3,
        disk: DiskKind::Plain,
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        seed: 1,
        is_direct: false,
    };
    Cluster::start(&setup).unwrap()
}

/// Runs a test on a cluster of three of each program.
fn on_clusters(args: &[&str], test: fn(&mut Cluster)) {
    let _turn = one_at_a_time();
    let etcd = Binary::reference().unwrap();
    for binary in std::iter::once(Binary::quorate().unwrap()).chain(etcd) {
        test(&mut start(binary, args));
    }
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(LOOK);
    }
}

fn log(cluster: &Cluster, place: Place) -> String {
    fs::read_to_string(cluster.member(place).log_path()).unwrap()
}

/// Waits until a member's log has a line with all of these in it.
#[track_caller]
pub(crate) fn wait_for_line(cluster: &Cluster, place: Place, parts: &[&str]) {
    let has_line = || {
        let log = log(cluster, place);
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    wait_for(
        &format!("no line with {parts:?} of member {place}"),
        has_line,
    );
}

pub(crate) fn fill(cluster: &Cluster, place: Place, count: usize) {
    for number in 0..count {
        let request = PutRequest {
            key: format!("key-{number}").into_bytes().into(),
            ..PutRequest::default()
        };
        wait_for("a put", || {
            let put: Result<PutResponse, Status> = cluster.ask(place, "KV/Put", request.clone());
            put.is_ok()
        });
    }
}

#[test]
fn the_log_tells_of_leaders_members_and_snapshots_in_etcds_words() {
    on_clusters(&SMALL_LOG, |cluster| {
        let (leader, other) = follower(cluster);
        let id = format!("{:x}", cluster.id(leader));
        for line in [
            "\"starting an etcd server\"",
            "\"configuring peer listeners\"",
            "\"starting local member\"",
            "\"starting etcd server\"",
            "\"now serving peer/client/metrics\"",
            "\"added member\"",
            "switched to configuration voters=(",
            "became candidate at term",
            "became leader at term",
            "\"published local member to cluster through raft\"",
            "\"set initial cluster version\"",
            "\"new-storage-version\":\"3.7.0\"",
            "\"enabled capabilities for version\"",
            "ready to serve client requests",
        ] {
            wait_for_line(cluster, leader, &[line]);
        }
        for place in cluster.places() {
            let elected = format!("elected leader {id} at term");
            wait_for_line(
                cluster,
                place,
                &["\"logger\":\"raft\"", "raft.node: ", &elected],
            );
        }
        fill(cluster, leader, 150);
        wait_for_line(
            cluster,
            leader,
            &["\"triggering snapshot\"", "\"snapshot-forced\":false"],
        );
        wait_for_line(cluster, leader, &["saved snapshot", "\"snapshot-index\":"]);

        comes_and_goes(cluster, other);
        stops_and_starts(cluster);
    });
}

fn comes_and_goes(cluster: &mut Cluster, other: Place) {
    let learner = cluster.spare().unwrap();
    cluster.add(learner, None, true).unwrap();
    cluster.promote(learner).unwrap();
    let learner_id = format!("\"{:x}\"", cluster.id(learner));
    wait_for_line(
        cluster,
        other,
        &[
            "\"added member\"",
            &learner_id,
            "\"added-peer-is-learner\":true",
        ],
    );
    wait_for_line(cluster, other, &["\"promote member\"", &learner_id]);
    cluster.remove(learner).unwrap();
    wait_for_line(cluster, other, &["\"removed member\"", &learner_id]);
    let applied = "\"applied a configuration change through raft\"";
    let tells = |place: &Place| log(cluster, *place).contains(applied);
    wait_for("nobody tells that a change was applied", || {
        cluster.places().iter().any(tells)
    });
}

fn stops_and_starts(cluster: &mut Cluster) {
    let leader = cluster.wait_leader().unwrap();
    cluster.begin_stop(leader).unwrap();
    cluster.end_stop(leader).unwrap();
    for line in [
        "\"received signal; shutting down\"",
        "\"closing etcd server\"",
        "\"leadership transfer starting\"",
        "starts to transfer leadership to",
        "\"leadership transfer finished\"",
        "\"closed etcd server\"",
    ] {
        wait_for_line(cluster, leader, &[line]);
    }
    cluster.begin_start(leader).unwrap();
    cluster.end_start(leader).unwrap();
    for line in [
        "\"restarting local member\"",
        "\"recovered/added member from store\"",
        "\"set cluster version from store\"",
    ] {
        wait_for_line(cluster, leader, &[line]);
    }
}

#[test]
fn a_founder_without_its_data_is_told_that_it_was_bootstrapped_already() {
    on_clusters(&[], |cluster| {
        let (leader, other) = follower(cluster);
        cluster.kill(other).unwrap();
        fs::remove_dir_all(cluster.member(other).data_dir()).unwrap();
        for _ in 0..2 {
            cluster.begin_start(other).unwrap();
            let ended = cluster.end_stop(other).unwrap();
            assert_eq!(ended.code(), Some(1));
        }
        let why = format!(
            "\"error\":\"member {:x} has already been bootstrapped\"",
            cluster.id(other)
        );
        wait_for_line(cluster, other, &["\"discovery failed\"", &why]);
        assert_eq!(cluster.list().unwrap().len(), 3);
        fill(cluster, leader, 5);
    });
}

#[test]
fn a_removed_member_says_why_it_ends_and_what_is_left_to_do() {
    on_clusters(&[], |cluster| {
        let (_, other) = follower(cluster);
        cluster.remove(other).unwrap();
        let why = "\"error\":\"the member has been permanently removed from the cluster\"";
        wait_for_line(cluster, other, &["\"server error\"", why]);
        let advice = "\"data-dir used by this member must be removed\"";
        wait_for_line(cluster, other, &[advice]);
    });
}

fn downgrade(cluster: &Cluster, action: DowngradeAction) {
    let request = DowngradeRequest {
        action: action.into(),
        version: "3.6".to_owned(),
    };
    wait_for("a downgrade", || {
        cluster.places().into_iter().any(|place| {
            let done: Result<DowngradeResponse, Status> =
                cluster.ask(place, "Maintenance/Downgrade", request.clone());
            done.is_ok()
        })
    });
}

fn wait_for_storage(cluster: &Cluster, version: &str) {
    for place in cluster.places() {
        wait_for("the storage version does not follow", || {
            let status = cluster.status(place);
            status.is_ok_and(|status| status.storage_version == version)
        });
    }
}

#[test]
fn a_downgrade_forces_a_snapshot_and_takes_the_storage_version_along() {
    on_clusters(&[], |cluster| {
        wait_for_storage(cluster, "3.7.0");
        downgrade(cluster, DowngradeAction::Enable);
        wait_for_storage(cluster, "3.6.0");
        for place in cluster.places() {
            wait_for_line(
                cluster,
                place,
                &["\"updated cluster version\"", "\"to\":\"3.6\""],
            );
            wait_for_line(
                cluster,
                place,
                &["\"triggering snapshot\"", "\"snapshot-forced\":true"],
            );
            wait_for_line(cluster, place, &["\"The server is ready to downgrade\""]);
        }
        downgrade(cluster, DowngradeAction::Cancel);
        wait_for_storage(cluster, "3.7.0");
    });
}

/// Asks a member for something about a downgrade.
fn try_downgrade(
    cluster: &Cluster,
    place: Place,
    action: DowngradeAction,
    version: &str,
) -> Result<(), Status> {
    let request = DowngradeRequest {
        action: action.into(),
        version: version.to_owned(),
    };
    let done: Result<DowngradeResponse, Status> =
        cluster.ask(place, "Maintenance/Downgrade", request);
    done.map(drop)
}

/// Waits until every member refuses it, in the same words.
fn refused_by_all(cluster: &Cluster, action: DowngradeAction, version: &str, text: &str) {
    for place in cluster.places() {
        wait_for("a downgrade is refused in other words", || {
            let refused = try_downgrade(cluster, place, action, version);
            refused.is_err_and(|status| status.message() == text)
        });
    }
}

#[test]
fn a_mixed_cluster_is_downgraded_and_back_whoever_leads_and_whoever_is_asked() {
    let _turn = one_at_a_time();
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    let quorate = Binary::quorate().unwrap();
    let setup = Setup::three(vec![etcd.clone(), quorate, etcd], &[]);
    let cluster = Cluster::start(&setup).unwrap();
    wait_for_storage(&cluster, "3.7.0");
    for (leader, asked) in [(1, 0), (0, 1), (1, 1), (0, 2)] {
        wait_for("leadership does not move", || {
            let now = cluster.wait_leader().unwrap();
            now == leader || {
                // It may have moved by itself.
                let _ = cluster.move_leader(now, leader);
                false
            }
        });
        for place in cluster.places() {
            wait_for("a downgrade is no good", || {
                try_downgrade(&cluster, place, DowngradeAction::Validate, "3.6").is_ok()
            });
        }
        refused_by_all(
            &cluster,
            DowngradeAction::Validate,
            "3.5",
            "etcdserver: invalid downgrade target version",
        );
        wait_for("a downgrade does not begin", || {
            try_downgrade(&cluster, asked, DowngradeAction::Enable, "3.6").is_ok()
        });
        wait_for_storage(&cluster, "3.6.0");
        refused_by_all(
            &cluster,
            DowngradeAction::Enable,
            "3.6",
            "etcdserver: invalid downgrade target version",
        );
        wait_for("a downgrade does not end", || {
            try_downgrade(&cluster, asked, DowngradeAction::Cancel, "").is_ok()
        });
        wait_for_storage(&cluster, "3.7.0");
        println!("led by {leader}, asked of {asked}");
    }
    cluster.converge().unwrap();
    let hashes = cluster.hashes().unwrap();
    assert!(
        hashes.iter().all(|hash| hash.hash == hashes[0].hash),
        "{hashes:?}"
    );
}

/// A member is removed that leads, and another is added through one that does not know yet that the leader is gone.
#[test]
fn a_change_of_members_is_not_lost_with_its_leader() {
    let _turn = one_at_a_time();
    let cluster = start(Binary::quorate().unwrap(), &[]);
    let (leader, other) = follower(&cluster);
    let endpoint = cluster.sites()[other].endpoint.clone();
    let remove = MemberRemoveRequest {
        id: cluster.id(leader),
    };
    let add = MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:9".to_owned()],
        is_learner: true,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(&endpoint).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Links must have been sound for a while before members may be changed.
        loop {
            let removed: Result<MemberRemoveResponse, Status> =
                client.call("Cluster/MemberRemove", remove).await;
            match removed {
                Ok(_) => break,
                Err(status) => assert!(Instant::now() < deadline, "{status}"),
            }
            tokio::time::sleep(LOOK).await;
        }
        let added = client.call("Cluster/MemberAdd", add);
        let added: MemberAddResponse = tokio::time::timeout(PATIENCE, added)
            .await
            .expect("the change was lost")
            .unwrap();
        assert_eq!(added.members.len(), 3);
        assert!(added.member.unwrap().is_learner);
    });
}
