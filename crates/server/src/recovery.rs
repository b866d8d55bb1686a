//! The one way to restore a member's state, at process start and for an installed snapshot.
use std::fmt;

use quorate_backend::Backend;
use quorate_core::{Alarms, Cluster, RestoreError, Stores};
use quorate_mvcc::{Restoring, Store};

/// Settings that restoring needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of the key-value store.
    pub kv: quorate_mvcc::Options,
    /// Of the lessor.
    pub lease: quorate_lease::Options,
    /// Of the auth store.
    pub auth: quorate_auth::Options,
    /// Learners the cluster may have.
    pub max_learners: usize,
}

/// Why a state cannot be restored. Nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The lessor's table.
    Lease(quorate_lease::Error),
    /// The keys.
    Kv(quorate_mvcc::Error),
    /// Alarms.
    Alarms(RestoreError),
    /// Users and roles.
    Auth(quorate_auth::Error),
    /// Members and versions.
    Cluster(RestoreError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(e) => write!(f, "cannot restore leases: {e}"),
            Self::Kv(e) => write!(f, "cannot restore keys: {e}"),
            Self::Alarms(e) => write!(f, "cannot restore alarms: {e}"),
            Self::Auth(e) => write!(f, "cannot restore users and roles: {e}"),
            Self::Cluster(e) => write!(f, "cannot restore members: {e}"),
        }
    }
}

impl std::error::Error for Error {}

/// Restores everything replicated from a backend.
///
/// The order is fixed; each step says what breaks if it moves.
///
/// # Errors
/// When a table cannot be read or is damaged; nothing was changed.
pub fn restore(backend: &Backend, options: &Options) -> Result<Stores, Error> {
    restore_passed(backend, options, None)
}

/// As [`restore`], with what was made of the keys while they went into the backend.
///
/// # Errors
/// As [`restore`].
pub fn restore_passed(
    backend: &Backend,
    options: &Options,
    passed: Option<Restoring>,
) -> Result<Stores, Error> {
    // 1. The consistent index comes with the backend itself: opening it decides which entries count as applied. Were
    //    anything restored before, a commit in between could write the old index over the new tables.
    let backend = backend.clone();
    // 2. Leases before keys: keys are reattached to their leases, and a key whose lease is missing would become
    //    permanent.
    let mut lessor =
        quorate_lease::Lessor::restore(&backend, options.lease).map_err(Error::Lease)?;
    // 3. Keys: the index is rebuilt from the key table, and yields each key's lease.
    let (kv, attachments) =
        Store::restore_passed(&backend, options.kv.clone(), passed).map_err(Error::Kv)?;
    lessor.attach_restored(attachments);
    // 4. Alarms before anything is applied: an entry replayed past an active alarm must be refused again.
    let alarms = Alarms::restore(&backend).map_err(Error::Alarms)?;
    // 5. Users and roles: replayed entries are checked against them.
    let auth = quorate_auth::AuthStore::restore(&backend, options.auth).map_err(Error::Auth)?;
    // 6. Members and versions last: they decide who may vote and what is served, which needs all of the above.
    let cluster = Cluster::restore(&backend, options.max_learners).map_err(Error::Cluster)?;
    Ok(Stores {
        backend,
        kv,
        lessor,
        auth,
        alarms,
        cluster,
    })
}
