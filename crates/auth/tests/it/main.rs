//! The auth store against an obvious model, etcd's rules one by one, and the mistakes of others that must not come back.
#![allow(
    clippy::unwrap_used,
    reason = "a failure of a test's own set-up may panic"
)]

mod faults;
mod gate;
mod model;
mod rules;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use quorate_auth::{AuthReader, AuthStore, Error, Identity, Options};
use quorate_backend::{ApplyTxn, Backend};
use quorate_disk::SimDisk;
use quorate_proto::authpb::{Permission, UserAddOptions, permission};
use quorate_proto::etcdserverpb as pb;

/// A store over a backend on a simulated disk; each change is an entry of its own and is published at once.
struct World {
    disk: Arc<SimDisk>,
    backend: Option<Backend>,
    auth: AuthStore,
    index: u64,
}

const READ: i32 = permission::Type::Read as i32;
const WRITE: i32 = permission::Type::Write as i32;
const READWRITE: i32 = permission::Type::Readwrite as i32;

fn open(disk: &Arc<SimDisk>) -> Backend {
    Backend::open(disk.clone(), Path::new("db"), Default::default()).unwrap()
}

fn options() -> Options {
    Options {
        bcrypt_cost: 4,
        ..Options::default()
    }
}

impl World {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: Options) -> Self {
        let disk = Arc::new(SimDisk::new(1));
        let backend = open(&disk);
        Self {
            auth: AuthStore::restore(&backend, options).unwrap(),
            disk,
            backend: Some(backend),
            index: 0,
        }
    }

    /// Root, its role, and authentication on; user `u` with role `r`.
    fn enabled() -> Self {
        let mut world = Self::new();
        for name in ["root", "u"] {
            world.user_add(name).unwrap();
        }
        world.role_add("r").unwrap();
        world.user_grant_role("root", "root").unwrap();
        world.user_grant_role("u", "r").unwrap();
        world.enable().unwrap();
        world
    }

    fn backend(&self) -> &Backend {
        self.backend.as_ref().unwrap()
    }

    fn reader(&self) -> AuthReader {
        self.auth.reader()
    }

    /// Throws away all that is in memory, and with `reopen` also all that is not on disk.
    fn restart(&mut self, reopen: bool) {
        let options = self.auth.options();
        if reopen {
            while let Some(job) = self.backend().seal() {
                job.run().unwrap();
            }
            self.backend = None;
            self.backend = Some(open(&self.disk));
        }
        self.auth = AuthStore::restore(self.backend(), options).unwrap();
    }

    fn apply<T>(&mut self, change: impl FnOnce(&mut AuthStore, &mut ApplyTxn) -> T) -> T {
        self.index += 1;
        let mut txn = self.backend.as_ref().unwrap().begin_apply(self.index, 1);
        let result = change(&mut self.auth, &mut txn);
        txn.commit(0);
        self.auth.publish();
        result
    }

    /// The identity that a caller with a fresh token has.
    fn identity(&self, name: &str) -> Identity {
        Identity {
            username: name.into(),
            revision: self.auth.revision(),
        }
    }

    fn enable(&mut self) -> Result<(), Error> {
        self.apply(|auth, txn| auth.enable(txn))
    }

    fn disable(&mut self) {
        self.apply(|auth, txn| auth.disable(txn));
    }

    fn user_add(&mut self, name: &str) -> Result<(), Error> {
        self.user_add_with(name, hashed("pw"), None)
    }

    fn user_add_with(
        &mut self,
        name: &str,
        hashed_password: String,
        no_password: Option<bool>,
    ) -> Result<(), Error> {
        let request = pb::AuthUserAddRequest {
            name: name.into(),
            hashed_password,
            options: no_password.map(|no_password| UserAddOptions { no_password }),
            ..Default::default()
        };
        self.apply(|auth, txn| auth.user_add(txn, &request))
    }

    fn user_delete(&mut self, name: &str) -> Result<(), Error> {
        let request = pb::AuthUserDeleteRequest { name: name.into() };
        self.apply(|auth, txn| auth.user_delete(txn, &request))
    }

    fn user_change_password(&mut self, name: &str, hashed_password: String) -> Result<(), Error> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.into(),
            hashed_password,
            ..Default::default()
        };
        self.apply(|auth, txn| auth.user_change_password(txn, &request))
    }

    fn user_grant_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        let request = pb::AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        };
        self.apply(|auth, txn| auth.user_grant_role(txn, &request))
    }

    fn user_revoke_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        let request = pb::AuthUserRevokeRoleRequest {
            name: user.into(),
            role: role.into(),
        };
        self.apply(|auth, txn| auth.user_revoke_role(txn, &request))
    }

    fn role_add(&mut self, name: &str) -> Result<(), Error> {
        let request = pb::AuthRoleAddRequest { name: name.into() };
        self.apply(|auth, txn| auth.role_add(txn, &request))
    }

    fn role_delete(&mut self, name: &str) -> Result<(), Error> {
        let request = pb::AuthRoleDeleteRequest { role: name.into() };
        self.apply(|auth, txn| auth.role_delete(txn, &request))
    }

    fn grant(
        &mut self,
        role: &str,
        perm_type: i32,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Error> {
        let request = pb::AuthRoleGrantPermissionRequest {
            name: role.into(),
            perm: Some(perm(perm_type, key, range_end)),
        };
        self.apply(|auth, txn| auth.role_grant_permission(txn, &request))
    }

    fn revoke(&mut self, role: &str, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(range_end),
        };
        self.apply(|auth, txn| auth.role_revoke_permission(txn, &request))
    }
}

fn perm(perm_type: i32, key: &[u8], range_end: &[u8]) -> Permission {
    Permission {
        perm_type,
        key: Bytes::copy_from_slice(key),
        range_end: Bytes::copy_from_slice(range_end),
    }
}

/// The hash of a password as it travels in the log.
fn hashed(password: &str) -> String {
    base64::engine::general_purpose::STANDARD
        .encode(quorate_auth::password::hash(password, 4, [7; 16]).unwrap())
}

/// Compares by message, since errors of the backend are not comparable.
#[track_caller]
fn refused<T: std::fmt::Debug>(got: Result<T, Error>, want: &Error) {
    assert_eq!(
        got.map(|_| ()).map_err(|e| e.to_string()),
        Err(want.to_string())
    );
}
