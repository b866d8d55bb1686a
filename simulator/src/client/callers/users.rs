//! Logging in, users and roles.
use quorate_auth::{Identity, TOKEN_LETTERS, password};
use quorate_core::{Error, Request};
use quorate_proto::authpb::{Permission, UserAddOptions};
use quorate_proto::etcdserverpb as pb;

use super::propose::Then;
use super::reads::Read;
use super::{Callers, Checked};
use crate::World;
use crate::check::{Violation, refusal};
use crate::model::Refusal;

/// Users that there may be; the first may do everything.
const USERS: [&str; 4] = ["root", "ann", "ben", "cid"];
const ROLES: [&str; 3] = ["root", "low", "high"];
const PASSWORDS: [&str; 2] = ["one", "two"];
/// Spans that are granted; no two begin with the same key.
const SPANS: [(&str, &str); 5] = [
    ("k00", "k04"),
    ("k04", "k08"),
    ("k06", ""),
    ("k08", "\0"),
    ("\0", "\0"),
];

/// Who a client says it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) token: Option<String>,
}

impl Account {
    /// Makes one for each client, none of them logged in.
    pub(super) fn all(clients: u64) -> Vec<Self> {
        (0..clients).map(|_| Self::default()).collect()
    }
}

impl Callers {
    pub(super) fn account(&self, client: u64) -> Option<&Account> {
        self.accounts.get(usize::try_from(client).ok()?)
    }

    pub(super) fn account_mut(&mut self, client: u64) -> Option<&mut Account> {
        self.accounts.get_mut(usize::try_from(client).ok()?)
    }

    /// Begins a login, mostly of the user that the client was or of root.
    pub(super) fn log_in(&mut self, world: &mut World, machine: u64, client: u64) -> Checked {
        let name = match self.random.below(6) {
            0..2 => USERS[0].to_owned(),
            _ => self.draw_name(&USERS),
        };
        // Mostly the password that it has.
        let newest = self.model.auth_at(self.model.index());
        let known = newest
            .secret_of(&name)
            .and_then(|hash| self.passwords.get(hash))
            .filter(|_| !self.random.clone().one_in(6))
            .cloned();
        let password = known.unwrap_or_else(|| PASSWORDS[0].to_owned());
        self.read(
            world,
            machine,
            client,
            Read::Password { name, password },
            false,
        )
    }

    /// Checks a password on a member, and asks for a token when it is right.
    pub(super) fn check_password(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        name: String,
        password: &str,
    ) -> Checked {
        let (Some(auth), Some(place)) = (world.auth(machine), Self::place(world, machine)) else {
            return Ok(());
        };
        let state = self.model.auth_at(place);
        let expected = if !state.is_enabled() {
            Err(Refusal::AuthNotEnabled)
        } else if state.roles_of(&name).is_none() {
            Err(Refusal::AuthFailed)
        } else {
            match state.secret_of(&name) {
                None => Err(Refusal::NoPasswordUser),
                Some(hash) if self.passwords.get(hash).is_some_and(|p| p == password) => {
                    Ok(state.revision())
                }
                Some(_) => Err(Refusal::AuthFailed),
            }
        };
        let got = auth.check_password(&name, password);
        let got = got.map_err(|e| refusal(&Error::Auth(e)));
        if got != expected.map_err(Some) {
            let text = format!(
                "m{machine} at entry {place} decides {got:?} about the login of {name}, not {expected:?}"
            );
            return Err(Violation::new("logins are the model's", text));
        }
        let Ok(checked) = got else {
            world.hit("login refused");
            return Ok(());
        };
        let mut letters = [0_u32; TOKEN_LETTERS];
        for letter in &mut letters {
            *letter = u32::try_from(self.random.number() >> 32).unwrap_or(0);
        }
        let request = Request::Authenticate(pb::InternalAuthenticateRequest {
            simple_token: auth.token_prefix(&letters),
            name: name.clone(),
            ..pb::InternalAuthenticateRequest::default()
        });
        let then = Then::KeepToken {
            client,
            name,
            checked,
        };
        self.propose(world, machine, client, request, then)
    }

    fn draw_name(&mut self, names: &[&str]) -> String {
        self.random.pick(names).unwrap_or("root").to_owned()
    }

    /// Changes or reads users and roles.
    pub(super) fn manage(&mut self, world: &mut World, machine: u64, client: u64) -> Checked {
        let newest = self.model.auth_at(self.model.index());
        let request = if newest.is_enabled() {
            self.draw_management()
        } else {
            self.draw_setup(&newest)
        };
        let request = match request {
            Request::AuthUserAdd(_) | Request::AuthUserChangePassword(_) => {
                match self.with_secret(world, machine, client, request)? {
                    Some(request) => request,
                    None => return Ok(()),
                }
            }
            other => other,
        };
        self.propose(world, machine, client, request, Then::Nothing)
    }

    /// Replaces a password by its hash, as the member does that is asked.
    fn with_secret(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        request: Request,
    ) -> Checked<Option<Request>> {
        let (Some(auth), Some(identity)) =
            (world.auth(machine), self.identity(world, machine, client)?)
        else {
            return Ok(None);
        };
        if !may_manage(&auth, &identity) {
            world.hit("refused before hashing");
            return Ok(None);
        }
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.random.number().to_le_bytes());
        let cost = auth.bcrypt_cost();
        Ok(match request {
            Request::AuthUserAdd(mut add) => {
                let plain = add.password.clone();
                let done = password::prepare_user_add(&mut add, cost, salt);
                self.passwords.insert(add.hashed_password.clone(), plain);
                done.ok().map(|()| Request::AuthUserAdd(add))
            }
            Request::AuthUserChangePassword(mut change) => {
                let plain = change.password.clone();
                let done = password::prepare_user_change_password(&mut change, cost, salt);
                self.passwords.insert(change.hashed_password.clone(), plain);
                done.ok().map(|()| Request::AuthUserChangePassword(change))
            }
            other => Some(other),
        })
    }

    /// Draws what brings authentication about.
    fn draw_setup(&mut self, newest: &crate::model::Auth) -> Request {
        // Mostly somebody is there who may do some things and not others, before it counts.
        if !self.random.one_in(4)
            && let Some(request) = self.draw_missing(newest)
        {
            return request;
        }
        let missing = ROLES.iter().find(|r| newest.permissions_of(r).is_none());
        if newest.roles_of("root").is_none() {
            return self.draw_user_add("root".to_owned());
        }
        if newest.roles_of("root").is_some_and(|r| r.is_empty()) {
            let (user, role) = ("root".to_owned(), "root".to_owned());
            return Request::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user, role });
        }
        match missing {
            Some(role) if self.random.one_in(2) => Request::AuthRoleAdd(pb::AuthRoleAddRequest {
                name: (*role).to_owned(),
            }),
            _ if self.random.one_in(2) => Request::AuthEnable(pb::AuthEnableRequest {}),
            _ => self.draw_management(),
        }
    }

    /// Draws what is missing for users of whom each has a role, and roles of which each has a permission.
    fn draw_missing(&mut self, newest: &crate::model::Auth) -> Option<Request> {
        for (name, role) in USERS.into_iter().zip(ROLES) {
            let Some(roles) = newest.roles_of(name) else {
                return Some(self.draw_user_add(name.to_owned()));
            };
            let permissions = newest.permissions_of(role);
            if name != "root" && permissions.is_none() {
                let name = role.to_owned();
                return Some(Request::AuthRoleAdd(pb::AuthRoleAddRequest { name }));
            }
            if roles.is_empty() {
                let (user, role) = (name.to_owned(), role.to_owned());
                return Some(Request::AuthUserGrantRole(pb::AuthUserGrantRoleRequest {
                    user,
                    role,
                }));
            }
            if name != "root" && permissions.is_some_and(|p| p.is_empty()) {
                return Some(self.draw_grant(role.to_owned()));
            }
        }
        None
    }

    fn draw_user_add(&mut self, name: String) -> Request {
        let no_password = name != "root" && self.random.one_in(6);
        Request::AuthUserAdd(pb::AuthUserAddRequest {
            name,
            password: if no_password {
                String::new()
            } else {
                self.draw_name(&PASSWORDS)
            },
            options: no_password.then_some(UserAddOptions { no_password }),
            hashed_password: String::new(),
        })
    }

    fn draw_management(&mut self) -> Request {
        let user = self.draw_name(&USERS);
        let role = self.draw_name(&ROLES);
        match self.random.below(40) {
            0..5 => self.draw_user_add(user),
            5 | 6 => Request::AuthUserDelete(pb::AuthUserDeleteRequest { name: user }),
            7 | 8 => Request::AuthUserChangePassword(pb::AuthUserChangePasswordRequest {
                name: user,
                password: self.draw_name(&PASSWORDS),
                hashed_password: String::new(),
            }),
            9..15 => Request::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user, role }),
            15 => Request::AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest { name: user, role }),
            16 => Request::AuthUserGet(pb::AuthUserGetRequest { name: user }),
            17 => Request::AuthUserList(pb::AuthUserListRequest {}),
            18 => Request::AuthRoleList(pb::AuthRoleListRequest {}),
            19 => Request::AuthRoleGet(pb::AuthRoleGetRequest { role }),
            20..24 => Request::AuthRoleAdd(pb::AuthRoleAddRequest { name: role }),
            24 => Request::AuthRoleDelete(pb::AuthRoleDeleteRequest { role }),
            // Who may do everything shows nothing.
            25..29 => self.draw_grant(role),
            29..35 => {
                let (key, range_end) = self.draw_granted();
                Request::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
                    role,
                    key,
                    range_end,
                })
            }
            35 => Request::AuthEnable(pb::AuthEnableRequest {}),
            36 => Request::AuthDisable(pb::AuthDisableRequest {}),
            _ => Request::AuthStatus(pb::AuthStatusRequest {}),
        }
    }

    fn draw_granted(&mut self) -> (bytes::Bytes, bytes::Bytes) {
        let (key, end) = self.random.pick(&SPANS).unwrap_or(SPANS[0]);
        (key.into(), end.into())
    }

    fn draw_grant(&mut self, name: String) -> Request {
        let (key, range_end) = self.draw_granted();
        let perm_type = i32::try_from(self.random.below(3)).unwrap_or(0);
        let perm = Permission {
            perm_type,
            key,
            range_end,
        };
        Request::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name,
            perm: (!self.random.one_in(20)).then_some(perm),
        })
    }
}

/// Says whether the door has passwords hashed for a caller.
fn may_manage(auth: &quorate_auth::AuthReader, identity: &Identity) -> bool {
    let accesses = [quorate_auth::Access::Admin];
    auth.check(identity, &accesses, |_| Vec::new()).is_ok()
}
