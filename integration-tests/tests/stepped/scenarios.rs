//! Clusters under load and faults of all kinds, from many seeds.
use quorate_core::{Applied, Outcome, Request};
use quorate_integration_tests::Random;
use quorate_proto::etcdserverpb as pb;

use crate::node::Settings;
use crate::random::Faults;
use crate::world::World;

/// Runs a cluster under load with faults drawn from a seed, and checks it at the end.
fn storm(seed: u64, count: u64, ms: u64) -> World {
    let mut random = Random::new(seed);
    let faults = Faults::draw(&mut random);
    let settings = Settings {
        snapshot_count: 10 + random.below(60),
        catchup_entries: 1 + random.below(20),
        ..Settings::default()
    };
    let mut world = World::new(random.number(), count, faults, settings);
    let end_ms = world.now_ms + ms;
    let (mut cut_ms, mut kill_ms) = (world.now_ms, world.now_ms);
    let mut number = 0;
    while world.now_ms < end_ms {
        let step = 1 + random.below(15);
        world.run_ms(step);
        let alive = world.alive();
        if alive.is_empty() {
            continue;
        }
        let id = alive[usize::try_from(random.below(alive.len() as u64)).unwrap()];
        number += 1;
        match random.below(12) {
            0..7 => {
                world.put(id, &format!("k{}", random.below(20)), &number.to_string());
            }
            7..10 => {
                world.read(id);
            }
            10 if random.one_in(10) => {
                let revision = world.oracle.newest() - 10;
                let physical = random.one_in(2);
                let compact = pb::CompactionRequest { revision, physical };
                world.propose(id, Request::Compaction(compact));
            }
            _ => {
                let ttl = 1 + i64::try_from(random.below(3)).unwrap();
                let grant = pb::LeaseGrantRequest { id: number, ttl };
                world.propose(id, Request::LeaseGrant(grant));
            }
        }
        misfortune(&mut world, &mut random, &mut cut_ms, &mut kill_ms);
    }
    world.settle();
    world
}

fn misfortune(world: &mut World, random: &mut Random, cut_ms: &mut u64, kill_ms: &mut u64) {
    let ids: Vec<u64> = world.nodes.keys().copied().collect();
    let pick = |random: &mut Random| ids[usize::try_from(random.below(ids.len() as u64)).unwrap()];
    let (cut, kill) = (world.faults.cut_ms, world.faults.kill_ms);
    if cut > 0 && world.now_ms >= *cut_ms + cut {
        *cut_ms = world.now_ms;
        if random.one_in(2) {
            world.heal();
        } else {
            let both = random.below(3);
            world.isolate(pick(random), both != 1, both != 2);
        }
    }
    if kill > 0 && world.now_ms >= *kill_ms + kill {
        *kill_ms = world.now_ms;
        let (id, power) = (pick(random), random.one_in(2));
        if world.nodes[&id].running.is_some() {
            let back = 20 + random.below(400);
            world.kill(id, power, back);
        }
    }
    world.refresh_links();
}

#[test]
fn faults_c1_c3_n1_n2_n3_nothing_acknowledged_is_lost_in_any_of_many_runs() {
    let (mut writes, mut reads, mut installs) = (0, 0, 0);
    for seed in 0..120 {
        let world = storm(seed, 3, 3_000);
        writes += world.oracle.count();
        reads += world.oracle.reads;
        installs += world.installs;
    }
    println!("{writes} writes, {reads} reads, {installs} snapshots installed");
    assert!(
        writes > 10_000 && reads > 1_000 && installs > 20,
        "the runs do something"
    );
}

#[test]
fn five_members_hold_the_same_promises() {
    for seed in 1_000..1_020 {
        storm(seed, 5, 3_000);
    }
}

#[test]
fn two_members_and_one_hold_them_too() {
    for seed in 2_000..2_020 {
        storm(seed, 1 + seed % 2, 2_000);
    }
}

#[test]
fn a_seed_run_twice_ends_the_same() {
    for seed in [3, 7, 11] {
        let (a, b) = (storm(seed, 3, 2_000), storm(seed, 3, 2_000));
        assert_eq!(
            (a.trace, a.now_ms, a.oracle.newest()),
            (b.trace, b.now_ms, b.oracle.newest())
        );
    }
}

#[test]
fn three_members_elect_replicate_and_read_everywhere() {
    let mut world = World::new(1, 3, Faults::NONE, Settings::default());
    world.wait_for_leader();
    world.refresh_links();
    world.run_ms(200);
    for id in 1..=3 {
        let token = world.put(id, &format!("k{id}"), "v");
        let outcome = world.wait(token, 500);
        assert!(
            matches!(outcome, Outcome::Applied(Applied::Put(_))),
            "{outcome:?}"
        );
        let token = world.read(id);
        assert!(matches!(world.wait(token, 500), Outcome::ReadReady));
    }
    let view = world.nodes[&2].member().unwrap().view();
    assert_eq!(&*view.cluster_version(), "3.7.0");
    assert_eq!(
        view.members().iter().filter(|m| !m.name.is_empty()).count(),
        3
    );
    assert!(!view.reads_are_linearizable(), "nobody is alone");
    world.settle();
}
