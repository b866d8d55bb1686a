//! What can go wrong.
use std::fmt;

/// Why an operation of the auth store failed.
///
/// The messages are those that etcd writes to its log; clients get other texts for most of them.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The user name is empty, or the request carries no identity and one is needed.
    UserEmpty,
    /// The role name is empty.
    RoleEmpty,
    /// A grant without a permission.
    PermissionNotGiven,
    /// Removes what keeps root in power while authentication is on, or the range of a permission is invalid.
    InvalidAuthMgmt,
    /// The password is longer than bcrypt takes.
    PasswordTooLong,
    /// A password for a user that has none, or a hash that is not Base64.
    NoPasswordUser,
    /// Unknown user or wrong password.
    AuthFailed,
    /// Authentication is off.
    AuthNotEnabled,
    /// The token is malformed, unknown or too old.
    InvalidAuthToken,
    /// The auth store has changed since the caller's identity was established: establish it again and retry.
    AuthOldRevision,
    /// The caller may not do that.
    PermissionDenied,
    /// There is no user root.
    RootUserNotExist,
    /// The user root lacks the role root.
    RootRoleNotExist,
    /// The user name is taken.
    UserAlreadyExist,
    /// There is no such user.
    UserNotFound,
    /// The role name is taken.
    RoleAlreadyExist,
    /// There is no such role.
    RoleNotFound,
    /// The user does not have the role.
    RoleNotGranted,
    /// The role does not have the permission.
    PermissionNotGranted,
    /// A row of one of the auth tables is damaged.
    Corrupt {
        /// The table.
        table: quorate_backend::Table,
        /// The row's key.
        key: Vec<u8>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The backend cannot be read or written.
    Backend(quorate_backend::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::UserEmpty => "auth: user name is empty",
            Error::RoleEmpty => "auth: role name is empty",
            Error::PermissionNotGiven => "auth: permission not given",
            Error::InvalidAuthMgmt => "auth: invalid auth management",
            Error::PasswordTooLong => "bcrypt: password length exceeds 72 bytes",
            Error::NoPasswordUser => {
                "auth: authentication failed, password was given for no password user"
            }
            Error::AuthFailed => "auth: authentication failed, invalid user ID or password",
            Error::AuthNotEnabled => "auth: authentication is not enabled",
            Error::InvalidAuthToken => "auth: invalid auth token",
            Error::AuthOldRevision => "auth: revision in header is old",
            Error::PermissionDenied => "auth: permission denied",
            Error::RootUserNotExist => "auth: root user does not exist",
            Error::RootRoleNotExist => "auth: root user does not have root role",
            Error::UserAlreadyExist => "auth: user already exists",
            Error::UserNotFound => "auth: user not found",
            Error::RoleAlreadyExist => "auth: role already exists",
            Error::RoleNotFound => "auth: role not found",
            Error::RoleNotGranted => "auth: role is not granted to the user",
            Error::PermissionNotGranted => "auth: permission is not granted to the role",
            Error::Corrupt { table, key, what } => {
                let key = key.escape_ascii();
                return write!(f, "row {key} of auth table {table:?} is corrupt: {what}");
            }
            Error::Backend(source) => return write!(f, "auth store: {source}"),
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Backend(source) => Some(source),
            _ => None,
        }
    }
}

impl From<quorate_backend::Error> for Error {
    fn from(source: quorate_backend::Error) -> Error {
        Error::Backend(source)
    }
}
