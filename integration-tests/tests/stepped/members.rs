//! Members that come and go.
use quorate_core::{ChangeError, Error, MemberChange, Outcome};
use quorate_integration_tests::Random;
use quorate_proto::MemberId;

use crate::node::Settings;
use crate::random::Faults;
use crate::world::World;

/// Adds a member and starts it; returns its id.
pub(crate) fn add(world: &mut World, at: u64, is_learner: bool) -> u64 {
    let peer_urls = vec![format!("http://new{}:2380", world.now_ms)];
    let change = MemberChange::Add {
        peer_urls,
        is_learner,
    };
    let token = world.change(at, change);
    match world.wait(token, 3_000) {
        Outcome::Members { id, members } => {
            assert!(
                members
                    .iter()
                    .any(|m| m.id == id.0 && m.is_learner == is_learner)
            );
            let settings = world.nodes[&at].settings;
            world.add_machine(id.0, &[], settings);
            world.refresh_links();
            id.0
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn promote(world: &mut World, at: u64, id: u64) -> u64 {
    let id = MemberId(id);
    world.change(at, MemberChange::Promote { id })
}

fn three() -> (World, u64) {
    let mut world = World::new(77, 3, Faults::NONE, Settings::default());
    world.refresh_links();
    let leader = world.wait_for_leader();
    world.put_somehow("k", "v");
    (world, leader)
}

#[test]
fn members_are_added_promoted_updated_and_removed() {
    let (mut world, leader) = three();
    let follower = 1 + leader % 3;
    // Asked of a follower, it is forwarded as it is.
    let id = add(&mut world, follower, true);
    world.run_ms(300);
    let refused = promote(&mut world, follower, id);
    world.run_ms(10);
    let expected = MemberId(leader);
    assert!(
        matches!(world.told_error(refused), Some(Error::NotLeader { leader }) if *leader == expected)
    );
    let token = promote(&mut world, leader, id);
    assert!(matches!(world.wait(token, 2_000), Outcome::Members { .. }));
    let again = promote(&mut world, leader, id);
    let outcome = world.wait(again, 2_000);
    assert!(matches!(
        outcome,
        Outcome::Failed(Error::Membership(ChangeError::NotLearner))
    ));
    let update = MemberChange::Update {
        id: MemberId(id),
        peer_urls: vec!["http://elsewhere:1".into()],
    };
    let token = world.change(leader, update);
    assert!(matches!(world.wait(token, 2_000), Outcome::Members { .. }));
    let view = world.nodes[&id].member().unwrap().view();
    world.run_ms(100);
    let updated = view.members().iter().find(|m| m.id == id).cloned().unwrap();
    assert_eq!(updated.peer_ur_ls, ["http://elsewhere:1"]);
    assert!(!updated.is_learner, "an update makes no learner of a voter");
    let token = world.change(leader, MemberChange::Remove { id: MemberId(id) });
    assert!(matches!(world.wait(token, 2_000), Outcome::Members { .. }));
    world.run_ms(200);
    assert!(world.nodes[&id].removed, "it is told that it was removed");
    let token = world.change(leader, MemberChange::Remove { id: MemberId(id) });
    let outcome = world.wait(token, 2_000);
    assert!(matches!(
        outcome,
        Outcome::Failed(Error::Membership(ChangeError::IdRemoved))
    ));
    world.settle();
}

#[test]
fn faults_37_a_leader_that_removes_itself_leaves_a_cluster_that_works() {
    let (mut world, leader) = three();
    let token = world.change(
        leader,
        MemberChange::Remove {
            id: MemberId(leader),
        },
    );
    for i in 0..20 {
        world.put(leader, "more", &i.to_string());
    }
    assert!(matches!(world.wait(token, 2_000), Outcome::Members { .. }));
    assert!(world.nodes[&leader].removed);
    world.settle();
    assert_eq!(world.alive().len(), 2);
}

#[test]
fn changes_that_would_endanger_the_quorum_are_refused() {
    let settings = Settings {
        strict: true,
        ..Settings::default()
    };
    let mut world = World::new(9, 3, Faults::NONE, settings);
    world.refresh_links();
    let leader = world.wait_for_leader();
    world.put_somehow("k", "v");
    world.run_ms(100);
    let refused = |world: &mut World, change| {
        let token = world.change(leader, change);
        match world.wait(token, 100) {
            Outcome::Failed(error) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let new = || MemberChange::Add {
        peer_urls: vec!["http://x:1".into()],
        is_learner: false,
    };
    // Nobody has been connected for five seconds yet.
    assert_eq!(refused(&mut world, new()), "unhealthy cluster");
    let other = MemberId(1 + leader % 3);
    assert_eq!(
        refused(&mut world, MemberChange::Remove { id: other }),
        "unhealthy cluster"
    );
    world.run_ms(5_100);
    add(&mut world, leader, false);
    // It has not started as far as the others know, and counts as down.
    let down = 1 + leader % 3;
    world.kill(down, false, 100_000);
    world.refresh_links();
    world.run_ms(200);
    assert_eq!(refused(&mut world, new()), "unhealthy cluster");
}

#[test]
fn the_number_of_learners_is_limited_where_it_is_applied() {
    let (mut world, leader) = three();
    add(&mut world, leader, true);
    let change = MemberChange::Add {
        peer_urls: vec!["http://y:1".into()],
        is_learner: true,
    };
    let token = world.change(leader, change);
    let outcome = world.wait(token, 2_000);
    assert!(matches!(
        outcome,
        Outcome::Failed(Error::Membership(ChangeError::TooManyLearners))
    ));
    world.settle();
}

#[test]
fn faults_n5_members_come_and_go_under_faults_and_nothing_is_lost() {
    for seed in 500..540 {
        let mut random = Random::new(seed);
        let faults = Faults {
            kill_ms: 0,
            cut_ms: 0,
            ..Faults::draw(&mut random)
        };
        let mut world = World::new(seed, 3, faults, Settings::default());
        let mut number = 0;
        for _ in 0..60 {
            start_added(&mut world);
            world.refresh_links();
            let Some(leader) = world.leader() else {
                world.run_ms(50);
                continue;
            };
            for _ in 0..5 {
                number += 1;
                world.put(leader, &format!("k{}", number % 7), &number.to_string());
                world.run_ms(5);
            }
            let Some(member) = world.nodes[&leader].member() else {
                continue;
            };
            let members = member.view().members();
            let voters = members.iter().filter(|m| !m.is_learner).count();
            let at = usize::try_from(random.below(members.len() as u64)).unwrap();
            let id = MemberId(members[at].id);
            let change = match random.below(4) {
                0 if voters < 5 => MemberChange::Add {
                    peer_urls: vec![format!("http://n{number}:1")],
                    is_learner: random.one_in(2),
                },
                1 if voters > 3 => MemberChange::Remove { id },
                2 => MemberChange::Promote { id },
                _ => continue,
            };
            world.change(leader, change);
            world.run_ms(150);
            if random.one_in(8) && world.nodes.get(&id.0).is_some_and(|n| n.running.is_some()) {
                world.kill(id.0, true, 50);
            }
        }
        world.faults = Faults::NONE;
        world.run_ms(1_000);
        start_added(&mut world);
        world.wait_for_leader();
        world.run_ms(1_000);
        start_added(&mut world);
        end_removed(&mut world);
        world.settle();
    }
}

/// Starts members that were added, whoever knows of them.
fn start_added(world: &mut World) {
    let known = world.nodes.values().filter_map(|n| n.member());
    let mut added: Vec<u64> = known
        .flat_map(|m| m.view().members().iter().map(|m| m.id).collect::<Vec<_>>())
        .filter(|id| !world.nodes.contains_key(id))
        .collect();
    added.sort_unstable();
    added.dedup();
    for id in added {
        world.add_machine(id, &[], Settings::default());
    }
}

/// Ends members that were removed while they were down or heard nothing: in earnest the transport tells them.
fn end_removed(world: &mut World) {
    let leader = world.wait_for_leader();
    let members = world.nodes[&leader].member().unwrap().view().members();
    let ids: Vec<u64> = world.nodes.keys().copied().collect();
    for id in ids {
        if members.iter().all(|m| m.id != id) {
            world.node(id).kill(None, true);
            world.node(id).removed = true;
        }
    }
}
