//! The part of the store that changes users.
use bytes::Bytes;
use quorate_backend::{ApplyTxn, Table};
use quorate_proto::authpb::UserAddOptions;
use quorate_proto::etcdserverpb as pb;

use crate::state::{ROOT, Secret, User};
use crate::{AuthStore, Error, password};

impl AuthStore {
    /// Adds a user. The request carries the hash of the password, see
    /// [`prepare_user_add`](crate::password::prepare_user_add).
    ///
    /// # Errors
    /// [`Error::UserEmpty`], [`Error::UserAlreadyExist`]; [`Error::NoPasswordUser`] when the hash is not Base64.
    pub fn user_add(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthUserAddRequest,
    ) -> Result<(), Error> {
        if request.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.state.users.contains_key(&request.name) {
            return Err(Error::UserAlreadyExist);
        }
        // Options are stored even when the request has none, as in etcd.
        let options = request
            .options
            .unwrap_or(UserAddOptions { no_password: false });
        let hash = if options.no_password {
            Vec::new()
        } else {
            password::replicated_hash(&request.password, &request.hashed_password)?
        };
        let user = User {
            password: Secret(hash.into()),
            roles: Vec::new(),
            options: Some(options),
            grants: Default::default(),
        };
        self.put_user(txn, &request.name, user);
        self.advance_revision(txn);
        Ok(())
    }

    /// Deletes a user and drops its tokens.
    ///
    /// # Errors
    /// [`Error::InvalidAuthMgmt`] for root while authentication is on, [`Error::UserNotFound`].
    pub fn user_delete(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthUserDeleteRequest,
    ) -> Result<(), Error> {
        if self.state.enabled && request.name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.user(&request.name)?;
        self.state_mut().users.remove(&request.name);
        txn.delete(Table::AuthUsers, request.name.as_bytes());
        self.advance_revision(txn);
        self.shared.invalidate_user(&request.name);
        Ok(())
    }

    /// Sets the hash of a user's password, see
    /// [`prepare_user_change_password`](crate::password::prepare_user_change_password), and drops its tokens. A request
    /// without hash leaves a user who cannot log in; a user without password gets no hash.
    ///
    /// # Errors
    /// [`Error::UserNotFound`]; [`Error::NoPasswordUser`] when the hash is not Base64.
    pub fn user_change_password(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthUserChangePasswordRequest,
    ) -> Result<(), Error> {
        let mut user = self.user(&request.name)?.clone();
        user.password = Secret(if user.has_no_password() {
            Bytes::new()
        } else {
            password::replicated_hash(&request.password, &request.hashed_password)?.into()
        });
        self.put_user(txn, &request.name, user);
        self.advance_revision(txn);
        self.shared.invalidate_user(&request.name);
        Ok(())
    }

    /// Returns the roles of a user in ascending order.
    ///
    /// # Errors
    /// [`Error::UserNotFound`].
    pub fn user_get(&self, name: &str) -> Result<Vec<String>, Error> {
        Ok(self.user(name)?.roles.clone())
    }

    /// Returns the names of all users in ascending order.
    pub fn user_list(&self) -> Vec<String> {
        self.state.users.keys().cloned().collect()
    }

    /// Gives a role to a user. The role root need not exist. When the user has the role, nothing happens.
    ///
    /// # Errors
    /// [`Error::UserNotFound`], [`Error::RoleNotFound`].
    pub fn user_grant_role(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthUserGrantRoleRequest,
    ) -> Result<(), Error> {
        let mut user = self.user(&request.user)?.clone();
        if request.role != ROOT && !self.state.roles.contains_key(&request.role) {
            return Err(Error::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search(&request.role) else {
            return Ok(());
        };
        user.roles.insert(at, request.role.clone());
        self.put_user(txn, &request.user, user);
        self.advance_revision(txn);
        Ok(())
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// [`Error::InvalidAuthMgmt`] for root's role root while authentication is on, [`Error::UserNotFound`],
    /// [`Error::RoleNotGranted`].
    pub fn user_revoke_role(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthUserRevokeRoleRequest,
    ) -> Result<(), Error> {
        if self.state.enabled && request.name == ROOT && request.role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut user = self.user(&request.name)?.clone();
        let before = user.roles.len();
        user.roles.retain(|role| *role != request.role);
        if user.roles.len() == before {
            return Err(Error::RoleNotGranted);
        }
        self.put_user(txn, &request.name, user);
        self.advance_revision(txn);
        Ok(())
    }

    fn user(&self, name: &str) -> Result<&User, Error> {
        self.state
            .users
            .get(name)
            .map(|user| &**user)
            .ok_or(Error::UserNotFound)
    }
}
