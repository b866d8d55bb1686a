//! Snapshots between members, step by step.
use quorate_core::{MemberChange, Outcome, Request};
use quorate_integration_tests::Random;
use quorate_mvcc::{WatchCreate, WatchHub, WatchOptions};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;

use crate::node::Settings;
use crate::random::Faults;
use crate::world::World;

/// A cluster of three of which one member has missed more than the log of the others still holds.
fn one_behind(seed: u64) -> (World, u64) {
    let mut world = World::new(seed, 3, Faults::NONE, Settings::default());
    let leader = world.wait_for_leader();
    world.refresh_links();
    let behind = (1..=3).find(|id| *id != leader).unwrap();
    for i in 0..5 {
        world.put_somehow("before", &i.to_string());
    }
    world.isolate(behind, true, true);
    for i in 0..300 {
        let leader = world.wait_for_leader();
        world.put(leader, &format!("k{}", i % 9), &i.to_string());
        world.run_ms(4);
    }
    (world, behind)
}

#[test]
fn faults_n6_a_follower_too_far_behind_gets_a_snapshot_and_goes_on() {
    let (mut world, behind) = one_behind(1);
    let live = world.nodes[&behind].member().unwrap().live();
    let (generation, reader) = (live.generation(), live.reader());
    world.heal();
    world.run_until("an install", 5_000, |w| w.installs > 0);
    assert_eq!(live.generation(), generation + 1, "readers are told");
    assert!(live.reader().current_revision() > reader.current_revision());
    world.settle();
    let follower = &world.nodes[&behind];
    assert_eq!(
        follower.running.as_ref().unwrap().peers.len(),
        2,
        "links to all others"
    );
    let digest = follower
        .member()
        .unwrap()
        .digest_at(follower.member().unwrap().view().applied());
    assert!(digest.is_some(), "the image says what the digest is");
    // A restart finds what was installed.
    world.kill(behind, true, 10);
    world.settle();
}

/// What is written while a snapshot is under way is more than the log keeps otherwise, and all that the follower needs next.
#[test]
fn faults_n6_the_log_behind_a_snapshot_under_way_is_kept() {
    for seed in 50..54 {
        let (mut world, behind) = one_behind(seed);
        world.image_ms = 1_000;
        world.heal();
        for i in 0..300 {
            let leader = world.wait_for_leader();
            world.put(leader, "meanwhile", &i.to_string());
            world.run_ms(4);
        }
        world.settle();
        assert_eq!(world.installs, 1, "{behind} needs no second snapshot");
    }
}

#[test]
fn faults_19_20_21_watchers_go_on_over_an_install_without_gap_or_repetition() {
    let (mut world, behind) = one_behind(2);
    let live = world.nodes[&behind].member().unwrap().live();
    let mut hub = WatchHub::new(live.reader(), WatchOptions::default());
    let stream = hub.open_stream(0);
    let all = WatchCreate {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..WatchCreate::default()
    };
    let future = live.reader().current_revision() + 50;
    hub.create(stream, all.clone());
    hub.create(
        stream,
        WatchCreate {
            start_revision: future,
            ..all
        },
    );
    let first = live.reader().current_revision() + 1;
    world.heal();
    world.run_until("an install", 5_000, |w| w.installs > 0);
    hub.restored(live.reader());
    world.settle();
    let current = live.reader().current_revision();
    let mut seen = [Vec::new(), Vec::new()];
    loop {
        let more = hub.advance().unwrap();
        let responses = hub.take(stream, 1 << 20);
        if responses.is_empty() && !more {
            break;
        }
        for response in responses {
            let watch = usize::try_from(response.watch_id).unwrap();
            if !response.events.is_empty() {
                assert!(response.revision <= current);
            }
            for event in response.events.iter() {
                let event =
                    <quorate_proto::mvccpb::Event as prost::Message>::decode(event).unwrap();
                seen[watch].push(event.kv.unwrap().mod_revision);
            }
        }
    }
    assert_eq!(seen[0], (first..=current).collect::<Vec<_>>());
    assert_eq!(seen[1], (future..=current).collect::<Vec<_>>());
}

#[test]
fn faults_c7_a_crash_at_any_step_of_an_install_leaves_the_old_state_or_the_new() {
    for kind in ["snapshot", "save", "log", "install"] {
        for seed in 10..16 {
            let (mut world, behind) = one_behind(seed);
            world.faults.sync_ms = 10;
            world.kill_at = Some((behind, kind));
            world.heal();
            for i in 0..60 {
                if let Some(leader) = world.leader() {
                    world.put(leader, "during", &i.to_string());
                }
                world.run_ms(10);
            }
            assert!(world.kill_at.is_none(), "it was killed at {kind}");
            world.settle();
            assert_eq!(world.nodes[&behind].images(), 0, "nothing is left over");
        }
    }
}

#[test]
fn faults_18_two_snapshots_in_a_row_and_maintenance_beside_them() {
    for seed in 30..36 {
        let (mut world, behind) = one_behind(seed);
        world.faults.sync_ms = 30;
        for round in 0..3 {
            world.heal();
            world.run_ms(40 + 20 * seed);
            world.isolate(behind, true, true);
            for i in 0..150 {
                let leader = world.wait_for_leader();
                world.put(leader, &format!("r{round}"), &i.to_string());
                world.run_ms(3);
            }
            let revision = world.oracle.newest() - 50;
            let leader = world.wait_for_leader();
            let physical = true;
            let compact = pb::CompactionRequest { revision, physical };
            world.propose(leader, Request::Compaction(compact));
        }
        world.settle();
        assert!(world.installs > 0);
    }
}

/// Changes the members, most often while somebody installs a snapshot without them.
fn change_members(world: &mut World, random: &mut Random, added: &mut Vec<u64>) {
    let Some(leader) = world.leader() else {
        return;
    };
    let gone = added.iter().position(|id| *id != leader);
    let change = match (random.below(4), gone) {
        (0, Some(at)) => MemberChange::Remove {
            id: MemberId(added.swap_remove(at)),
        },
        (1, Some(at)) => MemberChange::Promote {
            id: MemberId(added[at]),
        },
        // Learners, since nobody starts one whose addition was not heard of.
        (2, _) if added.len() < 2 => MemberChange::Add {
            peer_urls: vec![format!("http://new{}:2380", world.now_ms)],
            is_learner: true,
        },
        _ => MemberChange::Update {
            id: MemberId(1 + random.below(3)),
            peer_urls: vec![format!("http://moved{}:2380", world.now_ms)],
        },
    };
    let is_add = matches!(change, MemberChange::Add { .. });
    let token = world.change(leader, change);
    world.run_ms(random.below(60));
    if let Some(Outcome::Members { id, .. }) = world.answers.remove(&token)
        && is_add
    {
        let settings = world.nodes[&leader].settings;
        world.add_machine(id.0, &[], settings);
        added.push(id.0);
    }
}

/// Ends members that were removed and have not heard of it: in the real world they are told on their streams.
fn end_removed(world: &mut World) {
    world.faults = Faults::NONE;
    world.heal();
    world.put_somehow("before-the-end", "1");
    let leader = world.wait_for_leader();
    let view = world.nodes[&leader].member().unwrap().view();
    let members: Vec<u64> = view.members().iter().map(|m| m.id).collect();
    for node in world.nodes.values_mut() {
        if !members.contains(&node.id) {
            node.removed = true;
            node.kill(None, true);
        }
    }
}

/// Every member has its links after each step, which the oracle looks at, and is ready in the end.
#[test]
fn faults_18_installs_changes_of_members_and_restarts_leave_nobody_without_links() {
    let (mut installs, mut changes) = (0, 0);
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut faults = Faults::draw(&mut random);
        (faults.cut_ms, faults.kill_ms) = (0, 0);
        let settings = Settings {
            snapshot_count: 5 + random.below(20),
            catchup_entries: 1 + random.below(5),
            max_learners: 100,
            ..Settings::default()
        };
        let mut world = World::new(random.number(), 3, faults, settings);
        let mut added = Vec::new();
        for round in 0..6 {
            let behind = 1 + random.below(3);
            world.isolate(behind, true, true);
            for i in 0..40 {
                if let Some(leader) = world.leader() {
                    world.put(leader, &format!("r{round}"), &i.to_string());
                }
                world.run_ms(5);
            }
            let kinds = ["snapshot", "save", "log", "install", ""];
            let kind = kinds[usize::try_from(random.below(5)).unwrap()];
            world.kill_at = Some((behind, kind)).filter(|(_, kind)| !kind.is_empty());
            world.heal();
            for _ in 0..4 {
                world.run_ms(random.below(80));
                change_members(&mut world, &mut random, &mut added);
                changes += 1;
                world.refresh_links();
            }
            world.kill_at = None;
        }
        end_removed(&mut world);
        world.settle();
        installs += world.installs;
    }
    println!("{installs} installs, {changes} changes");
    assert!(installs > 50, "snapshots are installed all the time");
}

#[test]
fn a_learner_that_joins_late_is_caught_up_by_a_snapshot() {
    let mut world = World::new(5, 1, Faults::NONE, Settings::default());
    world.wait_for_leader();
    for i in 0..200 {
        world.put(1, &format!("k{}", i % 7), &i.to_string());
        world.run_ms(5);
    }
    let id = crate::members::add(&mut world, 1, true);
    world.refresh_links();
    world.run_until("an install", 5_000, |w| w.installs > 0);
    let token = crate::members::promote(&mut world, 1, id);
    assert!(matches!(world.wait(token, 2_000), Outcome::Members { .. }));
    world.settle();
}
