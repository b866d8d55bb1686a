//! The service `Auth`.
use std::rc::Rc;

use bytes::Bytes;
use quorate_auth::{Access, Identity, TOKEN_LETTERS, password};
use quorate_core::{Applied, AuthAnswer, Request};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::ResponseHeader;

use super::context::{Context, decode};
use super::kv::mismatch;
use crate::beside::hash_beside;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::method::Method;
use crate::seam::Answer;
use crate::status::{Code, Status};

/// Draws random bytes fit for secrets.
fn random<const N: usize>() -> Result<[u8; N], Status> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Status::new(Code::Unknown, format!("cannot draw random bytes: {error}"))
    })?;
    Ok(bytes)
}

fn random_letters() -> Result<[u32; TOKEN_LETTERS], Status> {
    let bytes: [u8; 4 * TOKEN_LETTERS] = random()?;
    let mut letters = [0; TOKEN_LETTERS];
    for (letter, word) in letters.iter_mut().zip(bytes.as_chunks().0) {
        *letter = u32::from_le_bytes(*word);
    }
    Ok(letters)
}

/// Logs a user in.
///
/// The password is checked here, off the connection's thread and off the log; only the token's random part is
/// replicated. When the auth store changed between the check and the token's assignment, all of it is done again.
///
/// Source: etcd v3.7.1 server/etcdserver/v3_server.go `Authenticate`.
pub(super) fn authenticate(context: &Rc<Context>, body: Bytes) -> Answer {
    let request: pb::AuthenticateRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        context.read_index().await?;
        loop {
            let check = context.auth().password_check(&request.name)?;
            let password = request.password.clone();
            let checked_revision = hash_beside(move || check.verify(&password)).await??;
            let simple_token = context.auth().token_prefix(&random_letters()?);
            let assign = pb::InternalAuthenticateRequest {
                name: request.name.clone(),
                simple_token,
                ..pb::InternalAuthenticateRequest::default()
            };
            let wait = context.propose(Request::Authenticate(assign), None, Identity::NONE);
            let (revision, token) = match context.applied(wait).await? {
                Applied::Auth {
                    revision,
                    answer: AuthAnswer::Token(token),
                } => (revision, token),
                other => mismatch(&other),
            };
            if checked_revision == context.auth().revision() {
                let header = Some(context.header(revision));
                return Ok(Message::encode(&pb::AuthenticateResponse { header, token }));
            }
        }
    })
}

/// Answers every other request of the service: they all go through the log.
pub(super) fn manage(
    context: &Rc<Context>,
    metadata: &Metadata,
    method: Method,
    body: Bytes,
) -> Answer {
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        let request = request(&context, &identity, method, body).await?;
        match context
            .applied(context.propose(request, None, identity))
            .await?
        {
            Applied::Auth { revision, answer } => {
                Ok(response(method, context.header(revision), answer))
            }
            other => mismatch(&other),
        }
    })
}

/// Decodes a request; a password is replaced by its hash.
async fn request(
    context: &Context,
    identity: &Identity,
    method: Method,
    body: Bytes,
) -> Result<Request, Status> {
    Ok(match method {
        Method::AuthEnable => Request::AuthEnable(decode(body)?),
        Method::AuthDisable => Request::AuthDisable(decode(body)?),
        Method::AuthStatus => Request::AuthStatus(decode(body)?),
        Method::AuthUserAdd => {
            may_manage(context, identity)?;
            let mut add: pb::AuthUserAddRequest = decode(body)?;
            let (cost, salt) = (context.auth().bcrypt_cost(), random()?);
            hash_beside(move || {
                password::prepare_user_add(&mut add, cost, salt).map(|()| Request::AuthUserAdd(add))
            })
            .await??
        }
        Method::AuthUserChangePassword => {
            may_manage(context, identity)?;
            let mut change: pb::AuthUserChangePasswordRequest = decode(body)?;
            let (cost, salt) = (context.auth().bcrypt_cost(), random()?);
            hash_beside(move || {
                password::prepare_user_change_password(&mut change, cost, salt)
                    .map(|()| Request::AuthUserChangePassword(change))
            })
            .await??
        }
        Method::AuthUserGet => Request::AuthUserGet(decode(body)?),
        Method::AuthUserList => Request::AuthUserList(decode(body)?),
        Method::AuthUserDelete => Request::AuthUserDelete(decode(body)?),
        Method::AuthUserGrantRole => Request::AuthUserGrantRole(decode(body)?),
        Method::AuthUserRevokeRole => Request::AuthUserRevokeRole(decode(body)?),
        Method::AuthRoleAdd => Request::AuthRoleAdd(decode(body)?),
        Method::AuthRoleGet => Request::AuthRoleGet(decode(body)?),
        Method::AuthRoleList => Request::AuthRoleList(decode(body)?),
        Method::AuthRoleDelete => Request::AuthRoleDelete(decode(body)?),
        Method::AuthRoleGrantPermission => Request::AuthRoleGrantPermission(decode(body)?),
        Method::AuthRoleRevokePermission => Request::AuthRoleRevokePermission(decode(body)?),
        other => return Err(Status::unknown_method(other.service(), other.name())),
    })
}

/// Refuses before the slow hashing whoever will be refused after it.
///
/// Differs from etcd, which lets anyone have passwords hashed; a password that is too long for one who may not set it is
/// therefore answered otherwise.
fn may_manage(context: &Context, identity: &Identity) -> Result<(), Status> {
    let accesses = [Access::Admin];
    Ok(context.auth().check(identity, &accesses, |_| Vec::new())?)
}

/// Encodes an answer. Those that say nothing but success all look alike: a header in field 1.
fn response(method: Method, header: ResponseHeader, answer: AuthAnswer) -> Message {
    let header = Some(header);
    match answer {
        AuthAnswer::Done => Message::encode(&pb::AuthEnableResponse { header }),
        AuthAnswer::Status { enabled, revision } => Message::encode(&pb::AuthStatusResponse {
            header,
            enabled,
            auth_revision: revision,
        }),
        AuthAnswer::Token(token) => Message::encode(&pb::AuthenticateResponse { header, token }),
        AuthAnswer::Names(names) => match method {
            Method::AuthUserGet => Message::encode(&pb::AuthUserGetResponse {
                header,
                roles: names,
            }),
            Method::AuthUserList => Message::encode(&pb::AuthUserListResponse {
                header,
                users: names,
            }),
            _ => Message::encode(&pb::AuthRoleListResponse {
                header,
                roles: names,
            }),
        },
        AuthAnswer::Permissions(perm) => Message::encode(&pb::AuthRoleGetResponse { header, perm }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_letters_are_drawn_anew_each_time() {
        assert_ne!(random_letters().unwrap(), random_letters().unwrap());
    }
}
