//! Clocks that do not agree on how long a second is.
use quorate_core::{Applied, Outcome, Request, Submission, Token};
use quorate_integration_tests::Random;
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;

use crate::node::Settings;
use crate::random::Faults;
use crate::world::World;

const TTL_MS: u64 = 10_000;
/// What a lease may last longer than its time, besides what clocks are wrong by.
const LATE_MS: u64 = 2_000;

/// A cluster whose clocks run at these speeds, and one that leads, led by a member of choice.
fn with_clocks(seed: u64, percents: [u64; 3], leader: u64) -> World {
    let mut world = World::new(seed, 3, Faults::NONE, Settings::default());
    for (id, percent) in (1..).zip(percents) {
        world.kill(id, false, 60_000);
        world.set_clock(id, percent);
    }
    for id in 1..=3 {
        world.start(id);
    }
    world.refresh_links();
    lead(&mut world, leader);
    world
}

fn lead(world: &mut World, wanted: u64) {
    while world.wait_for_leader() != wanted {
        let now = world.wait_for_leader();
        let target = quorate_proto::MemberId(wanted);
        world.ask(now, |token: Token| Submission::MoveLeader { token, target });
        world.run_ms(300);
    }
    world.put_somehow("led", "1");
}

fn grant(world: &mut World, id: i64) -> u64 {
    let leader = world.wait_for_leader();
    let asked_ms = world.now_ms;
    let ttl = i64::try_from(TTL_MS / 1_000).unwrap();
    let token = world.propose(
        leader,
        Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl }),
    );
    let outcome = world.wait(token, 1_000);
    assert!(
        matches!(outcome, Outcome::Applied(Applied::LeaseGrant { .. })),
        "{outcome:?}"
    );
    asked_ms
}

fn is_there(world: &World, id: i64) -> bool {
    let of = |member: &quorate_core::Member| member.stores().lessor.exists(LeaseId(id));
    world
        .nodes
        .values()
        .filter_map(|node| node.member())
        .any(of)
}

/// Waits for the end of a lease and gives the time.
fn end_ms(world: &mut World, id: i64) -> u64 {
    world.run_until("the end of a lease", 4 * TTL_MS, |w| !is_there(w, id));
    world.now_ms
}

const DRIFTS: [[u64; 3]; 4] = [
    [90, 100, 110],
    [110, 90, 100],
    [90, 110, 110],
    [110, 90, 90],
];

#[test]
fn faults_t2_leases_last_their_time_though_clocks_run_a_tenth_too_fast_or_too_slow() {
    for (seed, percents) in (0..).zip(DRIFTS) {
        for leader in 1..=3 {
            let mut world = with_clocks(seed, percents, leader);
            let asked_ms = grant(&mut world, 7);
            let lasted_ms = end_ms(&mut world, 7) - asked_ms;
            let (least, most) = (TTL_MS * 9 / 10, TTL_MS * 11 / 10 + LATE_MS);
            assert!(
                (least..=most).contains(&lasted_ms),
                "clocks {percents:?} led by {leader}: {lasted_ms} ms"
            );
            world.settle();
        }
    }
}

#[test]
fn faults_t2_renewed_leases_outlive_leaders_whose_clocks_differ() {
    for (seed, percents) in (0..).zip(DRIFTS) {
        let mut world = with_clocks(seed, percents, 1);
        let mut random = Random::new(seed);
        let mut renewed_ms = grant(&mut world, 7);
        let begun_ms = renewed_ms;
        while world.now_ms < begun_ms + 4 * TTL_MS {
            lead(&mut world, 1 + random.below(3));
            world.run_ms(TTL_MS / 4);
            let leader = world.wait_for_leader();
            let asked_ms = world.now_ms;
            let id = LeaseId(7);
            let token = world.ask(leader, |token: Token| Submission::LeaseRenew { token, id });
            world.run_ms(100);
            if let Some(Outcome::LeaseRenewed { ttl_s }) = world.answers.remove(&token) {
                assert!(ttl_s > 0, "clocks {percents:?}");
                renewed_ms = asked_ms;
            }
            assert!(
                is_there(&world, 7),
                "clocks {percents:?}: ended {} ms after it was renewed",
                world.now_ms - renewed_ms
            );
        }
        let ended_ms = end_ms(&mut world, 7);
        assert!(
            ended_ms - renewed_ms >= TTL_MS * 9 / 10,
            "clocks {percents:?}"
        );
        world.settle();
    }
}

#[test]
fn faults_t2_writes_and_reads_keep_their_promises_under_drift() {
    for (seed, percents) in (10..).zip(DRIFTS) {
        let mut world = with_clocks(seed, percents, 1 + seed % 3);
        let mut random = Random::new(seed);
        for number in 0..300_u64 {
            let id = 1 + random.below(3);
            world.put(id, &format!("k{}", random.below(9)), &number.to_string());
            world.read(id);
            world.run_ms(random.below(40));
            if random.one_in(60) {
                world.isolate(id, random.one_in(2), true);
                world.run_ms(400);
                world.heal();
            }
        }
        world.settle();
        assert!(world.oracle.count() > 100 && world.oracle.reads > 50);
    }
}
