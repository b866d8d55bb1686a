//! Members that compare their running digests, as the server's monitor has them do, and a member whose state goes another way.
use quorate_core::{Comparison, DIVERGED, Proposal, Request, Submission, Verdict};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;

use super::{Event, World};
use crate::check::Violation;
use crate::node::DIFFERS;
use crate::{Lie, Machine};

/// Milliseconds between two comparisons on a member's own clock, as in the server.
const EVERY_MS: u64 = 1_000;
/// Milliseconds that an answer takes at most.
const ANSWER_MS_MAX: u64 = 4;

/// Why a member ends that was about to pass another state on.
pub(super) const TAKEN_AWAY: &str = "taken away by its operator";

/// How far a comparison has come.
#[derive(Debug)]
pub(super) enum Comparing {
    /// It is time for one: the others are asked where they are.
    Ask,
    /// They have answered with an index and the digest there.
    Meet(Vec<MemberId>, Vec<(u64, u64)>),
}

impl Comparing {
    /// Returns a number that tells it from others.
    pub(super) fn digest(&self) -> u64 {
        match self {
            Self::Ask => 0,
            Self::Meet(_, points) => {
                let folded = points.iter().map(|(index, digest)| index ^ digest);
                folded.fold(1, |all, one| all.rotate_left(7) ^ one)
            }
        }
    }
}

impl World {
    /// Sets when a member that starts compares next.
    pub(super) fn begin_comparison(&mut self, number: u64) {
        let machine = self.machines.get(&number);
        let ms = machine.map_or(EVERY_MS, |m| m.clock.true_ms(EVERY_MS));
        self.after(ms, number, Event::Compare(Comparing::Ask));
    }

    /// Goes on with a comparison.
    pub(super) fn compare(&mut self, number: u64, comparing: Comparing) {
        match comparing {
            Comparing::Ask => {
                self.begin_comparison(number);
                let Some(others) = self.others_of_leader(number) else {
                    return self.judge(number, Verdict::Agreed);
                };
                let asked = others.iter();
                let points = asked.filter_map(|id| self.digest_there(number, *id, None));
                let points = points.collect();
                let ms = 1 + self.comparisons.below(ANSWER_MS_MAX);
                let meet = Comparing::Meet(others, points);
                self.after(ms, number, Event::Compare(meet));
            }
            Comparing::Meet(others, points) => {
                let verdict = self.meet(number, &others, &points);
                self.judge(number, verdict.unwrap_or_default());
            }
        }
    }

    /// Returns the other members, when this one leads.
    fn others_of_leader(&self, number: u64) -> Option<Vec<MemberId>> {
        let member = self.machines.get(&number)?.member()?;
        let own = member.view().member_id();
        let members = member.view().members();
        let others = members.iter().map(|m| MemberId(m.id));
        let others = others.filter(|id| *id != own).collect();
        member.leads().then_some(others)
    }

    /// Compares a member with what others have answered; when one differs, all are asked again, about the same place.
    fn meet(&self, number: u64, others: &[MemberId], points: &[(u64, u64)]) -> Option<Verdict> {
        let machine = self.machines.get(&number)?;
        let member = machine.member()?;
        let mut comparison = Comparison::new(machine.member_id, others.len() + 1);
        for (index, theirs) in points {
            if let Some(own) = member.digest_at(*index) {
                comparison.meet(*index, own, *theirs);
            }
        }
        let place = comparison.place()?;
        let own = member.digest_at(place)?;
        let theirs = others.iter().filter_map(|id| {
            let (_, digest) = self.digest_there(number, *id, Some(place))?;
            Some((*id, digest))
        });
        Some(comparison.verdict(own, theirs))
    }

    /// Asks another member for its digest, where it is or at a place; `None` when it does not answer or does not know.
    fn digest_there(&self, number: u64, id: MemberId, at: Option<u64>) -> Option<(u64, u64)> {
        let to = self.reaches(number, id)?;
        let member = self.machines.get(&to)?.member()?;
        let index = at.unwrap_or_else(|| member.view().applied());
        Some((index, member.digest_at(index)?))
    }

    /// Returns the machine of a member that another can ask something.
    fn reaches(&self, number: u64, id: MemberId) -> Option<u64> {
        let running = self.machines.get(&number)?.running.as_ref()?;
        let to = running.machine_of(id)?;
        let other = self.machines.get(&to)?;
        let answers = other.member_id == id
            && other.running.is_some()
            && !other.is_paused(self.now_ms)
            && !self.network.is_cut(number, to, self.now_ms)
            && !self.network.is_cut(to, number, self.now_ms);
        answers.then_some(to)
    }

    /// Acts upon what a comparison found, when it was found often enough.
    fn judge(&mut self, number: u64, verdict: Verdict) {
        let Some(running) = self.running(number) else {
            return;
        };
        let Some(verdict) = running.suspicion.confirm(verdict) else {
            return;
        };
        self.say(|| format!("m{number} finds members that differ: {verdict:?}"));
        self.witness(&verdict);
        let mut running = self.machines.values().filter(|m| m.running.is_some());
        if running.all(|m| !self.may_differ(m)) {
            let text = format!("m{number} finds members that differ, and none does: {verdict:?}");
            return self.fail(Violation::new("who is sound is not suspected", text));
        }
        match verdict {
            Verdict::Agreed => {}
            Verdict::Own => {
                self.hit("leader found that its state differs");
                self.stop_diverged(number);
            }
            Verdict::Others(ids) => {
                for id in ids {
                    if let Some(to) = self.reaches(number, id) {
                        self.hit("member whose state differs was told to stop");
                        self.stop_diverged(to);
                    }
                }
            }
            Verdict::Unknown(_) => {
                self.hit("nobody could say whose state differs");
                self.raise_corrupt(number);
            }
        }
    }

    /// Says whether the state of a machine may be another one than the others': inside the atlas no damage but the one that is
    /// meant to may do that.
    pub(super) fn may_differ(&self, machine: &Machine) -> bool {
        machine.damage == Some(DIFFERS) || self.plan.is_beyond && machine.damage.is_some()
    }

    fn stop_diverged(&mut self, number: u64) {
        if self.lie == Some(Lie::Divergence) {
            return;
        }
        self.after(1, number, Event::Fatal(DIVERGED.to_owned()));
    }

    /// Raises the alarm that nobody knows who is right.
    fn raise_corrupt(&mut self, number: u64) {
        let request = Request::Alarm(pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            member_id: 0,
            alarm: pb::AlarmType::Corrupt.into(),
        });
        let auth = self.auth(number).filter(|auth| auth.is_enabled());
        let identity = auth.map_or(quorate_auth::Identity::NONE, |auth| auth.root_identity());
        self.ask(number, |token| {
            Submission::Propose(Proposal {
                token,
                request,
                raw: None,
                identity,
            })
        });
    }

    /// Lets the state of a member go another way, as a bug in what it applies would: from its next start on its digest is wrong.
    pub(super) fn diverge(&mut self, victim: u64) {
        if !self.may_be_damaged(victim) || self.plan.is_beyond {
            return;
        }
        self.say(|| format!("m{victim}'s state goes another way"));
        self.kill(victim);
        if let Some(machine) = self.machines.get_mut(&victim) {
            machine.damage = Some(DIFFERS);
        }
    }

    /// Says whether a member holds another state than others, and takes it away before it makes others like it: these would
    /// soon be the majority. What is done about it is an operator's doing, not the member's.
    pub(super) fn is_kept_from_sending(&mut self, number: u64) -> bool {
        let machine = self.machines.get(&number);
        let differs = machine.is_some_and(|m| m.damage == Some(DIFFERS));
        if differs {
            let why = "is taken away, since it holds another state and was about to pass it on";
            self.say(|| format!("m{number} {why}"));
            self.after(1, number, Event::Fatal(TAKEN_AWAY.to_owned()));
        }
        differs
    }

    /// Says whether no member runs that was made to hold another state than others.
    pub(crate) fn has_nobody_different(&self) -> bool {
        let mut running = self.machines.values().filter(|m| m.running.is_some());
        running.all(|m| m.damage != Some(DIFFERS))
    }
}
