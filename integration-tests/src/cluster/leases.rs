//! Clients that keep leases alive and let them go.

use std::time::Duration;

use super::load::Worker;
use crate::checker::{Call, KeyRange, Op, Reading, Reply, Request};

/// Seconds of a lease: short, so that many end by themselves within a run.
const TTL_S: (u64, u64) = (2, 5);
/// The most renewals of a lease.
const RENEWALS_MAX: u64 = 5;
/// How long after its time a lease may last: leaders that come and go each let it begin anew.
const LOOKS_MAX: u64 = 60;
const LOOK: Duration = Duration::from_millis(500);

/// Makes leases, ties keys to them, keeps them for a while and lets them end or ends them, until the work is over.
pub(super) async fn tend_leases(mut worker: Worker) -> Vec<Call> {
    let mut round = 0;
    while worker.shared.works() {
        round += 1;
        tend_lease(&mut worker, round).await;
    }
    worker.calls
}

async fn tend_lease(worker: &mut Worker, round: u64) {
    let lease = lease_id(worker.number, round);
    let ttl = TTL_S.0 + worker.random.below(TTL_S.1 - TTL_S.0 + 1);
    let asked = Request::Grant {
        lease,
        ttl: i64::try_from(ttl).unwrap_or(1),
    };
    if !matches!(worker.ask(asked).await, Reply::Done(_)) {
        return;
    }
    for key in 0..=worker.random.below(3) {
        worker.tie(lease, &format!("l/{lease:x}/{key}")).await;
    }
    let third = Duration::from_millis(ttl * 333);
    for _ in 0..worker.random.below(RENEWALS_MAX) {
        worker.shared.pause(third).await;
        if !worker.shared.works() {
            return;
        }
        // A renewal that does not come through is tried again at once elsewhere, as clients do.
        let renewed = worker.ask(Request::Renew(lease)).await;
        if !matches!(renewed, Reply::Done(_)) {
            worker.ask(Request::Renew(lease)).await;
        }
    }
    if worker.random.one_in(3) {
        worker.ask(Request::Revoke(lease)).await;
        return;
    }
    wait_end(worker, lease, third * 3).await;
}

/// Waits until the keys of a lease are gone, and sees that it is.
async fn wait_end(worker: &mut Worker, lease: i64, time: Duration) {
    worker.shared.pause(time).await;
    for _ in 0..LOOKS_MAX {
        if !worker.shared.works() {
            return;
        }
        let keys = KeyRange::prefix(format!("l/{lease:x}/").as_bytes());
        let read = Request::one(Op::Range(keys), Reading::Linearizable, 0);
        if let Reply::Done(answer) = worker.ask(read).await
            && answer.results == [crate::checker::OpResult::Range(Vec::new())]
        {
            worker.ask(Request::Renew(lease)).await;
            worker.tie(lease, &format!("l/{lease:x}/late")).await;
            return;
        }
        worker.shared.pause(LOOK).await;
    }
}

impl Worker {
    async fn tie(&mut self, lease: i64, key: &str) {
        let value = self.value();
        self.ask(Request::put(key.as_bytes(), &value, lease)).await;
    }
}

/// An id that no other lease of a run has.
fn lease_id(client: usize, round: u64) -> i64 {
    let client = i64::try_from(client).unwrap_or_default();
    let round = i64::try_from(round).unwrap_or_default();
    (client + 1) * 1_000_000 + round
}
