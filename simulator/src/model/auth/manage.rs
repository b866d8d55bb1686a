//! Changes of users and roles, and questions about them.
use quorate_proto::etcdserverpb as pb;

use super::{Auth, AuthReply, Caller, ROOT, Refusal, User};

impl Auth {
    /// Applies a request about users and roles; `None` when it is none.
    pub(in super::super) fn apply(
        &mut self,
        caller: &Caller,
        request: &pb::InternalRaftRequest,
        index: u64,
    ) -> Option<Result<AuthReply, Refusal>> {
        if let Some(reply) = self.ask(caller, request) {
            return Some(reply);
        }
        if let Some(r) = &request.authenticate {
            return Some(self.log_in(r, index));
        }
        let change = self.clone().change(caller, request)?;
        Some(change.map(|changed| {
            *self = changed;
            AuthReply::Done
        }))
    }

    /// Answers questions.
    fn ask(
        &self,
        caller: &Caller,
        request: &pb::InternalRaftRequest,
    ) -> Option<Result<AuthReply, Refusal>> {
        if request.auth_status.is_some() {
            return Some(Ok(AuthReply::Status(self.enabled, self.revision)));
        }
        if let Some(r) = &request.auth_user_get {
            let allowed = self.is_admin(caller).or_else(|e| {
                if r.name == caller.name {
                    Ok(())
                } else {
                    Err(e)
                }
            });
            return Some(allowed.and_then(|()| {
                let roles = self.roles_of(&r.name);
                roles.map(AuthReply::Names).ok_or(Refusal::UserNotFound)
            }));
        }
        if let Some(r) = &request.auth_role_get {
            let has_role = self
                .users
                .get(&caller.name)
                .is_some_and(|u| u.roles.contains(&r.role));
            let allowed = self
                .is_admin(caller)
                .or_else(|e| if has_role { Ok(()) } else { Err(e) });
            return Some(allowed.and_then(|()| {
                let permissions = self.permissions_of(&r.role);
                permissions
                    .map(AuthReply::Permissions)
                    .ok_or(Refusal::RoleNotFound)
            }));
        }
        let names = if request.auth_user_list.is_some() {
            self.users.keys().cloned().collect()
        } else if request.auth_role_list.is_some() {
            self.roles.keys().cloned().collect()
        } else {
            return None;
        };
        Some(self.is_admin(caller).map(|()| AuthReply::Names(names)))
    }

    fn log_in(
        &mut self,
        request: &pb::InternalAuthenticateRequest,
        index: u64,
    ) -> Result<AuthReply, Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = self.users.get(&request.name).ok_or(Refusal::AuthFailed)?;
        if user.secret.is_none() {
            return Err(Refusal::AuthFailed);
        }
        let token = format!("{}.{}", request.simple_token, index - 1);
        self.tokens.insert(token.clone(), request.name.clone());
        Ok(AuthReply::Token(token))
    }

    /// Makes a change to a copy; `None` when the request is none.
    fn change(
        mut self,
        caller: &Caller,
        request: &pb::InternalRaftRequest,
    ) -> Option<Result<Self, Refusal>> {
        let allowed = self.is_admin(caller);
        let before = self.revision;
        let done = if request.auth_enable.is_some() {
            allowed.and_then(|()| self.enable())
        } else if request.auth_disable.is_some() {
            allowed.map(|()| self.disable())
        } else if let Some(r) = &request.auth_user_add {
            allowed.and_then(|()| self.add_user(r))
        } else if let Some(r) = &request.auth_user_delete {
            allowed.and_then(|()| self.delete_user(&r.name))
        } else if let Some(r) = &request.auth_user_change_password {
            allowed.and_then(|()| self.change_password(r))
        } else if let Some(r) = &request.auth_user_grant_role {
            allowed.and_then(|()| self.grant_role(r))
        } else if let Some(r) = &request.auth_user_revoke_role {
            allowed.and_then(|()| self.revoke_role(r))
        } else if let Some(r) = &request.auth_role_add {
            allowed.and_then(|()| self.add_role(&r.name))
        } else if let Some(r) = &request.auth_role_delete {
            allowed.and_then(|()| self.delete_role(&r.role))
        } else if let Some(r) = &request.auth_role_grant_permission {
            allowed.and_then(|()| self.grant_permission(r))
        } else if let Some(r) = &request.auth_role_revoke_permission {
            allowed.and_then(|()| self.revoke_permission(r))
        } else {
            return None;
        };
        Some(done.map(|is_changed| {
            self.revision = before + u64::from(is_changed);
            self
        }))
    }

    fn enable(&mut self) -> Result<bool, Refusal> {
        if !self.enabled {
            let root = self.users.get(ROOT).ok_or(Refusal::RootUserNotExist)?;
            if !root.roles.contains(ROOT) {
                return Err(Refusal::RootRoleNotExist);
            }
            self.enabled = true;
        }
        Ok(false)
    }

    fn disable(&mut self) -> bool {
        let was_enabled = std::mem::replace(&mut self.enabled, false);
        if was_enabled {
            self.tokens.clear();
        }
        was_enabled
    }

    fn add_user(&mut self, request: &pb::AuthUserAddRequest) -> Result<bool, Refusal> {
        if request.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Refusal::UserAlreadyExist);
        }
        let no_password = request.options.as_ref().is_some_and(|o| o.no_password);
        let user = User {
            secret: (!no_password).then(|| request.hashed_password.clone()),
            ..User::default()
        };
        self.users.insert(request.name.clone(), user);
        Ok(true)
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(Refusal::UserNotFound)?;
        self.tokens.retain(|_, user| user != name);
        Ok(true)
    }

    fn change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
    ) -> Result<bool, Refusal> {
        let user = self.users.get_mut(&request.name);
        let user = user.ok_or(Refusal::UserNotFound)?;
        if user.secret.is_some() {
            user.secret = Some(request.hashed_password.clone());
        }
        self.tokens.retain(|_, user| *user != request.name);
        Ok(true)
    }

    fn grant_role(&mut self, request: &pb::AuthUserGrantRoleRequest) -> Result<bool, Refusal> {
        let has_role = request.role == ROOT || self.roles.contains_key(&request.role);
        let user = self
            .users
            .get_mut(&request.user)
            .ok_or(Refusal::UserNotFound)?;
        if !has_role {
            return Err(Refusal::RoleNotFound);
        }
        Ok(user.roles.insert(request.role.clone()))
    }

    fn revoke_role(&mut self, request: &pb::AuthUserRevokeRoleRequest) -> Result<bool, Refusal> {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let user = self.users.get_mut(&request.name);
        if user
            .ok_or(Refusal::UserNotFound)?
            .roles
            .remove(&request.role)
        {
            Ok(true)
        } else {
            Err(Refusal::RoleNotGranted)
        }
    }

    fn add_role(&mut self, name: &str) -> Result<bool, Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Refusal::RoleAlreadyExist);
        }
        self.roles.insert(name.to_owned(), Vec::new());
        Ok(true)
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        Ok(true)
    }

    fn grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
    ) -> Result<bool, Refusal> {
        let new = request.perm.clone().ok_or(Refusal::PermissionNotGiven)?;
        let is_backwards = !new.range_end.is_empty() && new.range_end != "\0";
        if new.key.is_empty() || (is_backwards && new.range_end <= new.key) {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let permissions = self
            .roles
            .get_mut(&request.name)
            .ok_or(Refusal::RoleNotFound)?;
        // Only the first one of those with the same key is looked at.
        let first = permissions.iter_mut().find(|p| p.key >= new.key);
        match first {
            Some(p) if p.key == new.key && p.range_end == new.range_end => {
                p.perm_type = new.perm_type;
            }
            _ => {
                permissions.push(new);
                permissions.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        Ok(true)
    }

    fn revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
    ) -> Result<bool, Refusal> {
        let permissions = self
            .roles
            .get_mut(&request.role)
            .ok_or(Refusal::RoleNotFound)?;
        let before = permissions.len();
        permissions.retain(|p| p.key != request.key || p.range_end != request.range_end);
        if permissions.len() == before {
            Err(Refusal::PermissionNotGranted)
        } else {
            Ok(true)
        }
    }
}
