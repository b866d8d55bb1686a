//! How messages are shown that hold passwords, their hashes, or tokens: with everything but those.
use std::fmt::{Debug, Formatter, Result};

use crate::authpb::User;
use crate::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
    InternalAuthenticateRequest,
};

/// Shows of a secret whether there is one.
fn hidden(secret: impl AsRef<[u8]>) -> &'static str {
    if secret.as_ref().is_empty() {
        ""
    } else {
        "***"
    }
}

impl Debug for User {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("password", &hidden(&self.password))
            .field("roles", &self.roles)
            .field("options", &self.options)
            .finish()
    }
}

impl Debug for AuthUserAddRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("AuthUserAddRequest")
            .field("name", &self.name)
            .field("password", &hidden(&self.password))
            .field("options", &self.options)
            .field("hashed_password", &hidden(&self.hashed_password))
            .finish()
    }
}

impl Debug for AuthUserChangePasswordRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("AuthUserChangePasswordRequest")
            .field("name", &self.name)
            .field("password", &hidden(&self.password))
            .field("hashed_password", &hidden(&self.hashed_password))
            .finish()
    }
}

impl Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("AuthenticateRequest")
            .field("name", &self.name)
            .field("password", &hidden(&self.password))
            .finish()
    }
}

impl Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("AuthenticateResponse")
            .field("header", &self.header)
            .field("token", &hidden(&self.token))
            .finish()
    }
}

impl Debug for InternalAuthenticateRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("InternalAuthenticateRequest")
            .field("name", &self.name)
            .field("password", &hidden(&self.password))
            .field("simple_token", &hidden(&self.simple_token))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::InternalRaftRequest;

    #[test]
    fn no_message_shows_a_secret_however_deep_it_lies() {
        let secret = || "opensesame".to_owned();
        let shown: [&dyn Debug; 5] = [
            &User {
                name: "alice".into(),
                password: secret().into(),
                ..Default::default()
            },
            &AuthenticateRequest {
                name: "alice".to_owned(),
                password: secret(),
            },
            &AuthenticateResponse {
                token: secret(),
                ..Default::default()
            },
            &Some(AuthUserChangePasswordRequest {
                name: "alice".to_owned(),
                password: secret(),
                hashed_password: secret(),
            }),
            &InternalRaftRequest {
                auth_user_add: Some(AuthUserAddRequest {
                    name: "alice".to_owned(),
                    password: secret(),
                    hashed_password: secret(),
                    ..Default::default()
                }),
                authenticate: Some(InternalAuthenticateRequest {
                    name: "alice".to_owned(),
                    password: secret(),
                    simple_token: secret(),
                }),
                ..Default::default()
            },
        ];
        for shown in shown.map(|shown| format!("{shown:?} {shown:#?}")) {
            assert!(
                !shown.contains("sesame") && shown.contains("***"),
                "{shown}"
            );
        }
    }
}
