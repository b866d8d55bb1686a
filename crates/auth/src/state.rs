use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use quorate_backend::{Backend, ReadTxn, Table};
use quorate_proto::authpb::{self, permission};

use crate::range_set::RangeSet;
use crate::{Error, Span, record};

/// The user and the role that may do everything.
pub(crate) const ROOT: &str = "root";

/// Users, roles and whether they matter: one version of the auth store, immutable once it is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) enabled: bool,
    /// Counts changes; 0 only before the store was ever set up.
    pub(crate) revision: u64,
    pub(crate) users: BTreeMap<String, Arc<User>>,
    /// Permissions of each role.
    pub(crate) roles: BTreeMap<String, Arc<Vec<authpb::Permission>>>,
}

/// A user, and what the roles allow.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// Bcrypt text; empty when there is none.
    pub(crate) password: Secret,
    /// Ascending.
    pub(crate) roles: Vec<String>,
    pub(crate) options: Option<authpb::UserAddOptions>,
    /// Derived from the roles; never stored.
    pub(crate) grants: Arc<Grants>,
}

/// What a set of roles allows.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    read: RangeSet,
    write: RangeSet,
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// Rows read at once while restoring.
const RESTORE_ROWS_MAX: usize = 1_000;

impl User {
    pub(crate) fn is_root(&self) -> bool {
        self.roles
            .binary_search_by(|role| role.as_str().cmp(ROOT))
            .is_ok()
    }

    pub(crate) fn has_no_password(&self) -> bool {
        self.options.is_some_and(|o| o.no_password)
    }
}

impl Grants {
    pub(crate) fn allow(&self, kind: Kind, span: Span<'_>) -> bool {
        match kind {
            Kind::Read => self.read.holds(span),
            Kind::Write => self.write.holds(span),
        }
    }
}

impl State {
    /// Reads the whole store. Everything derived is derived here, so that nothing depends on where the rows came from.
    pub(crate) fn load(backend: &Backend) -> Result<Self, Error> {
        let txn = backend.read()?;
        let mut state = Self {
            enabled: record::decode_enabled(txn.get(Table::Auth, record::ENABLED_KEY)?.as_deref()),
            revision: record::decode_revision(
                txn.get(Table::Auth, record::REVISION_KEY)?.as_deref(),
            )?,
            ..Self::default()
        };
        for_each_row(&txn, Table::AuthRoles, |key, value| {
            let (name, permissions) = record::decode_role(key, value)?;
            state.roles.insert(name, Arc::new(permissions));
            Ok(())
        })?;
        for_each_row(&txn, Table::AuthUsers, |key, value| {
            let (name, user) = record::decode_user(key, value)?;
            state.users.insert(name, Arc::new(user));
            Ok(())
        })?;
        state.derive_grants(|_| true);
        Ok(state)
    }

    /// Unites the permissions of roles.
    pub(crate) fn grants_of(&self, roles: &[String]) -> Grants {
        let permissions = || {
            roles
                .iter()
                .filter_map(|role| self.roles.get(role))
                .flat_map(|p| p.iter())
        };
        let set = |kind: permission::Type| {
            let wanted = [kind as i32, permission::Type::Readwrite as i32];
            RangeSet::new(
                permissions()
                    .filter(|p| wanted.contains(&p.perm_type))
                    .map(|p| Span {
                        key: &p.key,
                        range_end: &p.range_end,
                    }),
            )
        };
        Grants {
            read: set(permission::Type::Read),
            write: set(permission::Type::Write),
        }
    }

    /// Derives the grants of all users whose roles `concern` the caller; users with the same roles share them.
    pub(crate) fn derive_grants(&mut self, concern: impl Fn(&[String]) -> bool) {
        let mut derived: BTreeMap<Vec<String>, Arc<Grants>> = BTreeMap::new();
        let mut users = std::mem::take(&mut self.users);
        for user in users.values_mut().filter(|user| concern(&user.roles)) {
            let grants = match derived.get(&user.roles) {
                Some(grants) => Arc::clone(grants),
                None => {
                    let grants = Arc::new(self.grants_of(&user.roles));
                    derived.insert(user.roles.clone(), Arc::clone(&grants));
                    grants
                }
            };
            Arc::make_mut(user).grants = grants;
        }
        self.users = users;
    }
}

fn for_each_row(
    txn: &ReadTxn,
    table: Table,
    mut each: impl FnMut(&Bytes, Bytes) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after: Option<Bytes> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = txn.scan(table, from, RESTORE_ROWS_MAX)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, value) in rows {
            each(&key, value)?;
        }
    }
}
