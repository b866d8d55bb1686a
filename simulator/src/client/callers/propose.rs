//! What goes through the log.
use quorate_auth::{Identity, Operation};
use quorate_core::{Applied, Error, Outcome, Proposal, Request, Submission, Token};
use quorate_mvcc::validate;
use quorate_proto::etcdserverpb as pb;

use super::{Callers, Checked, Waiting};
use crate::World;
use crate::check::{Said, Violation, read};
use crate::model::{Answer, AuthReply, Step, tagged};

/// What a client does when its proposal was applied.
#[derive(Debug)]
pub(super) enum Then {
    Nothing,
    /// Keeps the token it was given, unless users have changed since its password was checked.
    KeepToken {
        client: u64,
        name: String,
        checked: u64,
    },
}

impl Callers {
    /// Proposes a request as a client would, through a member's door.
    pub(super) fn propose(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        request: Request,
        then: Then,
    ) -> Checked {
        if is_invalid(&request) {
            return Ok(());
        }
        let identity = match request {
            Request::Authenticate(_) => Identity::NONE,
            _ => match self.identity(world, machine, client)? {
                Some(identity) => identity,
                None => return Ok(()),
            },
        };
        if !self.door(world, machine, &identity, &request.operation(), &[])? {
            return Ok(());
        }
        let tag = self.ledger.ask(&self.model, request.clone());
        let raw = marked(&request, tag);
        let token = world.submit(machine, |token| {
            Submission::Propose(Proposal {
                token,
                request,
                raw,
                identity,
            })
        });
        self.say(world, machine, token, tag);
        self.wait(world, machine, token, Waiting::Proposal { tag, then });
        Ok(())
    }

    fn say(&self, world: &mut World, machine: u64, token: Option<Token>, tag: u64) {
        world.say(|| {
            let what = self.ledger.what(tag);
            format!("m{machine} is asked for mark {tag} as {token:?}: {what}")
        });
    }

    /// Grants a lease whose id the member picks.
    pub(super) fn grant_any(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        ttl: i64,
    ) -> Checked {
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        if !self.door(world, machine, &identity, &Operation::LeaseGrant, &[])? {
            return Ok(());
        }
        let request = Request::LeaseGrant(pb::LeaseGrantRequest { ttl, id: 0 });
        let token = world.propose(machine, request, identity);
        let after = self.model.index();
        self.wait(world, machine, token, Waiting::Grant { after });
        Ok(())
    }

    /// Holds the answer to such a grant against the log.
    pub(super) fn granted(&mut self, after: u64, outcome: &Outcome, is_heard: bool) -> Checked {
        let Outcome::Applied(Applied::LeaseGrant { id, ttl_s }) = outcome else {
            return Ok(());
        };
        let answer = Answer::Grant {
            id: id.0,
            ttl_s: *ttl_s,
        };
        if self.rests_on(after, is_heard, |step| step.outcome.as_ref() == Ok(&answer)) {
            return Ok(());
        }
        let text = format!(
            "lease {} of {ttl_s} s is granted, and no entry says so that was not told of",
            id.0
        );
        Err(Violation::new("answers rest on committed entries", text))
    }

    /// Says whether an answer without a mark has an entry after this one that it may rest on, and keeps that from others when it is
    /// heard: entries have one answer. Taken in the order of answers, the first that fits leaves most to those that come later.
    pub(super) fn rests_on(
        &mut self,
        after: u64,
        is_heard: bool,
        fits: impl Fn(&Step) -> bool,
    ) -> bool {
        let mut steps = (after + 1..=self.model.index()).filter_map(|i| self.model.step(i));
        let is_free = |step: &&Step| !self.told_entries.contains(&step.index) && fits(step);
        let found = steps.find(is_free).map(|step| step.index);
        if is_heard {
            self.told_entries.extend(found);
        }
        found.is_some()
    }

    /// Holds the answer to a proposal against the log, whoever hears it; returns the entry that it rests on, if there is one.
    pub(super) fn hold(
        &mut self,
        world: &World,
        tag: u64,
        outcome: &Outcome,
    ) -> Checked<Option<(u64, Said)>> {
        // Whether there is space is each member's own affair.
        let is_short = world.plan().limits.quota_bytes > 0;
        if is_short && matches!(outcome, Outcome::Failed(Error::NoSpace)) {
            return Ok(None);
        }
        let said = read(outcome)?;
        let place = self.ledger.answered(&self.model, tag, &said)?;
        Ok(place.map(|place| (place, said)))
    }

    pub(super) fn proposed(
        &mut self,
        world: &mut World,
        machine: u64,
        tag: u64,
        then: Then,
        outcome: &Outcome,
    ) -> Checked {
        let Some((place, said)) = self.hold(world, tag, outcome)? else {
            world.hit(match outcome {
                Outcome::Failed(Error::NoSpace) => "request refused before the log",
                Outcome::Failed(Error::TooManyRequests) => "request refused: too many requests",
                Outcome::Failed(Error::RequestTooLarge | Error::ProposalDropped) => {
                    "request refused for good"
                }
                _ => "outcome of a request unknown",
            });
            return Ok(());
        };
        self.history.tell(place);
        world.hit(match said {
            Said::Applied(Ok(_)) => "request applied",
            _ => "request refused by the log",
        });
        if let (
            Then::KeepToken {
                client,
                name,
                checked,
            },
            Said::Applied(Ok(Answer::Auth {
                reply: AuthReply::Token(token),
                ..
            })),
        ) = (then, said)
        {
            let now = world.auth(machine).map(|auth| auth.revision());
            if now == Some(checked)
                && let Some(account) = self.account_mut(client)
            {
                world.hit("logged in");
                account.name = name;
                account.token = Some(token);
            }
        }
        Ok(())
    }
}

/// Says whether the door refuses a request for its form.
fn is_invalid(request: &Request) -> bool {
    let checked = match request {
        Request::Put(r) => validate::put(r),
        Request::DeleteRange(r) => validate::delete_range(r),
        Request::Txn(r) => validate::txn(r, &validate::Limits::default()),
        _ => Ok(()),
    };
    checked.is_err()
}

/// Encodes a request with a mark.
fn marked(request: &Request, tag: u64) -> Option<bytes::Bytes> {
    Some(match request {
        Request::Put(r) => tagged(r, tag),
        Request::DeleteRange(r) => tagged(r, tag),
        Request::Txn(r) => tagged(r, tag),
        Request::Compaction(r) => tagged(r, tag),
        Request::LeaseGrant(r) => tagged(r, tag),
        Request::LeaseRevoke(r) => tagged(r, tag),
        Request::Alarm(r) => tagged(r, tag),
        Request::AuthEnable(r) => tagged(r, tag),
        Request::AuthDisable(r) => tagged(r, tag),
        Request::AuthStatus(r) => tagged(r, tag),
        Request::Authenticate(r) => tagged(r, tag),
        Request::AuthUserAdd(r) => tagged(r, tag),
        Request::AuthUserDelete(r) => tagged(r, tag),
        Request::AuthUserGet(r) => tagged(r, tag),
        Request::AuthUserChangePassword(r) => tagged(r, tag),
        Request::AuthUserGrantRole(r) => tagged(r, tag),
        Request::AuthUserRevokeRole(r) => tagged(r, tag),
        Request::AuthUserList(r) => tagged(r, tag),
        Request::AuthRoleList(r) => tagged(r, tag),
        Request::AuthRoleAdd(r) => tagged(r, tag),
        Request::AuthRoleDelete(r) => tagged(r, tag),
        Request::AuthRoleGet(r) => tagged(r, tag),
        Request::AuthRoleGrantPermission(r) => tagged(r, tag),
        Request::AuthRoleRevokePermission(r) => tagged(r, tag),
        _ => return None,
    })
}
