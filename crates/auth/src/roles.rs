//! The part of the store that changes roles.
use std::sync::Arc;

use bytes::Bytes;
use quorate_backend::{ApplyTxn, Table};
use quorate_proto::authpb::{Permission, permission};
use quorate_proto::etcdserverpb as pb;

use crate::state::ROOT;
use crate::{AuthStore, Error, Span, record};

impl AuthStore {
    /// Adds a role without permissions.
    ///
    /// # Errors
    /// [`Error::RoleEmpty`], [`Error::RoleAlreadyExist`].
    pub fn role_add(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthRoleAddRequest,
    ) -> Result<(), Error> {
        if request.name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.state.roles.contains_key(&request.name) {
            return Err(Error::RoleAlreadyExist);
        }
        self.put_role(txn, &request.name, Vec::new());
        self.advance_revision(txn);
        Ok(())
    }

    /// Deletes a role and takes it from all users; one change of the auth revision.
    ///
    /// # Errors
    /// [`Error::InvalidAuthMgmt`] for root while authentication is on, [`Error::RoleNotFound`].
    pub fn role_delete(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthRoleDeleteRequest,
    ) -> Result<(), Error> {
        if self.state.enabled && request.role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.role(&request.role)?;
        self.state_mut().roles.remove(&request.role);
        txn.delete(Table::AuthRoles, request.role.as_bytes());
        let holders = self
            .state
            .users
            .iter()
            .filter(|(_, user)| user.roles.contains(&request.role));
        let holders: Vec<_> = holders
            .map(|(name, user)| (name.clone(), (**user).clone()))
            .collect();
        for (name, mut user) in holders {
            user.roles.retain(|role| *role != request.role);
            self.put_user(txn, &name, user);
        }
        self.advance_revision(txn);
        Ok(())
    }

    /// Returns the permissions of a role as they are stored; those of the role root are everything.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`].
    pub fn role_get(&self, name: &str) -> Result<Vec<Permission>, Error> {
        let permissions = self.role(name)?;
        if name == ROOT {
            return Ok(vec![Permission {
                perm_type: permission::Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            }]);
        }
        Ok(permissions.to_vec())
    }

    /// Returns the names of all roles in ascending order.
    pub fn role_list(&self) -> Vec<String> {
        self.state.roles.keys().cloned().collect()
    }

    /// Grants a permission to a role.
    ///
    /// When the first permission that the role has on the same key has also the same `range_end`, its type is replaced.
    /// Otherwise the permission is added, so that a role with several ranges from one key may come to have two entries
    /// for the same range; etcd does so, and members must agree.
    ///
    /// Differs from etcd: among permissions on one key a new one always comes last; there the order is that of an
    /// unstable sort when the role has more than twelve permissions.
    ///
    /// # Errors
    /// [`Error::PermissionNotGiven`]; [`Error::InvalidAuthMgmt`] when the range is invalid; [`Error::RoleNotFound`].
    pub fn role_grant_permission(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthRoleGrantPermissionRequest,
    ) -> Result<(), Error> {
        let given = request.perm.as_ref().ok_or(Error::PermissionNotGiven)?;
        let span = Span {
            key: &given.key,
            range_end: &given.range_end,
        };
        if !span.is_grantable() {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut permissions = self.role(&request.name)?.to_vec();
        let at = permissions.partition_point(|p| p.key < given.key);
        match permissions.get_mut(at) {
            Some(first) if first.key == given.key && first.range_end == given.range_end => {
                first.perm_type = given.perm_type;
            }
            _ => {
                let behind = permissions.partition_point(|p| p.key <= given.key);
                permissions.insert(behind, detached(given));
            }
        }
        self.put_role(txn, &request.name, permissions);
        self.advance_revision(txn);
        Ok(())
    }

    /// Revokes the permissions that a role has on exactly this key and `range_end`.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`], [`Error::PermissionNotGranted`].
    pub fn role_revoke_permission(
        &mut self,
        txn: &mut ApplyTxn,
        request: &pb::AuthRoleRevokePermissionRequest,
    ) -> Result<(), Error> {
        let mut permissions = self.role(&request.role)?.to_vec();
        let before = permissions.len();
        permissions.retain(|p| p.key != request.key || p.range_end != request.range_end);
        if permissions.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        self.put_role(txn, &request.role, permissions);
        self.advance_revision(txn);
        Ok(())
    }

    fn role(&self, name: &str) -> Result<&[Permission], Error> {
        self.state
            .roles
            .get(name)
            .map(|role| &role[..])
            .ok_or(Error::RoleNotFound)
    }

    /// Stores a role, and derives anew what the users who have it may do.
    fn put_role(&mut self, txn: &mut ApplyTxn, name: &str, permissions: Vec<Permission>) {
        txn.put(
            Table::AuthRoles,
            name.as_bytes(),
            record::encode_role(name, &permissions),
        );
        let state = self.state_mut();
        state.roles.insert(name.to_owned(), Arc::new(permissions));
        state.derive_grants(|roles| roles.iter().any(|role| role == name));
    }
}

/// Copies a permission out of the request, whose buffer it would keep otherwise.
fn detached(permission: &Permission) -> Permission {
    Permission {
        perm_type: permission.perm_type,
        key: Bytes::copy_from_slice(&permission.key),
        range_end: Bytes::copy_from_slice(&permission.range_end),
    }
}
