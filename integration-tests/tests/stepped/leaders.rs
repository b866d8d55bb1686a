//! Leaders that change, and what must go on or end with them.
use quorate_core::{
    Applied, DowngradeAction, Error, MemberChange, Outcome, Request, Submission, Token,
};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{LeaseId, MemberId};

use crate::node::{Settings, peer_url};
use crate::random::Faults;
use crate::world::World;

const ELECTION_MS: u64 = 100;

fn three() -> (World, u64) {
    let mut world = World::new(42, 3, Faults::NONE, Settings::default());
    let leader = world.wait_for_leader();
    world.refresh_links();
    world.put_somehow("k", "v");
    world.run_ms(100);
    (world, leader)
}

#[test]
fn faults_n1_a_leader_without_quorum_acknowledges_nothing_and_steps_down() {
    let (mut world, old) = three();
    world.isolate(old, true, true);
    let put = world.put(old, "lost", "1");
    let read = world.read(old);
    world.run_ms(3 * ELECTION_MS);
    assert!(
        !world.nodes[&old].member().unwrap().leads(),
        "it stepped down"
    );
    assert!(!world.answers.contains_key(&put) && !world.answers.contains_key(&read));
    let new = world.wait_for_leader();
    assert_ne!(new, old);
    world.put_somehow("kept", "1");
    let term = world.nodes[&new].member().unwrap().view().term();
    world.heal();
    world.run_ms(500);
    assert_eq!(
        world.nodes[&new].member().unwrap().view().term(),
        term,
        "its return disturbs nobody"
    );
    world.settle();
}

/// Seed 424 of the simulator: a change of members waits without an end, and what waits behind it must end all the same.
#[test]
fn what_was_told_that_its_time_is_over_is_never_proposed() {
    let (mut world, old) = three();
    world.isolate(old, true, true);
    world.run_ms(3 * ELECTION_MS);
    let update = MemberChange::Update {
        id: MemberId(old),
        peer_urls: vec![peer_url(old)],
    };
    world.change(old, update);
    let put = world.put(old, "late", "1");
    world.run_ms(7_000);
    assert!(matches!(
        world.told_error(put),
        Some(Error::DeadlineExceeded)
    ));
    world.heal();
    world.settle();
    let leader = world.wait_for_leader();
    let request = pb::RangeRequest {
        key: "late".into(),
        ..Default::default()
    };
    let reader = world.nodes[&leader].member().unwrap().stores().kv.reader();
    assert_eq!(reader.range(&request).unwrap().kvs.len(), 0);
}

#[test]
fn faults_n7_leadership_moves_to_whom_it_is_given() {
    let (mut world, leader) = three();
    let target = 1 + leader % 3;
    let move_to = |id: u64| {
        move |token: Token| Submission::MoveLeader {
            token,
            target: MemberId(id),
        }
    };
    let token = world.ask(target, move_to(leader));
    assert!(matches!(
        world.wait(token, 100),
        Outcome::Failed(Error::NotLeader { .. })
    ));
    let token = world.ask(leader, move_to(99));
    assert!(matches!(
        world.wait(token, 100),
        Outcome::Failed(Error::BadLeaderTransferee)
    ));
    let token = world.ask(leader, move_to(leader));
    assert!(matches!(world.wait(token, 100), Outcome::LeaderMoved));
    let token = world.ask(leader, move_to(target));
    assert!(matches!(
        world.wait(token, 2 * ELECTION_MS),
        Outcome::LeaderMoved
    ));
    assert_eq!(world.leader(), Some(target));
    // One that is cut off cannot take it.
    let cut = (1..=3).find(|id| *id != target && *id != leader).unwrap();
    world.isolate(cut, true, true);
    let token = world.ask(target, move_to(cut));
    let outcome = world.wait(token, 10_000);
    assert!(matches!(
        outcome,
        Outcome::Failed(Error::TimeoutLeaderTransfer)
    ));
    world.settle();
}

#[test]
fn a_leader_that_stops_hands_over_to_the_one_connected_longest() {
    let (mut world, leader) = three();
    let running = world.node(leader).running.as_mut().unwrap();
    let target = running.member.transfer_leadership_for_stop().unwrap().0;
    world.poke(leader);
    let limit_ms = ELECTION_MS / 2;
    world.run_until("another leader", limit_ms, |w| w.leader() == Some(target));
    world.settle();
}

#[test]
fn heartbeats_reads_and_renewals_wait_for_no_disk() {
    let (mut world, leader) = three();
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 2 };
    let token = world.propose(leader, Request::LeaseGrant(grant));
    world.wait(token, 200);
    let view = world.nodes[&leader].member().unwrap().view();
    let term = view.term();
    world.stall(leader, 4 * ELECTION_MS);
    let put = world.put(leader, "stuck", "1");
    let read = world.read(leader);
    let renewal = world.ask(leader, |token| Submission::LeaseRenew {
        token,
        id: LeaseId(7),
    });
    assert!(matches!(
        world.wait(read, ELECTION_MS / 2),
        Outcome::ReadReady
    ));
    assert!(matches!(
        world.wait(renewal, ELECTION_MS / 2),
        Outcome::LeaseRenewed { ttl_s: 2 }
    ));
    // Only later does it hand over, since it cannot persist anything.
    world.run_ms(ELECTION_MS / 2);
    assert!(!world.answers.contains_key(&put), "it is not durable here");
    assert_eq!(view.term(), term, "the followers have heard from it");
    world.settle();
}

#[test]
fn faults_d11_31_a_leader_with_a_stalled_disk_hands_over_and_revokes_nothing() {
    let (mut world, leader) = three();
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 2 };
    let token = world.propose(leader, Request::LeaseGrant(grant));
    assert!(matches!(
        world.wait(token, 200),
        Outcome::Applied(Applied::LeaseGrant { .. })
    ));
    world.stall(leader, 3_000);
    world.put(leader, "stuck", "1");
    world.run_until("another leader", 3_000, |w| {
        w.leader().is_some_and(|l| l != leader)
    });
    let new = world.wait_for_leader();
    for _ in 0..20 {
        let renew = |token: Token| Submission::LeaseRenew {
            token,
            id: LeaseId(7),
        };
        let token = world.ask(new, renew);
        world.run_ms(200);
        let outcome = world.answers.remove(&token);
        let renewed = matches!(outcome, Some(Outcome::LeaseRenewed { ttl_s: 2 }));
        assert!(
            renewed || matches!(outcome, Some(Outcome::Failed(Error::NotLeader { .. }))),
            "{outcome:?}"
        );
    }
    world.settle();
}

#[test]
fn faults_30_a_new_leader_answers_no_read_before_it_has_committed_in_its_term() {
    for seed in 0..20 {
        let (mut world, old) = three();
        // The others have the entry, and have not heard that it is committed.
        let token = world.put(old, "newest", &seed.to_string());
        world.run_until("an answer", 1_000, |w| w.answers.contains_key(&token));
        world.isolate(old, true, true);
        world.run_ms(seed);
        world.run_until("another leader", 5_000, |w| {
            w.leader().is_some_and(|leader| leader != old)
        });
        let new = world.leader().unwrap();
        // It cannot commit now, though it may still believe that it leads.
        world.isolate(new, true, true);
        let read = world.read(new);
        world.run_ms(ELECTION_MS / 2);
        assert!(
            !world.answers.contains_key(&read),
            "a read is answered by a leader that has committed nothing"
        );
        world.heal();
        // The oracle refuses an answer that is older than what was acknowledged.
        for _ in 0..20 {
            for id in 1..=3 {
                world.read(id);
            }
            world.run_ms(20);
        }
        world.settle();
        assert!(world.oracle.reads > 0);
    }
}

#[test]
fn leases_are_served_by_the_leader_and_outlive_it() {
    let (mut world, leader) = three();
    let follower = 1 + leader % 3;
    let grant = pb::LeaseGrantRequest { id: 9, ttl: 1 };
    let token = world.propose(follower, Request::LeaseGrant(grant));
    assert!(matches!(
        world.wait(token, 500),
        Outcome::Applied(Applied::LeaseGrant { .. })
    ));
    let renew = |token: Token| Submission::LeaseRenew {
        token,
        id: LeaseId(9),
    };
    let token = world.ask(follower, renew);
    let expected = MemberId(leader);
    let outcome = world.wait(token, 100);
    assert!(matches!(outcome, Outcome::Failed(Error::NotLeader { leader }) if leader == expected));
    let token = world.ask(leader, renew);
    assert!(matches!(
        world.wait(token, 100),
        Outcome::LeaseRenewed { ttl_s: 1 }
    ));
    world.run_ms(800);
    world.kill(leader, true, 60_000);
    world.run_until("another leader", 2_000, |w| {
        w.leader().is_some_and(|l| l != leader)
    });
    let new = world.wait_for_leader();
    world.run_ms(700);
    assert!(
        world.nodes[&new]
            .member()
            .unwrap()
            .stores()
            .lessor
            .exists(LeaseId(9)),
        "ended early"
    );
    world.run_ms(1_500);
    assert!(
        !world.nodes[&new]
            .member()
            .unwrap()
            .stores()
            .lessor
            .exists(LeaseId(9)),
        "ends at last"
    );
    world.settle();
}

#[test]
fn a_cancelled_read_is_forgotten() {
    let (mut world, leader) = three();
    world.isolate(leader, true, true);
    let token = world.read(leader);
    world.ask(leader, |_| Submission::Cancel {
        token: Token(token),
    });
    world.heal();
    world.run_ms(500);
    assert!(!world.answers.contains_key(&token));
    world.settle();
}

#[test]
fn a_downgrade_is_validated_enabled_and_cancelled() {
    let (mut world, leader) = three();
    world.run_until("a version", 10_000, |w| {
        &*w.nodes[&leader].member().unwrap().view().cluster_version() == "3.7.0"
    });
    let mut ask = |action, version: &str| {
        let version = version.to_owned();
        let token = world.ask(leader, |token| Submission::Downgrade {
            token,
            action,
            version,
        });
        match world.wait(token, 1_000) {
            Outcome::Done => "done".to_owned(),
            Outcome::Failed(error) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    use DowngradeAction as A;
    assert_eq!(
        ask(A::Validate, "x"),
        "wrong downgrade target version format"
    );
    assert_eq!(ask(A::Validate, "3.5"), "invalid downgrade target version");
    assert_eq!(ask(A::Validate, "3.6.0"), "done");
    assert_eq!(ask(A::Cancel, ""), "done");
    assert_eq!(ask(A::Enable, "3.6"), "done");
    world.run_until("the lower version", 10_000, |w| {
        w.nodes
            .values()
            .all(|n| &*n.member().unwrap().view().cluster_version() == "3.6.0")
    });
    let view = world.nodes[&leader].member().unwrap().view();
    assert_eq!(view.downgrade_target().as_deref(), Some("3.6.0"));
    assert_eq!(&*view.storage_version(), "3.6.0");
    let version = String::new();
    let action = A::Cancel;
    let token = world.ask(leader, |token| Submission::Downgrade {
        token,
        action,
        version,
    });
    assert!(matches!(world.wait(token, 1_000), Outcome::Done));
    world.run_until("the version again", 20_000, |w| {
        &*w.nodes[&leader].member().unwrap().view().cluster_version() == "3.7.0"
    });
    world.settle();
}
