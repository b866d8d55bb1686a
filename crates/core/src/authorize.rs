//! What a replicated request is to the authorization gate.
use quorate_auth::Operation;
use quorate_proto::LeaseId;

use crate::Request;

impl Request {
    /// Returns the operation that the gate decides about.
    pub fn operation(&self) -> Operation<'_> {
        match self {
            Self::Put(r) => Operation::Put(r),
            Self::DeleteRange(r) => Operation::DeleteRange(r),
            Self::Txn(r) => Operation::Txn(r),
            Self::Compaction(_) => Operation::Compact,
            Self::LeaseGrant(_) => Operation::LeaseGrant,
            Self::LeaseRevoke(r) => Operation::LeaseRevoke(LeaseId(r.id)),
            Self::LeaseCheckpoint(_) => Operation::LeaseCheckpoint,
            Self::Alarm(r) => Operation::Alarm(r),
            Self::AuthStatus(_) => Operation::AuthStatus,
            Self::Authenticate(_) => Operation::Authenticate,
            Self::AuthUserGet(r) => Operation::UserGet(&r.name),
            Self::AuthRoleGet(r) => Operation::RoleGet(&r.role),
            Self::AuthEnable(_)
            | Self::AuthDisable(_)
            | Self::AuthUserAdd(_)
            | Self::AuthUserDelete(_)
            | Self::AuthUserChangePassword(_)
            | Self::AuthUserGrantRole(_)
            | Self::AuthUserRevokeRole(_)
            | Self::AuthUserList(_)
            | Self::AuthRoleList(_)
            | Self::AuthRoleAdd(_)
            | Self::AuthRoleDelete(_)
            | Self::AuthRoleGrantPermission(_)
            | Self::AuthRoleRevokePermission(_) => Operation::AuthManagement,
            Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_)
            | Self::DowngradeInfoSet(_) => Operation::ClusterInternal,
        }
    }
}
