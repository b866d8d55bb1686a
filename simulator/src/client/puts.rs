//! A plain workload: puts, reads, and a look at whether what was acknowledged stays.
use std::collections::BTreeMap;

use quorate_auth::Identity;
use quorate_core::{Applied, Error, Outcome, Request, Submission, Token};
use quorate_proto::etcdserverpb as pb;

use super::Workload;
use crate::check::{Differs, Violation};
use crate::plan::Plan;
use crate::world::Passage;
use crate::{Note, Random, World};

/// Keys that are written.
const KEYS: u64 = 20;
/// Revisions that a compaction stays behind the newest.
const KEPT_REVISIONS: i64 = 10;

/// What a caller waits for.
#[derive(Clone, Debug)]
enum Waiting {
    Put {
        key: String,
        value: String,
    },
    /// The newest revision that anybody was told of when the read began.
    Read {
        newest: i64,
    },
    Other,
}

/// Puts numbers under a few keys, reads, compacts and grants leases.
pub struct Puts {
    random: Random,
    clients: u64,
    think_ms: u64,
    left: u64,
    number: u64,
    is_stopped: bool,
    waiting: BTreeMap<Token, Waiting>,
    /// What callers were told is stored, by revision.
    acknowledged: BTreeMap<i64, (String, String)>,
    reads: u64,
}

impl Puts {
    /// Makes the workload of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self {
            random: Random::of(plan.seed, "puts"),
            clients: plan.clients,
            think_ms: plan.think_ms,
            left: plan.operations,
            number: 0,
            is_stopped: false,
            waiting: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            reads: 0,
        }
    }

    /// Returns how many puts were acknowledged, and reads answered.
    pub fn counts(&self) -> (usize, u64) {
        (self.acknowledged.len(), self.reads)
    }

    fn newest(&self) -> i64 {
        self.acknowledged.last_key_value().map_or(1, |(r, _)| *r)
    }

    fn operate(&mut self, world: &mut World) {
        let ready = world.ready();
        let Some(machine) = self.random.pick(&ready) else {
            return;
        };
        self.number += 1;
        if matches!(world.pass_request(), Passage::Lost) {
            return world.hit("request lost on its way to a member");
        }
        let (token, waiting) = match self.random.below(12) {
            0..7 => {
                let key = format!("k{}", self.random.below(KEYS));
                let size =
                    usize::try_from(self.random.choose(&[0, 0, 10, 300, 1_500])).unwrap_or(0);
                let value = format!("{}{}", self.number, "x".repeat(size));
                let put = pb::PutRequest {
                    key: key.clone().into(),
                    value: value.clone().into(),
                    ..pb::PutRequest::default()
                };
                let token = world.propose(machine, Request::Put(put), Identity::NONE);
                (token, Waiting::Put { key, value })
            }
            7..10 => {
                let newest = self.newest();
                let token = world.submit(machine, |token| Submission::ReadIndex { token });
                (token, Waiting::Read { newest })
            }
            10 if self.random.one_in(4) => {
                let revision = self.newest() - KEPT_REVISIONS;
                let physical = self.random.one_in(2);
                let request = Request::Compaction(pb::CompactionRequest { revision, physical });
                (
                    world.propose(machine, request, Identity::NONE),
                    Waiting::Other,
                )
            }
            _ => {
                let id = i64::try_from(self.number).unwrap_or(i64::MAX);
                let ttl = 1 + i64::try_from(self.random.below(3)).unwrap_or(0);
                let request = Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl });
                (
                    world.propose(machine, request, Identity::NONE),
                    Waiting::Other,
                )
            }
        };
        if let Some(token) = token {
            self.waiting.insert(token, waiting);
        }
    }

    fn answered(
        &mut self,
        world: &mut World,
        machine: u64,
        token: Token,
        outcome: &Outcome,
    ) -> Result<(), Violation> {
        let Some(waiting) = self.waiting.remove(&token) else {
            return Ok(());
        };
        if world.loses_answer() {
            world.hit("answer lost on its way to a client");
            return Ok(());
        }
        match (waiting, outcome) {
            (Waiting::Put { key, value }, Outcome::Applied(Applied::Put(result))) => {
                world.hit("put acknowledged");
                let before = self.acknowledged.insert(result.revision, (key, value));
                if before.is_some() {
                    let text = format!("revision {} was given to two writes", result.revision);
                    return Err(Violation::new("one write each revision", text));
                }
            }
            (Waiting::Put { .. }, Outcome::Failed(Error::NoSpace)) => {
                world.hit("put refused for lack of space");
            }
            (Waiting::Put { .. }, _) => world.hit("put failed"),
            (Waiting::Read { newest }, Outcome::ReadReady) => {
                self.reads += 1;
                world.hit("read answered");
                let current = world
                    .reader(machine)
                    .map_or(i64::MAX, |r| r.current_revision());
                if current < newest {
                    let text =
                        format!("m{machine} reads at {current} after {newest} was acknowledged");
                    return Err(Violation::new("stale read", text));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Workload for Puts {
    fn start(&mut self, world: &mut World) {
        for client in 0..self.clients {
            world.wake(1 + client, client);
        }
    }

    fn note(&mut self, world: &mut World, note: Note) -> Result<(), Violation> {
        match note {
            Note::Wake(client) if !self.is_stopped && self.left > 0 => {
                self.left -= 1;
                self.operate(world);
                let ms = 1 + self.random.below(2 * self.think_ms);
                world.wake(ms, client);
            }
            Note::Answered {
                machine,
                token,
                outcome,
            } => return self.answered(world, machine, token, &outcome),
            Note::Lost { token, .. } => {
                if matches!(self.waiting.remove(&token), Some(Waiting::Put { .. })) {
                    world.hit("put lost with its member");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn stop(&mut self, _: &mut World) {
        self.is_stopped = true;
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    fn check(&mut self, world: &mut World) -> Result<(), Violation> {
        for number in world.up() {
            let Some(reader) = world.reader(number) else {
                continue;
            };
            let may_fail = world.may_fail(number);
            let first = reader.compact_revision().max(1) + 1;
            // Where a majority is lost, a member need not have heard of what others have.
            let ends = match world.plan().is_beyond {
                true => reader.current_revision().saturating_add(1).max(first),
                false => i64::MAX,
            };
            for (revision, (key, value)) in self.acknowledged.range(first..ends) {
                let found = reader.value_before(key.as_bytes(), revision + 1);
                let found = found.map_err(Differs::of);
                let is_fine = match &found {
                    Ok(record) => record.as_ref().is_some_and(|r| holds(r, *revision, value)),
                    Err(differs) => differs.is_forgiven(may_fail),
                };
                if !is_fine {
                    let text = format!(
                        "m{number} does not hold {key:?} as acknowledged at {revision}: {found:?}"
                    );
                    return Err(Violation::new("acknowledged writes stay", text));
                }
            }
        }
        Ok(())
    }
}

fn holds(record: &bytes::Bytes, revision: i64, value: &str) -> bool {
    use prost::Message as _;
    use quorate_proto::mvccpb::KeyValue;
    KeyValue::decode(record.clone())
        .is_ok_and(|kv| kv.mod_revision == revision && kv.value == value.as_bytes())
}
