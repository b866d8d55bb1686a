//! Who a client is, and whether a member lets it: judged by the member, and by the model.
use bytes::Bytes;
use quorate_auth::{Identity, Operation, Stage};
use quorate_core::Error;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;

use super::{Callers, Checked};
use crate::World;
use crate::check::{Violation, refusal};
use crate::model::{Auth, Caller, Kind, Refusal, Span};

impl Callers {
    /// Finds out who a client is to a member; `None` when that cannot be known now.
    ///
    /// # Errors
    /// The member takes its token for another's.
    pub(super) fn identity(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
    ) -> Checked<Option<Identity>> {
        let (Some(auth), Some(place)) = (world.auth(machine), Self::place(world, machine)) else {
            return Ok(None);
        };
        if !auth.is_enabled() {
            return Ok(Some(Identity::NONE));
        }
        let Some(token) = self.account(client).and_then(|a| a.token.clone()) else {
            return Ok(Some(Identity::NONE));
        };
        if auth
            .token_waits_for(&token)
            .is_some_and(|index| index > place)
        {
            world.hit("token waits for the log");
            return Ok(None);
        }
        let now_ms = world.member_now_ms(machine);
        let expected = self.model.auth_at(place);
        match auth.identity_of_token(Some(&token), now_ms) {
            Ok(identity) => {
                let is_right = expected.user_of(&token) == Some(&identity.username)
                    && expected.revision() == identity.revision;
                if !is_right {
                    let text = format!("m{machine} takes {token} for {identity:?}");
                    return Err(Violation::new("tokens are those of their users", text));
                }
                Ok(Some(identity))
            }
            Err(_) => {
                // It may also have grown old, or been forgotten at a restart.
                world.hit("token refused");
                if let Some(account) = self.account_mut(client) {
                    account.token = None;
                }
                Ok(Some(Identity::NONE))
            }
        }
    }

    /// Asks a member whether it lets a client do something now; `keys` hang on the lease that it is about.
    ///
    /// # Errors
    /// It decides otherwise than the model.
    pub(super) fn door(
        &self,
        world: &mut World,
        machine: u64,
        identity: &Identity,
        operation: &Operation<'_>,
        keys: &[Bytes],
    ) -> Checked<bool> {
        let (Some(auth), Some(place)) = (world.auth(machine), Self::place(world, machine)) else {
            return Ok(false);
        };
        let got = auth
            .gate(identity, Stage::Door, operation, |_| keys.to_vec())
            .map_err(|e| refusal(&Error::Auth(e)));
        let caller = Caller {
            name: identity.username.clone(),
            revision: identity.revision,
        };
        let expected = judge(&self.model.auth_at(place), &caller, operation, keys);
        if got != expected.map_err(Some) {
            let text = format!(
                "m{machine} decides {got:?} about {operation:?} of {identity:?}, not {expected:?}"
            );
            return Err(Violation::new("permissions are the model's", text));
        }
        if got.is_err() {
            world.hit("refused at the door");
        }
        Ok(got.is_ok())
    }

    /// Returns the keys that hang on a lease, as a member knows them now.
    pub(super) fn lease_keys(world: &World, machine: u64, id: Option<i64>) -> Vec<Bytes> {
        let member = world.machine(machine).and_then(|m| m.member());
        let Some(lessor) = member.map(|m| &m.stores().lessor) else {
            return Vec::new();
        };
        let ids = match id {
            Some(id) => vec![quorate_proto::LeaseId(id)],
            None => lessor.leases(),
        };
        let keys = ids.into_iter().filter_map(|id| lessor.keys(id));
        keys.flatten().collect()
    }
}

/// Decides as the reference says.
fn judge(
    auth: &Auth,
    caller: &Caller,
    operation: &Operation<'_>,
    keys: &[Bytes],
) -> Result<(), Refusal> {
    let no_keys = |_: i64| Vec::new();
    match operation {
        Operation::Range(r) => auth.may(caller, Kind::Read, &Span::new(&r.key, &r.range_end)),
        Operation::ReadOnlyTxn(r) => auth.may_txn(caller, r, &no_keys),
        Operation::Watch(r) => {
            let key = if r.key.is_empty() {
                Bytes::from_static(&[0])
            } else {
                r.key.clone()
            };
            auth.may(caller, Kind::Read, &Span::new(&key, &r.range_end))
        }
        Operation::Compact | Operation::Maintenance | Operation::MemberChange => {
            auth.is_admin(caller)
        }
        Operation::Alarm(r) if r.action != i32::from(AlarmAction::Get) => auth.is_admin(caller),
        Operation::LeaseKeepAlive(_) => auth
            .is_somebody(caller)
            .and_then(|()| auth.may_all(caller, Kind::Write, keys)),
        Operation::LeaseTimeToLive { keys: true, .. } | Operation::LeaseLeases(_) => auth
            .is_somebody(caller)
            .and_then(|()| auth.may_all(caller, Kind::Read, keys)),
        Operation::LeaseGrant
        | Operation::LeaseRevoke(_)
        | Operation::LeaseTimeToLive { .. }
        | Operation::Alarm(_)
        | Operation::MemberList
        | Operation::Status => auth.is_somebody(caller),
        _ => Ok(()),
    }
}
