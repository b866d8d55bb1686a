//! What lies between clients and members: requests that come late or never, answers that are lost, connections that break, and
//! clients that try again elsewhere.
//!
//! Each attempt is a request of its own to the model, with a mark of its own: one that was not answered may have been applied,
//! or may be yet.
use std::collections::BTreeMap;

use quorate_core::{Error, Outcome, Token};

use super::draw::Deed;
use super::{Asked, Callers, Checked, WIRE, Waiting};
use crate::plan::{FaultKind, Plan};
use crate::world::Passage;
use crate::{Random, World};

/// How often a client tries again.
const TRIES_MAX: u32 = 4;
/// Milliseconds after which a client tries again whose connection broke.
const RECONNECTS_MS: u64 = 30;

/// One attempt of a client at something.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The member that the client asks; it may ask another in its turn.
    machine: u64,
    client: u64,
    deed: Deed,
    /// How often it was tried before.
    tries: u32,
    /// Whether it was done before, unknown to the client.
    is_done: bool,
    /// Whether the client hears no answer, and has gone elsewhere.
    is_deaf: bool,
}

/// What happens next to an attempt.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The request arrives.
    Arrives,
    /// The client tries again.
    Tries,
}

/// What is on its way, and what waits for an answer.
#[derive(Debug)]
pub(super) struct Wire {
    random: Random,
    is_on: bool,
    election_ms: u64,
    newest: u64,
    under_way: BTreeMap<u64, (Next, Attempt)>,
    asked: BTreeMap<Token, Attempt>,
    /// What the member that is asked now is asked for.
    acting: Option<Attempt>,
}

impl Wire {
    pub(super) fn new(plan: &Plan) -> Self {
        let kinds = [
            FaultKind::ClientLoss,
            FaultKind::ClientDelay,
            FaultKind::ClientCut,
        ];
        Self {
            random: Random::of(plan.seed, "wire"),
            is_on: kinds.iter().any(|kind| plan.faults.rate(*kind) > 0),
            election_ms: plan.limits.election_ms(),
            newest: 0,
            under_way: BTreeMap::new(),
            asked: BTreeMap::new(),
            acting: None,
        }
    }

    /// Lets nothing arrive any more that is still on its way.
    pub(super) fn stop(&mut self) {
        self.under_way.clear();
    }

    /// Notes whose attempt a token belongs to; returns how long its client waits, where it would wait for so long otherwise.
    pub(super) fn wait(&mut self, token: Token, what: &Waiting, patience_ms: u64) -> u64 {
        let Some(attempt) = &self.acting else {
            return patience_ms;
        };
        self.asked.insert(token, attempt.clone());
        // What became of a renewal, or of a change of members, counts for others as long as it is under way.
        if matches!(what, Waiting::Lease(_) | Waiting::Admin(_)) {
            return patience_ms;
        }
        let elections = self.random.choose(&[2, 6, u64::MAX]);
        elections.saturating_mul(self.election_ms).min(patience_ms)
    }

    /// Draws after how long a client takes a request for lost.
    fn time_out_ms(&mut self) -> u64 {
        self.random.choose(&[1, 2, 5]) * self.election_ms
    }
}

impl Callers {
    /// Lets a client ask a member for something.
    pub(super) fn ask(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        deed: Deed,
    ) -> Checked {
        if !self.wire.is_on {
            return self.act(world, machine, client, deed);
        }
        let attempt = Attempt {
            machine,
            client,
            deed,
            tries: 0,
            is_done: false,
            is_deaf: false,
        };
        self.send(world, attempt)
    }

    fn send(&mut self, world: &mut World, attempt: Attempt) -> Checked {
        match world.pass_request() {
            Passage::Arrives => self.arrive(world, attempt),
            Passage::Late(ms) => {
                world.hit("request came late to a member");
                let time_out_ms = self.wire.time_out_ms();
                if ms > time_out_ms {
                    self.try_later(world, attempt.clone(), time_out_ms);
                }
                self.later(world, ms, Next::Arrives, attempt);
                Ok(())
            }
            Passage::Lost => {
                world.hit("request lost on its way to a member");
                let time_out_ms = self.wire.time_out_ms();
                self.try_later(world, attempt, time_out_ms);
                Ok(())
            }
        }
    }

    fn arrive(&mut self, world: &mut World, attempt: Attempt) -> Checked {
        let (machine, client) = (attempt.machine, attempt.client);
        if !world.is_ready(machine) {
            self.try_later(world, attempt, RECONNECTS_MS);
            return Ok(());
        }
        let deed = attempt.deed.clone();
        self.wire.acting = Some(attempt);
        let acted = self.act(world, machine, client, deed);
        self.wire.acting = None;
        acted
    }

    fn later(&mut self, world: &mut World, ms: u64, next: Next, attempt: Attempt) {
        self.wire.newest += 1;
        let number = self.wire.newest;
        self.wire.under_way.insert(number, (next, attempt));
        world.wake(ms, WIRE + number);
    }

    /// Lets a client try again in a while, unless it has done so often enough.
    fn try_later(&mut self, world: &mut World, mut attempt: Attempt, ms: u64) {
        if attempt.tries < TRIES_MAX && !self.is_stopped {
            attempt.tries += 1;
            self.later(world, ms, Next::Tries, attempt);
        }
    }

    /// Goes on with what was on its way.
    pub(super) fn go_on(&mut self, world: &mut World, number: u64) -> Checked {
        let Some((next, mut attempt)) = self.wire.under_way.remove(&number) else {
            return Ok(());
        };
        if let Next::Arrives = next {
            return self.arrive(world, attempt);
        }
        let ready = world.ready();
        let others: Vec<u64> = ready
            .iter()
            .copied()
            .filter(|m| *m != attempt.machine)
            .collect();
        let among = if others.is_empty() { ready } else { others };
        let Some(machine) = self.wire.random.pick(&among) else {
            self.try_later(world, attempt, RECONNECTS_MS);
            return Ok(());
        };
        world.hit("client tried again");
        if attempt.is_done {
            world.hit("client tried again what had been done");
        }
        world.say(|| {
            let Attempt {
                client,
                machine: before,
                ..
            } = attempt;
            format!("client {client} tries again at m{machine} what it asked m{before}")
        });
        attempt.machine = machine;
        self.send(world, attempt)
    }

    /// Takes an answer of a member; it may be lost before its client hears it.
    pub(super) fn answered(
        &mut self,
        world: &mut World,
        machine: u64,
        token: Token,
        outcome: Outcome,
    ) -> Checked {
        let Some(Asked { what: waiting, .. }) = self.waiting.remove(&token) else {
            return Ok(());
        };
        let attempt = self.wire.asked.remove(&token);
        let is_passed_on = matches!(
            (&waiting, &outcome),
            (Waiting::Lease(_), Outcome::Failed(Error::NotLeader { .. }))
        );
        match attempt {
            Some(attempt) if !is_passed_on && (attempt.is_deaf || world.loses_answer()) => {
                self.not_heard(world, machine, attempt, &waiting, &outcome)
            }
            attempt => {
                // What is asked for next belongs to it.
                self.wire.acting = attempt;
                let heard = self.heard(world, machine, waiting, outcome);
                self.wire.acting = None;
                heard
            }
        }
    }

    /// An answer that its client does not hear: it must be right all the same, but nobody can rely on it.
    fn not_heard(
        &mut self,
        world: &mut World,
        machine: u64,
        mut attempt: Attempt,
        waiting: &Waiting,
        outcome: &Outcome,
    ) -> Checked {
        attempt.is_done |= match waiting {
            Waiting::Proposal { tag, .. } => self.hold(world, *tag, outcome)?.is_some(),
            Waiting::Grant { after } => {
                self.granted(*after, outcome, false)?;
                matches!(outcome, Outcome::Applied(_))
            }
            Waiting::Leases { place } => {
                self.leases_listed(world, machine, *place, outcome)?;
                false
            }
            Waiting::Admin(ask) => {
                self.admin_answered(world, machine, ask, outcome, false)?;
                matches!(outcome, Outcome::Members { .. })
            }
            // They count from when they are heard, and change what is checked later.
            Waiting::ReadIndex { .. } | Waiting::Lease(_) => false,
        };
        if !attempt.is_deaf {
            world.hit("answer lost on its way to a client");
            let time_out_ms = self.wire.time_out_ms();
            self.try_later(world, attempt, time_out_ms);
        }
        Ok(())
    }

    /// Takes that a request will not be answered: its client tries again.
    pub(super) fn unanswered(&mut self, world: &mut World, token: Token) {
        let attempt = self.wire.asked.remove(&token);
        if let Some(attempt) = attempt.filter(|attempt| !attempt.is_deaf) {
            self.try_later(world, attempt, RECONNECTS_MS);
        }
    }

    /// Takes that the connections between clients and a member broke, which does not know that yet: it goes on with what it was
    /// asked for, and clients go elsewhere.
    pub(super) fn cut_off(&mut self, world: &mut World, machine: u64) {
        let mut again = Vec::new();
        let mut asks_of_lease = false;
        for (token, attempt) in &mut self.wire.asked {
            if attempt.machine == machine && !attempt.is_deaf {
                again.push(attempt.clone());
                attempt.is_deaf = true;
                let waiting = self.waiting.get(token).map(|asked| &asked.what);
                asks_of_lease |= matches!(waiting, Some(Waiting::Lease(_)));
            }
        }
        for (is, name) in [
            (
                !again.is_empty(),
                "connection broken with requests under way",
            ),
            (asks_of_lease, "connection broken with a lease asked about"),
        ] {
            if is {
                world.hit(name);
            }
        }
        for attempt in again {
            self.try_later(world, attempt, RECONNECTS_MS);
        }
        self.abandon(world, machine);
        self.backup_ended(world, machine);
    }
}
