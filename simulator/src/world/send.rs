//! Messages between members, and what is known of the links.
use std::collections::BTreeMap;

use quorate_core::SnapshotSource;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use quorate_transport::fuzz::{pass_damaged, pass_damaged_image};

use super::act::image_index;
use super::{Delivery, Event, World};
use crate::check::Violation;
use crate::network::Fate;
use crate::node::{CLUSTER_VERSION, End, Image};

/// Milliseconds after which a sender knows that a message did not arrive, if it gets to know.
const NOTICED_MS: u64 = 2;
/// Milliseconds after which a sender gives up a snapshot that was lost on its way.
const GIVEN_UP_MS: u64 = 20;
/// Bytes of a state that are about its end.
const LAST_BYTES: u64 = 40;
/// Version that members say they run, unless they are older ones.
const SERVER_VERSION: &str = "3.7.1";

impl World {
    pub(super) fn send_all(
        &mut self,
        from: u64,
        messages: Vec<Message>,
        images: Vec<SnapshotSource>,
    ) {
        let mut images = images.into_iter();
        for message in messages {
            let is_snapshot = message.r#type == Some(MessageType::MsgSnap.into());
            let image = if is_snapshot {
                if self.is_kept_from_sending(from) {
                    images.next();
                    continue;
                }
                let Some(source) = images.next() else {
                    let text = format!("m{from} sends a snapshot without its state");
                    return self.fail(Violation::new("a state for each snapshot", text));
                };
                let is_state = self.forms.one_in(2);
                match crate::node::make_image(source, is_state) {
                    Ok(image) => Some(image),
                    Err((why, is_fatal)) => {
                        self.snapshot_unmade(from, &message, why, is_fatal);
                        continue;
                    }
                }
            } else {
                None
            };
            self.remember_vote(from, &message);
            self.send(from, message, image);
        }
    }

    /// Remembers a vote that is asked for or given: it must never change, nor be forgotten.
    fn remember_vote(&mut self, from: u64, message: &Message) {
        let candidate = match message.r#type() {
            MessageType::MsgVote => message.from,
            MessageType::MsgVoteResp if message.reject != Some(true) => message.to,
            _ => return,
        };
        let Some(machine) = self.machines.get_mut(&from) else {
            return;
        };
        let (term, candidate) = (message.term.unwrap_or(0), candidate.unwrap_or(0));
        if let Some(why) = machine.durable.voted(term, candidate) {
            self.fail(Violation::new(
                "one vote each term",
                format!("m{from} {why}"),
            ));
        }
    }

    fn snapshot_unmade(&mut self, from: u64, message: &Message, why: String, is_fatal: bool) {
        let why = format!("cannot read the state of a snapshot: {why}");
        self.say(|| format!("m{from} {why}"));
        let to = MemberId(message.to.unwrap_or(0));
        self.after(1, from, Event::SnapshotSent { to, ok: false });
        if !self.may_fail(from) {
            let text = format!("m{from} {why}");
            return self.fail(Violation::new("disks that nothing happened to", text));
        }
        if is_fatal {
            self.hit("member stopped at the state of a snapshot");
            self.after(1, from, Event::Fatal(why));
        }
    }

    fn send(&mut self, from: u64, message: Message, image: Option<Image>) {
        let to = MemberId(message.to.unwrap_or(0));
        self.fold_message(&message);
        let Some(running) = self.running(from) else {
            return;
        };
        let Some(number) = running.machine_of(to) else {
            self.say(|| format!("m{from} knows no address of {to}"));
            return self.report_lost(from, to, image.is_some());
        };
        let is_there = self
            .machines
            .get(&number)
            .is_some_and(|m| m.running.is_some());
        let is_snapshot = image.is_some();
        let (fate, overtakes) = self.network.carry(from, number, self.now_ms);
        if let Some(image) = &image {
            self.hit("snapshot sent");
            if image.is_state {
                self.hit("state sent");
            }
            self.say(|| {
                format!(
                    "m{from} sends snapshot {} to m{number}",
                    image_index(&message)
                )
            });
        }
        if overtakes && is_there {
            self.hit("message overtook another");
        }
        match fate {
            Fate::Arrives(first, second) if is_there => {
                self.carry(from, number, first, &message, image.as_ref());
                if let Some(ms) = second {
                    self.hit("message came twice");
                    self.carry(from, number, ms, &message, image.as_ref());
                }
            }
            Fate::Damaged(ms) if is_there => {
                self.damaged(from, number, ms, &message, image.as_ref());
            }
            _ => {
                if is_there {
                    self.hit("message lost");
                    self.count_cut(from, number);
                }
                if is_there && let Some(image) = image.filter(|image| image.is_state) {
                    self.cut_short(from, number, &message, image);
                }
                self.report_lost(from, to, is_snapshot);
            }
        }
    }

    fn carry(&mut self, from: u64, to: u64, ms: u64, message: &Message, image: Option<&Image>) {
        let slow = |n: u64| {
            self.machines
                .get(&n)
                .map_or(0, |m| m.slowness_ms(self.now_ms))
        };
        let ms = ms + slow(from) + slow(to) + u64::from(image.is_some()) * 3;
        let delivery = Delivery {
            from,
            epoch: self.life(from),
            message: Box::new(message.clone()),
            image: image.cloned(),
        };
        self.after(ms, to, Event::Deliver(delivery));
    }

    /// A state of which only the beginning arrives.
    fn cut_short(&mut self, from: u64, to: u64, message: &Message, image: Image) {
        let all = image.bytes.len();
        // All that it says of itself stands near its end.
        let missing_max = self.forms.choose(&[LAST_BYTES, all as u64]);
        let missing = usize::try_from(1 + self.forms.below(missing_max)).unwrap_or(all);
        let bytes = all.saturating_sub(missing);
        let image = Image {
            bytes: image.bytes.slice(..bytes),
            end: End::Cut,
            ..image
        };
        self.carry(from, to, NOTICED_MS, message, Some(&image));
    }

    /// A message whose bytes change: the checksums of the transport must find it.
    fn damaged(&mut self, from: u64, to: u64, ms: u64, message: &Message, image: Option<&Image>) {
        let bit = self.random.number();
        let is_taken = match image {
            Some(image) => pass_damaged_image(&image.bytes, bit),
            None => pass_damaged(message, bit),
        };
        if is_taken {
            let text = format!("a message from m{from} to m{to} with a wrong bit ({bit}) is taken");
            return self.fail(Violation::new("checksums on links", text));
        }
        self.hit(match image {
            Some(_) => "image damaged and refused",
            None => "message damaged and refused",
        });
        if let Some(image) = image.filter(|image| image.is_state) {
            // The checksum stands at the end: until then it goes the way of a sound one.
            let mut bytes = image.bytes.to_vec();
            let at = usize::try_from(bit / 8 % bytes.len() as u64).unwrap_or(0);
            bytes[at] ^= 1 << (bit % 8);
            let image = Image {
                bytes: bytes.into(),
                end: End::Wrong,
                ..*image
            };
            self.carry(from, to, ms, message, Some(&image));
        }
        let id = MemberId(message.to.unwrap_or(0));
        self.report_lost(from, id, image.is_some());
    }

    /// Tells a sender that a message was lost: always for a snapshot, sometimes for others.
    fn report_lost(&mut self, from: u64, to: MemberId, is_snapshot: bool) {
        if is_snapshot {
            self.hit("snapshot was lost on its way");
            self.after(GIVEN_UP_MS, from, Event::SnapshotSent { to, ok: false });
        } else if self.random.one_in(3) {
            self.after(NOTICED_MS, from, Event::Unreachable(to));
        }
    }

    /// A message that reaches nobody.
    pub(super) fn return_to_sender(&mut self, delivery: &Delivery) {
        let to = MemberId(delivery.message.to.unwrap_or(0));
        let event = if delivery.image.is_some() {
            Event::SnapshotSent { to, ok: false }
        } else {
            Event::Unreachable(to)
        };
        self.after_in(NOTICED_MS, delivery.from, delivery.epoch, event);
    }

    /// Returns since when a member's links to others are up, on its own clock.
    pub(super) fn links_of(&mut self, number: u64) -> BTreeMap<MemberId, u64> {
        let now_ms = self.now_ms;
        let mut up = Vec::new();
        for other in self.machines.values() {
            let is_up = other.number != number
                && other.running.is_some()
                && !self.network.is_cut(number, other.number, now_ms)
                && !self.network.is_cut(other.number, number, now_ms);
            if is_up {
                up.push(other.member_id);
            }
        }
        let own_ms = self.member_now_ms(number);
        let Some(machine) = self.machines.get_mut(&number) else {
            return BTreeMap::new();
        };
        machine.links.retain(|id, _| up.contains(id));
        for id in up {
            machine.links.entry(id).or_insert(own_ms);
        }
        machine.links.clone()
    }

    /// Says whether somebody whom a member dials for a stream says that it was removed.
    pub(super) fn is_turned_away(&self, number: u64) -> bool {
        let Some(machine) = self.machines.get(&number) else {
            return false;
        };
        let Some(running) = machine.running.as_ref() else {
            return false;
        };
        running.dialed().any(|(id, to)| {
            let other = self.machines.get(&to).filter(|m| m.member_id == id);
            let view = other.and_then(|m| m.member()).map(|m| m.view());
            view.is_some_and(|view| view.is_removed(machine.member_id))
                && !other.is_some_and(|m| m.is_paused(self.now_ms))
                && !self.network.is_cut(number, to, self.now_ms)
                && !self.network.is_cut(to, number, self.now_ms)
        })
    }

    /// When the cluster is to be downgraded and all its members run, one of them is stopped, so that an older one takes its place.
    fn replace_for_downgrade(&mut self, leader: u64) {
        let leads = self
            .machine(leader)
            .and_then(|m| m.member())
            .is_some_and(|m| m.leads());
        let standing = self.standing();
        if !leads || self.nemesis.is_over() || standing.iter().any(|n| !self.is_ready(*n)) {
            return;
        }
        let due = |number: &u64| Some((*number, self.machine(*number)?.downgrades_to()?));
        if let Some((number, version)) = standing.iter().find_map(due) {
            self.say(|| format!("m{number} is to be replaced by one of version {version}"));
            self.after(1, number, Event::Replace);
        }
    }

    pub(super) fn tell_versions(&mut self, number: u64) {
        let now_ms = self.now_ms;
        let Some(running) = self.running(number) else {
            return;
        };
        let view = running.member.view();
        let own = view.member_id().0;
        let members = view.members();
        let others = members.iter().filter(|m| m.id != own);
        let asked: Vec<_> = others
            .map(|m| (MemberId(m.id), running.machine_of(MemberId(m.id))))
            .collect();
        let answers: Vec<_> = asked
            .into_iter()
            .map(|(id, machine)| {
                let answers = machine.filter(|to| {
                    self.machines
                        .get(to)
                        .is_some_and(|m| m.running.is_some() && !m.is_paused(now_ms))
                        && !self.network.is_cut(number, *to, now_ms)
                        && !self.network.is_cut(*to, number, now_ms)
                });
                let version = answers.and_then(|to| self.machine(to)).map(|m| &m.version);
                let version = version.map(|version| match version.as_str() {
                    CLUSTER_VERSION => SERVER_VERSION.to_owned(),
                    older => older.to_owned(),
                });
                (id, version)
            })
            .collect();
        self.replace_for_downgrade(number);
        if let Some(running) = self.running(number) {
            running.member.handle_member_versions(&answers);
        }
    }
}
