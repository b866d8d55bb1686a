//! The world that members live in: one queue of events, and everything that they happen to.
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use quorate_core::{ClusterMember, MemberChange, Outcome, Token};
use quorate_mvcc::StreamId;
use quorate_proto::MemberId;
use quorate_proto::raftpb::Message;
use quorate_server::bootstrap::Start;
use quorate_wal::Entry;

use crate::check::{Invariants, Violation};
use crate::coverage::Coverage;
use crate::network::Network;
use crate::node::{Image, Machine, Status, peer_url};
use crate::plan::{FaultKind, Limits, Plan};
use crate::{Lie, Random, Trace};

mod act;
mod arrive;
mod compare;
mod configuration;
mod count;
mod damage;
mod defragment;
mod digest;
mod door;
mod lives;
mod nemesis;
mod observe;
mod operator;
mod perform;
mod queue;
mod send;

use compare::Comparing;
use configuration::Configuration;
use digest::Digest;
pub(crate) use door::Passage;
use nemesis::Nemesis;
use operator::Operator;
use queue::Item;

/// An entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its position.
    pub index: u64,
    /// The term in which a leader appended it.
    pub term: u64,
    /// Its raft type: 0 for a request, 1 for a change of members.
    pub kind: u8,
    /// Its bytes: an `InternalRaftRequest` or a `ConfChange`, or nothing.
    pub data: Bytes,
}

impl Committed {
    pub(crate) fn of(entry: &Entry) -> (u64, Self) {
        let committed = Self {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            data: entry.data.clone(),
        };
        (entry.index, committed)
    }
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The machine of the leader that put it into its log, 0 when that is not known.
    pub machine: u64,
    /// The last entry that this leader had applied.
    pub applied: u64,
    /// The true time, in milliseconds.
    pub at_ms: u64,
    /// What the leader's clock said.
    pub own_ms: u64,
}

/// Something that a workload is told.
#[derive(Debug)]
pub enum Note {
    /// An entry is committed: the next one, each once, in order. It comes before any answer that rests on it.
    Committed(Committed),
    /// A submission was answered.
    Answered {
        /// By whom.
        machine: u64,
        /// Which.
        token: Token,
        /// How.
        outcome: Outcome,
    },
    /// A submission will not be answered: its member ended. It may have been applied, or may be yet.
    Lost {
        /// Whose.
        machine: u64,
        /// Which.
        token: Token,
    },
    /// An alarm set with [`World::wake`].
    Wake(u64),
    /// Streams of a member's watch hub have output.
    StreamsReady {
        /// Whose.
        machine: u64,
        /// Which.
        streams: Vec<StreamId>,
    },
    /// A change of members that the operator asked for was answered.
    Changed {
        /// By whom.
        machine: u64,
        /// What was asked for.
        change: MemberChange,
        /// Entries that were committed then.
        since: u64,
        /// How.
        outcome: Outcome,
    },
    /// A member is ready: clients may reach it.
    Ready {
        /// Which.
        machine: u64,
    },
    /// The connections between clients and a member broke, and the member does not know yet.
    CutOff {
        /// Which.
        machine: u64,
    },
    /// A member ended: its streams are closed, and what was asked of it is lost.
    Ended {
        /// Which.
        machine: u64,
    },
}

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    Tick,
    Inbox,
    Deliver(Delivery),
    /// The next piece of a state comes.
    Piece {
        number: u64,
        delivery: Delivery,
    },
    SnapshotSent {
        to: MemberId,
        ok: bool,
    },
    Unreachable(MemberId),
    /// One of the server's threads ends the member.
    Fatal(String),
    /// A comparison of digests goes on.
    Compare(Comparing),
    Log,
    Flush,
    Compact,
    Defragment,
    Save,
    Prepare,
    Install,
    Watch,
    Versions,
    ToldRemoved,
    Start,
    /// The member is stopped, so that one of an older version takes its place.
    Replace,
    /// The process is killed, once nothing could hide what was done to its disk.
    Kill,
    Fault(FaultKind),
    Operator,
    Wake(u64),
}

/// A message on its way.
#[derive(Debug)]
struct Delivery {
    from: u64,
    /// Life of the sender.
    epoch: u64,
    message: Box<Message>,
    image: Option<Image>,
}

/// A cluster and everything around it.
pub struct World {
    plan: Plan,
    now_ms: u64,
    queue: BinaryHeap<Item>,
    sequence: u64,
    machines: BTreeMap<u64, Machine>,
    network: Network,
    /// For what takes how long.
    random: Random,
    /// For how snapshots travel.
    forms: Random,
    /// For how long answers about digests take.
    comparisons: Random,
    next_token: u64,
    /// Who was asked what a token stands for.
    waiting: BTreeMap<Token, u64>,
    /// Tokens whose callers have gone.
    cancelled: BTreeSet<Token>,
    notes: VecDeque<Note>,
    /// The log that the cluster has agreed on.
    committed: Vec<Committed>,
    /// Where each of its entries comes from.
    origins: Vec<Origin>,
    /// The same of entries that are not committed, by index and term.
    unsettled: BTreeMap<(u64, u64), Origin>,
    /// The members, as who applied most has it.
    configuration: Configuration,
    invariants: Invariants,
    operator: Operator,
    nemesis: Nemesis,
    violation: Option<Violation>,
    coverage: Coverage,
    trace: Trace,
    digest: Digest,
    events: u64,
    /// Snapshots installed by members that ran.
    installs: u64,
    /// Around whom links were cut, and how, as long as no message was lost by it.
    fresh_cuts: Vec<(u64, &'static str)>,
    /// What is made up, to see whether checks find it.
    pub(crate) lie: Option<Lie>,
}

/// When a run begins.
const BEGIN_MS: u64 = 1_000;

impl World {
    /// Makes the world of a plan, with its founding members started.
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut world = Self {
            now_ms: BEGIN_MS,
            queue: BinaryHeap::new(),
            sequence: 0,
            machines: BTreeMap::new(),
            network: Network::new(plan.seed, &plan.faults),
            random: Random::of(plan.seed, "world"),
            forms: Random::of(plan.seed, "forms"),
            comparisons: Random::of(plan.seed, "comparisons"),
            next_token: 1,
            waiting: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            notes: VecDeque::new(),
            committed: Vec::new(),
            origins: Vec::new(),
            unsettled: BTreeMap::new(),
            configuration: Configuration::default(),
            invariants: Invariants::default(),
            operator: Operator::new(&plan),
            nemesis: Nemesis::new(&plan),
            violation: None,
            coverage: Coverage::default(),
            trace,
            digest: Digest::new(plan.seed),
            events: 0,
            installs: 0,
            fresh_cuts: Vec::new(),
            lie: None,
            plan,
        };
        world.found();
        world
    }

    fn found(&mut self) {
        let numbers = 1..=self.plan.members;
        let founder = |number: u64| ClusterMember {
            id: number,
            name: format!("m{number}"),
            peer_urls: vec![peer_url(number)],
            ..ClusterMember::default()
        };
        let members: Vec<_> = numbers.clone().map(founder).collect();
        for number in numbers {
            let start = Start::Found {
                member_id: MemberId(number),
                members: members.clone(),
            };
            let limits = self.limits_of(number);
            self.add_machine(number, start, limits);
            self.after(1, number, Event::Start);
        }
        self.begin_faults();
    }

    /// Draws the limits of a machine: the cluster's, and its own.
    fn limits_of(&mut self, number: u64) -> Limits {
        let mut limits = self.plan.limits.clone();
        if number > 1
            && !self
                .plan
                .faults
                .iter()
                .all(|(kind, _)| kind != FaultKind::Limits)
        {
            let purpose = format!("limits of {number}");
            limits.draw_own(&mut Random::of(self.plan.seed, &purpose));
        }
        limits
    }

    fn add_machine(&mut self, number: u64, start: Start, limits: Limits) {
        let seed = Random::of(self.plan.seed, &format!("machine {number}")).number();
        let machine = Machine::new(number, start, limits, seed, self.now_ms);
        self.machines.insert(number, machine);
    }

    /// Lets the next event happen unless it comes after a time; says whether one did.
    pub fn step(&mut self, until_ms: u64) -> bool {
        if self.queue.peek().is_none_or(|item| item.at_ms > until_ms) {
            self.now_ms = self.now_ms.max(until_ms);
            return false;
        }
        let Some(item) = self.queue.pop() else {
            return false;
        };
        self.now_ms = self.now_ms.max(item.at_ms);
        self.events += 1;
        self.fold_event(&item);
        let machine = item.machine;
        self.happen(item);
        self.fold_machine(machine);
        true
    }

    /// Takes what there is to tell.
    pub fn take_notes(&mut self) -> VecDeque<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Notes that something must not have happened; the first stays.
    pub fn fail(&mut self, violation: Violation) {
        self.say(|| format!("VIOLATION {violation}"));
        self.witness(&violation);
        self.violation.get_or_insert(violation);
    }

    /// Returns what must not have happened, and did.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Writes a line into the trace when there is one.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.trace.is_on() {
            let text = text();
            self.trace.line(self.now_ms, &text);
        }
    }

    /// Counts something that should happen sometimes.
    pub fn hit(&mut self, name: &'static str) {
        self.digest.bytes(name.as_bytes());
        self.coverage.hit(name);
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the counters.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Returns the lines that were kept.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the digest of everything that happened so far.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Returns how many events have happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns how many faults have happened.
    pub fn faults_done(&self) -> u64 {
        self.nemesis.done()
    }

    /// Returns how many snapshots were installed by members that ran.
    pub fn installs(&self) -> u64 {
        self.installs
    }

    /// Returns the log that the cluster has agreed on.
    pub fn committed(&self) -> &[Committed] {
        &self.committed
    }

    /// Returns where a committed entry comes from.
    pub fn origin(&self, index: u64) -> Origin {
        let at = usize::try_from(index.saturating_sub(1)).ok();
        let origin = at.and_then(|at| self.origins.get(at));
        origin.copied().unwrap_or_default()
    }

    /// Returns a machine.
    pub fn machine(&self, number: u64) -> Option<&Machine> {
        self.machines.get(&number)
    }

    /// Lists the machines, those that are gone for good too.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> + '_ {
        self.machines.values()
    }

    /// Lists the numbers of machines whose member runs.
    pub fn up(&self) -> Vec<u64> {
        let up = self.machines.values().filter(|m| m.running.is_some());
        up.map(|m| m.number).collect()
    }

    /// Lists the numbers of machines that still belong to the cluster, as far as anybody knows.
    pub(crate) fn standing(&self) -> BTreeSet<u64> {
        let gone = |m: &&Machine| !matches!(m.status, Status::Removed);
        self.machines
            .values()
            .filter(gone)
            .map(|m| m.number)
            .collect()
    }

    /// Says whether the member on a machine has led in this term or a later one.
    pub fn has_led(&self, machine: u64, term: u64) -> bool {
        self.invariants.has_led(machine, term)
    }

    /// Returns the machine whose member leads in the highest term.
    pub fn leader(&self) -> Option<u64> {
        self.machines
            .values()
            .filter_map(|m| Some((m.number, m.member()?)))
            .filter(|(_, member)| member.leads())
            .max_by_key(|(_, member)| member.view().term())
            .map(|(number, _)| number)
    }
}
