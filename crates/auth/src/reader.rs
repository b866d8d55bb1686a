use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_proto::LeaseId;

use crate::state::{ROOT, Secret, State};
use crate::token::{TOKEN_LETTERS, TokenTable, token_index, token_letters};
use crate::{Access, Error, Identity, Operation, Options, Stage, TokenProvider, gate, password};

/// Reads the published state of an [`AuthStore`](crate::AuthStore) from any thread: who a caller is, and what it may do.
///
/// Every question is answered from one immutable version of the store. Where authentication is off, asking costs one
/// atomic load.
#[derive(Clone)]
pub struct AuthReader {
    shared: Arc<Shared>,
}

/// What the store and its readers share.
pub(crate) struct Shared {
    published: RwLock<Arc<State>>,
    /// Of the published state, or of the one before it for a moment while it changes.
    enabled: AtomicBool,
    /// As `enabled`.
    revision: AtomicU64,
    /// `None` where there are no tokens.
    tokens: Option<TokenTable>,
    bcrypt_cost: u32,
}

impl Shared {
    pub(crate) fn new(state: Arc<State>, options: Options) -> Self {
        let tokens = match options.token_provider {
            TokenProvider::Simple { ttl_ms, tokens_max } => {
                Some(TokenTable::new(ttl_ms, tokens_max))
            }
            TokenProvider::Noop => None,
        };
        Self {
            enabled: AtomicBool::new(state.enabled),
            revision: AtomicU64::new(state.revision),
            published: RwLock::new(state),
            tokens,
            bcrypt_cost: password::effective_cost(options.bcrypt_cost),
        }
    }

    pub(crate) fn publish(&self, state: &Arc<State>) {
        {
            let mut published = self.published.write();
            if Arc::ptr_eq(&published, state) {
                return;
            }
            *published = Arc::clone(state);
        }
        // The state goes first: a reader that finds authentication on finds the users too.
        self.revision.store(state.revision, Ordering::Release);
        self.enabled.store(state.enabled, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> Arc<State> {
        Arc::clone(&self.published.read())
    }

    pub(crate) fn assign_token(&self, token: &str, user: &str, now_ms: u64) -> Result<(), Error> {
        let tokens = self.tokens.as_ref().ok_or(Error::AuthFailed)?;
        tokens.assign(token, user, now_ms);
        Ok(())
    }

    pub(crate) fn invalidate_user(&self, user: &str) {
        if let Some(tokens) = &self.tokens {
            tokens.invalidate_user(user);
        }
    }

    pub(crate) fn invalidate_all(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.invalidate_all();
        }
    }
}

impl AuthReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Says whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Acquire)
    }

    /// Returns the auth revision.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Returns the cost with which passwords are hashed.
    pub fn bcrypt_cost(&self) -> u32 {
        self.shared.bcrypt_cost
    }

    /// Makes the part of a token that the proposer of a login makes up; empty where there are no tokens.
    pub fn token_prefix(&self, random: &[u32; TOKEN_LETTERS]) -> String {
        self.shared
            .tokens
            .as_ref()
            .map_or_else(String::new, |_| token_letters(random))
    }

    /// Returns the log index that must be applied here before [`identity_of_token`](Self::identity_of_token) can judge
    /// the token, or `None` when it can at once.
    pub fn token_waits_for(&self, token: &str) -> Option<u64> {
        self.shared.tokens.as_ref().filter(|_| self.is_enabled())?;
        token_index(token)
    }

    /// Finds out who shows this token, and lets the token live on. No token is no identity, and where authentication is
    /// off nobody has one.
    ///
    /// The caller has stripped a leading `Bearer ` and has waited for what [`token_waits_for`](Self::token_waits_for)
    /// says.
    ///
    /// # Errors
    /// [`Error::InvalidAuthToken`].
    pub fn identity_of_token(&self, token: Option<&str>, now_ms: u64) -> Result<Identity, Error> {
        if !self.is_enabled() {
            return Ok(Identity::NONE);
        }
        let Some(token) = token else {
            return Ok(Identity::NONE);
        };
        // The revision first: when the user changes meanwhile, the identity is stale and not too new.
        let revision = self.revision();
        let tokens = self.shared.tokens.as_ref().ok_or(Error::InvalidAuthToken)?;
        let user = tokens
            .user_of(token, now_ms)
            .ok_or(Error::InvalidAuthToken)?;
        Ok(Identity {
            username: user.to_string(),
            revision,
        })
    }

    /// Returns the identity of a caller whose verified certificate has this common name.
    pub fn identity_of_common_name(&self, name: &str) -> Identity {
        if !self.is_enabled() {
            return Identity::NONE;
        }
        Identity {
            username: name.to_owned(),
            revision: self.revision(),
        }
    }

    /// Returns the identity with which a member does its own work, such as revoking expired leases.
    pub fn root_identity(&self) -> Identity {
        self.identity_of_common_name(ROOT)
    }

    /// Looks up what a login must match; [`PasswordCheck::verify`] then does the slow part without the store.
    ///
    /// # Errors
    /// [`Error::AuthNotEnabled`], [`Error::AuthFailed`] for an unknown user, [`Error::NoPasswordUser`].
    pub fn password_check(&self, name: &str) -> Result<PasswordCheck, Error> {
        let state = self.shared.snapshot();
        if !state.enabled {
            return Err(Error::AuthNotEnabled);
        }
        let user = state.users.get(name).ok_or(Error::AuthFailed)?;
        if user.has_no_password() {
            return Err(Error::NoPasswordUser);
        }
        Ok(PasswordCheck {
            hash: user.password.clone(),
            revision: state.revision,
        })
    }

    /// Checks a password and returns the auth revision at which it was right; when it has changed by the time the login
    /// is applied, the check is to be repeated. Takes as long as bcrypt does.
    ///
    /// # Errors
    /// Those of [`password_check`](Self::password_check); [`Error::AuthFailed`] for a wrong password.
    pub fn check_password(&self, name: &str, password: &str) -> Result<u64, Error> {
        self.password_check(name)?.verify(password)
    }

    /// Decides whether the caller may do the operation, as [`AuthStore::gate`](crate::AuthStore::gate).
    ///
    /// # Errors
    /// As [`AuthStore::gate`](crate::AuthStore::gate).
    pub fn gate(
        &self,
        identity: &Identity,
        stage: Stage,
        operation: &Operation<'_>,
        keys_of_lease: impl Fn(LeaseId) -> Vec<Bytes>,
    ) -> Result<(), Error> {
        if !self.is_enabled() {
            return Ok(());
        }
        gate::decide(
            &self.shared.snapshot(),
            identity,
            stage,
            operation,
            keys_of_lease,
        )
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
        if !self.is_enabled() {
            return Ok(());
        }
        gate::check(&self.shared.snapshot(), identity, accesses, keys_of_lease)
    }

    /// Checks after a read that the auth store is still the one that allowed it.
    ///
    /// # Errors
    /// [`Error::AuthOldRevision`]: the answer must not be given.
    pub fn recheck(&self, identity: &Identity) -> Result<(), Error> {
        if identity.is_none() || identity.revision == self.revision() {
            return Ok(());
        }
        Err(Error::AuthOldRevision)
    }

    /// Drops tokens that have ended, and returns how many; to be called about every second.
    pub fn sweep_tokens(&self, now_ms: u64) -> usize {
        self.shared
            .tokens
            .as_ref()
            .map_or(0, |tokens| tokens.sweep(now_ms))
    }
}

impl fmt::Debug for AuthReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthReader")
            .field("enabled", &self.is_enabled())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

/// What a login must match, taken from the store at one auth revision.
#[derive(Clone, Debug)]
pub struct PasswordCheck {
    hash: Secret,
    revision: u64,
}

impl PasswordCheck {
    /// Checks the password and returns the auth revision at which the check was made. Takes as long as bcrypt does.
    ///
    /// # Errors
    /// [`Error::AuthFailed`].
    pub fn verify(&self, password: &str) -> Result<u64, Error> {
        if password::verify(password, &self.hash.0) {
            Ok(self.revision)
        } else {
            Err(Error::AuthFailed)
        }
    }
}
