use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_backend::{ApplyTxn, Backend, Table};
use quorate_proto::LeaseId;

use crate::reader::Shared;
use crate::state::{ROOT, State, User};
use crate::{Access, AuthReader, Error, Identity, Operation, Stage, TokenProvider, gate, record};

/// Owns users, roles and permissions, and changes them in the order of the log; one per member.
///
/// Every change goes into the transaction of the log entry it comes from, the auth revision included, and is at once seen
/// by later entries; [readers](AuthReader) see it after [`publish`](Self::publish). A refused request changes nothing.
///
/// Source: etcd v3.7.1 `server/auth/store.go`.
pub struct AuthStore {
    pub(crate) state: Arc<State>,
    pub(crate) shared: Arc<Shared>,
    options: Options,
}

/// How an [`AuthStore`] behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Cost of hashing passwords; one that bcrypt cannot do is replaced by 10.
    pub bcrypt_cost: u32,
    /// What tokens are made of.
    pub token_provider: TokenProvider,
}

/// The auth revision of a store in which nothing has happened.
const REVISION_FIRST: u64 = 1;

impl AuthStore {
    /// Restores the store from a backend, and gives a new one its first auth revision.
    ///
    /// All that is kept in memory is derived here from the rows alone, whether they were written by this member or came
    /// with a snapshot. Tokens are not stored: users log in again.
    ///
    /// # Errors
    /// When the backend cannot be read or written, or a row is damaged.
    ///
    /// # Durability
    /// The first auth revision is on disk when it returns.
    pub fn restore(backend: &Backend, options: Options) -> Result<AuthStore, Error> {
        let mut state = State::load(backend)?;
        if state.revision == 0 {
            state.revision = REVISION_FIRST;
            let mut txn = backend.maintenance()?;
            txn.put(
                Table::Auth,
                record::REVISION_KEY,
                record::encode_revision(REVISION_FIRST),
            );
            txn.commit()?;
        }
        let state = Arc::new(state);
        Ok(AuthStore {
            shared: Arc::new(Shared::new(Arc::clone(&state), options)),
            state,
            options,
        })
    }

    /// Takes the place of the store that the reader was made from, as after a snapshot was installed: the reader and all
    /// its clones see this store from now on.
    ///
    /// Tokens stay valid when the auth revision is the same. Otherwise something has happened that this member has not
    /// seen, perhaps to the users they belong to, and all of them go.
    pub fn adopt(&mut self, reader: &AuthReader) {
        let shared = reader.shared();
        if shared.snapshot().revision != self.state.revision {
            shared.invalidate_all();
        }
        self.shared = Arc::clone(shared);
        self.publish();
    }

    /// Returns a handle for other threads, which sees what is published.
    pub fn reader(&self) -> AuthReader {
        AuthReader::new(Arc::clone(&self.shared))
    }

    /// Shows readers all changes up to now; to be called when the transaction that carries them is committed.
    pub fn publish(&mut self) {
        self.shared.publish(&self.state);
    }

    /// Says whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.state.enabled
    }

    /// Returns the auth revision.
    pub fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Returns the options.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Decides whether the caller may do the operation. `keys_of_lease` names the keys attached to a lease, none for one
    /// that does not exist.
    ///
    /// # Errors
    /// The reason of the first refusal in the order in which etcd checks: [`Error::UserEmpty`],
    /// [`Error::AuthOldRevision`], [`Error::UserNotFound`], [`Error::PermissionDenied`].
    pub fn gate(
        &self,
        identity: &Identity,
        stage: Stage,
        operation: &Operation<'_>,
        keys_of_lease: impl Fn(LeaseId) -> Vec<Bytes>,
    ) -> Result<(), Error> {
        gate::decide(&self.state, identity, stage, operation, keys_of_lease)
    }

    /// Decides as [`gate`](Self::gate), for accesses that the caller lists.
    ///
    /// # Errors
    /// As [`gate`](Self::gate).
    pub fn check(
        &self,
        identity: &Identity,
        accesses: &[Access<'_>],
        keys_of_lease: impl Fn(LeaseId) -> Vec<Bytes>,
    ) -> Result<(), Error> {
        gate::check(&self.state, identity, accesses, keys_of_lease)
    }

    /// Turns authentication on; when it is on already, nothing happens. The auth revision stays.
    ///
    /// # Errors
    /// [`Error::RootUserNotExist`], [`Error::RootRoleNotExist`].
    pub fn enable(&mut self, txn: &mut ApplyTxn) -> Result<(), Error> {
        if self.state.enabled {
            return Ok(());
        }
        let root = self.state.users.get(ROOT).ok_or(Error::RootUserNotExist)?;
        if !root.is_root() {
            return Err(Error::RootRoleNotExist);
        }
        txn.put(
            Table::Auth,
            record::ENABLED_KEY,
            record::encode_enabled(true),
        );
        self.state_mut().enabled = true;
        Ok(())
    }

    /// Turns authentication off and drops all tokens; when it is off already, nothing happens.
    pub fn disable(&mut self, txn: &mut ApplyTxn) {
        if !self.state.enabled {
            return;
        }
        txn.put(
            Table::Auth,
            record::ENABLED_KEY,
            record::encode_enabled(false),
        );
        self.state_mut().enabled = false;
        self.advance_revision(txn);
        self.shared.invalidate_all();
    }

    /// Gives a token to a user whose password the proposer has checked, and returns it. `index` is the log index of the
    /// entry before, `simple_token` the letters that the proposer has made up.
    ///
    /// # Errors
    /// [`Error::AuthNotEnabled`]; [`Error::AuthFailed`] when there is no such user any more, when it has no password, and
    /// always where there are no tokens.
    pub fn authenticate(
        &self,
        name: &str,
        simple_token: &str,
        index: u64,
        now_ms: u64,
    ) -> Result<String, Error> {
        if !self.state.enabled {
            return Err(Error::AuthNotEnabled);
        }
        let user = self.state.users.get(name).ok_or(Error::AuthFailed)?;
        if user.has_no_password() {
            return Err(Error::AuthFailed);
        }
        let token = format!("{simple_token}.{index}");
        self.shared.assign_token(&token, name, now_ms)?;
        Ok(token)
    }

    pub(crate) fn state_mut(&mut self) -> &mut State {
        Arc::make_mut(&mut self.state)
    }

    /// Counts a change, which makes older identities stale.
    pub(crate) fn advance_revision(&mut self, txn: &mut ApplyTxn) {
        let state = self.state_mut();
        state.revision += 1;
        txn.put(
            Table::Auth,
            record::REVISION_KEY,
            record::encode_revision(state.revision),
        );
    }

    /// Stores a user, with the grants that its roles give.
    pub(crate) fn put_user(&mut self, txn: &mut ApplyTxn, name: &str, mut user: User) {
        txn.put(
            Table::AuthUsers,
            name.as_bytes(),
            record::encode_user(name, &user),
        );
        user.grants = Arc::new(self.state.grants_of(&user.roles));
        self.state_mut()
            .users
            .insert(name.to_owned(), Arc::new(user));
    }
}

impl fmt::Debug for AuthStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthStore")
            .field("enabled", &self.state.enabled)
            .field("revision", &self.state.revision)
            .field("users", &self.state.users.len())
            .field("roles", &self.state.roles.len())
            .finish_non_exhaustive()
    }
}
