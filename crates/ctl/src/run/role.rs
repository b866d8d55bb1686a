//! `role add`, `delete`, `get`, `list`, `grant-permission` and `revoke-permission`.

use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse,
};

use super::Session;
use crate::cli::flags::Flags;
use crate::client::Repeat;
use crate::failure::{Failure, Outcome};
use crate::range::{FROM_KEY, prefix_end};
use crate::terminal::print;

fn one_name(session: &Session, what: &str) -> Outcome {
    if session.args.len() == 1 {
        return Ok(());
    }
    Err(Failure::bad_args(format!(
        "role {what} command requires role name as its argument"
    )))
}

pub(super) async fn add(session: Session) -> Outcome {
    one_name(&session, "add")?;
    let s = session.connect().await?;
    let request = AuthRoleAddRequest { name: s.text(0) };
    let answer: AuthRoleAddResponse = s.call("Auth/RoleAdd", request, None, Repeat::Never).await?;
    let line = format!("Role {} created", s.text(0));
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

pub(super) async fn delete(session: Session) -> Outcome {
    one_name(&session, "delete")?;
    let s = session.connect().await?;
    let request = AuthRoleDeleteRequest { role: s.text(0) };
    let answer: AuthRoleDeleteResponse = s
        .call("Auth/RoleDelete", request, None, Repeat::Never)
        .await?;
    let line = format!("Role {} deleted", s.text(0));
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

pub(super) async fn get(session: Session) -> Outcome {
    one_name(&session, "get")?;
    let s = session.connect().await?;
    let request = AuthRoleGetRequest { role: s.text(0) };
    let answer: AuthRoleGetResponse = s.call("Auth/RoleGet", request, None, Repeat::Safe).await?;
    print(&s.printer.role_get(&s.args[0], &answer)?);
    Ok(())
}

pub(super) async fn list(session: Session) -> Outcome {
    if !session.args.is_empty() {
        return Err(Failure::bad_args("role list command requires no arguments"));
    }
    let s = session.connect().await?;
    let answer = s
        .call("Auth/RoleList", AuthRoleListRequest {}, None, Repeat::Safe)
        .await?;
    print(&s.printer.role_list(&answer)?);
    Ok(())
}

pub(super) async fn grant_permission(session: Session) -> Outcome {
    let [_, kind, keys @ ..] = session.args.as_slice() else {
        return Err(too_few());
    };
    if keys.is_empty() {
        return Err(too_few());
    }
    let perm_type = match kind.to_ascii_uppercase().as_slice() {
        b"READ" => Type::Read,
        b"WRITE" => Type::Write,
        b"READWRITE" => Type::Readwrite,
        _ => {
            let kind = String::from_utf8_lossy(kind);
            return Err(Failure::bad_args(format!(
                "invalid permission type: {kind}"
            )));
        }
    };
    let (key, range_end) = permission_range(&session.flags, keys)?;
    let s = session.connect().await?;
    let permission = Permission {
        perm_type: perm_type.into(),
        key: key.into(),
        range_end: range_end.into(),
    };
    let request = AuthRoleGrantPermissionRequest {
        name: s.text(0),
        perm: Some(permission),
    };
    let answer: AuthRoleGrantPermissionResponse = s
        .call("Auth/RoleGrantPermission", request, None, Repeat::Never)
        .await?;
    let line = format!("Role {} updated", s.text(0));
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

fn too_few() -> Failure {
    Failure::bad_args(
        "role grant command requires role name, permission type, and key [endkey] as its argument",
    )
}

pub(super) async fn revoke_permission(session: Session) -> Outcome {
    if session.args.len() < 2 {
        let text =
            "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Failure::bad_args(text));
    }
    let (key, range_end) = permission_range(&session.flags, &session.args[1..])?;
    let s = session.connect().await?;
    let line = revoked_line(&s.args[0], &s.args[1], &range_end);
    let request = AuthRoleRevokePermissionRequest {
        role: s.text(0),
        key: key.into(),
        range_end: range_end.into(),
    };
    let answer: AuthRoleRevokePermissionResponse = s
        .call("Auth/RoleRevokePermission", request, None, Repeat::Never)
        .await?;
    print(&s.printer.line(&answer, answer.header.as_ref(), &line)?);
    Ok(())
}

/// Says which keys were taken from the role.
fn revoked_line(role: &[u8], key: &[u8], end: &[u8]) -> Vec<u8> {
    let parts: &[&[u8]] = match end {
        b"" => &[b"Permission of key ", key],
        FROM_KEY => &[b"Permission of range [", key, b", <open ended>"],
        _ => &[b"Permission of range [", key, b", ", end, b")"],
    };
    [&parts.concat()[..], b" is revoked from role ", role].concat()
}

/// First key and range end as the server wants them: no key at all begins at the zero byte.
fn permission_range(flags: &Flags, args: &[Vec<u8>]) -> Outcome<(Vec<u8>, Vec<u8>)> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let key = &args[0];
    if key.is_empty() {
        let end = if prefix || from_key {
            FROM_KEY.to_vec()
        } else {
            Vec::new()
        };
        return not_both(prefix && from_key).map(|()| (FROM_KEY.to_vec(), end));
    }
    let end = match args.get(1) {
        Some(_) if prefix => {
            return Err(Failure::bad_args(
                "unexpected endkey argument with --prefix flag",
            ));
        }
        Some(_) if from_key => {
            return Err(Failure::bad_args(
                "unexpected endkey argument with --from-key flag",
            ));
        }
        Some(end) => end.clone(),
        None => {
            not_both(prefix && from_key)?;
            match (prefix, from_key) {
                (true, _) => prefix_end(key),
                (_, true) => FROM_KEY.to_vec(),
                _ => Vec::new(),
            }
        }
    };
    Ok((key.clone(), end))
}

fn not_both(both: bool) -> Outcome {
    if both {
        return Err(Failure::bad_args(
            "--from-key and --prefix flags are mutually exclusive",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_name_the_keys() {
        assert_eq!(
            revoked_line(b"r", b"k", b""),
            b"Permission of key k is revoked from role r"
        );
        assert_eq!(
            revoked_line(b"r", b"a", b"c"),
            b"Permission of range [a, c) is revoked from role r"
        );
        assert_eq!(
            revoked_line(b"r", b"a", b"\0"),
            b"Permission of range [a, <open ended> is revoked from role r"
        );
    }
}
