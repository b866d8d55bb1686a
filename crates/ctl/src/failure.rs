//! How a command ends when it does not succeed.

/// Exit statuses, as etcdctl gives them.
///
/// Source: etcd v3.7.1 `pkg/cobrautl/error.go`.
pub(crate) mod status {
    /// A general or a server error.
    pub(crate) const ERROR: u8 = 1;
    /// The client could not be set up, or a lease call failed.
    pub(crate) const BAD_CONNECTION: u8 = 2;
    /// Bad lines on standard input.
    pub(crate) const INVALID_INPUT: u8 = 3;
    /// A flag has a value that is not supported.
    pub(crate) const BAD_FEATURE: u8 = 4;
    /// A watch was ended by the server.
    pub(crate) const INTERRUPTED: u8 = 5;
    /// Bad arguments.
    pub(crate) const BAD_ARGS: u8 = 128;
}

/// The exit status of a command and what is printed after `Error: `, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) message: Option<String>,
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: Some(message.into()),
        }
    }

    /// An exit status without a message of its own: everything was said already.
    pub(crate) fn silent(status: u8) -> Failure {
        Failure {
            status,
            message: None,
        }
    }

    pub(crate) fn error(message: impl Into<String>) -> Failure {
        Failure::new(status::ERROR, message)
    }

    pub(crate) fn bad_args(message: impl Into<String>) -> Failure {
        Failure::new(status::BAD_ARGS, message)
    }

    pub(crate) fn bad_feature(message: impl Into<String>) -> Failure {
        Failure::new(status::BAD_FEATURE, message)
    }

    pub(crate) fn invalid_input(message: impl Into<String>) -> Failure {
        Failure::new(status::INVALID_INPUT, message)
    }
}
