//! Who the members are, whoever knows of it, and what of that could be forgotten.
use std::sync::Arc;

use quorate_core::{Submission, View};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{EntryType, MessageType};

use super::{Event, World};
use crate::node::{Machine, Status};

/// The members as who applied most has them, also when it is gone by now.
#[derive(Default)]
pub(super) struct Configuration {
    /// What it had applied.
    applied: u64,
    /// Up to which entry others must have applied to agree on who votes.
    since: u64,
    members: Arc<Vec<pb::Member>>,
}

impl Configuration {
    /// Takes what a member has applied.
    pub(super) fn learn(&mut self, view: &View) {
        let applied = view.applied();
        if applied <= self.applied {
            return;
        }
        let members = view.members();
        if !Arc::ptr_eq(&members, &self.members) {
            let who = |m: &pb::Member| (m.id, m.is_learner);
            if !members.iter().map(who).eq(self.members.iter().map(who)) {
                self.since = applied;
            }
            self.members = members;
        }
        self.applied = applied;
    }

    fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        let voters = self.members.iter().filter(|m| !m.is_learner);
        voters.map(|m| m.id)
    }
}

impl World {
    /// Says whether the cluster can still do without so many voters more than it has lost already, and without one voter
    /// that leaves it in order, if it is told which.
    pub(super) fn can_spare(&self, more: usize, leaver: Option<u64>) -> bool {
        let voters = self.configuration.voters();
        let left: Vec<u64> = voters.filter(|id| Some(*id) != leaver).collect();
        let lost = left.iter().filter(|id| self.is_lost(**id)).count();
        let minority = |voters: usize| voters.saturating_sub(1) / 2;
        // Who does not know yet that one has left goes on to ask for it.
        let all = left.len() + usize::from(leaver.is_some());
        lost + more <= minority(left.len())
            && lost + more + usize::from(leaver.is_some()) <= minority(all)
    }

    /// Says whether a member can take no part any more, or cannot be relied on to.
    pub(super) fn is_lost(&self, id: u64) -> bool {
        let machine = self.machines.values().find(|m| m.member_id.0 == id);
        machine.is_none_or(|m| {
            m.damage.is_some()
                || !m.has_joined
                || matches!(m.status, Status::Refused(_) | Status::Removed)
        })
    }

    /// Says whether no more than a minority of the founders is lost; beyond the atlas nobody else ever votes.
    pub(crate) fn has_sound_majority(&self) -> bool {
        let founders = self.machines.values();
        let lost = founders.filter(|m| self.is_lost(m.member_id.0)).count();
        2 * lost < self.machines.len()
    }

    /// Says whether every member runs, or has given a reason why it cannot go on.
    pub(crate) fn has_nobody_gone_silently(&self) -> bool {
        self.machines.values().all(|m| match &m.status {
            Status::Refused(why) => !why.is_empty(),
            Status::Removed => true,
            Status::Up | Status::Down => m.running.is_some(),
        })
    }

    /// Says whether everybody who counts knows who votes and will not forget it, and no change of that is on its way.
    ///
    /// While it is not so, members that are gone may still be asked for.
    pub(super) fn is_settled(&self) -> bool {
        let knows = |m: &Machine| {
            let durable = m.member().map(|m| m.stores().backend.durable().index);
            durable.is_some_and(|index| index >= self.configuration.since)
        };
        let mut voters = self.configuration.voters().filter(|id| !self.is_lost(*id));
        let all_know = voters.all(|id| {
            let machine = self.machines.values().find(|m| m.member_id.0 == id);
            machine.is_some_and(knows)
        });
        all_know && self.operator.is_quiet() && !self.may_change()
    }

    /// Says whether a change of members may yet be committed: it is in a log, or on its way to one.
    fn may_change(&self) -> bool {
        let committed = self.committed.len() as u64;
        let standing = self
            .machines
            .values()
            .filter(|m| matches!(m.status, Status::Up | Status::Down));
        let is_held = |m: &Machine| {
            let is_asked = m.running.as_ref().is_some_and(|r| {
                let changes = |s: &Submission| matches!(s, Submission::ChangeMembers { .. });
                r.inbox.iter().any(changes)
            });
            is_asked || m.log.range(committed + 1..).any(|(_, e)| e.kind != 0)
        };
        let is_carried = |event: &Event| match event {
            Event::Deliver(delivery) => {
                let message = &delivery.message;
                let changes = |kind: EntryType| kind != EntryType::EntryNormal;
                message.r#type() == MessageType::MsgProp
                    && message.entries.iter().any(|e| changes(e.r#type()))
            }
            _ => false,
        };
        let mut standing = standing;
        standing.any(is_held) || self.queue.iter().any(|item| is_carried(&item.event))
    }
}
