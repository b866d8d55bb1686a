//! Every error a client can see: codes and exact texts in one table, and what the lower crates' errors become.
//!
//! Clients recognise errors by their text, so the texts are etcd's, byte for byte.
use std::borrow::Cow;
use std::fmt;

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "gRPC's own names say what there is to say")]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Code; 17] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// Returns the number, as it stands in the `grpc-status` trailer.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns the number's text.
    pub fn text(self) -> &'static str {
        const TEXTS: [&str; 17] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16",
        ];
        TEXTS[usize::from(self.number())]
    }

    /// Returns the name that grpc-go and the metrics' label `grpc_code` give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Canceled => "Canceled",
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::PermissionDenied => "PermissionDenied",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::Aborted => "Aborted",
            Self::OutOfRange => "OutOfRange",
            Self::Unimplemented => "Unimplemented",
            Self::Internal => "Internal",
            Self::Unavailable => "Unavailable",
            Self::DataLoss => "DataLoss",
            Self::Unauthenticated => "Unauthenticated",
        }
    }
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
}

impl Status {
    /// Makes a status with a text of its own.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Makes a status with a fixed text.
    pub const fn fixed(code: Code, message: &'static str) -> Self {
        Self {
            code,
            message: Cow::Borrowed(message),
        }
    }

    /// Returns the code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Status {
    /// Writes it as Go's gRPC errors print themselves; watch refusals carry this text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rpc error: code = {} desc = {}",
            self.code.name(),
            self.message
        )
    }
}

impl std::error::Error for Status {}

/// The named errors of etcd.
///
/// Source: etcd v3.7.1 api/v3rpc/rpctypes/error.go, server/etcdserver/api/v3rpc/util.go.
impl Status {
    /// `etcdserver: key is not provided`
    pub const EMPTY_KEY: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: key is not provided");
    /// `etcdserver: key not found`
    pub const KEY_NOT_FOUND: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: key not found");
    /// `etcdserver: value is provided`
    pub const VALUE_PROVIDED: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: value is provided");
    /// `etcdserver: lease is provided`
    pub const LEASE_PROVIDED: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: lease is provided");
    /// `etcdserver: too many operations in txn request`
    pub const TOO_MANY_OPS: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request",
    );
    /// `etcdserver: duplicate key given in txn request`
    pub const DUPLICATE_KEY: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );
    /// `etcdserver: invalid client api version`
    pub const INVALID_CLIENT_API_VERSION: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: invalid client api version",
    );
    /// `etcdserver: invalid sort option`
    pub const INVALID_SORT_OPTION: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: invalid sort option");
    /// `etcdserver: mvcc: required revision has been compacted`
    pub const COMPACTED: Status = Status::fixed(
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted",
    );
    /// `etcdserver: mvcc: required revision is a future revision`
    pub const FUTURE_REV: Status = Status::fixed(
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    /// `etcdserver: mvcc: database space exceeded`
    pub const NO_SPACE: Status = Status::fixed(
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
    );
    /// `etcdserver: requested lease not found`
    pub const LEASE_NOT_FOUND: Status =
        Status::fixed(Code::NotFound, "etcdserver: requested lease not found");
    /// `etcdserver: lease already exists`
    pub const LEASE_EXIST: Status =
        Status::fixed(Code::FailedPrecondition, "etcdserver: lease already exists");
    /// `etcdserver: too large lease TTL`
    pub const LEASE_TTL_TOO_LARGE: Status =
        Status::fixed(Code::OutOfRange, "etcdserver: too large lease TTL");
    /// `etcdserver: watch canceled`
    pub const WATCH_CANCELED: Status = Status::fixed(Code::Canceled, "etcdserver: watch canceled");
    /// `etcdserver: member ID already exist`
    pub const MEMBER_EXIST: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: member ID already exist",
    );
    /// `etcdserver: Peer URLs already exists`
    pub const PEER_URL_EXIST: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: Peer URLs already exists",
    );
    /// `etcdserver: re-configuration failed due to not enough started members`; its definition says FailedPrecondition, but it leaves the server as Unknown.
    pub const MEMBER_NOT_ENOUGH_STARTED: Status = Status::fixed(
        Code::Unknown,
        "etcdserver: re-configuration failed due to not enough started members",
    );
    /// `etcdserver: given member URLs are invalid`
    pub const MEMBER_BAD_URLS: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: given member URLs are invalid",
    );
    /// `etcdserver: member not found`
    pub const MEMBER_NOT_FOUND: Status =
        Status::fixed(Code::NotFound, "etcdserver: member not found");
    /// `etcdserver: can only promote a learner member`
    pub const MEMBER_NOT_LEARNER: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member",
    );
    /// `etcdserver: can only promote a learner member which is in sync with leader`
    pub const LEARNER_NOT_READY: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    /// `etcdserver: too many learner members in cluster`
    pub const TOO_MANY_LEARNERS: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: too many learner members in cluster",
    );
    /// `etcdserver: cluster ID mismatch`
    pub const CLUSTER_ID_MISMATCH: Status =
        Status::fixed(Code::FailedPrecondition, "etcdserver: cluster ID mismatch");
    /// `etcdserver: request is too large`
    pub const REQUEST_TOO_LARGE: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: request is too large");
    /// `etcdserver: too many requests`; its definition says ResourceExhausted, but it leaves the server as Unknown.
    pub const REQUEST_TOO_MANY_REQUESTS: Status =
        Status::fixed(Code::Unknown, "etcdserver: too many requests");
    /// `etcdserver: root user does not exist`
    pub const ROOT_USER_NOT_EXIST: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: root user does not exist",
    );
    /// `etcdserver: root user does not have root role`
    pub const ROOT_ROLE_NOT_EXIST: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: root user does not have root role",
    );
    /// `etcdserver: user name already exists`
    pub const USER_ALREADY_EXIST: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: user name already exists",
    );
    /// `etcdserver: user name is empty`
    pub const USER_EMPTY: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: user name is empty");
    /// `etcdserver: user name not found`
    pub const USER_NOT_FOUND: Status =
        Status::fixed(Code::FailedPrecondition, "etcdserver: user name not found");
    /// `etcdserver: role name already exists`
    pub const ROLE_ALREADY_EXIST: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: role name already exists",
    );
    /// `etcdserver: role name not found`
    pub const ROLE_NOT_FOUND: Status =
        Status::fixed(Code::FailedPrecondition, "etcdserver: role name not found");
    /// `etcdserver: role name is empty`
    pub const ROLE_EMPTY: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: role name is empty");
    /// `etcdserver: authentication failed, invalid user ID or password`
    pub const AUTH_FAILED: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password",
    );
    /// `etcdserver: permission not given`
    pub const PERMISSION_NOT_GIVEN: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: permission not given");
    /// `etcdserver: permission denied`
    pub const PERMISSION_DENIED: Status =
        Status::fixed(Code::PermissionDenied, "etcdserver: permission denied");
    /// `etcdserver: role is not granted to the user`
    pub const ROLE_NOT_GRANTED: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: role is not granted to the user",
    );
    /// `etcdserver: permission is not granted to the role`
    pub const PERMISSION_NOT_GRANTED: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: permission is not granted to the role",
    );
    /// `etcdserver: authentication is not enabled`
    pub const AUTH_NOT_ENABLED: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
    );
    /// `etcdserver: invalid auth token`
    pub const INVALID_AUTH_TOKEN: Status =
        Status::fixed(Code::Unauthenticated, "etcdserver: invalid auth token");
    /// `etcdserver: invalid auth management`
    pub const INVALID_AUTH_MGMT: Status =
        Status::fixed(Code::InvalidArgument, "etcdserver: invalid auth management");
    /// `etcdserver: revision of auth store is old`
    pub const AUTH_OLD_REVISION: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: revision of auth store is old",
    );
    /// `etcdserver: no leader`
    pub const NO_LEADER: Status = Status::fixed(Code::Unavailable, "etcdserver: no leader");
    /// `etcdserver: not leader`
    pub const NOT_LEADER: Status =
        Status::fixed(Code::FailedPrecondition, "etcdserver: not leader");
    /// `etcdserver: leader changed`
    pub const LEADER_CHANGED: Status =
        Status::fixed(Code::Unavailable, "etcdserver: leader changed");
    /// `etcdserver: not capable`
    pub const NOT_CAPABLE: Status =
        Status::fixed(Code::FailedPrecondition, "etcdserver: not capable");
    /// `etcdserver: server stopped`
    pub const STOPPED: Status = Status::fixed(Code::Unavailable, "etcdserver: server stopped");
    /// `etcdserver: request timed out`
    pub const TIMEOUT: Status = Status::fixed(Code::Unavailable, "etcdserver: request timed out");
    /// `etcdserver: request timed out, possibly due to previous leader failure`
    pub const TIMEOUT_DUE_TO_LEADER_FAIL: Status = Status::fixed(
        Code::Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure",
    );
    /// `etcdserver: request timed out, possibly due to connection lost`
    pub const TIMEOUT_DUE_TO_CONNECTION_LOST: Status = Status::fixed(
        Code::Unavailable,
        "etcdserver: request timed out, possibly due to connection lost",
    );
    /// `etcdserver: request timed out, waiting for the applied index took too long`
    pub const TIMEOUT_WAIT_APPLIED_INDEX: Status = Status::fixed(
        Code::Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long",
    );
    /// `etcdserver: unhealthy cluster`
    pub const UNHEALTHY: Status = Status::fixed(Code::Unavailable, "etcdserver: unhealthy cluster");
    /// `etcdserver: corrupt cluster`
    pub const CORRUPT: Status = Status::fixed(Code::DataLoss, "etcdserver: corrupt cluster");
    /// `etcdserver: rpc not supported for learner`
    pub const NOT_SUPPORTED_FOR_LEARNER: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: rpc not supported for learner",
    );
    /// `etcdserver: bad leader transferee`
    pub const BAD_LEADER_TRANSFEREE: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: bad leader transferee",
    );
    /// `etcdserver: wrong downgrade target version format`
    pub const WRONG_DOWNGRADE_VERSION_FORMAT: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: wrong downgrade target version format",
    );
    /// `etcdserver: invalid downgrade target version`
    pub const INVALID_DOWNGRADE_TARGET_VERSION: Status = Status::fixed(
        Code::InvalidArgument,
        "etcdserver: invalid downgrade target version",
    );
    /// `etcdserver: cluster version not found during downgrade`
    pub const CLUSTER_VERSION_UNAVAILABLE: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: cluster version not found during downgrade",
    );
    /// `etcdserver: cluster has a downgrade job in progress`
    pub const DOWNGRADE_IN_PROCESS: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: cluster has a downgrade job in progress",
    );
    /// `etcdserver: no inflight downgrade job`
    pub const NO_INFLIGHT_DOWNGRADE: Status = Status::fixed(
        Code::FailedPrecondition,
        "etcdserver: no inflight downgrade job",
    );
    /// `etcdserver: request canceled`
    pub const CANCELED: Status = Status::fixed(Code::Canceled, "etcdserver: request canceled");
    /// `etcdserver: context deadline exceeded`
    pub const DEADLINE_EXCEEDED: Status = Status::fixed(
        Code::DeadlineExceeded,
        "etcdserver: context deadline exceeded",
    );

    /// The caller's deadline has passed, or a write found no leader before its time was up.
    pub const CONTEXT_DEADLINE_EXCEEDED: Status =
        Status::fixed(Code::DeadlineExceeded, "context deadline exceeded");
    /// The caller went away.
    pub const CONTEXT_CANCELED: Status = Status::fixed(Code::Canceled, "context canceled");
    /// Raft refused the proposal.
    pub const PROPOSAL_DROPPED: Status = Status::fixed(Code::Unknown, "raft proposal dropped");
    /// A lease was to be renewed by a member that does not lead.
    pub const NOT_PRIMARY_LESSOR: Status = Status::fixed(Code::Unknown, "not a primary lessor");
    /// A password was given for a user that has none.
    pub const NO_PASSWORD_USER: Status = Status::fixed(
        Code::Unknown,
        "auth: authentication failed, password was given for no password user",
    );
    /// A password is longer than bcrypt takes.
    pub const PASSWORD_TOO_LONG: Status =
        Status::fixed(Code::Unknown, "bcrypt: password length exceeds 72 bytes");
    /// The member cannot sign tokens.
    pub const VERIFY_ONLY: Status = Status::fixed(
        Code::Unknown,
        "auth: token signing attempted with verify-only key",
    );
    /// A streamed range was asked for in another order than by key.
    pub const RANGE_STREAM_SORT: Status = Status::fixed(
        Code::Unimplemented,
        "RangeStream does not support custom sort orders",
    );
    /// A streamed range was asked for with revision filters.
    pub const RANGE_STREAM_FILTER: Status = Status::fixed(
        Code::Unimplemented,
        "RangeStream does not support revision filters",
    );
    /// The health of a service nobody knows was asked for.
    pub const UNKNOWN_HEALTH_SERVICE: Status = Status::fixed(Code::NotFound, "unknown service");
    /// A stream ended without the one message it must carry.
    pub const NO_REQUEST: Status = Status::fixed(
        Code::Internal,
        "cardinality violation: received no request message from non-client-streaming RPC",
    );
    /// A stream carried more than the one message it may.
    pub const MANY_REQUESTS: Status = Status::fixed(
        Code::Internal,
        "cardinality violation: received multiple request messages for non-client-streaming RPC",
    );
    /// A health watch ended because its caller left.
    pub const STREAM_ENDED: Status = Status::fixed(Code::Canceled, "Stream has ended.");
    /// Unfinished request messages hold all the memory set aside for them.
    pub const UNFINISHED_REQUESTS: Status = Status::fixed(
        Code::ResourceExhausted,
        "etcdserver: too many unfinished requests",
    );

    /// Large answers that nobody reads hold all the memory set aside for them.
    pub const UNREAD_ANSWERS: Status = Status::fixed(
        Code::ResourceExhausted,
        "etcdserver: too many large answers wait to be read",
    );
    /// A connection thread serves as many calls as it may.
    pub const TOO_MANY_STREAMS: Status =
        Status::fixed(Code::ResourceExhausted, "etcdserver: too many open streams");

    /// Makes the status of a method that etcd has and this server has not.
    pub fn unknown_method(service: &str, method: &str) -> Self {
        Self::new(
            Code::Unimplemented,
            format!("unknown method {method} for service {service}"),
        )
    }

    /// A request message does not decode. The text is that of Go's decoder for nearly all that can be wrong.
    pub const UNDECODABLE: Status = Status::fixed(
        Code::Internal,
        "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
    );
}

impl From<quorate_core::Error> for Status {
    fn from(error: quorate_core::Error) -> Self {
        use quorate_core::Error;
        match error {
            Error::Mvcc(e) => e.into(),
            Error::Lease(e) => e.into(),
            Error::Auth(e) => e.into(),
            Error::TooManyRequests => Self::REQUEST_TOO_MANY_REQUESTS,
            Error::RequestTooLarge => Self::REQUEST_TOO_LARGE,
            Error::NoSpace => Self::NO_SPACE,
            Error::Corrupt => Self::CORRUPT,
            Error::Timeout => Self::TIMEOUT,
            Error::TimeoutLeaderFail => Self::TIMEOUT_DUE_TO_LEADER_FAIL,
            Error::TimeoutConnectionLost => Self::TIMEOUT_DUE_TO_CONNECTION_LOST,
            Error::TimeoutWaitApplied => Self::TIMEOUT_WAIT_APPLIED_INDEX,
            Error::DeadlineExceeded => Self::CONTEXT_DEADLINE_EXCEEDED,
            Error::NoLeader => Self::NO_LEADER,
            Error::LeaderChanged => Self::LEADER_CHANGED,
            Error::NotLeader { .. } => Self::NOT_LEADER,
            Error::TimeoutLeaderTransfer => Self::new(
                Code::Unknown,
                "etcdserver: request timed out, leader transfer took too long",
            ),
            Error::Membership(e) => e.into(),
            Error::NotEnoughStarted => Self::MEMBER_NOT_ENOUGH_STARTED,
            Error::Unhealthy => Self::UNHEALTHY,
            Error::LearnerNotReady => Self::LEARNER_NOT_READY,
            Error::WrongDowngradeVersion => Self::WRONG_DOWNGRADE_VERSION_FORMAT,
            Error::ClusterVersionUnavailable => Self::CLUSTER_VERSION_UNAVAILABLE,
            Error::InvalidDowngradeTarget => Self::INVALID_DOWNGRADE_TARGET_VERSION,
            Error::DowngradeInProcess => Self::DOWNGRADE_IN_PROCESS,
            Error::BadLeaderTransferee => Self::BAD_LEADER_TRANSFEREE,
            Error::ProposalDropped => Self::PROPOSAL_DROPPED,
            Error::NotPrimaryLessor => Self::NOT_PRIMARY_LESSOR,
            Error::Stopped => Self::STOPPED,
            // What has no row in the table is sent with its own text, as etcd does.
            other => Self::new(Code::Unknown, other.to_string()),
        }
    }
}

impl From<quorate_core::ChangeError> for Status {
    fn from(error: quorate_core::ChangeError) -> Self {
        use quorate_core::ChangeError;
        match error {
            ChangeError::IdRemoved | ChangeError::IdNotFound => Self::MEMBER_NOT_FOUND,
            ChangeError::IdExists => Self::MEMBER_EXIST,
            ChangeError::PeerUrlExists => Self::PEER_URL_EXIST,
            ChangeError::NotLearner => Self::MEMBER_NOT_LEARNER,
            ChangeError::TooManyLearners => Self::TOO_MANY_LEARNERS,
            other => Self::new(Code::Unknown, other.to_string()),
        }
    }
}

impl From<quorate_mvcc::Error> for Status {
    fn from(error: quorate_mvcc::Error) -> Self {
        use quorate_mvcc::Error;
        match error {
            Error::EmptyKey => Self::EMPTY_KEY,
            Error::KeyNotFound => Self::KEY_NOT_FOUND,
            Error::ValueProvided => Self::VALUE_PROVIDED,
            Error::LeaseProvided => Self::LEASE_PROVIDED,
            Error::TooManyOps => Self::TOO_MANY_OPS,
            Error::DuplicateKey => Self::DUPLICATE_KEY,
            Error::InvalidSortOption => Self::INVALID_SORT_OPTION,
            Error::StreamSortOrder => Self::RANGE_STREAM_SORT,
            Error::StreamRevisionFilter => Self::RANGE_STREAM_FILTER,
            Error::LeaseNotFound => Self::LEASE_NOT_FOUND,
            Error::Compacted => Self::COMPACTED,
            Error::FutureRevision => Self::FUTURE_REV,
            Error::TooLarge => Self::UNREAD_ANSWERS,
            other => Self::new(Code::Unknown, other.to_string()),
        }
    }
}

impl From<quorate_lease::Error> for Status {
    fn from(error: quorate_lease::Error) -> Self {
        use quorate_lease::Error;
        match error {
            Error::TtlTooLarge => Self::LEASE_TTL_TOO_LARGE,
            Error::Exists => Self::LEASE_EXIST,
            Error::NotFound | Error::Expired => Self::LEASE_NOT_FOUND,
            Error::NotPrimary => Self::NOT_PRIMARY_LESSOR,
            other => Self::new(Code::Unknown, other.to_string()),
        }
    }
}

impl From<quorate_auth::Error> for Status {
    fn from(error: quorate_auth::Error) -> Self {
        use quorate_auth::Error;
        match error {
            Error::UserEmpty => Self::USER_EMPTY,
            Error::RoleEmpty => Self::ROLE_EMPTY,
            Error::PermissionNotGiven => Self::PERMISSION_NOT_GIVEN,
            Error::InvalidAuthMgmt => Self::INVALID_AUTH_MGMT,
            Error::PasswordTooLong => Self::PASSWORD_TOO_LONG,
            Error::NoPasswordUser => Self::NO_PASSWORD_USER,
            Error::AuthFailed => Self::AUTH_FAILED,
            Error::AuthNotEnabled => Self::AUTH_NOT_ENABLED,
            Error::InvalidAuthToken => Self::INVALID_AUTH_TOKEN,
            Error::AuthOldRevision => Self::AUTH_OLD_REVISION,
            Error::PermissionDenied => Self::PERMISSION_DENIED,
            Error::RootUserNotExist => Self::ROOT_USER_NOT_EXIST,
            Error::RootRoleNotExist => Self::ROOT_ROLE_NOT_EXIST,
            Error::UserAlreadyExist => Self::USER_ALREADY_EXIST,
            Error::UserNotFound => Self::USER_NOT_FOUND,
            Error::RoleAlreadyExist => Self::ROLE_ALREADY_EXIST,
            Error::RoleNotFound => Self::ROLE_NOT_FOUND,
            Error::RoleNotGranted => Self::ROLE_NOT_GRANTED,
            Error::PermissionNotGranted => Self::PERMISSION_NOT_GRANTED,
            other => Self::new(Code::Unknown, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_grpc_numbers_and_names() {
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(code.text(), number.to_string());
            assert_eq!(
                code.name(),
                if number == 0 {
                    "OK".to_owned()
                } else {
                    format!("{code:?}")
                }
            );
        }
    }

    #[test]
    fn two_errors_leave_as_unknown_whatever_their_definition_says() {
        assert_eq!(Status::REQUEST_TOO_MANY_REQUESTS.code(), Code::Unknown);
        assert_eq!(Status::MEMBER_NOT_ENOUGH_STARTED.code(), Code::Unknown);
    }

    #[test]
    fn display_is_the_text_of_a_go_error() {
        assert_eq!(
            Status::PERMISSION_DENIED.to_string(),
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
    }
}
