use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::request_op::Request;

use crate::Span;

/// One thing that a caller must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// Read the keys of a span.
    Read(Span<'a>),
    /// Write the keys of a span.
    Write(Span<'a>),
    /// Read every key attached to the lease.
    ReadLeaseKeys(LeaseId),
    /// Write every key attached to the lease.
    WriteLeaseKeys(LeaseId),
    /// Have the role root.
    Admin,
    /// Have the role root, or be this user.
    AdminOrUser(&'a str),
    /// Have the role root, or this role.
    AdminOrRole(&'a str),
    /// Be anybody.
    AnyUser,
}

/// Where a request is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// At the front door of the member that the client talks to, before a replicated request is proposed and before
    /// any other is served.
    Door,
    /// When the entry is applied, on every member, with the identity it carries. Every member must decide alike.
    Apply,
}

/// A request, as far as permission to do it depends on it. Every request there is has a row here.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// `Range`, or `RangeStream`.
    Range(&'a pb::RangeRequest),
    /// `Put`.
    Put(&'a pb::PutRequest),
    /// `DeleteRange`.
    DeleteRange(&'a pb::DeleteRangeRequest),
    /// `Txn` that is replicated.
    Txn(&'a pb::TxnRequest),
    /// `Txn` that only reads, and is answered by the member that the client talks to.
    ReadOnlyTxn(&'a pb::TxnRequest),
    /// `Compact`.
    Compact,
    /// Creation of a watcher.
    Watch(&'a pb::WatchCreateRequest),
    /// `LeaseGrant`.
    LeaseGrant,
    /// `LeaseRevoke`.
    LeaseRevoke(LeaseId),
    /// Checkpoint of leases, which only the leader proposes.
    LeaseCheckpoint,
    /// `LeaseKeepAlive`.
    LeaseKeepAlive(LeaseId),
    /// `LeaseTimeToLive`.
    LeaseTimeToLive {
        /// The lease.
        id: LeaseId,
        /// Whether its keys are asked for.
        keys: bool,
    },
    /// `LeaseLeases`, with all leases there are.
    LeaseLeases(&'a [LeaseId]),
    /// `Alarm`.
    Alarm(&'a pb::AlarmRequest),
    /// `Status` of a member.
    Status,
    /// `Hash`, `HashKV`, `Snapshot`, `Defragment`, `MoveLeader`, `Downgrade`.
    Maintenance,
    /// `MemberAdd`, `MemberRemove`, `MemberUpdate`, `MemberPromote`.
    MemberChange,
    /// `MemberList`.
    MemberList,
    /// `AuthStatus`.
    AuthStatus,
    /// `Authenticate`.
    Authenticate,
    /// `UserGet` of this user.
    UserGet(&'a str),
    /// `RoleGet` of this role.
    RoleGet(&'a str),
    /// Every other request of the `Auth` service.
    AuthManagement,
    /// Member attributes, cluster version and downgrade, which only members propose.
    ClusterInternal,
}

impl<'a> Operation<'a> {
    /// Finds the operation of a replicated entry, or `None` when it holds none that is known.
    pub fn of_entry(entry: &'a pb::InternalRaftRequest) -> Option<Self> {
        if let Some(r) = &entry.range {
            return Some(Self::Range(r));
        }
        if let Some(r) = &entry.put {
            return Some(Self::Put(r));
        }
        if let Some(r) = &entry.delete_range {
            return Some(Self::DeleteRange(r));
        }
        if let Some(r) = &entry.txn {
            return Some(Self::Txn(r));
        }
        if let Some(r) = &entry.lease_revoke {
            return Some(Self::LeaseRevoke(LeaseId(r.id)));
        }
        if let Some(r) = &entry.alarm {
            return Some(Self::Alarm(r));
        }
        if let Some(r) = &entry.auth_user_get {
            return Some(Self::UserGet(&r.name));
        }
        if let Some(r) = &entry.auth_role_get {
            return Some(Self::RoleGet(&r.role));
        }
        Self::without_details(entry)
    }

    /// Finds the operation of an entry whose details do not matter here. Names every field, so that a new one must be
    /// placed.
    fn without_details(entry: &pb::InternalRaftRequest) -> Option<Self> {
        #[rustfmt::skip]
        let pb::InternalRaftRequest {
            header: _, id: _, range: _, put: _, delete_range: _, txn: _, lease_revoke: _, alarm: _,
            auth_user_get: _, auth_role_get: _,
            compaction, lease_grant, lease_checkpoint, auth_status, authenticate,
            auth_enable, auth_disable, auth_user_add, auth_user_delete, auth_user_change_password,
            auth_user_grant_role, auth_user_revoke_role, auth_user_list, auth_role_list, auth_role_add,
            auth_role_delete, auth_role_grant_permission, auth_role_revoke_permission,
            cluster_version_set, cluster_member_attr_set, downgrade_info_set, downgrade_version_test,
        } = entry;
        let management = [
            auth_enable.is_some(),
            auth_disable.is_some(),
            auth_user_add.is_some(),
            auth_user_delete.is_some(),
            auth_user_change_password.is_some(),
            auth_user_grant_role.is_some(),
            auth_user_revoke_role.is_some(),
            auth_user_list.is_some(),
            auth_role_list.is_some(),
            auth_role_add.is_some(),
            auth_role_delete.is_some(),
            auth_role_grant_permission.is_some(),
            auth_role_revoke_permission.is_some(),
        ];
        let internal = [
            cluster_version_set.is_some(),
            cluster_member_attr_set.is_some(),
            downgrade_info_set.is_some(),
            downgrade_version_test.is_some(),
        ];
        [
            (management.contains(&true), Self::AuthManagement),
            (compaction.is_some(), Self::Compact),
            (lease_grant.is_some(), Self::LeaseGrant),
            (lease_checkpoint.is_some(), Self::LeaseCheckpoint),
            (auth_status.is_some(), Self::AuthStatus),
            (authenticate.is_some(), Self::Authenticate),
            (internal.contains(&true), Self::ClusterInternal),
        ]
        .into_iter()
        .find_map(|(is, operation)| is.then_some(operation))
    }

    /// Lists what the caller must be allowed to do, in the order in which etcd checks it.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/apply/auth.go`, `server/etcdserver/v3_server.go`,
    /// `server/etcdserver/api/v3rpc/{auth,key,maintenance,watch}.go`.
    pub fn accesses(&self, stage: Stage) -> Vec<Access<'a>> {
        let mut list = Vec::new();
        match (stage, *self) {
            // Judged where the entry is applied, since only there it is known what the state is.
            (Stage::Door, Self::Put(_) | Self::DeleteRange(_) | Self::Txn(_)) => {}
            (Stage::Door, Self::AuthManagement | Self::UserGet(_) | Self::RoleGet(_)) => {}
            (_, Self::Range(r)) => list.push(Access::Read(span(&r.key, &r.range_end))),
            (Stage::Apply, Self::Put(r)) => put(r, &mut list),
            (Stage::Apply, Self::DeleteRange(r)) => delete_range(r, &mut list),
            (Stage::Apply, Self::Txn(r)) | (_, Self::ReadOnlyTxn(r)) => txn(r, &mut list),
            (_, Self::Watch(r)) => {
                let key: &[u8] = if r.key.is_empty() {
                    SMALLEST_KEY
                } else {
                    &r.key
                };
                list.push(Access::Read(span(key, &r.range_end)));
            }
            (Stage::Door, Self::LeaseRevoke(_)) => list.push(Access::AnyUser),
            (Stage::Apply, Self::LeaseRevoke(id)) => list.push(Access::WriteLeaseKeys(id)),
            (_, Self::LeaseKeepAlive(id)) => {
                list.extend([Access::AnyUser, Access::WriteLeaseKeys(id)])
            }
            (_, Self::LeaseTimeToLive { keys: false, .. }) => list.push(Access::AnyUser),
            (_, Self::LeaseTimeToLive { id, .. }) => {
                list.extend([Access::AnyUser, Access::ReadLeaseKeys(id)])
            }
            (_, Self::LeaseLeases(ids)) => {
                list.push(Access::AnyUser);
                list.extend(ids.iter().map(|&id| Access::ReadLeaseKeys(id)));
            }
            (Stage::Apply, Self::AuthManagement) => list.push(Access::Admin),
            (Stage::Apply, Self::UserGet(name)) => list.push(Access::AdminOrUser(name)),
            (Stage::Apply, Self::RoleGet(name)) => list.push(Access::AdminOrRole(name)),
            (Stage::Door, Self::Alarm(r)) if r.action == AlarmAction::Get as i32 => {
                list.push(Access::AnyUser)
            }
            (Stage::Door, Self::LeaseGrant | Self::Status | Self::MemberList) => {
                list.push(Access::AnyUser)
            }
            (
                Stage::Door,
                Self::Compact | Self::Alarm(_) | Self::Maintenance | Self::MemberChange,
            ) => {
                list.push(Access::Admin);
            }
            // What asks for no permission, and what members propose by themselves and without an identity.
            (
                _,
                Self::AuthStatus
                | Self::Authenticate
                | Self::LeaseCheckpoint
                | Self::ClusterInternal,
            ) => {}
            // Judged at the door already.
            (Stage::Apply, Self::LeaseGrant | Self::Status | Self::MemberList) => {}
            (
                Stage::Apply,
                Self::Compact | Self::Alarm(_) | Self::Maintenance | Self::MemberChange,
            ) => {}
        }
        list
    }
}

/// What a watcher without key watches from.
const SMALLEST_KEY: &[u8] = &[0];

fn span<'a>(key: &'a [u8], range_end: &'a [u8]) -> Span<'a> {
    Span { key, range_end }
}

/// A put needs WRITE on its key, WRITE on all keys of its lease (whoever may not write them all could not revoke the
/// lease, and should not hang other keys on it either), and READ on its key when it asks for the value before.
fn put<'a>(request: &'a pb::PutRequest, list: &mut Vec<Access<'a>>) {
    list.push(Access::Write(Span::single(&request.key)));
    if request.lease != 0 {
        list.push(Access::WriteLeaseKeys(LeaseId(request.lease)));
    }
    if request.prev_kv {
        list.push(Access::Read(Span::single(&request.key)));
    }
}

fn delete_range<'a>(request: &'a pb::DeleteRangeRequest, list: &mut Vec<Access<'a>>) {
    let span = span(&request.key, &request.range_end);
    list.push(Access::Write(span));
    if request.prev_kv {
        list.push(Access::Read(span));
    }
}

/// A transaction needs all that any of its compares and any operation of either branch needs, at any depth.
///
/// The depth is bounded by what the decoder of requests takes.
fn txn<'a>(request: &'a pb::TxnRequest, list: &mut Vec<Access<'a>>) {
    list.extend(
        request
            .compare
            .iter()
            .map(|c| Access::Read(span(&c.key, &c.range_end))),
    );
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => list.push(Access::Read(span(&r.key, &r.range_end))),
            Some(Request::RequestPut(r)) => put(r, list),
            Some(Request::RequestDeleteRange(r)) => delete_range(r, list),
            Some(Request::RequestTxn(r)) => txn(r, list),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp {
            request: Some(request),
        }
    }

    fn read(key: &str) -> Access<'_> {
        Access::Read(Span::single(key.as_bytes()))
    }

    fn write(key: &str) -> Access<'_> {
        Access::Write(Span::single(key.as_bytes()))
    }

    #[test]
    fn nested_transactions_are_flattened_on_both_branches() {
        let put = pb::PutRequest {
            key: "p".into(),
            lease: -3,
            prev_kv: true,
            ..Default::default()
        };
        let delete = pb::DeleteRangeRequest {
            key: "d".into(),
            prev_kv: true,
            ..Default::default()
        };
        let range = pb::RangeRequest {
            key: "r".into(),
            ..Default::default()
        };
        let inner = pb::TxnRequest {
            compare: vec![pb::Compare {
                key: "c2".into(),
                ..Default::default()
            }],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestDeleteRange(delete))],
        };
        let outer = pb::TxnRequest {
            compare: vec![pb::Compare {
                key: "c1".into(),
                ..Default::default()
            }],
            success: vec![pb::RequestOp { request: None }],
            failure: vec![
                op(Request::RequestTxn(inner)),
                op(Request::RequestRange(range)),
            ],
        };
        let want = [
            read("c1"),
            read("c2"),
            write("p"),
            Access::WriteLeaseKeys(LeaseId(-3)),
            read("p"),
            write("d"),
            read("d"),
            read("r"),
        ];
        assert_eq!(Operation::Txn(&outer).accesses(Stage::Apply), want);
        assert_eq!(Operation::ReadOnlyTxn(&outer).accesses(Stage::Door), want);
        assert_eq!(Operation::Txn(&outer).accesses(Stage::Door), []);
    }

    #[test]
    fn watcher_without_key_reads_from_the_smallest() {
        let request = pb::WatchCreateRequest {
            range_end: vec![0].into(),
            ..Default::default()
        };
        let want = Span {
            key: &[0],
            range_end: &[0],
        };
        assert_eq!(
            Operation::Watch(&request).accesses(Stage::Door),
            [Access::Read(want)]
        );
    }

    /// What etcd 3.7.1 asks for where, for requests that need no look at their keys.
    #[test]
    fn requests_without_keys_are_judged_where_etcd_judges_them() {
        let get = pb::AlarmRequest::default();
        let disarm = pb::AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            ..get
        };
        let id = LeaseId(1);
        let rows: Vec<(Operation<'_>, Vec<Access<'_>>, Vec<Access<'_>>)> = vec![
            (Operation::Compact, vec![Access::Admin], vec![]),
            (Operation::LeaseGrant, vec![Access::AnyUser], vec![]),
            (
                Operation::LeaseRevoke(id),
                vec![Access::AnyUser],
                vec![Access::WriteLeaseKeys(id)],
            ),
            (Operation::LeaseCheckpoint, vec![], vec![]),
            (Operation::Alarm(&get), vec![Access::AnyUser], vec![]),
            (Operation::Alarm(&disarm), vec![Access::Admin], vec![]),
            (Operation::Status, vec![Access::AnyUser], vec![]),
            (Operation::Maintenance, vec![Access::Admin], vec![]),
            (Operation::MemberChange, vec![Access::Admin], vec![]),
            (Operation::MemberList, vec![Access::AnyUser], vec![]),
            (Operation::AuthStatus, vec![], vec![]),
            (Operation::Authenticate, vec![], vec![]),
            (Operation::AuthManagement, vec![], vec![Access::Admin]),
            (
                Operation::UserGet("u"),
                vec![],
                vec![Access::AdminOrUser("u")],
            ),
            (
                Operation::RoleGet("r"),
                vec![],
                vec![Access::AdminOrRole("r")],
            ),
            (Operation::ClusterInternal, vec![], vec![]),
        ];
        for (operation, door, apply) in rows {
            assert_eq!(
                operation.accesses(Stage::Door),
                door,
                "{operation:?} at the door"
            );
            assert_eq!(
                operation.accesses(Stage::Apply),
                apply,
                "{operation:?} when applied"
            );
        }
        assert_eq!(
            Operation::LeaseKeepAlive(id).accesses(Stage::Door),
            [Access::AnyUser, Access::WriteLeaseKeys(id)]
        );
        assert_eq!(
            Operation::LeaseTimeToLive { id, keys: false }.accesses(Stage::Door),
            [Access::AnyUser]
        );
        assert_eq!(
            Operation::LeaseTimeToLive { id, keys: true }.accesses(Stage::Door),
            [Access::AnyUser, Access::ReadLeaseKeys(id)]
        );
        assert_eq!(
            Operation::LeaseLeases(&[id, LeaseId(-1)]).accesses(Stage::Door),
            [
                Access::AnyUser,
                Access::ReadLeaseKeys(id),
                Access::ReadLeaseKeys(LeaseId(-1))
            ]
        );
    }

    #[test]
    fn entries_are_recognized() {
        let entry = |set: fn(&mut pb::InternalRaftRequest)| {
            let mut entry = pb::InternalRaftRequest::default();
            set(&mut entry);
            entry
        };
        assert!(Operation::of_entry(&entry(|_| {})).is_none());
        let put = entry(|e| e.put = Some(Default::default()));
        assert!(matches!(Operation::of_entry(&put), Some(Operation::Put(_))));
        let add = entry(|e| e.auth_user_add = Some(Default::default()));
        assert!(matches!(
            Operation::of_entry(&add),
            Some(Operation::AuthManagement)
        ));
        let list = entry(|e| e.auth_role_list = Some(Default::default()));
        assert!(matches!(
            Operation::of_entry(&list),
            Some(Operation::AuthManagement)
        ));
        let revoke = entry(|e| e.lease_revoke = Some(pb::LeaseRevokeRequest { id: -1 }));
        assert!(matches!(
            Operation::of_entry(&revoke),
            Some(Operation::LeaseRevoke(LeaseId(-1)))
        ));
        let version = entry(|e| e.cluster_version_set = Some(Default::default()));
        assert!(matches!(
            Operation::of_entry(&version),
            Some(Operation::ClusterInternal)
        ));
    }
}
