//! Who looks after the cluster: replaces members that are lost, and adds, promotes and removes members for no reason.
//!
//! What is to be done follows from what the members say, so that an answer that is lost does no harm.
use std::collections::{BTreeMap, BTreeSet};

use quorate_core::{MemberChange, Outcome, Proposal, Request, Submission, Token};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_server::bootstrap::Start;

use super::{Event, Note, World};
use crate::Random;
use crate::node::{Machine, Status, machine_at, peer_url};
use crate::plan::Plan;

/// Milliseconds between two looks.
const LOOK_MS: u64 = 300;
/// Milliseconds after which an answer is waited for no longer.
const PATIENCE_MS: u64 = 8_000;

/// What somebody wants for no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    AddLearner,
    Promote,
    Remove,
    Update,
}

/// Ports that members say they listen on: an update changes it and nothing else.
const PORTS: [u64; 3] = [2380, 2381, 2382];

/// The id of no member.
const NOBODY: MemberId = MemberId(7);

/// A change that was asked for.
struct Asked {
    machine: u64,
    change: MemberChange,
    /// Entries that were committed then.
    since: u64,
}

/// The operator and what waits for an answer.
pub(super) struct Operator {
    /// Members that the cluster is to have.
    target: usize,
    next_number: u64,
    /// Draws whose address is used again.
    addresses: Random,
    /// Members that were ever given a machine.
    adopted: BTreeSet<u64>,
    /// Whether it looks after the cluster at all.
    is_on: bool,
    /// Changes that clients have asked for and were not told of.
    foreign: BTreeSet<Token>,
    wish: Option<(Wish, u64)>,
    pending: Option<(Token, u64)>,
    mine: BTreeSet<Token>,
    changes: BTreeMap<Token, Asked>,
    answers: BTreeMap<Token, Outcome>,
    /// Members as they were known last.
    members: Vec<pb::Member>,
    is_finishing: bool,
}

impl Operator {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            target: usize::try_from(plan.members).unwrap_or(usize::MAX),
            next_number: plan.members + 1,
            addresses: Random::of(plan.seed, "addresses"),
            adopted: (1..=plan.members).collect(),
            is_on: false,
            foreign: BTreeSet::new(),
            wish: None,
            pending: None,
            mine: BTreeSet::new(),
            changes: BTreeMap::new(),
            answers: BTreeMap::new(),
            members: Vec::new(),
            is_finishing: false,
        }
    }

    /// Says whether no change of members is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_none() && self.wish.is_none() && self.foreign.is_empty()
    }

    pub(super) fn takes(&self, token: Token) -> bool {
        self.mine.contains(&token)
    }

    /// Takes that a token will not be answered; says whether it was one of the operator's.
    pub(super) fn lost(&mut self, token: Token) -> bool {
        if self.pending.is_some_and(|(t, _)| t == token) {
            self.pending = None;
        }
        self.changes.remove(&token);
        self.foreign.remove(&token);
        self.mine.remove(&token)
    }

    /// Takes that nobody waits for a token any more.
    pub(super) fn forget(&mut self, token: Token) {
        self.foreign.remove(&token);
    }

    pub(super) fn want_change(&mut self, random: &mut Random) {
        let wishes = [Wish::AddLearner, Wish::Promote, Wish::Remove, Wish::Update];
        self.wish = random.pick(&wishes).map(|wish| (wish, random.number()));
    }

    /// Begins no changes for no reason any more.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        self.wish = None;
    }
}

impl World {
    /// Returns the members of the cluster as the member says that has applied most.
    pub fn members(&self) -> Vec<pb::Member> {
        let running = self.machines.values().filter_map(|m| m.member());
        let newest = running.max_by_key(|member| member.view().applied());
        newest.map_or_else(
            || self.operator.members.clone(),
            |m| m.view().members().to_vec(),
        )
    }

    /// Returns the ids of the voters.
    pub(super) fn voters(&self) -> Vec<u64> {
        let members = self.members();
        members
            .iter()
            .filter(|m| !m.is_learner)
            .map(|m| m.id)
            .collect()
    }

    pub(super) fn operator_answered(&mut self, token: Token, outcome: Outcome) {
        self.operator.mine.remove(&token);
        if self.operator.pending.is_some_and(|(t, _)| t == token) {
            self.operator.pending = None;
        }
        if let Some(asked) = self.operator.changes.remove(&token) {
            return self.notes.push_back(Note::Changed {
                machine: asked.machine,
                change: asked.change,
                since: asked.since,
                outcome,
            });
        }
        self.operator.answers.insert(token, outcome);
    }

    /// Asks something in the operator's name; see [`Self::told`].
    pub(crate) fn ask(
        &mut self,
        machine: u64,
        make: impl FnOnce(Token) -> Submission,
    ) -> Option<Token> {
        let token = self.submit_anyway(machine, make)?;
        self.operator.mine.insert(token);
        Some(token)
    }

    /// Takes the answer to something asked in the operator's name.
    pub(crate) fn told(&mut self, token: Token) -> Option<Outcome> {
        self.operator.answers.remove(&token)
    }

    /// Puts a key in the operator's name.
    pub(crate) fn probe(&mut self, machine: u64) -> Option<Token> {
        let auth = self.auth(machine)?;
        let identity = if auth.is_enabled() {
            auth.root_identity()
        } else {
            quorate_auth::Identity::NONE
        };
        let request = Request::Put(pb::PutRequest {
            key: "operator".into(),
            value: self.now_ms.to_string().into(),
            ..pb::PutRequest::default()
        });
        self.ask(machine, |token| {
            Submission::Propose(Proposal {
                token,
                request,
                raw: None,
                identity,
            })
        })
    }

    pub(super) fn move_leader(&mut self, machine: u64, target: MemberId) {
        self.ask(machine, |token| Submission::MoveLeader { token, target });
    }

    /// Begins to look after the cluster.
    pub(super) fn begin_to_operate(&mut self, ms: u64) {
        if !std::mem::replace(&mut self.operator.is_on, true) {
            self.after(ms, 0, Event::Operator);
        }
    }

    /// Draws a change of members that a client may ask for beside the operator: of learners and addresses, and such as are
    /// refused. It takes no voter away.
    pub(crate) fn draw_change(&mut self, random: &mut Random) -> Option<MemberChange> {
        let members = self.members();
        let at = random.below(members.len() as u64);
        let any = members.get(usize::try_from(at).ok()?)?;
        let learner = members.iter().find(|m| m.is_learner);
        let has_room = members.len() < self.operator.target + 2;
        Some(match (random.below(10), learner) {
            (0..3, None) if has_room => self.new_member(true),
            (0..4, Some(learner)) if !self.is_lost(learner.id) => MemberChange::Promote {
                id: MemberId(learner.id),
            },
            (4..6, Some(learner)) => MemberChange::Remove {
                id: MemberId(learner.id),
            },
            (6, _) => MemberChange::Remove { id: NOBODY },
            (7, _) => MemberChange::Promote { id: NOBODY },
            (8, _) => MemberChange::Add {
                peer_urls: any.peer_ur_ls.clone(),
                is_learner: true,
            },
            _ => self.update(any, random.choose(&PORTS))?,
        })
    }

    /// Makes another address for a member.
    fn update(&self, member: &pb::Member, port: u64) -> Option<MemberChange> {
        let id = MemberId(member.id);
        let machine = self.machine_of(id)?;
        Some(MemberChange::Update {
            id,
            peer_urls: vec![format!("http://m{machine}:{port}")],
        })
    }

    /// Leaves a change of members with a member in a client's name.
    pub(crate) fn submit_change(&mut self, machine: u64, change: MemberChange) -> Option<Token> {
        self.begin_to_operate(1);
        let token = self.submit(machine, |token| Submission::ChangeMembers { token, change })?;
        self.operator.foreign.insert(token);
        Some(token)
    }

    /// Looks after the cluster, and again in a while.
    pub(super) fn operate(&mut self) {
        self.after(LOOK_MS, 0, Event::Operator);
        let members = self.members();
        self.operator.members.clone_from(&members);
        self.adopt(&members);
        if let Some((token, since_ms)) = self.operator.pending {
            if self.now_ms < since_ms + PATIENCE_MS {
                return;
            }
            self.operator.pending = None;
            self.operator.mine.remove(&token);
            self.operator.changes.remove(&token);
            self.cancel(token);
        }
        let Some(change) = self.wanted(&members) else {
            return;
        };
        let is_promotion = matches!(change, MemberChange::Promote { .. });
        let at = match self.leader() {
            Some(leader) if is_promotion || self.random.one_in(2) => Some(leader),
            _ if is_promotion => None,
            _ => {
                let up = self.up();
                self.random.pick(&up)
            }
        };
        let Some(at) = at else {
            return;
        };
        self.say(|| format!("the operator asks m{at} for {change:?}"));
        let asked = change.clone();
        let token = self.ask(at, |token| Submission::ChangeMembers { token, change });
        self.operator.pending = token.map(|token| (token, self.now_ms));
        if let Some(token) = token {
            let asked = Asked {
                machine: at,
                change: asked,
                since: self.committed.len() as u64,
            };
            self.operator.changes.insert(token, asked);
        }
    }

    /// Starts machines for members that have none, and lets go of those whose member is gone.
    fn adopt(&mut self, members: &[pb::Member]) {
        for member in members {
            let id = MemberId(member.id);
            if self.operator.adopted.contains(&member.id) {
                continue;
            }
            let Some(number) = member.peer_ur_ls.iter().find_map(|url| machine_at(url)) else {
                continue;
            };
            let Some(cluster_id) = self.machines.values().next().map(|m| m.cluster_id) else {
                continue;
            };
            let is_taken = |m: &Machine| !m.is_removed();
            if self.machines.get(&number).is_some_and(is_taken) {
                continue;
            }
            let before = self.machines.remove(&number);
            let start = Start::Join {
                member_id: id,
                cluster_id,
                members: members.to_vec(),
            };
            self.say(|| format!("m{number} joins as member {id}"));
            self.hit("member joined");
            self.operator.adopted.insert(member.id);
            let limits = self.limits_of(number);
            self.add_machine(number, start, limits);
            if let Some(before) = before {
                self.hit("member joined at the address of another");
                self.succeed(before);
            }
            if let Some(machine) = self.machines.get_mut(&number) {
                machine.has_joined = false;
            }
            self.after(1, number, Event::Start);
        }
        // Who was removed before it heard of anybody has nobody to ask, and would wait for ever.
        let views: Vec<_> = self
            .machines
            .values()
            .filter_map(|m| Some(m.member()?.view()))
            .collect();
        let forgotten: Vec<u64> = self
            .machines
            .values()
            .filter(|m| m.running.is_some() && !m.has_joined)
            .filter(|m| views.iter().any(|view| view.is_removed(m.member_id)))
            .map(|m| m.number)
            .collect();
        for number in forgotten {
            self.retire(
                number,
                "is let go, since it was removed before it had joined",
            );
        }
        for machine in self.machines.values_mut() {
            let is_member = members.iter().any(|m| m.id == machine.member_id.0);
            if !is_member && matches!(machine.status, Status::Refused(_)) && !members.is_empty() {
                machine.status = Status::Removed;
            }
            if let Some(member) = machine.running.as_ref().map(|r| &r.member) {
                let own = machine.member_id.0;
                machine.has_joined |= member.view().members().iter().any(|m| m.id == own);
            }
        }
    }

    /// Says whether a member was given the address of another, which had moved to another port meanwhile: it never starts.
    fn is_homeless(&self, member: &pb::Member) -> bool {
        let number = member.peer_ur_ls.iter().find_map(|url| machine_at(url));
        let machine = number.and_then(|number| self.machines.get(&number));
        let is_taken = machine.is_some_and(|m| !m.is_removed());
        is_taken && !self.operator.adopted.contains(&member.id)
    }

    /// Says what change is to be made next.
    fn wanted(&mut self, members: &[pb::Member]) -> Option<MemberChange> {
        if members.is_empty() || self.plan.is_beyond {
            return None;
        }
        let lost = members.iter().find(|member| {
            let machine = self.machines.values().find(|m| m.member_id.0 == member.id);
            match machine {
                Some(machine) => matches!(machine.status, Status::Refused(_)),
                None => self.is_homeless(member),
            }
        });
        if let Some(lost) = lost {
            return Some(MemberChange::Remove {
                id: MemberId(lost.id),
            });
        }
        if members.len() < self.operator.target {
            return Some(self.add(self.operator.is_finishing));
        }
        let (wish, number) = self.operator.wish.take()?;
        let learner = members.iter().find(|m| m.is_learner);
        let voters = members.iter().filter(|m| !m.is_learner).count();
        let at = usize::try_from(number).unwrap_or(0) % members.len();
        match wish {
            Wish::AddLearner if members.len() < self.operator.target + 2 => Some(self.add(false)),
            Wish::Promote | Wish::AddLearner => {
                let Some(id) = learner.map(|m| m.id) else {
                    // To be promoted by the next wish of this kind.
                    return (members.len() < self.operator.target + 2).then(|| self.add_learner());
                };
                if self.is_lost(id) {
                    return None;
                }
                Some(MemberChange::Promote { id: MemberId(id) })
            }
            Wish::Remove if voters > 2 => {
                // Often the one that leads: it must let go of that first.
                let leader = self.leader().and_then(|n| self.machine(n));
                let leads = |m: &&pb::Member| leader.is_some_and(|l| l.member_id.0 == m.id);
                let led = members.iter().find(leads).filter(|_| number % 3 == 0);
                let member = led.or_else(|| members.get(at))?;
                let voter = (!member.is_learner && !self.is_lost(member.id)).then_some(member.id);
                let may_go = voter.is_none() || self.is_settled() && self.can_spare(0, voter);
                let id = MemberId(member.id);
                may_go.then_some(MemberChange::Remove { id })
            }
            Wish::Remove => None,
            Wish::Update => {
                let member = learner.or_else(|| members.get(at))?;
                let port = PORTS[usize::try_from(number % 3).unwrap_or(0)];
                let change = self.update(member, port)?;
                Some(change)
            }
        }
    }

    fn add(&mut self, as_voter: bool) -> MemberChange {
        let is_learner = !as_voter && self.random.one_in(2);
        self.new_member(is_learner)
    }

    /// Gives a new member a machine, often that of a member that is gone for good.
    fn new_member(&mut self, is_learner: bool) -> MemberChange {
        let free = self.machines.values().filter(|m| m.is_removed());
        let free: Vec<u64> = free.map(|m| m.number).collect();
        let reused = self.operator.addresses.pick(&free);
        let reused = reused.filter(|_| self.operator.addresses.one_in(2));
        let number = reused.unwrap_or_else(|| {
            let number = self.operator.next_number;
            self.operator.next_number += 1;
            number
        });
        MemberChange::Add {
            peer_urls: vec![peer_url(number)],
            is_learner,
        }
    }

    /// Lets the member on a machine go on where another was before, on an empty disk: its clock and its lives are counted on.
    fn succeed(&mut self, before: Machine) {
        if let Some(machine) = self.machines.get_mut(&before.number) {
            machine.epoch = before.epoch + 1;
            machine.clock = before.clock;
        }
    }

    fn add_learner(&mut self) -> MemberChange {
        let number = self.operator.next_number;
        self.operator.next_number += 1;
        MemberChange::Add {
            peer_urls: vec![peer_url(number)],
            is_learner: true,
        }
    }

    /// Says whether every member has a machine that runs, and no change is under way.
    pub(crate) fn is_whole(&self) -> bool {
        let members = self.members();
        let runs = |member: &pb::Member| {
            let machine = self.machines.values().find(|m| m.member_id.0 == member.id);
            machine.is_some_and(|m| m.running.is_some())
        };
        let is_enough = members.len() >= self.operator.target || self.plan.is_beyond;
        let strays = self.machines.values().filter(|m| m.running.is_some());
        let mut strays = strays.filter(|m| members.iter().all(|other| other.id != m.member_id.0));
        self.operator.is_quiet() && is_enough && members.iter().all(runs) && strays.next().is_none()
    }
}
