//! Users, roles, permission checks and tokens, with etcd's rules.
//!
//! [`AuthStore`] belongs to the thread that applies the log. It changes users, roles and permissions within the
//! transaction of a log entry, and decides at apply whether an entry is allowed. [`AuthReader`] belongs to everybody else:
//! it turns tokens into identities, checks passwords, and decides about reads, from a snapshot that is never changed.
//!
//! There is one gate. A request becomes an [`Operation`]; [`Operation::accesses`] flattens it, nested transactions
//! included, into what the caller must be allowed to do; one function judges the list. No other code decides.
//!
//! ```
//! use std::sync::Arc;
//! use quorate_auth::{AuthStore, Identity, Operation, Options, Stage, password};
//! use quorate_backend::Backend;
//! use quorate_proto::authpb::{Permission, permission};
//! use quorate_proto::etcdserverpb as pb;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = Arc::new(quorate_disk::SimDisk::new(1));
//! let backend = Backend::open(disk, "db".as_ref(), Default::default())?;
//! let mut store = AuthStore::restore(&backend, Options { bcrypt_cost: 4, ..Options::default() })?;
//! let reader = store.reader();
//!
//! let mut txn = backend.begin_apply(1, 1);
//! for name in ["root", "alice"] {
//!     let mut add = pb::AuthUserAddRequest { name: name.into(), password: "secret".into(), ..Default::default() };
//!     password::prepare_user_add(&mut add, reader.bcrypt_cost(), [7; 16])?;
//!     store.user_add(&mut txn, &add)?;
//! }
//! store.user_grant_role(&mut txn, &pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() })?;
//! store.role_add(&mut txn, &pb::AuthRoleAddRequest { name: "reader".into() })?;
//! store.role_grant_permission(&mut txn, &pb::AuthRoleGrantPermissionRequest {
//!     name: "reader".into(),
//!     perm: Some(Permission { perm_type: permission::Type::Read as i32, key: "a".into(), range_end: "c".into() }),
//! })?;
//! store.user_grant_role(&mut txn, &pb::AuthUserGrantRoleRequest { user: "alice".into(), role: "reader".into() })?;
//! store.enable(&mut txn)?;
//! txn.commit(0);
//! store.publish();
//!
//! // A login: the password is checked beside the log, the token is assigned by the log.
//! let revision = reader.check_password("alice", "secret")?;
//! let token = store.authenticate("alice", &reader.token_prefix(&[1 << 30; 16]), 2, 0)?;
//! assert_eq!((revision, &*token), (reader.revision(), "nnnnnnnnnnnnnnnn.2"));
//!
//! let alice = reader.identity_of_token(Some(&token), 1_000)?;
//! let range = pb::RangeRequest { key: "b".into(), ..Default::default() };
//! assert!(reader.gate(&alice, Stage::Door, &Operation::Range(&range), |_| vec![]).is_ok());
//! assert!(reader.gate(&Identity::NONE, Stage::Door, &Operation::Range(&range), |_| vec![]).is_err());
//! let put = pb::PutRequest { key: "b".into(), ..Default::default() };
//! assert!(store.gate(&alice, Stage::Apply, &Operation::Put(&put), |_| vec![]).is_err());
//! # Ok(())
//! # }
//! ```

mod store;

mod roles;
mod users;

mod access;
mod gate;
mod range_set;

mod identity;
pub mod password;
mod reader;
mod token;

mod error;
mod record;
mod state;

pub use access::{Access, Operation, Stage};
pub use error::Error;
pub use identity::Identity;
pub use range_set::Span;
pub use reader::{AuthReader, PasswordCheck};
pub use store::{AuthStore, Options};
pub use token::{
    TOKEN_LETTERS, TOKEN_TTL_MS_DEFAULT, TOKENS_MAX_DEFAULT, TokenProvider, token_index,
    token_letters,
};
