//! What goes into a member and what comes out: submissions with a token, outcomes under the same token.
use bytes::Bytes;
use quorate_auth::Identity;
use quorate_mvcc::{DeleteResult, PutResult, TxnResult};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{LeaseId, MemberId, authpb};

use crate::Error;

/// Names a caller's waiter; the member hands it back with the outcome and never looks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// A replicated request, as decoded from the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Writes one key.
    Put(pb::PutRequest),
    /// Deletes a range of keys.
    DeleteRange(pb::DeleteRangeRequest),
    /// Compares, then executes; read-only transactions are answered from the store and are not proposed.
    Txn(pb::TxnRequest),
    /// Moves the compaction horizon.
    Compaction(pb::CompactionRequest),
    /// Creates a lease; id 0 lets the member pick one.
    LeaseGrant(pb::LeaseGrantRequest),
    /// Ends a lease and deletes its keys.
    LeaseRevoke(pb::LeaseRevokeRequest),
    /// Stores remaining times of leases; proposed by the leader itself.
    LeaseCheckpoint(pb::LeaseCheckpointRequest),
    /// Lists, raises or clears alarms.
    Alarm(pb::AlarmRequest),
    /// Turns authentication on.
    AuthEnable(pb::AuthEnableRequest),
    /// Turns authentication off.
    AuthDisable(pb::AuthDisableRequest),
    /// Asks whether authentication is on.
    AuthStatus(pb::AuthStatusRequest),
    /// Assigns a token to a user whose password was checked by the proposer.
    Authenticate(pb::InternalAuthenticateRequest),
    /// Adds a user; the password travels as a hash only.
    AuthUserAdd(pb::AuthUserAddRequest),
    /// Deletes a user.
    AuthUserDelete(pb::AuthUserDeleteRequest),
    /// Reads a user's roles.
    AuthUserGet(pb::AuthUserGetRequest),
    /// Sets a user's password hash.
    AuthUserChangePassword(pb::AuthUserChangePasswordRequest),
    /// Gives a role to a user.
    AuthUserGrantRole(pb::AuthUserGrantRoleRequest),
    /// Takes a role from a user.
    AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest),
    /// Lists users.
    AuthUserList(pb::AuthUserListRequest),
    /// Lists roles.
    AuthRoleList(pb::AuthRoleListRequest),
    /// Adds a role.
    AuthRoleAdd(pb::AuthRoleAddRequest),
    /// Deletes a role.
    AuthRoleDelete(pb::AuthRoleDeleteRequest),
    /// Reads a role's permissions.
    AuthRoleGet(pb::AuthRoleGetRequest),
    /// Grants a permission to a role.
    AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    /// Revokes a permission from a role.
    AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
    /// Publishes a member's name and client URLs; proposed by the member itself.
    ClusterMemberAttrSet(quorate_proto::membershippb::ClusterMemberAttrSetRequest),
    /// Sets the cluster version; proposed by the leader itself.
    ClusterVersionSet(quorate_proto::membershippb::ClusterVersionSetRequest),
    /// Starts or ends a downgrade; proposed by the leader itself.
    DowngradeInfoSet(quorate_proto::membershippb::DowngradeInfoSetRequest),
}

/// A request to be replicated.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Returned with the outcome.
    pub token: Token,
    /// The decoded request.
    pub request: Request,
    /// The request message's own bytes where the client's encoding can go into the log unchanged, else `None`.
    pub raw: Option<Bytes>,
    /// Who asks, as established from the caller's token.
    pub identity: Identity,
}

/// Anything a front door asks of the member.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// Replicates a request; answered by [`Outcome::Applied`] or an error.
    Propose(Proposal),
    /// Confirms leadership and waits until everything committed before is applied; answered by [`Outcome::ReadReady`].
    ReadIndex {
        /// Returned with the outcome.
        token: Token,
    },
    /// Renews a lease; answered by [`Outcome::LeaseRenewed`].
    LeaseRenew {
        /// Returned with the outcome.
        token: Token,
        /// The lease.
        id: LeaseId,
    },
    /// Asks for a lease's remaining time; answered by [`Outcome::LeaseTimeToLive`].
    LeaseTimeToLive {
        /// Returned with the outcome.
        token: Token,
        /// The lease.
        id: LeaseId,
        /// Whether the attached keys are wanted.
        keys: bool,
    },
    /// Lists lease ids, soonest end first; answered by [`Outcome::LeaseLeases`].
    LeaseLeases {
        /// Returned with the outcome.
        token: Token,
    },
    /// Asks for the keys attached to a lease, for permission checks; answered by [`Outcome::LeaseKeys`].
    LeaseKeys {
        /// Returned with the outcome.
        token: Token,
        /// The lease; `None` asks for the keys of every lease.
        id: Option<LeaseId>,
    },
    /// Changes who is a member; answered by [`Outcome::Members`] when the change is applied here.
    ///
    /// It waits as long as it takes: a change that raft refuses because another is not applied yet is never answered.
    /// Promotion must be asked of the leader.
    ChangeMembers {
        /// Returned with the outcome.
        token: Token,
        /// The change.
        change: MemberChange,
    },
    /// Looks at, starts or ends a downgrade; answered by [`Outcome::Done`].
    Downgrade {
        /// Returned with the outcome.
        token: Token,
        /// What is to be done.
        action: DowngradeAction,
        /// The version to go to, as `X.Y.Z` or `X.Y`; ignored when a downgrade ends.
        version: String,
    },
    /// Asks for the digest at an index, 0 for the newest; answered by [`Outcome::Digest`].
    Digest {
        /// Returned with the outcome.
        token: Token,
        /// The index.
        index: u64,
    },
    /// Moves leadership to another member; answered by [`Outcome::LeaderMoved`].
    MoveLeader {
        /// Returned with the outcome.
        token: Token,
        /// The member to lead.
        target: MemberId,
    },
    /// Forgets a waiter whose caller went away; the request may still be applied.
    Cancel {
        /// The waiter.
        token: Token,
    },
}

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a member; its id is made from its URLs and the time.
    Add {
        /// Where it listens for peers; the caller has checked that they are URLs.
        peer_urls: Vec<String>,
        /// Whether it does not vote at first.
        is_learner: bool,
    },
    /// Removes a member; its id never comes back.
    Remove {
        /// Its id.
        id: MemberId,
    },
    /// Changes where a member listens.
    Update {
        /// Its id.
        id: MemberId,
        /// Where it listens for peers.
        peer_urls: Vec<String>,
    },
    /// Makes a learner vote.
    Promote {
        /// Its id.
        id: MemberId,
    },
}

/// What to do about a downgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DowngradeAction {
    /// Only say whether it would be possible.
    Validate,
    /// Begin.
    Enable,
    /// End; that there is none is no error.
    Cancel,
}

/// How a submission ended.
#[derive(Debug)]
pub enum Outcome {
    /// The request was applied.
    Applied(Applied),
    /// Reads of the local store are now linearizable for the caller.
    ReadReady,
    /// A lease was renewed; `ttl_s` 0 says that there is no such lease.
    LeaseRenewed {
        /// Granted seconds.
        ttl_s: i64,
    },
    /// A lease's time; `remaining_s` -1 says that there is no such lease.
    LeaseTimeToLive {
        /// Seconds left, truncated.
        remaining_s: i64,
        /// Granted seconds.
        granted_s: i64,
        /// Attached keys, when asked for.
        keys: Vec<Bytes>,
    },
    /// All lease ids, soonest end first.
    LeaseLeases(Vec<LeaseId>),
    /// The keys attached to the lease or leases asked for; empty when there is none.
    LeaseKeys(Vec<Bytes>),
    /// Leadership has moved.
    LeaderMoved,
    /// A change of members was applied: all members after it, ordered by id.
    Members {
        /// The member that the change was about.
        id: MemberId,
        /// All members.
        members: Vec<pb::Member>,
    },
    /// The running digest after an entry; see [`crate::Member::digest_at`].
    Digest {
        /// The entry.
        index: u64,
        /// The digest; `None` when it is not known.
        digest: Option<u64>,
    },
    /// It is done, and there is nothing to say.
    Done,
    /// It failed; what the error says about the request having been applied or not is in [`Error`]'s text.
    Failed(Error),
}

/// The result of an applied request.
#[derive(Debug)]
pub enum Applied {
    /// Of a put.
    Put(PutResult),
    /// Of a delete.
    DeleteRange(DeleteResult),
    /// Of a transaction.
    Txn(TxnResult),
    /// Of a compaction: the current revision after it.
    Compaction {
        /// Current revision.
        revision: i64,
    },
    /// Of a lease grant.
    LeaseGrant {
        /// Its id.
        id: LeaseId,
        /// Granted seconds.
        ttl_s: i64,
    },
    /// Of a lease revocation: the current revision after it.
    LeaseRevoke {
        /// Current revision.
        revision: i64,
    },
    /// Of an alarm request: the alarms it names.
    Alarm(Vec<pb::AlarmMember>),
    /// Of an authentication request: the current revision when it was applied, and the answer.
    Auth {
        /// Current revision.
        revision: i64,
        /// The answer.
        answer: AuthAnswer,
    },
    /// Of a request with nothing to say.
    Done,
}

/// What an authentication request answers.
#[derive(Debug, PartialEq)]
pub enum AuthAnswer {
    /// Nothing but success.
    Done,
    /// Whether authentication is on, and the auth revision.
    Status {
        /// On or off.
        enabled: bool,
        /// Auth revision.
        revision: u64,
    },
    /// The token assigned.
    Token(String),
    /// Names of roles or users, sorted.
    Names(Vec<String>),
    /// A role's permissions.
    Permissions(Vec<authpb::Permission>),
}
