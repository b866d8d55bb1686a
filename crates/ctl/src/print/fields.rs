//! The fields format: one `"Name" : value` a line.

use std::io::Write as _;

use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, DeleteRangeResponse, HashKvResponse,
    LeaseLeasesResponse, LeaseTimeToLiveResponse, MemberListResponse, PutResponse, RangeResponse,
    ResponseHeader, StatusResponse, TxnResponse,
};
use quorate_proto::mvccpb::KeyValue;

use super::simple::{event_type, line};
use super::{At, Backup, Health, Printer, Watched};
use crate::go::quote::quote;

fn pair(printer: &Printer, prefix: &str, kv: &KeyValue, out: &mut Vec<u8>) {
    line!(out, "\"{prefix}Key\" : {}", quote(&kv.key));
    line!(out, "\"{prefix}CreateRevision\" : {}", kv.create_revision);
    line!(out, "\"{prefix}ModRevision\" : {}", kv.mod_revision);
    line!(out, "\"{prefix}Version\" : {}", kv.version);
    line!(out, "\"{prefix}Value\" : {}", quote(&kv.value));
    if printer.hex {
        line!(out, "\"{prefix}Lease\" : {:016x}", kv.lease);
    } else {
        line!(out, "\"{prefix}Lease\" : {}", kv.lease);
    }
}

/// The header's lines; one that is missing prints as zeros.
pub(super) fn header(printer: &Printer, header: Option<&ResponseHeader>, out: &mut Vec<u8>) {
    let header = header.cloned().unwrap_or_default();
    member_id(printer, "ClusterID", header.cluster_id, out);
    member_id(printer, "MemberID", header.member_id, out);
    if header.revision > 0 {
        line!(out, "\"Revision\" : {}", header.revision);
    }
    line!(out, "\"RaftTerm\" : {}", header.raft_term);
}

pub(super) fn backup_status(backup: &Backup, out: &mut Vec<u8>) {
    line!(out, "\"Hash\" : {}", backup.hash);
    line!(out, "\"Revision\" : {}", backup.revision);
    line!(out, "\"Keys\" : {}", backup.total_keys);
    line!(out, "\"Size\" : {}", backup.total_bytes);
    line!(out, "\"Version\" : {}", backup.version);
}

fn member_id(printer: &Printer, name: &str, id: u64, out: &mut Vec<u8>) {
    if printer.hex {
        line!(out, "\"{name}\" : {id:x}");
    } else {
        line!(out, "\"{name}\" : {id}");
    }
}

fn lease_id(printer: &Printer, id: i64, out: &mut Vec<u8>) {
    if printer.hex {
        line!(out, "\"ID\" : {id:016x}");
    } else {
        line!(out, "\"ID\" : {id}");
    }
}

pub(super) fn put(printer: &Printer, answer: &PutResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    if let Some(kv) = &answer.prev_kv {
        pair(printer, "Prev", kv, out);
    }
}

pub(super) fn range(printer: &Printer, answer: &RangeResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    for kv in &answer.kvs {
        pair(printer, "", kv, out);
    }
    line!(out, "\"More\" : {}", answer.more);
    line!(out, "\"Count\" : {}", answer.count);
}

pub(super) fn delete(printer: &Printer, answer: &DeleteRangeResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    line!(out, "\"Deleted\" : {}", answer.deleted);
    for kv in &answer.prev_kvs {
        pair(printer, "Prev", kv, out);
    }
}

pub(super) fn txn(printer: &Printer, answer: &TxnResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    line!(out, "\"Succeeded\" : {}", answer.succeeded);
    for op in &answer.responses {
        match &op.response {
            Some(Response::ResponseRange(answer)) => range(printer, answer, out),
            Some(Response::ResponsePut(answer)) => put(printer, answer, out),
            Some(Response::ResponseDeleteRange(answer)) => delete(printer, answer, out),
            Some(Response::ResponseTxn(answer)) => txn(printer, answer, out),
            None => line!(out, "\"Unknown\" : \"<nil>\""),
        }
    }
}

pub(super) fn watch(printer: &Printer, answer: &Watched, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    for event in answer.events.iter().flatten() {
        line!(out, "\"Type\" : {}", event_type(event.r#type()));
        if let Some(kv) = &event.prev_kv {
            pair(printer, "Prev", kv, out);
        }
        pair(printer, "", &event.kv.clone().unwrap_or_default(), out);
    }
}

/// The answer to a grant or a renewal.
pub(super) fn lease(
    printer: &Printer,
    head: Option<&ResponseHeader>,
    id: i64,
    ttl: i64,
    out: &mut Vec<u8>,
) {
    header(printer, head, out);
    lease_id(printer, id, out);
    line!(out, "\"TTL\" : {ttl}");
}

pub(super) fn lease_time_to_live(
    printer: &Printer,
    answer: &LeaseTimeToLiveResponse,
    out: &mut Vec<u8>,
) {
    lease(printer, answer.header.as_ref(), answer.id, answer.ttl, out);
    line!(out, "\"GrantedTTL\" : {}", answer.granted_ttl);
    for key in &answer.keys {
        line!(out, "\"Key\" : {}", quote(key));
    }
}

pub(super) fn lease_list(printer: &Printer, answer: &LeaseLeasesResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    for lease in &answer.leases {
        lease_id(printer, lease.id, out);
    }
}

pub(super) fn alarm(printer: &Printer, answer: &AlarmResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    for member in &answer.alarms {
        member_id(printer, "MemberID", member.member_id, out);
        line!(out, "\"AlarmType\" : {}", member.alarm().as_str_name());
        line!(out, "");
    }
}

pub(super) fn role_get(printer: &Printer, answer: &AuthRoleGetResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    for permission in &answer.perm {
        let kind = match permission.perm_type() {
            Type::Read => "READ",
            Type::Write => "WRITE",
            Type::Readwrite => "READWRITE",
        };
        line!(out, "\"PermType\" :  {kind}");
        line!(out, "\"Key\" : {}", quote(&permission.key));
        line!(out, "\"RangeEnd\" : {}", quote(&permission.range_end));
    }
}

pub(super) fn role_list(printer: &Printer, answer: &AuthRoleListResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    let roles: String = answer
        .roles
        .iter()
        .map(|role| format!(" {}", quote(role.as_bytes())))
        .collect();
    line!(out, "\"Roles\" :{roles}");
}

pub(super) fn member_list(printer: &Printer, answer: &MemberListResponse, out: &mut Vec<u8>) {
    header(printer, answer.header.as_ref(), out);
    for member in &answer.members {
        member_id(printer, "ID", member.id, out);
        line!(out, "\"Name\" : {}", quote(member.name.as_bytes()));
        for url in &member.peer_ur_ls {
            line!(out, "\"PeerURL\" : {}", quote(url.as_bytes()));
        }
        for url in &member.client_ur_ls {
            line!(out, "\"ClientURL\" : {}", quote(url.as_bytes()));
        }
        line!(out, "\"IsLearner\" : {}", member.is_learner);
        line!(out, "");
    }
}

pub(super) fn endpoint_health(answers: &[At<Health>], out: &mut Vec<u8>) {
    for At { endpoint, answer } in answers {
        line!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()));
        line!(out, "\"Health\" : {}", answer.is_healthy);
        line!(out, "\"Took\" : {}", answer.took);
        line!(out, "\"Error\" : {}", answer.error);
        line!(out, "");
    }
}

pub(super) fn endpoint_status(
    printer: &Printer,
    answers: &[At<StatusResponse>],
    out: &mut Vec<u8>,
) {
    for At { endpoint, answer } in answers {
        let downgrade = answer.downgrade_info.clone().unwrap_or_default();
        header(printer, answer.header.as_ref(), out);
        line!(out, "\"Version\" : {}", quote(answer.version.as_bytes()));
        line!(
            out,
            "\"StorageVersion\" : {}",
            quote(answer.storage_version.as_bytes())
        );
        line!(out, "\"DBSize\" : {}", answer.db_size);
        line!(out, "\"DBSizeInUse\" : {}", answer.db_size_in_use);
        line!(out, "\"DBSizeQuota\" : {}", answer.db_size_quota);
        line!(out, "\"Leader\" : {}", answer.leader);
        line!(out, "\"IsLearner\" : {}", answer.is_learner);
        line!(out, "\"RaftIndex\" : {}", answer.raft_index);
        line!(out, "\"RaftTerm\" : {}", answer.raft_term);
        line!(out, "\"RaftAppliedIndex\" : {}", answer.raft_applied_index);
        line!(out, "\"Errors\" : [{}]", answer.errors.join(" "));
        line!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()));
        line!(
            out,
            "\"DowngradeTargetVersion\" : {}",
            quote(downgrade.target_version.as_bytes())
        );
        line!(out, "\"DowngradeEnabled\" : {}", downgrade.enabled);
        line!(out, "");
    }
}

pub(super) fn endpoint_hash_kv(
    printer: &Printer,
    answers: &[At<HashKvResponse>],
    out: &mut Vec<u8>,
) {
    for At { endpoint, answer } in answers {
        header(printer, answer.header.as_ref(), out);
        line!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()));
        line!(out, "\"Hash\" : {}", answer.hash);
        line!(out, "\"HashRevision\" : {}", answer.hash_revision);
        line!(out, "");
    }
}
