//! Users, roles, permissions and tokens.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::authpb::Permission;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use super::{AuthReply, Refusal, Span};

mod manage;

/// The user and the role that may do everything.
const ROOT: &str = "root";

/// What is done to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They are read.
    Read,
    /// They are written.
    Write,
}

/// Who asks: a name, and the auth revision at which it was found out; revision 0 is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub name: String,
    /// The auth revision.
    pub revision: u64,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    roles: BTreeSet<String>,
    /// Hash of the password; `None` of one who can never log in.
    secret: Option<String>,
}

/// Everything about who may do what.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    /// Permissions by role, in the order in which they are stored.
    roles: BTreeMap<String, Vec<Permission>>,
    /// Users by token.
    tokens: BTreeMap<String, String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }
}

impl Auth {
    /// Says whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Returns the auth revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the names of all users.
    pub fn users(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    /// Returns the names of all roles.
    pub fn roles(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// Returns the user that a token was assigned to, as long as it has not been taken back.
    pub fn user_of(&self, token: &str) -> Option<&str> {
        self.tokens.get(token).map(String::as_str)
    }

    /// Returns the roles of a user, sorted.
    pub fn roles_of(&self, user: &str) -> Option<Vec<String>> {
        let user = self.users.get(user)?;
        Some(user.roles.iter().cloned().collect())
    }

    /// Returns the permissions of a role, as they are shown.
    pub fn permissions_of(&self, role: &str) -> Option<Vec<Permission>> {
        let permissions = self.roles.get(role)?;
        if role != ROOT {
            return Some(permissions.clone());
        }
        Some(vec![Permission {
            perm_type: 2,
            key: Bytes::new(),
            range_end: Bytes::from_static(&[0]),
        }])
    }

    /// Returns the hash of a user's password, if there is one.
    pub fn secret_of(&self, user: &str) -> Option<&str> {
        self.users.get(user)?.secret.as_deref()
    }

    /// Decides whether a caller may read or write a span.
    ///
    /// # Errors
    /// Why not.
    pub fn may(&self, caller: &Caller, kind: Kind, span: &Span) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(Refusal::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(Refusal::AuthOldRevision);
        }
        let user = self
            .users
            .get(&caller.name)
            .ok_or(Refusal::PermissionDenied)?;
        if user.roles.contains(ROOT) || covers(&self.spans_of(user, kind), span) {
            Ok(())
        } else {
            Err(Refusal::PermissionDenied)
        }
    }

    /// Decides whether a caller may do what only an administrator may.
    ///
    /// # Errors
    /// Why not.
    pub fn is_admin(&self, caller: &Caller) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        if caller.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        let user = self.users.get(&caller.name).ok_or(Refusal::UserNotFound)?;
        if user.roles.contains(ROOT) {
            Ok(())
        } else {
            Err(Refusal::PermissionDenied)
        }
    }

    /// Decides whether a caller is anybody.
    ///
    /// # Errors
    /// It is nobody.
    pub fn is_somebody(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.enabled && caller.revision == 0 {
            return Err(Refusal::UserEmpty);
        }
        Ok(())
    }

    /// Decides whether a caller may do something with all keys of a lease.
    ///
    /// # Errors
    /// Why not.
    pub fn may_all(&self, caller: &Caller, kind: Kind, keys: &[Bytes]) -> Result<(), Refusal> {
        if self.is_admin(caller).is_ok() {
            return Ok(());
        }
        keys.iter()
            .try_for_each(|key| self.may(caller, kind, &Span::single(key)))
    }

    /// Decides about a put.
    pub(super) fn may_put(
        &self,
        caller: &Caller,
        request: &pb::PutRequest,
        keys_of: &dyn Fn(i64) -> Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let key = Span::single(&request.key);
        self.may(caller, Kind::Write, &key)?;
        self.may_all(caller, Kind::Write, &keys_of(request.lease))?;
        if request.prev_kv {
            self.may(caller, Kind::Read, &key)?;
        }
        Ok(())
    }

    /// Decides about a deletion.
    pub(super) fn may_delete(
        &self,
        caller: &Caller,
        request: &pb::DeleteRangeRequest,
    ) -> Result<(), Refusal> {
        let span = Span::new(&request.key, &request.range_end);
        self.may(caller, Kind::Write, &span)?;
        if request.prev_kv {
            self.may(caller, Kind::Read, &span)?;
        }
        Ok(())
    }

    /// Decides about a transaction: both branches of it, and all compares.
    ///
    /// # Errors
    /// Why not.
    pub fn may_txn(
        &self,
        caller: &Caller,
        request: &pb::TxnRequest,
        keys_of: &dyn Fn(i64) -> Vec<Bytes>,
    ) -> Result<(), Refusal> {
        for compare in &request.compare {
            let span = Span::new(&compare.key, &compare.range_end);
            self.may(caller, Kind::Read, &span)?;
        }
        for op in request.success.iter().chain(&request.failure) {
            match &op.request {
                Some(Request::RequestRange(r)) => {
                    self.may(caller, Kind::Read, &Span::new(&r.key, &r.range_end))?;
                }
                Some(Request::RequestPut(r)) => self.may_put(caller, r, keys_of)?,
                Some(Request::RequestDeleteRange(r)) => self.may_delete(caller, r)?,
                Some(Request::RequestTxn(r)) => self.may_txn(caller, r, keys_of)?,
                None => {}
            }
        }
        Ok(())
    }

    fn spans_of(&self, user: &User, kind: Kind) -> Vec<Span> {
        /// `Type` of `authpb.Permission`: what it does not allow.
        const READ: i32 = 0;
        const WRITE: i32 = 1;
        user.roles
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flatten()
            .filter(|p| match kind {
                Kind::Read => p.perm_type != WRITE,
                Kind::Write => p.perm_type != READ,
            })
            .map(|p| Span::new(&p.key, &p.range_end))
            .collect()
    }
}

/// Says whether spans together cover a span.
fn covers(spans: &[Span], wanted: &Span) -> bool {
    let end = wanted.beyond();
    let mut covered = wanted.first().clone();
    loop {
        if end.as_ref().is_some_and(|end| covered >= *end) {
            return true;
        }
        let reaching = spans.iter().filter(|s| *s.first() <= covered);
        let mut furthest = None;
        for span in reaching {
            let Some(beyond) = span.beyond() else {
                return true;
            };
            furthest = furthest.max(Some(beyond));
        }
        match furthest {
            Some(beyond) if beyond > covered => covered = beyond,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
