//! The world that members live in: time, links, clients, and what goes wrong.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use bytes::Bytes;
use quorate_core::{
    Actions, Applied, Error, ImageStream, MemberChange, Outcome, Proposal, Request, Submission,
    Token,
};
use quorate_integration_tests::Random;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{MemberId, raftpb};

use crate::check::Oracle;
use crate::node::{Node, Settings, TICK_MS};
use crate::random::Faults;

/// Something that happens at a time.
enum Event {
    Tick,
    Deliver(Box<raftpb::Message>, Option<Bytes>),
    SnapshotSent { to: u64, ok: bool },
    Unreachable(u64),
    Log,
    Flush,
    Compact,
    Save,
    Install,
    Versions,
    Start,
}

/// What a caller waits for.
#[derive(Debug)]
enum Waiting {
    Put {
        key: String,
        value: String,
    },
    /// The newest revision that anybody was told of when the read began.
    Read {
        revision: i64,
    },
    Other,
}

/// A cluster and everything around it.
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) nodes: BTreeMap<u64, Node>,
    events: BTreeMap<(u64, u64), (u64, u64, Event)>,
    sequence: u64,
    /// Links that carry nothing, from one to another.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    waiting: BTreeMap<u64, (u64, Waiting)>,
    pub(crate) answers: BTreeMap<u64, Outcome>,
    next_token: u64,
    pub(crate) oracle: Oracle,
    /// A digest of everything that happened: equal for equal seeds.
    pub(crate) trace: u64,
    pub(crate) installs: u64,
    /// How much longer than a message an image takes.
    pub(crate) image_ms: u64,
    pub(crate) fatal: Vec<(u64, String)>,
    /// Disks that write nothing before a time.
    stalled: BTreeMap<u64, u64>,
    /// Kills a member at the next step of this kind.
    pub(crate) kill_at: Option<(u64, &'static str)>,
    /// Kills it when that step is done, not before.
    pub(crate) kill_behind: bool,
}

impl World {
    /// Founds a cluster of members 1 to `count`.
    pub(crate) fn new(seed: u64, count: u64, faults: Faults, settings: Settings) -> Self {
        let founders: Vec<u64> = (1..=count).collect();
        let mut world = Self {
            now_ms: 1_000,
            random: Random::new(seed),
            faults,
            nodes: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            waiting: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_token: 1,
            oracle: Oracle::default(),
            trace: 0,
            installs: 0,
            image_ms: 0,
            fatal: Vec::new(),
            stalled: BTreeMap::new(),
            kill_at: None,
            kill_behind: false,
        };
        for id in &founders {
            world.add_machine(*id, &founders, settings);
        }
        world
    }

    pub(crate) fn add_machine(&mut self, id: u64, founders: &[u64], settings: Settings) {
        let seed = self.random.number();
        let node = Node::new(id, founders, seed, settings);
        assert!(self.nodes.insert(id, node).is_none());
        self.start(id);
    }

    pub(crate) fn start(&mut self, id: u64) {
        let now_ms = self.nodes[&id].clock_ms(self.now_ms);
        self.node(id).start(now_ms);
        let first = 1 + self.random.below(TICK_MS);
        self.after(first, id, Event::Tick);
        self.perform(id);
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    fn after(&mut self, ms: u64, id: u64, event: Event) {
        self.sequence += 1;
        let epoch = self.nodes[&id].epoch;
        self.events
            .insert((self.now_ms + ms, self.sequence), (id, epoch, event));
    }

    /// Lets time pass, with all that happens in it.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(((at_ms, _), _)) = self.events.first_key_value() {
            if *at_ms > end_ms {
                break;
            }
            let ((at_ms, sequence), (id, epoch, event)) = self.events.pop_first().unwrap();
            self.now_ms = at_ms;
            self.trace = (self.trace ^ at_ms ^ sequence << 20 ^ id << 50)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(17);
            self.happen(id, epoch, event);
        }
        self.now_ms = end_ms;
    }

    /// Lets time pass until something holds; fails when it does not in time.
    pub(crate) fn run_until(&mut self, what: &str, limit_ms: u64, holds: impl Fn(&World) -> bool) {
        let end_ms = self.now_ms + limit_ms;
        while !holds(self) {
            assert!(self.now_ms < end_ms, "{what}: not within {limit_ms} ms");
            self.run_ms(TICK_MS);
        }
    }

    fn happen(&mut self, id: u64, epoch: u64, event: Event) {
        let node = self.nodes.get_mut(&id).unwrap();
        let now_ms = node.clock_ms(self.now_ms);
        let tick_ms = TICK_MS * 100 / node.clock_percent;
        if let Event::Start = event {
            if node.running.is_none() && !node.removed {
                self.start(id);
            }
            return;
        }
        // Messages reach whoever runs at the address; anything else belongs to one life of the member.
        let is_message = matches!(event, Event::Deliver(..));
        if node.running.is_none() || node.epoch != epoch && !is_message {
            return;
        }
        let is_hit = self.kill_at == Some((id, name(&event)));
        if is_hit {
            self.kill_at = None;
            if !self.kill_behind {
                return self.kill(id, true, 50);
            }
        }
        let (disk, settings) = (node.disk.clone(), node.settings);
        let running = node.running.as_mut().unwrap();
        running.member.handle_time(now_ms);
        match event {
            Event::Tick => {
                let links = node.links.clone();
                running.member.set_links(links);
                running.member.handle_tick(now_ms);
                self.after(tick_ms, id, Event::Tick);
            }
            Event::Deliver(message, image) => {
                if let Some(image) = image {
                    let index = message.snapshot.as_ref().unwrap().metadata.as_ref();
                    node.store_image(index.unwrap().index.unwrap(), &image);
                }
                let running = node.running.as_mut().unwrap();
                running.member.handle_messages(vec![*message]);
            }
            Event::SnapshotSent { to, ok } => {
                running.member.handle_snapshot_sent(MemberId(to), ok);
            }
            Event::Unreachable(to) => running.member.handle_unreachable(MemberId(to)),
            Event::Log => running.write_log(),
            Event::Flush => {
                running.flushing = false;
                running.flush.take().unwrap().run().unwrap();
                running.member.handle_flushed();
            }
            Event::Compact => {
                running.compacting = false;
                let mut job = running.compact.take().unwrap();
                while !matches!(job.step().unwrap(), quorate_mvcc::Progress::Done(_)) {}
                running.member.handle_compacted();
            }
            Event::Save => running.save_snapshot(),
            Event::Install => {
                running.install(&disk, &settings);
                self.installs += 1;
            }
            Event::Versions => self.tell_versions(id),
            Event::Start => unreachable!(),
        }
        if is_hit {
            // Nobody is told any more of what is done.
            return self.kill(id, true, 50);
        }
        self.perform(id);
    }

    fn tell_versions(&mut self, id: u64) {
        let versions: Vec<_> = self
            .nodes
            .values()
            .filter(|n| n.id != id && n.running.is_some() && !self.cut.contains(&(id, n.id)))
            .map(|n| (MemberId(n.id), Some(n.settings.version.replace(".0", ".1"))))
            .collect();
        let running = self.node(id).running.as_mut().unwrap();
        running.member.handle_member_versions(&versions);
    }

    /// Does what a member asks for, each thing in its own time.
    fn perform(&mut self, id: u64) {
        let Some(running) = &mut self.nodes.get_mut(&id).unwrap().running else {
            return;
        };
        let actions = running.member.take_actions();
        running.ready |= actions.ready;
        let Actions {
            persist,
            replies,
            flush,
            compact,
            save_snapshots,
            release_log,
            send,
            images,
            peers,
            install,
            unused_images,
            removed,
            ask_versions,
            fatal,
            ..
        } = actions;
        running.unwritten.extend(persist);
        let write = !running.writing && !running.unwritten.is_empty();
        running.writing |= write;
        running.release = release_log.or(running.release);
        let saves = save_snapshots.len();
        running.saves.extend(save_snapshots);
        running.flush = flush.or(running.flush.take());
        running.compact = compact.or(running.compact.take());
        let is_install = install.is_some();
        running.install = install.or(running.install);
        for change in peers {
            running.change_peer(change);
        }
        if write {
            let mut ms = 1 + self.random.below(self.faults.sync_ms);
            if self.faults.stall > 0 && self.random.one_in(self.faults.stall) {
                ms += 150 + self.random.below(400);
            }
            if let Some(until_ms) = self.stalled.get(&id) {
                ms = ms.max(until_ms.saturating_sub(self.now_ms));
            }
            self.after(ms, id, Event::Log);
        }
        self.schedule_disk(id, saves, is_install);
        if ask_versions {
            self.after(5, id, Event::Versions);
        }
        for index in unused_images {
            self.nodes[&id].remove_image(index);
        }
        self.send(id, send, images);
        for (token, outcome) in replies {
            self.answer(id, token, outcome);
        }
        if let Some(why) = fatal {
            self.fatal.push((id, why));
            self.node(id).kill(None, true);
            return;
        }
        if removed {
            self.node(id).removed = true;
        }
        let nodes = &mut self.nodes;
        self.oracle
            .observe(nodes.get_mut(&id).unwrap(), self.now_ms);
        if removed {
            // It lives on for a while, as etcd's does, and ends by itself.
            self.node(id).kill(None, true);
        }
    }

    fn schedule_disk(&mut self, id: u64, saves: usize, install: bool) {
        let limit = self.faults.sync_ms;
        let running = self.nodes.get_mut(&id).unwrap().running.as_mut().unwrap();
        let (flush, compact) = (running.flush.is_some(), running.compact.is_some());
        let (flush_now, compact_now) = (
            flush && !std::mem::replace(&mut running.flushing, flush),
            compact && !std::mem::replace(&mut running.compacting, compact),
        );
        if flush_now {
            let ms = 1 + self.random.below(2 * limit);
            self.after(ms, id, Event::Flush);
        }
        if compact_now {
            let ms = 1 + self.random.below(3 * limit);
            self.after(ms, id, Event::Compact);
        }
        for _ in 0..saves {
            let ms = 1 + self.random.below(limit);
            self.after(ms, id, Event::Save);
        }
        if install {
            let ms = 1 + self.random.below(20 * limit);
            self.after(ms, id, Event::Install);
        }
    }

    fn send(
        &mut self,
        from: u64,
        messages: Vec<raftpb::Message>,
        images: Vec<quorate_core::SnapshotSource>,
    ) {
        let mut images = images.into_iter();
        for message in messages {
            let to = message.to.unwrap();
            let is_snapshot = message.r#type == Some(raftpb::MessageType::MsgSnap.into());
            let image = is_snapshot.then(|| {
                let source = images.next().expect("a state for each snapshot");
                assert_eq!(source.to.0, to);
                let mut bytes = Vec::new();
                let mut stream = ImageStream::open_for_member(source.state).unwrap();
                stream.read_to_end(&mut bytes).unwrap();
                Bytes::from(bytes)
            });
            self.carry(from, to, &message, image.as_ref());
        }
        assert!(images.next().is_none(), "a snapshot for each state");
    }

    fn carry(&mut self, from: u64, to: u64, message: &raftpb::Message, image: Option<&Bytes>) {
        let is_lost = self.faults.loss > 0 && self.random.one_in(self.faults.loss);
        let is_there = self.nodes.get(&to).is_some_and(|n| n.running.is_some());
        if is_lost || !is_there || self.cut.contains(&(from, to)) {
            if image.is_some() {
                self.after(3, from, Event::SnapshotSent { to, ok: false });
            } else if self.random.one_in(3) {
                self.after(1, from, Event::Unreachable(to));
            }
            return;
        }
        let twice = self.faults.twice > 0 && self.random.one_in(self.faults.twice);
        let longer_ms = image.map_or(0, |_| self.image_ms);
        for _ in 0..=usize::from(twice) {
            let ms = 1 + longer_ms + self.random.below(self.faults.delay_ms);
            let event = Event::Deliver(Box::new(message.clone()), image.cloned());
            self.after(ms, to, event);
        }
        if image.is_some() {
            let ms = 2 + longer_ms + self.random.below(2 * self.faults.delay_ms);
            self.after(ms, from, Event::SnapshotSent { to, ok: true });
        }
    }

    fn answer(&mut self, id: u64, token: Token, outcome: Outcome) {
        let Some((_, waiting)) = self.waiting.remove(&token.0) else {
            panic!("member {id} answers {token:?} twice, or unasked: {outcome:?}");
        };
        match (&waiting, &outcome) {
            (Waiting::Put { key, value }, Outcome::Applied(Applied::Put(result))) => {
                self.oracle.acknowledged(result.revision, key, value);
            }
            (Waiting::Read { revision }, Outcome::ReadReady) => {
                let reader = self.nodes[&id].member().unwrap().stores().kv.reader();
                let current = reader.current_revision();
                assert!(
                    current >= *revision,
                    "stale read on {id}: {current} < {revision}"
                );
                self.oracle.reads += 1;
            }
            _ => {}
        }
        self.answers.insert(token.0, outcome);
    }

    fn submit(&mut self, id: u64, waiting: Waiting, make: impl FnOnce(Token) -> Submission) -> u64 {
        let token = Token(self.next_token);
        self.next_token += 1;
        let node = self.nodes.get_mut(&id).unwrap();
        let now_ms = node.clock_ms(self.now_ms);
        let Some(running) = &mut node.running else {
            return token.0;
        };
        running.member.handle_time(now_ms);
        self.waiting.insert(token.0, (id, waiting));
        running.member.handle_submissions(vec![make(token)]);
        self.perform(id);
        token.0
    }

    pub(crate) fn propose(&mut self, id: u64, request: Request) -> u64 {
        self.submit(id, Waiting::Other, |token| propose(token, request))
    }

    pub(crate) fn ask(&mut self, id: u64, make: impl FnOnce(Token) -> Submission) -> u64 {
        self.submit(id, Waiting::Other, make)
    }

    pub(crate) fn put(&mut self, id: u64, key: &str, value: &str) -> u64 {
        let request = Request::Put(pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        });
        let waiting = Waiting::Put {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        self.submit(id, waiting, |token| propose(token, request))
    }

    pub(crate) fn read(&mut self, id: u64) -> u64 {
        let revision = self.oracle.newest();
        self.submit(id, Waiting::Read { revision }, |token| {
            Submission::ReadIndex { token }
        })
    }

    pub(crate) fn change(&mut self, id: u64, change: MemberChange) -> u64 {
        self.submit(id, Waiting::Other, |token| Submission::ChangeMembers {
            token,
            change,
        })
    }

    /// Waits for an answer.
    pub(crate) fn wait(&mut self, token: u64, limit_ms: u64) -> Outcome {
        self.run_until("an answer", limit_ms, |w| w.answers.contains_key(&token));
        self.answers.remove(&token).unwrap()
    }

    /// Puts until it succeeds, wherever that is.
    pub(crate) fn put_somehow(&mut self, key: &str, value: &str) -> i64 {
        for _ in 0..200 {
            let Some(id) = self.leader() else {
                self.run_ms(TICK_MS);
                continue;
            };
            let token = self.put(id, key, value);
            self.run_ms(100);
            if let Some(Outcome::Applied(Applied::Put(result))) = self.answers.remove(&token) {
                return result.revision;
            }
        }
        panic!("no put succeeds");
    }

    /// The member that leads in the highest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.nodes
            .values()
            .filter_map(|n| Some((n.id, n.member()?)))
            .filter(|(_, m)| m.leads())
            .max_by_key(|(_, m)| m.view().term())
            .map(|(id, _)| id)
    }

    pub(crate) fn wait_for_leader(&mut self) -> u64 {
        self.run_until("a leader", 5_000, |w| w.leader().is_some());
        self.leader().unwrap()
    }

    pub(crate) fn kill(&mut self, id: u64, power: bool, back_ms: u64) {
        let seed = self.random.number();
        let written = self.random.one_in(2);
        self.node(id).kill(power.then_some(seed), written);
        self.waiting.retain(|_, (of, _)| *of != id);
        self.after(back_ms, id, Event::Start);
    }

    /// Lets a member's log take that long with what comes next.
    pub(crate) fn stall(&mut self, id: u64, ms: u64) {
        self.stalled.insert(id, self.now_ms + ms);
    }

    /// Does what a member asks for that was called from outside.
    pub(crate) fn poke(&mut self, id: u64) {
        self.perform(id);
    }

    /// Lets a member that does not run yet, or no longer, have a clock of another speed from its next start on.
    pub(crate) fn set_clock(&mut self, id: u64, percent: u64) {
        assert!(self.nodes[&id].running.is_none(), "{id} runs");
        self.node(id).clock_percent = percent;
    }

    /// Cuts a member off, or only what it sends, or what it is sent.
    pub(crate) fn isolate(&mut self, id: u64, sends: bool, hears: bool) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|o| *o != id).collect();
        for other in others {
            if sends {
                self.cut.insert((id, other));
            }
            if hears {
                self.cut.insert((other, id));
            }
        }
        self.refresh_links();
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.refresh_links();
    }

    /// Shows members which links are up.
    pub(crate) fn refresh_links(&mut self) {
        let alive: BTreeSet<u64> = self
            .nodes
            .values()
            .filter(|n| n.running.is_some())
            .map(|n| n.id)
            .collect();
        let now_ms = self.now_ms;
        for node in self.nodes.values_mut() {
            let id = node.id;
            let now_ms = node.clock_ms(now_ms);
            let up = |other: u64| {
                other != id
                    && alive.contains(&other)
                    && !self.cut.contains(&(id, other))
                    && !self.cut.contains(&(other, id))
            };
            node.links.retain(|other, _| up(other.0));
            for other in &alive {
                if up(*other) {
                    node.links.entry(MemberId(*other)).or_insert(now_ms);
                }
            }
        }
    }

    pub(crate) fn alive(&self) -> Vec<u64> {
        let alive = self.nodes.values().filter(|n| n.running.is_some());
        alive.map(|n| n.id).collect()
    }

    /// Ends all faults, lets everybody catch up, and checks what must hold then.
    pub(crate) fn settle(&mut self) {
        assert_eq!(self.fatal, [], "nobody gives up");
        self.faults = Faults::NONE;
        self.heal();
        let down: Vec<u64> = self
            .nodes
            .values()
            .filter(|n| n.running.is_none() && !n.removed)
            .map(|n| n.id)
            .collect();
        for id in down {
            self.start(id);
        }
        self.refresh_links();
        self.run_ms(500);
        self.put_somehow("the-end", "1");
        self.run_until("everybody catches up", 20_000, |w| {
            let applied: BTreeSet<u64> = w
                .nodes
                .values()
                .filter_map(|n| n.member())
                .map(|m| m.view().applied())
                .collect();
            applied.len() == 1
        });
        self.run_until("everybody is ready", 20_000, |w| {
            let mut running = w.nodes.values().filter_map(|n| n.running.as_ref());
            running.all(|r| r.ready)
        });
        assert_eq!(self.fatal, [], "nobody gives up");
        self.oracle.check_end(&self.nodes);
    }

    pub(crate) fn told_error(&self, token: u64) -> Option<&Error> {
        match self.answers.get(&token) {
            Some(Outcome::Failed(error)) => Some(error),
            _ => None,
        }
    }
}

fn propose(token: Token, request: Request) -> Submission {
    Submission::Propose(Proposal {
        token,
        request,
        raw: None,
        identity: quorate_auth::Identity::NONE,
    })
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Log => "log",
        Event::Flush => "flush",
        Event::Compact => "compact",
        Event::Save => "save",
        Event::Install => "install",
        Event::Deliver(_, Some(_)) => "snapshot",
        _ => "",
    }
}
