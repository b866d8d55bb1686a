//! Clients that do everything, each answer of which is held against the model.
//!
//! A client draws something to do, asks a member, and is told; whether it waits for the answer or not, the answer is
//! checked. What is proposed carries a mark, so that it is found in the log whatever becomes of the answer.
//!
//! | file | what clients do |
//! |---|---|
//! | `draw` | what they ask for |
//! | `admin` | another leader, a downgrade, other members |
//! | `backups` | backups, read in pieces beside all that, and restored |
//! | `defragments` | defragmentations, beside all that |
//! | `door` | who they are, and whether a member lets them |
//! | `propose` | what goes through the log |
//! | `reads` | what is read at once, or after the leader was asked |
//! | `leases` | what only the leader knows |
//! | `users` | logging in, users and roles |
//! | `watching` | streams of watchers that stall, break off and go on elsewhere |
//! | `wire` | requests and answers that come late or not at all, and clients that try again |
use std::collections::{BTreeMap, BTreeSet};

use quorate_core::{Error, Outcome, Token};

use super::Workload;
use crate::check::{Clocks, History, LeaseTimes, Ledger, Violation, holds};
use crate::model::{Answer, Entry, EntryKind, Model};
use crate::plan::{FaultKind, Plan};
use crate::{Committed, Note, Random, World};

mod admin;
mod backups;
mod defragments;
mod door;
mod draw;
mod leases;
mod propose;
mod reads;
mod users;
mod watching;
mod wire;

use admin::AdminAsk;
use backups::Backups;
use defragments::Defragments;
use draw::{Deed, Swarm};
use leases::{LeaseAsk, MeantEnd};
use propose::Then;
use reads::Read;
use users::Account;
use watching::Watching;
use wire::Wire;

/// Milliseconds between two looks at what has taken too long.
const SWEEP_MS: u64 = 100;
/// The alarm for that look.
const SWEEP: u64 = 1 << 40;
/// The first alarm of streams.
const STREAMS: u64 = 1 << 20;
/// The first alarm of backups.
const BACKUPS: u64 = 1 << 41;
/// The first alarm of what is on its way between clients and members.
const WIRE: u64 = 1 << 42;
/// What a request may wait for, in times of what a member lets it wait.
const PATIENCE: u64 = 2;

type Checked<T = ()> = Result<T, Violation>;

/// What a token stands for.
#[derive(Debug)]
enum Waiting {
    Proposal {
        tag: u64,
        then: Then,
    },
    /// A grant of a lease whose id the member picks.
    Grant {
        after: u64,
    },
    /// A read that the leader is asked about first; what was told before it began.
    ReadIndex {
        read: Read,
        client: u64,
        since: u64,
    },
    Lease(LeaseAsk),
    /// A list of leases, of a member that had applied this much.
    Leases {
        place: u64,
    },
    /// Something about the cluster.
    Admin(AdminAsk),
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Asked {
    machine: u64,
    since_ms: u64,
    /// How long its client waits.
    patience_ms: u64,
    what: Waiting,
}

/// Clients that do everything.
#[derive(Debug)]
pub struct Callers {
    random: Random,
    swarm: Swarm,
    model: Model,
    ledger: Ledger,
    history: History,
    times: LeaseTimes,
    /// Leases that somebody has tried to renew.
    renewed: BTreeSet<i64>,
    /// When leaders meant leases to end, by machine and lease.
    ends: BTreeMap<(u64, i64), MeantEnd>,
    /// When the first entry of each term was committed.
    reigns: BTreeMap<u64, u64>,
    accounts: Vec<Account>,
    /// Passwords by their hash.
    passwords: BTreeMap<String, String>,
    waiting: BTreeMap<Token, Asked>,
    /// Entries without a mark that somebody was told of.
    told_entries: BTreeSet<u64>,
    watching: Watching,
    defragments: Defragments,
    backups: Backups,
    wire: Wire,
    left: u64,
    think_ms: u64,
    patience_ms: u64,
    /// Numbers what is written.
    number: u64,
    is_stopped: bool,
    /// Whether all streams are closed for some time.
    is_settled: bool,
}

impl Callers {
    /// Makes the clients of a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut random = Random::of(plan.seed, "callers");
        let election_ms = plan.limits.election_ms();
        let options = plan.limits.recovery();
        let may_repeat = plan.faults.rate(FaultKind::Duplication) > 0;
        Self {
            swarm: Swarm::draw(&mut random, &mut Random::of(plan.seed, "members")),
            model: Model::new(options.lease.min_ttl_s, plan.limits.max_learners),
            ledger: Ledger::new(may_repeat),
            history: History::default(),
            times: LeaseTimes::new(election_ms).with_spread(plan.limits.ends_per_s()),
            renewed: BTreeSet::new(),
            ends: BTreeMap::new(),
            reigns: BTreeMap::new(),
            accounts: Account::all(plan.clients),
            passwords: BTreeMap::new(),
            waiting: BTreeMap::new(),
            told_entries: BTreeSet::new(),
            watching: Watching::default(),
            defragments: Defragments::draw(plan),
            backups: Backups::draw(plan),
            wire: Wire::new(plan),
            left: plan.operations,
            think_ms: plan.think_ms,
            patience_ms: PATIENCE * quorate_core::request_timeout_ms(election_ms),
            number: 0,
            is_stopped: false,
            is_settled: false,
            random,
        }
    }

    /// Returns the reference store.
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn wait(&mut self, world: &World, machine: u64, token: Option<Token>, what: Waiting) {
        if let Some(token) = token {
            let patience_ms = self.wire.wait(token, &what, self.patience_ms);
            let asked = Asked {
                machine,
                since_ms: world.now_ms(),
                patience_ms,
                what,
            };
            self.waiting.insert(token, asked);
        }
    }

    /// Returns the newest entry that a member has applied.
    fn place(world: &World, machine: u64) -> Option<u64> {
        let place = world.view(machine)?.applied();
        let is_known = place <= world.committed().len() as u64;
        is_known.then_some(place)
    }

    fn clocks(world: &World) -> Clocks {
        let now_ms = world.now_ms();
        let read = |m: &crate::Machine| (m.number, m.clock().at(now_ms));
        world.machines().map(read).collect()
    }

    /// Draws a client something to do.
    fn operate(&mut self, world: &mut World, client: u64) -> Checked {
        let ready = world.ready();
        let Some(machine) = self.random.pick(&ready) else {
            world.hit("client found nobody");
            return Ok(());
        };
        self.number += 1;
        let deed = self.draw_deed();
        self.ask(world, machine, client, deed)
    }

    /// Does at a member what a client wants there.
    fn act(&mut self, world: &mut World, machine: u64, client: u64, deed: Deed) -> Checked {
        match deed {
            Deed::Propose(request) => self.propose(world, machine, client, request, Then::Nothing),
            Deed::Grant(ttl_s) => self.grant_any(world, machine, client, ttl_s),
            Deed::Read {
                read,
                is_serializable,
            } => self.read(world, machine, client, read, is_serializable),
            Deed::Renew(id) => self.renew(world, machine, client, id),
            Deed::TimeToLive { id, keys } => self.time_to_live(world, machine, client, id, keys),
            Deed::Leases => self.list_leases(world, machine, client),
            Deed::LogIn => self.log_in(world, machine, client),
            Deed::Manage => self.manage(world, machine, client),
            Deed::Watch => self.watch(world, machine, client),
            Deed::Disturb => self.disturb(world, machine),
            Deed::Administrate(errand) => self.administrate(world, machine, client, errand),
        }
    }

    /// Takes what is committed and was not taken yet, so that the model is never behind a member.
    fn feed(&mut self, world: &World) -> Checked {
        let known = usize::try_from(self.model.index()).unwrap_or(usize::MAX);
        let fresh = world.committed().get(known..).unwrap_or_default();
        fresh
            .iter()
            .try_for_each(|entry| self.committed(world, entry))
    }

    fn committed(&mut self, world: &World, committed: &Committed) -> Checked {
        let entry = Entry {
            index: committed.index,
            term: committed.term,
            kind: if committed.kind == 0 {
                EntryKind::Normal
            } else {
                EntryKind::ConfChange
            },
            data: committed.data.clone(),
        };
        self.reigns(entry.term, world.now_ms());
        let applied = self.model.apply(&entry);
        if let Err(why) = applied {
            let text = format!("entry {} cannot be read: {why}", entry.index);
            return Err(Violation::new("entries are requests", text));
        }
        let Some(step) = self.model.step(entry.index) else {
            return Ok(());
        };
        self.ledger.committed(&self.model, step)?;
        let granted = match &step.outcome {
            Ok(Answer::Grant { id, .. }) => Some(*id),
            _ => None,
        };
        if step.request.as_ref().is_some_and(|r| {
            r.lease_grant.is_some() || r.lease_revoke.is_some() || r.lease_checkpoint.is_some()
        }) {
            let proposer = world.machines().find(|m| step.proposer.is(m.member_id.0));
            let machine = proposer.map(|m| m.number);
            let origin = world.origin(step.index);
            self.times
                .committed(step, &Self::clocks(world), machine, &origin)?;
        }
        if let Some(id) = granted {
            self.lease_began(id);
        }
        Ok(())
    }

    /// Takes an answer that its client hears.
    fn heard(
        &mut self,
        world: &mut World,
        machine: u64,
        waiting: Waiting,
        outcome: Outcome,
    ) -> Checked {
        match waiting {
            Waiting::Proposal { tag, then } => self.proposed(world, machine, tag, then, &outcome),
            Waiting::Grant { after } => self.granted(after, &outcome, true),
            Waiting::ReadIndex {
                read,
                client,
                since,
            } => match outcome {
                Outcome::ReadReady => self.read_now(world, machine, client, read, Some(since)),
                Outcome::Failed(Error::TooManyRequests) => {
                    world.hit("read refused: too many requests");
                    Ok(())
                }
                _ => {
                    world.hit("linearizable read failed");
                    Ok(())
                }
            },
            Waiting::Lease(ask) => self.lease_answered(world, machine, ask, &outcome),
            Waiting::Leases { place } => self.leases_listed(world, machine, place, &outcome),
            Waiting::Admin(ask) => self.admin_answered(world, machine, &ask, &outcome, true),
        }
    }

    /// Whoever does not stand still answers in time, be it that no answer came from others; but changes of members, compactions
    /// that are to end on the disk, and renewals that come too late, perhaps, wait for as long as their caller does.
    /// Clients that waited for less say nothing about it.
    fn check_patience(&self, world: &World, asked: &Asked) -> Checked {
        let Asked {
            machine,
            since_ms,
            patience_ms,
            what,
        } = asked;
        let is_endless = match what {
            Waiting::Admin(ask) => ask.is_endless(),
            Waiting::Proposal { tag, .. } => {
                let is_applied = !self.model.places(*tag).is_empty();
                is_applied && self.ledger.waits_for_compaction(*tag)
            }
            // Nothing says how long a revocation takes: none is made while the cluster is corrupt, or finds room while it is busy.
            Waiting::Lease(ask) => ask.waits_for_end(world, *machine),
            _ => false,
        };
        let stood = |m: &crate::Machine| m.running.is_none() || m.paused_until_ms > *since_ms;
        let is_short = *patience_ms < self.patience_ms;
        if is_endless || is_short || world.machine(*machine).is_none_or(stood) {
            return Ok(());
        }
        let text = format!("m{machine} has not answered {what:?} within {patience_ms} ms");
        Err(Violation::new("requests are answered", text))
    }

    /// Looks at what has taken too long, and at streams.
    fn sweep(&mut self, world: &mut World) -> Checked {
        world.wake(SWEEP_MS, SWEEP);
        self.is_settled = self.watching.is_empty();
        let now_ms = world.now_ms();
        let late: Vec<Token> = self
            .waiting
            .iter()
            .filter(|(_, asked)| asked.since_ms + asked.patience_ms <= now_ms)
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            world.hit("client gave up waiting");
            world.cancel(token);
            let given_up = self.waiting.remove(&token);
            self.unanswered(world, token);
            if let Some(asked) = given_up {
                self.check_patience(world, &asked)?;
            }
        }
        self.check_remaining(world)?;
        self.check_ends(world)?;
        if !self.is_stopped {
            self.renew_late(world)?;
            self.renew_at_sleepers(world)?;
            self.begin_backup(world)?;
        }
        self.look_after_streams(world)
    }
}

impl Workload for Callers {
    fn start(&mut self, world: &mut World) {
        for client in 0..world.plan().clients {
            world.wake(1 + client, client);
        }
        world.wake(SWEEP_MS, SWEEP);
    }

    fn note(&mut self, world: &mut World, note: Note) -> Result<(), Violation> {
        self.feed(world)?;
        match note {
            Note::Committed(_) => Ok(()),
            Note::Answered {
                machine,
                token,
                outcome,
            } => self.answered(world, machine, token, outcome),
            Note::Lost { token, .. } => {
                if self.waiting.remove(&token).is_some() {
                    world.hit("request lost with its member");
                    self.unanswered(world, token);
                }
                Ok(())
            }
            Note::Wake(SWEEP) => self.sweep(world),
            Note::Wake(number) if number >= WIRE => self.go_on(world, number - WIRE),
            Note::Wake(backup) if backup >= BACKUPS => self.read_backup(world, backup - BACKUPS),
            Note::Wake(stream) if stream >= STREAMS => self.unstall(world, stream - STREAMS),
            Note::Wake(client) => {
                if self.is_stopped || self.left == 0 {
                    return Ok(());
                }
                self.left -= 1;
                let ms = 1 + self.random.below(2 * self.think_ms);
                world.wake(ms, client);
                self.defragment(world, client)?;
                self.operate(world, client)
            }
            Note::StreamsReady { machine, streams } => streams
                .into_iter()
                .try_for_each(|stream| self.take(world, machine, stream)),
            Note::Ready { .. } => Ok(()),
            Note::Changed {
                machine,
                change,
                since,
                outcome,
            } => self.change_answered(world, machine, (&change, since), &outcome, true),
            Note::CutOff { machine } => {
                self.cut_off(world, machine);
                Ok(())
            }
            Note::Ended { machine } => {
                self.streams_ended(machine);
                self.backup_ended(world, machine);
                Ok(())
            }
        }
    }

    fn stop(&mut self, _: &mut World) {
        self.is_stopped = true;
        self.wire.stop();
    }

    fn is_idle(&self) -> bool {
        let newest = self.model.index();
        let is_corrupt = self
            .model
            .alarms_at(newest)
            .iter()
            .any(|(_, alarm)| *alarm == 2);
        let leases_ended = is_corrupt || self.model.leases().living().next().is_none();
        self.waiting.is_empty() && self.is_settled && self.backups.is_empty() && leases_ended
    }

    fn check(&mut self, world: &mut World) -> Result<(), Violation> {
        self.feed(world)?;
        for number in world.up() {
            if world.plan().is_beyond && Self::place(world, number).is_none() {
                // It has a snapshot of entries that nobody told of.
                continue;
            }
            let Some(member) = world.machine(number).and_then(|m| m.member()) else {
                continue;
            };
            holds(&self.model, number, member, world.may_fail(number))?;
        }
        world.hit("whole state compared with the model");
        Ok(())
    }
}
