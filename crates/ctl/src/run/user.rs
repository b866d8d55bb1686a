//! `user add`, `delete`, `get`, `list`, `passwd`, `grant-role` and `revoke-role`.

use quorate_proto::authpb::UserAddOptions;
use quorate_proto::etcdserverpb::{
    AuthRoleGetRequest, AuthRoleGetResponse, AuthUserAddRequest, AuthUserAddResponse,
    AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthUserDeleteRequest,
    AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
};

use super::Session;
use crate::client::Repeat;
use crate::failure::{Failure, Outcome};
use crate::terminal::{ask_secret, print, read_word};

fn expect(session: &Session, count: usize, complaint: &str) -> Outcome {
    if session.args.len() == count {
        return Ok(());
    }
    Err(Failure::bad_args(complaint))
}

pub(super) async fn add(session: Session) -> Outcome {
    expect(
        &session,
        1,
        "user add command requires user name as its argument",
    )?;
    let argument = String::from_utf8_lossy(&session.args[0]).into_owned();
    let no_password = session.flags.bool("no-password");
    let given = session.flags.string("new-user-password");
    let (name, password) = match argument.split_once(':') {
        _ if no_password => (argument, String::new()),
        _ if !given.is_empty() => (argument, given),
        Some(("", _)) => return Err(Failure::bad_args("empty user name is not allowed")),
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => {
            let password = new_password(&session, &argument)?;
            (argument, password)
        }
    };
    let s = session.connect().await?;
    let request = AuthUserAddRequest {
        name: name.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        hashed_password: String::new(),
    };
    let answer: AuthUserAddResponse = s.call("Auth/UserAdd", request, None, Repeat::Never).await?;
    let line = format!("User {name} created");
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

/// A password typed twice, or one word of standard input.
fn new_password(session: &Session, name: &str) -> Outcome<String> {
    if !session.flags.bool("interactive") {
        return Ok(read_word());
    }
    let ask = |prompt: String| {
        let secret = ask_secret(&prompt);
        secret.map_err(|f| {
            Failure::bad_args(format!(
                "failed to ask password: {}",
                f.message.unwrap_or_default()
            ))
        })
    };
    let first = ask(format!("Password of {name}: "))?;
    if first.is_empty() {
        return Err(Failure::bad_args("empty password"));
    }
    if ask(format!("Type password of {name} again for confirmation: "))? != first {
        return Err(Failure::bad_args("given passwords are different"));
    }
    Ok(first)
}

pub(super) async fn delete(session: Session) -> Outcome {
    expect(
        &session,
        1,
        "user delete command requires user name as its argument",
    )?;
    let s = session.connect().await?;
    let request = AuthUserDeleteRequest { name: s.text(0) };
    let answer: AuthUserDeleteResponse = s
        .call("Auth/UserDelete", request, None, Repeat::Never)
        .await?;
    let line = format!("User {} deleted", s.text(0));
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

pub(super) async fn get(session: Session) -> Outcome {
    expect(
        &session,
        1,
        "user get command requires user name as its argument",
    )?;
    let s = session.connect().await?;
    let request = AuthUserGetRequest { name: s.text(0) };
    let answer: AuthUserGetResponse = s.call("Auth/UserGet", request, None, Repeat::Safe).await?;
    if !s.flags.bool("detail") {
        print(&s.printer.user_get(&s.args[0], &answer)?);
        return Ok(());
    }
    print(format!("User: {}\n", s.text(0)).as_bytes());
    for role in answer.roles {
        print(b"\n");
        let request = AuthRoleGetRequest { role: role.clone() };
        let answer: AuthRoleGetResponse =
            s.call("Auth/RoleGet", request, None, Repeat::Safe).await?;
        print(&s.printer.role_get(role.as_bytes(), &answer)?);
    }
    Ok(())
}

pub(super) async fn list(session: Session) -> Outcome {
    expect(&session, 0, "user list command requires no arguments")?;
    let s = session.connect().await?;
    let answer = s
        .call("Auth/UserList", AuthUserListRequest {}, None, Repeat::Safe)
        .await?;
    print(&s.printer.user_list(&answer)?);
    Ok(())
}

pub(super) async fn passwd(session: Session) -> Outcome {
    expect(
        &session,
        1,
        "user passwd command requires user name as its argument",
    )?;
    let name = String::from_utf8_lossy(&session.args[0]).into_owned();
    let password = new_password(&session, &name)?;
    let s = session.connect().await?;
    let request = AuthUserChangePasswordRequest {
        name,
        password,
        hashed_password: String::new(),
    };
    let answer: AuthUserChangePasswordResponse = s
        .call("Auth/UserChangePassword", request, None, Repeat::Never)
        .await?;
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), b"Password updated")?,
    );
    Ok(())
}

pub(super) async fn grant_role(session: Session) -> Outcome {
    expect(
        &session,
        2,
        "user grant command requires user name and role name as its argument",
    )?;
    let s = session.connect().await?;
    let (user, role) = (s.text(0), s.text(1));
    let line = format!("Role {role} is granted to user {user}");
    let request = AuthUserGrantRoleRequest { user, role };
    let answer: AuthUserGrantRoleResponse = s
        .call("Auth/UserGrantRole", request, None, Repeat::Never)
        .await?;
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

pub(super) async fn revoke_role(session: Session) -> Outcome {
    expect(
        &session,
        2,
        "user revoke-role requires user name and role name as its argument",
    )?;
    let s = session.connect().await?;
    let (name, role) = (s.text(0), s.text(1));
    let line = format!("Role {role} is revoked from user {name}");
    let request = AuthUserRevokeRoleRequest { name, role };
    let answer: AuthUserRevokeRoleResponse = s
        .call("Auth/UserRevokeRole", request, None, Repeat::Never)
        .await?;
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}
