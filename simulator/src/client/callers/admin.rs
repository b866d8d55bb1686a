//! What administrators ask for: another leader, a downgrade, other members.
use quorate_auth::Operation;
use quorate_core::{DowngradeAction, Error, MemberChange, Outcome, Submission};
use quorate_proto::MemberId;

use super::{Callers, Checked, Waiting};
use crate::World;
use crate::check::{Violation, refusal};
use crate::model::{Answer, Cluster, Peer};

/// Versions that are asked for: what the cluster can go down to, what it cannot, and what is none.
const TARGETS: [&str; 5] = ["3.6", "3.6.0", "3.6.2", "3.5", "x"];

/// Something that a client does to the cluster, before it is drawn what exactly.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errand {
    MoveLeader,
    Downgrade(DowngradeAction),
    Members,
}

/// What is asked of a member.
#[derive(Clone, Debug)]
enum Admin {
    MoveLeader {
        target: MemberId,
        /// The term in which it was asked.
        term: u64,
    },
    Downgrade {
        action: DowngradeAction,
        version: String,
    },
    Members(MemberChange),
}

/// A question about the cluster, and since when its answer may hold.
#[derive(Clone, Debug)]
pub(super) struct AdminAsk {
    what: Admin,
    /// What the member had applied.
    place: u64,
    /// Entries that were committed.
    since: u64,
}

impl AdminAsk {
    /// Says whether a member lets it wait for as long as its caller does.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self.what, Admin::Members(_))
    }
}

impl Callers {
    /// Runs an errand at a member, or at the leader when only that one can do it.
    pub(super) fn administrate(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        errand: Errand,
    ) -> Checked {
        let machine = match errand {
            Errand::MoveLeader => match world.leader().filter(|leader| world.is_ready(*leader)) {
                Some(leader) => leader,
                None => return Ok(()),
            },
            _ => machine,
        };
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        let operation = match errand {
            Errand::Members => Operation::MemberChange,
            _ => Operation::Maintenance,
        };
        if !self.door(world, machine, &identity, &operation, &[])? {
            return Ok(());
        }
        let Some(what) = self.draw_admin(world, machine, errand) else {
            return Ok(());
        };
        let ask = AdminAsk {
            what,
            place: Self::place(world, machine).unwrap_or(0),
            since: world.committed().len() as u64,
        };
        let token = match ask.what.clone() {
            Admin::MoveLeader { target, .. } => {
                world.hit("leadership asked to move");
                world.submit(machine, |token| Submission::MoveLeader { token, target })
            }
            Admin::Downgrade { action, version } => {
                world.hit("downgrade asked for");
                world.submit(machine, |token| Submission::Downgrade {
                    token,
                    action,
                    version,
                })
            }
            Admin::Members(change) => {
                world.hit("change of members asked for by a client");
                world.say(|| format!("m{machine} is asked for {change:?}"));
                world.submit_change(machine, change)
            }
        };
        self.wait(world, machine, token, Waiting::Admin(ask));
        Ok(())
    }

    fn draw_admin(&mut self, world: &mut World, machine: u64, errand: Errand) -> Option<Admin> {
        Some(match errand {
            Errand::MoveLeader => {
                let members = world.members();
                let ids: Vec<u64> = members.iter().map(|m| m.id).chain([7]).collect();
                Admin::MoveLeader {
                    target: MemberId(self.random.pick(&ids).unwrap_or(7)),
                    term: world.view(machine).map_or(0, |v| v.term()),
                }
            }
            Errand::Downgrade(action) => Admin::Downgrade {
                action,
                version: self.random.pick(&TARGETS).unwrap_or(TARGETS[0]).to_owned(),
            },
            // Who may lose more than a minority is looked after by nobody.
            Errand::Members if world.plan().is_beyond => return None,
            Errand::Members => Admin::Members(world.draw_change(&mut self.random)?),
        })
    }

    /// Holds an answer against what was so at some time between the question and now.
    pub(super) fn admin_answered(
        &mut self,
        world: &mut World,
        machine: u64,
        ask: &AdminAsk,
        outcome: &Outcome,
        is_heard: bool,
    ) -> Checked {
        let place = ask.place;
        let may_be = match &ask.what {
            Admin::Members(change) => {
                let change = (change, ask.since);
                return self.change_answered(world, machine, change, outcome, is_heard);
            }
            Admin::MoveLeader { target, term } => match outcome {
                Outcome::LeaderMoved => {
                    world.hit("leadership moved");
                    let machine = world.machine_of(*target);
                    machine.is_some_and(|machine| world.has_led(machine, *term))
                }
                Outcome::Failed(Error::BadLeaderTransferee) => self.was(place, |cluster| {
                    let is_it = |peer: &Peer| peer.id == target.0 && !peer.is_learner;
                    !cluster.members().iter().any(is_it)
                }),
                Outcome::Failed(_) => true,
                _ => false,
            },
            Admin::Downgrade { action, version } => {
                if matches!(outcome, Outcome::Done) {
                    world.hit(match action {
                        DowngradeAction::Validate => "downgrade found possible",
                        DowngradeAction::Enable => "downgrade began",
                        DowngradeAction::Cancel => "downgrade canceled",
                    });
                }
                self.was(place, |cluster| fits(cluster, *action, version, outcome))
            }
        };
        if may_be {
            return Ok(());
        }
        let newest = self.model.index();
        let cluster = self.model.cluster_at(newest);
        let text = format!(
            "m{machine} answers {ask:?} by {outcome:?}; after entry {newest} the version is {}, on its way to {:?}",
            cluster.version(),
            cluster.downgrade()
        );
        Err(Violation::new("answers are the model's", text))
    }

    /// Holds the answer to a change of members against the log; it was asked for when so many entries were committed.
    pub(super) fn change_answered(
        &mut self,
        world: &mut World,
        machine: u64,
        (change, since): (&MemberChange, u64),
        outcome: &Outcome,
        is_heard: bool,
    ) -> Checked {
        let may_be = match outcome {
            Outcome::Members { id, members } => {
                world.hit("members changed, as the model says");
                let listed: Vec<Peer> = members.iter().map(Peer::from).collect();
                let answer = Answer::Members(listed);
                if !self.rests_on(since, is_heard, |s| s.outcome.as_ref() == Ok(&answer)) {
                    let text = format!(
                        "m{machine} answers {change:?} by {answer:?}, and no entry after {since} says so that was not told of"
                    );
                    return Err(Violation::new("answers rest on committed entries", text));
                }
                matches!(&answer, Answer::Members(listed) if is_done(change, *id, listed))
            }
            Outcome::Failed(error) => match refusal(error) {
                Some(refused) => {
                    world.hit("change of members refused, as the model says");
                    let mut steps =
                        (since + 1..=self.model.index()).filter_map(|i| self.model.step(i));
                    steps.any(|s| s.outcome.as_ref() == Err(&refused))
                        || !goes_through_the_log(change, error)
                }
                None => true,
            },
            _ => false,
        };
        if may_be {
            return Ok(());
        }
        let text =
            format!("m{machine} answers {change:?}, asked after entry {since}, by {outcome:?}");
        Err(Violation::new("answers are the model's", text))
    }

    /// Says whether something was so about the cluster after this entry or a later one.
    fn was(&self, place: u64, holds: impl FnMut(&Cluster) -> bool) -> bool {
        let mut clusters = (place..=self.model.index()).map(|i| self.model.cluster_at(i));
        let mut holds = holds;
        clusters.any(|cluster| holds(&cluster))
    }
}

/// Says whether an answer about a downgrade is right for the cluster as it was once.
fn fits(cluster: &Cluster, action: DowngradeAction, version: &str, outcome: &Outcome) -> bool {
    let target = version
        .split('.')
        .nth(1)
        .map(|minor| format!("3.{minor}.0"));
    let is_cancel = action == DowngradeAction::Cancel;
    let is_next = cluster.version() == "3.7.0" && target.as_deref() == Some("3.6.0")
        || cluster.version() == "3.6.0" && target.as_deref() == Some("3.5.0");
    match outcome {
        Outcome::Done => match action {
            DowngradeAction::Validate => is_next && cluster.downgrade().is_none(),
            DowngradeAction::Enable => cluster.downgrade() == target.as_deref(),
            // That it could not be canceled is only told to the log, as in etcd.
            DowngradeAction::Cancel => true,
        },
        Outcome::Failed(error) => match error {
            Error::WrongDowngradeVersion => !is_cancel && target.is_none(),
            Error::ClusterVersionUnavailable => !is_cancel && cluster.version().is_empty(),
            Error::InvalidDowngradeTarget => !is_cancel && !is_next,
            Error::DowngradeInProcess => !is_cancel && cluster.downgrade().is_some(),
            _ => true,
        },
        _ => false,
    }
}

/// Says whether a list of members shows a change.
fn is_done(change: &MemberChange, id: MemberId, members: &[Peer]) -> bool {
    let member = members.iter().find(|m| m.id == id.0);
    match change {
        MemberChange::Add {
            peer_urls,
            is_learner,
        } => member.is_some_and(|m| m.peer_urls == *peer_urls && m.is_learner == *is_learner),
        MemberChange::Remove { id: asked } => *asked == id && member.is_none(),
        MemberChange::Update {
            id: asked,
            peer_urls,
        } => *asked == id && member.is_some_and(|m| m.peer_urls == *peer_urls),
        MemberChange::Promote { id: asked } => {
            *asked == id && member.is_some_and(|m| !m.is_learner)
        }
    }
}

/// Says whether a change is refused by its entry: promotions, and all changes where the quorum is guarded, may be before.
fn goes_through_the_log(change: &MemberChange, error: &Error) -> bool {
    let is_promotion = matches!(change, MemberChange::Promote { .. });
    matches!(error, Error::Membership(_)) && !is_promotion
}
