//! How users, roles and the auth state lie in the backend's tables.
//!
//! **Shape**: `auth` holds `authEnabled` (one byte, 1 or 0) and `authRevision` (8 bytes, big endian); `authUsers` holds
//! an `authpb.User` under each user's name, `authRoles` an `authpb.Role` under each role's name.
//!
//! Source: etcd v3.7.1 `server/storage/schema/{auth,auth_users,auth_roles}.go`.
use bytes::Bytes;
use prost::Message as _;
use quorate_backend::Table;
use quorate_proto::authpb;

use crate::Error;
use crate::state::{Secret, User};

pub(crate) const ENABLED_KEY: &[u8] = b"authEnabled";
pub(crate) const REVISION_KEY: &[u8] = b"authRevision";

pub(crate) fn encode_enabled(enabled: bool) -> Bytes {
    Bytes::from_static(if enabled { &[1] } else { &[0] })
}

/// Decodes `authEnabled`; anything but one byte of 1 is off, as in etcd.
pub(crate) fn decode_enabled(value: Option<&[u8]>) -> bool {
    value == Some(&[1])
}

pub(crate) fn encode_revision(revision: u64) -> Bytes {
    Bytes::copy_from_slice(&revision.to_be_bytes())
}

/// Decodes `authRevision`; 0 when there is none yet.
pub(crate) fn decode_revision(value: Option<&[u8]>) -> Result<u64, Error> {
    let Some(value) = value else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(value).map_err(|_| Error::Corrupt {
        table: Table::Auth,
        key: REVISION_KEY.to_vec(),
        what: "value is not 8 bytes",
    })?;
    Ok(u64::from_be_bytes(bytes))
}

pub(crate) fn encode_user(name: &str, user: &User) -> Bytes {
    let record = authpb::User {
        name: Bytes::copy_from_slice(name.as_bytes()),
        password: user.password.0.clone(),
        roles: user.roles.clone(),
        options: user.options,
    };
    record.encode_to_vec().into()
}

pub(crate) fn decode_user(key: &Bytes, value: Bytes) -> Result<(String, User), Error> {
    let corrupt = |what| Error::Corrupt {
        table: Table::AuthUsers,
        key: key.to_vec(),
        what,
    };
    let name = std::str::from_utf8(key).map_err(|_| corrupt("name is not UTF-8"))?;
    let record = authpb::User::decode(value).map_err(|_| corrupt("value is not a user"))?;
    if record.name != key {
        return Err(corrupt("value is another user"));
    }
    let user = User {
        password: Secret(Bytes::copy_from_slice(&record.password)),
        roles: record.roles,
        options: record.options,
        grants: Default::default(),
    };
    Ok((name.to_owned(), user))
}

pub(crate) fn encode_role(name: &str, permissions: &[authpb::Permission]) -> Bytes {
    let record = authpb::Role {
        name: Bytes::copy_from_slice(name.as_bytes()),
        key_permission: permissions.to_vec(),
    };
    record.encode_to_vec().into()
}

pub(crate) fn decode_role(
    key: &Bytes,
    value: Bytes,
) -> Result<(String, Vec<authpb::Permission>), Error> {
    let corrupt = |what| Error::Corrupt {
        table: Table::AuthRoles,
        key: key.to_vec(),
        what,
    };
    let name = std::str::from_utf8(key).map_err(|_| corrupt("name is not UTF-8"))?;
    let record = authpb::Role::decode(value).map_err(|_| corrupt("value is not a role"))?;
    if record.name != key {
        return Err(corrupt("value is another role"));
    }
    Ok((name.to_owned(), record.key_permission))
}

#[cfg(test)]
mod tests {
    use quorate_proto::authpb::UserAddOptions;

    use super::*;

    #[test]
    fn records_are_what_etcd_writes() {
        // Rows of a database of etcd 3.7.1.
        let hash = "$2a$04$aUNI8zG4nC7yoOMqNhM8gOfyrhi6z691EhpmkKDNL5gQRbbpbntdi";
        let user = User {
            password: Secret(hash.into()),
            roles: vec!["r1".into()],
            options: Some(UserAddOptions { no_password: false }),
            grants: Default::default(),
        };
        let value = encode_user("u1", &user);
        // Options are stored even when they are empty.
        let want = [b"\n\x02u1\x12<", hash.as_bytes(), b"\x1a\x02r1\"\x00"].concat();
        assert_eq!(value, want);
        let (name, again) = decode_user(&"u1".into(), value).unwrap();
        assert_eq!((&*name, &again.password), ("u1", &user.password));
        assert_eq!((again.roles, again.options), (user.roles, user.options));
        let (_, user) = decode_user(&"np".into(), "\n\x02np\"\x02\x08\x01".into()).unwrap();
        assert!(user.has_no_password());
        assert_eq!(encode_user("np", &user)[..], *b"\n\x02np\"\x02\x08\x01");

        let permissions = [
            authpb::Permission {
                perm_type: 2,
                key: "a".into(),
                range_end: "\0".into(),
            },
            authpb::Permission {
                perm_type: 0,
                key: "b".into(),
                range_end: "".into(),
            },
        ];
        let value = encode_role("r1", &permissions);
        assert_eq!(
            value[..],
            *b"\n\x02r1\x12\x08\x08\x02\x12\x01a\x1a\x01\x00\x12\x03\x12\x01b"
        );
        let role = decode_role(&"r1".into(), value).unwrap();
        assert_eq!(role, ("r1".to_owned(), permissions.to_vec()));

        assert_eq!(encode_revision(258)[..], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(decode_revision(Some(&encode_revision(258))).unwrap(), 258);
        assert_eq!(
            (encode_enabled(true), encode_enabled(false)),
            ("\x01".into(), "\0".into())
        );
    }

    #[test]
    fn damaged_rows_are_corrupt() {
        let message = |e: Error| e.to_string();
        assert_eq!(
            message(decode_user(&"u".into(), "\x0a\x01v".into()).unwrap_err()),
            "row u of auth table AuthUsers is corrupt: value is another user"
        );
        assert!(decode_user(&"u".into(), "\x0a\x7f".into()).is_err());
        assert!(decode_user(&Bytes::from_static(b"\xff"), Bytes::new()).is_err());
        assert!(decode_role(&"r".into(), "\x0a\x01s".into()).is_err());
        assert!(decode_role(&"r".into(), Bytes::from_static(b"\xff")).is_err());
        assert!(decode_revision(Some(b"short")).is_err());
        assert!(!decode_enabled(None) && !decode_enabled(Some(b"")) && !decode_enabled(Some(&[2])));
    }
}
