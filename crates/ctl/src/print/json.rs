//! The JSON format: Go's JSON of the client's structs, which is neither Protobuf's JSON nor quite the messages.

use quorate_proto::authpb::Permission;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmResponse, AuthRoleAddResponse, AuthRoleDeleteResponse, AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse, AuthRoleListResponse, AuthRoleRevokePermissionResponse,
    AuthStatusResponse, AuthUserAddResponse, AuthUserChangePasswordResponse,
    AuthUserDeleteResponse, AuthUserGetResponse, AuthUserGrantRoleResponse, AuthUserListResponse,
    AuthUserRevokeRoleResponse, DeleteRangeResponse, DowngradeInfo, DowngradeResponse,
    HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveResponse, Member, MemberAddResponse,
    MemberListResponse, MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse,
    MoveLeaderResponse, PutResponse, RangeResponse, ResponseHeader, ResponseOp, StatusResponse,
    TxnResponse, WatchResponse,
};
use quorate_proto::mvccpb::{Event, KeyValue};

use super::{At, Backup, Health, Watched};
use crate::go::json::{Json, Object, json_message};

/// Writes `value` and ends the line.
pub(super) fn line(value: &impl Json, out: &mut Vec<u8>) {
    value.json(out);
    out.push(b'\n');
}

impl Json for Backup {
    fn json(&self, out: &mut Vec<u8>) {
        let mut object = Object::new(out);
        object
            .field("hash", &self.hash)
            .field("revision", &self.revision)
            .field(
                "totalKey",
                &u64::try_from(self.total_keys).unwrap_or(u64::MAX),
            )
            .field("totalSize", &self.total_bytes)
            .field("version", &self.version);
        object.end();
    }
}

json_message!(ResponseHeader { cluster_id "cluster_id", member_id "member_id", revision "revision", raft_term "raft_term" });
json_message!(KeyValue {
    key "key", create_revision "create_revision", mod_revision "mod_revision", version "version", value "value", lease "lease"
});
json_message!(Event { r#type "type", kv "kv", prev_kv "prev_kv" });
json_message!(RangeResponse { header "header", kvs "kvs", more "more", count "count" });
json_message!(PutResponse { header "header", prev_kv "prev_kv" });
json_message!(DeleteRangeResponse { header "header", deleted "deleted", prev_kvs "prev_kvs" });
json_message!(TxnResponse { header "header", succeeded "succeeded", responses "responses" });
json_message!(LeaseRevokeResponse { header "header" });
json_message!(LeaseStatus { id "id" });
json_message!(AlarmMember { member_id "memberID", alarm "alarm" });
json_message!(AlarmResponse { header "header", alarms "alarms" });
json_message!(Member {
    id "ID", name "name", peer_ur_ls "peerURLs", client_ur_ls "clientURLs", is_learner "isLearner"
});
json_message!(MemberAddResponse { header "header", member "member", members "members" });
json_message!(MemberRemoveResponse { header "header", members "members" });
json_message!(MemberUpdateResponse { header "header", members "members" });
json_message!(MemberPromoteResponse { header "header", members "members" });
json_message!(MemberListResponse { header "header", members "members" });
json_message!(MoveLeaderResponse { header "header" });
json_message!(DowngradeResponse { header "header", version "version" });
json_message!(DowngradeInfo { enabled "enabled", target_version "targetVersion" });
json_message!(HashKvResponse {
    header "header", hash "hash", compact_revision "compact_revision", hash_revision "hash_revision"
});
json_message!(StatusResponse {
    header "header", version "version", db_size "dbSize", leader "leader", raft_index "raftIndex", raft_term "raftTerm",
    raft_applied_index "raftAppliedIndex", errors "errors", db_size_in_use "dbSizeInUse", is_learner "isLearner",
    storage_version "storageVersion", db_size_quota "dbSizeQuota", downgrade_info "downgradeInfo"
});
json_message!(Permission { perm_type "permType", key "key", range_end "range_end" });
json_message!(AuthStatusResponse { header "header", enabled "enabled", auth_revision "authRevision" });
json_message!(AuthRoleAddResponse { header "header" });
json_message!(AuthRoleDeleteResponse { header "header" });
json_message!(AuthRoleGetResponse { header "header", perm "perm" });
json_message!(AuthRoleListResponse { header "header", roles "roles" });
json_message!(AuthRoleGrantPermissionResponse { header "header" });
json_message!(AuthRoleRevokePermissionResponse { header "header" });
json_message!(AuthUserAddResponse { header "header" });
json_message!(AuthUserDeleteResponse { header "header" });
json_message!(AuthUserGetResponse { header "header", roles "roles" });
json_message!(AuthUserListResponse { header "header", users "users" });
json_message!(AuthUserChangePasswordResponse { header "header" });
json_message!(AuthUserGrantRoleResponse { header "header" });
json_message!(AuthUserRevokeRoleResponse { header "header" });

/// Each answer of a transaction stands inside a `Response` object.
impl Json for ResponseOp {
    fn json(&self, out: &mut Vec<u8>) {
        let mut inner = Vec::new();
        let mut object = Object::new(&mut inner);
        match &self.response {
            Some(Response::ResponseRange(answer)) => object.field("response_range", answer),
            Some(Response::ResponsePut(answer)) => object.field("response_put", answer),
            Some(Response::ResponseDeleteRange(answer)) => {
                object.field("response_delete_range", answer)
            }
            Some(Response::ResponseTxn(answer)) => object.field("response_txn", answer),
            None => &mut object,
        };
        object.end();
        out.extend_from_slice(b"{\"Response\":");
        out.extend_from_slice(&inner);
        out.push(b'}');
    }
}

impl Json for Watched {
    fn json(&self, out: &mut Vec<u8>) {
        Object::new(out)
            .field("Header", &self.header)
            .field("Events", &self.events)
            .field("CompactRevision", &self.compact_revision)
            .field("Canceled", &self.canceled)
            .field("Created", &false)
            .field("CancelReason", &self.cancel_reason)
            .end();
    }
}

impl Watched {
    /// The message that the Protobuf format prints.
    pub(super) fn to_message(&self) -> WatchResponse {
        WatchResponse {
            header: self.header,
            events: self.events.clone().unwrap_or_default(),
            compact_revision: self.compact_revision,
            canceled: self.canceled,
            ..WatchResponse::default()
        }
    }
}

/// The header's fields, part of the object itself.
fn header<'a, 'b>(
    object: &'a mut Object<'b>,
    header: Option<&ResponseHeader>,
) -> &'a mut Object<'b> {
    let header = header.cloned().unwrap_or_default();
    object
        .omit_empty("cluster_id", &header.cluster_id)
        .omit_empty("member_id", &header.member_id)
        .omit_empty("revision", &header.revision)
        .omit_empty("raft_term", &header.raft_term)
}

pub(super) struct Granted<'a>(pub(super) &'a LeaseGrantResponse);

impl Json for Granted<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        header(&mut Object::new(out), self.0.header.as_ref())
            .field("ID", &self.0.id)
            .field("TTL", &self.0.ttl)
            .field("Error", &self.0.error)
            .end();
    }
}

pub(super) struct Renewed<'a>(pub(super) &'a LeaseKeepAliveResponse);

impl Json for Renewed<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        header(&mut Object::new(out), self.0.header.as_ref())
            .field("ID", &self.0.id)
            .field("TTL", &self.0.ttl)
            .end();
    }
}

pub(super) struct Remaining<'a>(pub(super) &'a LeaseTimeToLiveResponse);

impl Json for Remaining<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        let keys = (!self.0.keys.is_empty()).then(|| self.0.keys.clone());
        header(&mut Object::new(out), self.0.header.as_ref())
            .field("id", &self.0.id)
            .field("ttl", &self.0.ttl)
            .field("granted-ttl", &self.0.granted_ttl)
            .field("keys", &keys)
            .end();
    }
}

pub(super) struct Leases<'a>(pub(super) &'a LeaseLeasesResponse);

impl Json for Leases<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        header(&mut Object::new(out), self.0.header.as_ref())
            .field("leases", &self.0.leases)
            .end();
    }
}

/// A header with its ids in hexadecimal.
struct HexHeader<'a>(&'a ResponseHeader);

impl Json for HexHeader<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        Object::new(out)
            .field("cluster_id", &format!("{:x}", self.0.cluster_id))
            .field("member_id", &format!("{:x}", self.0.member_id))
            .omit_empty("revision", &self.0.revision)
            .omit_empty("raft_term", &self.0.raft_term)
            .end();
    }
}

/// A member with its id in hexadecimal.
struct HexMember<'a>(&'a Member);

impl Json for HexMember<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        Object::new(out)
            .field("ID", &format!("{:x}", self.0.id))
            .omit_empty("name", &self.0.name)
            .omit_empty("peerURLs", &self.0.peer_ur_ls)
            .omit_empty("clientURLs", &self.0.client_ur_ls)
            .omit_empty("isLearner", &self.0.is_learner)
            .end();
    }
}

fn hex_members(members: &[Member]) -> Vec<HexMember<'_>> {
    members.iter().map(HexMember).collect()
}

pub(super) struct HexMembers<'a>(
    pub(super) Option<&'a ResponseHeader>,
    pub(super) &'a [Member],
);

impl Json for HexMembers<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        Object::new(out)
            .field("header", &self.0.map(HexHeader))
            .field("members", &hex_members(self.1))
            .end();
    }
}

/// The members in an answer to a change of them.
pub(crate) trait Members {
    /// The member that was added, where that was the change.
    fn added(&self) -> Option<&Member> {
        None
    }
    /// All members after the change.
    fn members(&self) -> &[Member];
}

impl Members for MemberAddResponse {
    fn added(&self) -> Option<&Member> {
        self.member.as_ref()
    }
    fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Members for MemberRemoveResponse {
    fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Members for MemberUpdateResponse {
    fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Members for MemberPromoteResponse {
    fn members(&self) -> &[Member] {
        &self.members
    }
}

pub(super) struct HexChange<'a, M>(pub(super) Option<&'a ResponseHeader>, pub(super) &'a M);

impl<M: Members> Json for HexChange<'_, M> {
    fn json(&self, out: &mut Vec<u8>) {
        Object::new(out)
            .field("header", &self.0.map(HexHeader))
            .omit_empty("member", &self.1.added().map(HexMember))
            .field("members", &hex_members(self.1.members()))
            .end();
    }
}

pub(super) struct EndpointHealths<'a>(pub(super) &'a [At<Health>]);

impl Json for EndpointHealths<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        list(self.0, out, |at, object| {
            object
                .field("endpoint", &at.endpoint)
                .field("health", &at.answer.is_healthy)
                .field("took", &at.answer.took)
                .omit_empty("error", &at.answer.error);
        });
    }
}

/// Answers of endpoints under a name of their own.
pub(super) struct EndpointAnswers<'a, T>(pub(super) &'static str, pub(super) &'a [At<T>]);

impl<T: Json> Json for EndpointAnswers<'_, T> {
    fn json(&self, out: &mut Vec<u8>) {
        list(self.1, out, |at, object| {
            object
                .field("Endpoint", &at.endpoint)
                .field(self.0, &at.answer);
        });
    }
}

/// One object for each item; none at all is a nil slice.
fn list<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Object<'_>)) {
    if items.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    for (i, item) in items.iter().enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        let mut object = Object::new(out);
        write(item, &mut object);
        object.end();
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &impl Json) -> String {
        let mut out = Vec::new();
        line(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        })
    }

    #[test]
    fn a_transaction_wraps_each_answer() {
        let answer = TxnResponse {
            header: header(),
            succeeded: true,
            responses: vec![
                ResponseOp {
                    response: Some(Response::ResponsePut(PutResponse::default())),
                },
                ResponseOp { response: None },
            ],
        };
        assert_eq!(
            text(&answer),
            "{\"header\":{\"cluster_id\":1,\"member_id\":2,\"revision\":3,\"raft_term\":4},\"succeeded\":true,\
             \"responses\":[{\"Response\":{\"response_put\":{}}},{\"Response\":{}}]}\n"
        );
    }

    #[test]
    fn leases_have_the_header_s_fields_as_their_own() {
        let granted = LeaseGrantResponse {
            header: header(),
            id: 5,
            ttl: 6,
            error: String::new(),
        };
        assert_eq!(
            text(&Granted(&granted)),
            "{\"cluster_id\":1,\"member_id\":2,\"revision\":3,\"raft_term\":4,\"ID\":5,\"TTL\":6,\"Error\":\"\"}\n"
        );
        let gone = LeaseTimeToLiveResponse {
            header: None,
            id: 5,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        assert_eq!(
            text(&Remaining(&gone)),
            "{\"id\":5,\"ttl\":-1,\"granted-ttl\":0,\"keys\":null}\n"
        );
    }

    #[test]
    fn watch_answers_keep_their_empty_fields() {
        assert_eq!(
            text(&Watched::default()),
            "{\"Header\":null,\"Events\":null,\"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\"CancelReason\":\"\"}\n"
        );
    }

    #[test]
    fn members_may_have_ids_in_hexadecimal() {
        let member = Member {
            id: 255,
            ..Member::default()
        };
        assert_eq!(
            text(&HexMembers(header().as_ref(), &[member])),
            "{\"header\":{\"cluster_id\":\"1\",\"member_id\":\"2\",\"revision\":3,\"raft_term\":4},\"members\":[{\"ID\":\"ff\"}]}\n"
        );
    }
}
