//! Errors of calls, in the words of etcd's Go client.

use tonic::{Code, Status};

/// Why a call failed.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// Its time ran out.
    DeadlineExceeded,
    /// The server, or the way to it, refused.
    Status(Status),
}

impl CallError {
    /// Whether the server gave exactly this message.
    pub(crate) fn is(&self, message: &str) -> bool {
        matches!(self, CallError::Status(status) if status.message() == message)
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::DeadlineExceeded => f.write_str("context deadline exceeded"),
            CallError::Status(status) if is_known(status.message()) => {
                f.write_str(status.message())
            }
            CallError::Status(status) => f.write_str(&rpc_text(status)),
        }
    }
}

/// A status as the gRPC library for Go prints it.
pub(crate) fn rpc_text(status: &Status) -> String {
    format!(
        "rpc error: code = {} desc = {}",
        code_name(status.code()),
        status.message()
    )
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Whether a message is one of etcd's own errors, which are shown without the code.
pub(crate) fn is_known(message: &str) -> bool {
    KNOWN.binary_search(&message).is_ok()
}

/// Source: etcd v3.7.1 `api/v3rpc/rpctypes/error.go` `errStringToError`, in byte order.
const KNOWN: &[&str] = &[
    "etcdserver: Peer URLs already exists",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: authentication is not enabled",
    "etcdserver: bad leader transferee",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: cluster ID mismatch",
    "etcdserver: cluster has a downgrade job in progress",
    "etcdserver: cluster version not found during downgrade",
    "etcdserver: corrupt cluster",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: given member URLs are invalid",
    "etcdserver: invalid auth management",
    "etcdserver: invalid auth token",
    "etcdserver: invalid downgrade target version",
    "etcdserver: invalid sort option",
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: leader changed",
    "etcdserver: lease already exists",
    "etcdserver: lease is provided",
    "etcdserver: member ID already exist",
    "etcdserver: member not found",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: no inflight downgrade job",
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: not leader",
    "etcdserver: permission denied",
    "etcdserver: permission is not granted to the role",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: request is too large",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: requested lease not found",
    "etcdserver: revision of auth store is old",
    "etcdserver: role is not granted to the user",
    "etcdserver: role name already exists",
    "etcdserver: role name is empty",
    "etcdserver: role name not found",
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: rpc not supported for learner",
    "etcdserver: server stopped",
    "etcdserver: too large lease TTL",
    "etcdserver: too many learner members in cluster",
    "etcdserver: too many operations in txn request",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: value is provided",
    "etcdserver: wrong downgrade target version format",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_messages_are_in_order_for_the_search() {
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn known_messages_stand_alone_and_others_keep_their_code() {
        let known = Status::not_found("etcdserver: requested lease not found");
        assert_eq!(
            CallError::Status(known).to_string(),
            "etcdserver: requested lease not found"
        );
        let other = Status::unimplemented("unknown service x");
        assert_eq!(
            CallError::Status(other).to_string(),
            "rpc error: code = Unimplemented desc = unknown service x"
        );
    }
}
