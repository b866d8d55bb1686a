//! Members that die at every step that makes something durable.
use quorate_core::Request;
use quorate_proto::etcdserverpb as pb;

use crate::members::add;
use crate::node::Settings;
use crate::random::Faults;
use crate::world::World;

/// Steps that write to the disk; what a follower writes for a snapshot is in `snapshots.rs`.
const STEPS: [&str; 4] = ["log", "flush", "compact", "save"];

/// Runs of each; in every other the member dies behind the step.
const SEEDS: u64 = 4;

/// What the member is that dies.
#[derive(Clone, Copy, Debug)]
enum Role {
    Single,
    Leader,
    Follower,
    Learner,
}

/// A cluster with a member in that role.
fn world_with(role: Role, seed: u64) -> (World, u64) {
    let count = match role {
        Role::Single => 1,
        _ => 3,
    };
    let mut world = World::new(seed, count, Faults::NONE, Settings::default());
    world.refresh_links();
    let leader = world.wait_for_leader();
    world.put_somehow("k", "0");
    let victim = match role {
        Role::Single | Role::Leader => leader,
        Role::Follower => 1 + leader % 3,
        Role::Learner => add(&mut world, leader, true),
    };
    world.refresh_links();
    world.run_ms(300);
    (world, victim)
}

/// Writes, reads, leases and compactions.
fn work(world: &mut World, number: u64) {
    let ids = world.alive();
    let voters: Vec<u64> = ids.into_iter().filter(|id| *id <= 3).collect();
    let Some(id) = voters.get(usize::try_from(number % 3).unwrap() % voters.len().max(1)) else {
        return world.run_ms(10);
    };
    let id = *id;
    world.put(id, &format!("k{}", number % 7), &number.to_string());
    world.read(id);
    if number.is_multiple_of(9) {
        let revision = world.oracle.newest() - 5;
        let compact = pb::CompactionRequest {
            revision,
            physical: false,
        };
        world.propose(id, Request::Compaction(compact));
    }
    if number.is_multiple_of(5) {
        let id_of_lease = i64::try_from(number).unwrap() + 1;
        let grant = pb::LeaseGrantRequest {
            id: id_of_lease,
            ttl: 1,
        };
        world.propose(id, Request::LeaseGrant(grant));
    }
    world.run_ms(7);
}

#[test]
fn faults_c2_a_crash_before_or_after_any_durable_step_in_any_role_loses_nothing() {
    let mut hits = 0;
    for role in [Role::Single, Role::Leader, Role::Follower, Role::Learner] {
        for step in STEPS {
            for seed in 0..SEEDS {
                let (mut world, victim) = world_with(role, seed);
                world.faults.sync_ms = 1 + seed * 3;
                for number in 0..20 + seed * 3 {
                    work(&mut world, number);
                }
                world.kill_behind = seed % 2 == 1;
                world.kill_at = Some((victim, step));
                for number in 100..220 {
                    work(&mut world, number);
                    if world.kill_at.is_none() && number > 180 {
                        break;
                    }
                }
                assert!(
                    world.kill_at.is_none(),
                    "a {role:?} never comes to the step {step}"
                );
                hits += 1;
                world.settle();
                assert!(world.oracle.count() > 20);
            }
        }
    }
    assert_eq!(hits, 4 * STEPS.len() * 4);
}
