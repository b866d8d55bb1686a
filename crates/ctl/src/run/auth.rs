//! `auth enable`, `disable` and `status`.

use quorate_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthStatusRequest, AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
};

use super::Session;
use super::session::fail;
use crate::client::Repeat;
use crate::failure::{Failure, Outcome};
use crate::status::CallError;
use crate::terminal::print;

const ROOT: &str = "root";
const NO_ROOT_ROLE: &str = "etcdserver: root user does not have root role";

fn no_arguments(session: &Session, what: &str) -> Outcome {
    if session.args.is_empty() {
        return Ok(());
    }
    Err(Failure::bad_args(format!(
        "auth {what} command does not accept any arguments"
    )))
}

/// Turns authentication on; makes the root role first and gives it to root, where that is all that is missing.
pub(super) async fn enable(session: Session) -> Outcome {
    no_arguments(&session, "enable")?;
    let s = session.connect().await?;
    let deadline = s.deadline();
    loop {
        let answer: Result<AuthEnableResponse, CallError> = s
            .client
            .call(
                "Auth/AuthEnable",
                &AuthEnableRequest {},
                deadline,
                Repeat::Never,
            )
            .await;
        match answer {
            Ok(_) => break,
            Err(error) if error.is(NO_ROOT_ROLE) => {
                let role = AuthRoleAddRequest {
                    name: ROOT.to_owned(),
                };
                let _: AuthRoleAddResponse = s
                    .call("Auth/RoleAdd", role, deadline, Repeat::Never)
                    .await?;
                let grant = AuthUserGrantRoleRequest {
                    user: ROOT.to_owned(),
                    role: ROOT.to_owned(),
                };
                let _: AuthUserGrantRoleResponse = s
                    .call("Auth/UserGrantRole", grant, deadline, Repeat::Never)
                    .await?;
            }
            Err(error) => return Err(fail(error)),
        }
    }
    print(b"Authentication Enabled\n");
    Ok(())
}

pub(super) async fn disable(session: Session) -> Outcome {
    no_arguments(&session, "disable")?;
    let s = session.connect().await?;
    let _: AuthDisableResponse = s
        .call(
            "Auth/AuthDisable",
            AuthDisableRequest {},
            s.deadline(),
            Repeat::Never,
        )
        .await?;
    print(b"Authentication Disabled\n");
    Ok(())
}

pub(super) async fn status(session: Session) -> Outcome {
    no_arguments(&session, "status")?;
    let s = session.connect().await?;
    let answer = s
        .call(
            "Auth/AuthStatus",
            AuthStatusRequest {},
            s.deadline(),
            Repeat::Safe,
        )
        .await?;
    print(&s.printer.auth_status(&answer)?);
    Ok(())
}
