//! The one place that decides whether something is allowed.
use bytes::Bytes;
use quorate_proto::LeaseId;

use crate::state::{Kind, State, User};
use crate::{Access, Error, Identity, Operation, Span, Stage};

/// Decides on an operation: everything it needs must be allowed.
pub(crate) fn decide(
    state: &State,
    identity: &Identity,
    stage: Stage,
    operation: &Operation<'_>,
    keys_of_lease: impl Fn(LeaseId) -> Vec<Bytes>,
) -> Result<(), Error> {
    if !state.enabled {
        return Ok(());
    }
    check(state, identity, &operation.accesses(stage), keys_of_lease)
}

/// Checks accesses in order; the first that is refused says why.
///
/// Source: etcd v3.7.1 `server/auth/store.go` `isOpPermitted`, `IsAdminPermitted`; `server/etcdserver/apply/auth.go`
/// `checkLeasePutsKeys`.
pub(crate) fn check(
    state: &State,
    identity: &Identity,
    accesses: &[Access<'_>],
    keys_of_lease: impl Fn(LeaseId) -> Vec<Bytes>,
) -> Result<(), Error> {
    if !state.enabled {
        return Ok(());
    }
    let caller = Caller {
        identity,
        user: state.users.get(&identity.username).map(|user| &**user),
        revision: state.revision,
    };
    for access in accesses {
        match *access {
            Access::Read(span) => caller.may(Kind::Read, span)?,
            Access::Write(span) => caller.may(Kind::Write, span)?,
            Access::ReadLeaseKeys(id) => caller.may_with_all(Kind::Read, || keys_of_lease(id))?,
            Access::WriteLeaseKeys(id) => caller.may_with_all(Kind::Write, || keys_of_lease(id))?,
            Access::Admin => caller.is_admin()?,
            Access::AdminOrUser(name) if identity.username == name => {}
            Access::AdminOrUser(_) => caller.is_admin()?,
            Access::AdminOrRole(role) if caller.has_role(role) => {}
            Access::AdminOrRole(_) => caller.is_admin()?,
            Access::AnyUser if identity.is_none() => return Err(Error::UserEmpty),
            Access::AnyUser => {}
        }
    }
    Ok(())
}

struct Caller<'a> {
    identity: &'a Identity,
    user: Option<&'a User>,
    /// Of the store that decides.
    revision: u64,
}

impl Caller<'_> {
    fn may(&self, kind: Kind, span: Span<'_>) -> Result<(), Error> {
        if self.identity.is_none() {
            return Err(Error::UserEmpty);
        }
        if self.identity.revision < self.revision {
            return Err(Error::AuthOldRevision);
        }
        let user = self.user.ok_or(Error::PermissionDenied)?;
        if user.is_root() || user.grants.allow(kind, span) {
            return Ok(());
        }
        Err(Error::PermissionDenied)
    }

    /// An administrator may with any lease, whatever the auth revision, and anybody with one that has no keys.
    fn may_with_all(&self, kind: Kind, keys: impl Fn() -> Vec<Bytes>) -> Result<(), Error> {
        if self.is_admin().is_ok() {
            return Ok(());
        }
        keys()
            .iter()
            .try_for_each(|key| self.may(kind, Span::single(key)))
    }

    fn is_admin(&self) -> Result<(), Error> {
        if self.identity.username.is_empty() {
            return Err(Error::UserEmpty);
        }
        let user = self.user.ok_or(Error::UserNotFound)?;
        if user.is_root() {
            Ok(())
        } else {
            Err(Error::PermissionDenied)
        }
    }

    fn has_role(&self, role: &str) -> bool {
        self.user
            .is_some_and(|user| user.roles.iter().any(|r| r == role))
    }
}
