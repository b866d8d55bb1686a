//! The time of leases where it is replicated, and what gives it anew.
use quorate_core::{Config, MemberChange, Outcome, Request, Submission, Token};
use quorate_disk::CrashPolicy;
use quorate_proto::{LeaseId, etcdserverpb as pb};

use crate::harness::{CHECKPOINT_MS, Harness, config, put};

const ID: LeaseId = LeaseId(5);

fn checkpointing() -> Config {
    Config {
        lease_checkpoint: true,
        strict_reconfig_check: false,
        ..config()
    }
}

/// A leader with one lease of ten seconds that a key hangs on.
fn leased() -> Harness {
    leased_for(10)
}

fn leased_for(ttl: i64) -> Harness {
    let mut harness = Harness::with(checkpointing());
    harness.run_ms(1_000);
    let grant = pb::LeaseGrantRequest { id: ID.0, ttl };
    harness.call(Request::LeaseGrant(grant));
    harness.call(put("leased", "1", ID.0));
    harness
}

fn renew(harness: &mut Harness) -> Token {
    harness.send(|token| Submission::LeaseRenew { token, id: ID })
}

/// Seed 1061975 of the simulator: the checkpoint was applied after the renewal, and the next leader went by it.
#[test]
fn a_renewal_waits_for_a_checkpoint_that_is_on_its_way() {
    let mut harness = leased();
    harness.run_ms(CHECKPOINT_MS - 200);
    assert!(harness.unsynced.is_empty());
    harness.tick();
    harness.tick();
    assert!(!harness.unsynced.is_empty(), "a checkpoint is in the log");
    let renewal = renew(&mut harness);
    assert!(harness.reply(renewal).is_none(), "it is not applied");
    harness.sync();
    assert!(matches!(
        harness.reply(renewal),
        Some(Outcome::LeaseRenewed { ttl_s: 10 })
    ));
    let renewal = renew(&mut harness);
    assert!(harness.reply(renewal).is_some(), "nothing is on its way");
    let mut harness = harness.crash(&CrashPolicy::KeepNone, checkpointing());
    harness.sync();
    harness.run_ms(9_000);
    assert!(harness.value("leased").is_some(), "it has its whole time");
    harness.run_ms(3_000);
    assert!(harness.value("leased").is_none());
}

/// Seed 3716737 of the simulator: the log was slower than checkpoints came, and the renewal was never answered.
#[test]
fn a_renewal_that_waits_for_the_log_is_overtaken_by_no_checkpoint() {
    let mut harness = leased_for(30);
    harness.run_ms(CHECKPOINT_MS - 200);
    harness.tick();
    harness.tick();
    assert!(!harness.unsynced.is_empty(), "a checkpoint is in the log");
    let renewal = renew(&mut harness);
    let unsynced = harness.unsynced.len();
    for _ in 0..CHECKPOINT_MS / 100 + 1 {
        harness.tick();
    }
    assert_eq!(harness.unsynced.len(), unsynced, "no other checkpoint is");
    harness.sync();
    assert!(matches!(
        harness.reply(renewal),
        Some(Outcome::LeaseRenewed { ttl_s: 30 })
    ));
}

/// Seed 1060866 of the simulator: raft puts an empty entry in the place of the second change, as at the beginning of a term.
#[test]
fn a_change_that_raft_does_not_take_gives_no_lease_its_time_anew() {
    let mut harness = leased();
    harness.run_ms(3_000);
    let add = |host: &str| MemberChange::Add {
        peer_urls: vec![format!("http://{host}:1")],
        is_learner: true,
    };
    let first = harness.send(|token| Submission::ChangeMembers {
        token,
        change: add("first"),
    });
    let second = harness.send(|token| Submission::ChangeMembers {
        token,
        change: add("second"),
    });
    harness.sync();
    assert!(matches!(
        harness.reply(first),
        Some(Outcome::Members { .. })
    ));
    assert!(harness.reply(second).is_none(), "raft did not take it");
    harness.run_ms(6_500);
    assert!(harness.value("leased").is_some());
    harness.run_ms(1_500);
    assert!(harness.value("leased").is_none(), "its time is over");
}
