//! The simple format.

use std::io::Write as _;

use bytes::Bytes;
use quorate_proto::authpb::{Permission, permission::Type};
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthStatusResponse, AuthUserGetResponse,
    DeleteRangeResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseTimeToLiveResponse, PutResponse, RangeResponse, TxnResponse,
};
use quorate_proto::mvccpb::{KeyValue, event::EventType};

use super::{At, Health, Printer, Watched};
use crate::range::prefix_end;

/// Writes to a vector, which cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        let _ = writeln!($out, $($arg)*);
    }};
}
pub(super) use line;

fn raw(bytes: &[u8], hex: bool, out: &mut Vec<u8>) {
    if hex {
        for byte in bytes {
            let _ = write!(out, "\\x{byte:02x}");
        }
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

fn pair(printer: &Printer, kv: &KeyValue, out: &mut Vec<u8>) {
    if !printer.value_only {
        raw(&kv.key, printer.hex, out);
    }
    raw(&kv.value, printer.hex, out);
}

pub(super) fn put(printer: &Printer, answer: &PutResponse, out: &mut Vec<u8>) {
    line!(out, "OK");
    if let Some(kv) = &answer.prev_kv {
        pair(printer, kv, out);
    }
}

pub(super) fn range(printer: &Printer, answer: &RangeResponse, out: &mut Vec<u8>) {
    for kv in &answer.kvs {
        pair(printer, kv, out);
    }
}

pub(super) fn delete(printer: &Printer, answer: &DeleteRangeResponse, out: &mut Vec<u8>) {
    line!(out, "{}", answer.deleted);
    for kv in &answer.prev_kvs {
        pair(printer, kv, out);
    }
}

pub(super) fn txn(printer: &Printer, answer: &TxnResponse, out: &mut Vec<u8>) {
    line!(
        out,
        "{}",
        if answer.succeeded {
            "SUCCESS"
        } else {
            "FAILURE"
        }
    );
    for op in &answer.responses {
        line!(out, "");
        match &op.response {
            Some(Response::ResponseRange(answer)) => range(printer, answer, out),
            Some(Response::ResponsePut(answer)) => put(printer, answer, out),
            Some(Response::ResponseDeleteRange(answer)) => delete(printer, answer, out),
            Some(Response::ResponseTxn(answer)) => txn(printer, answer, out),
            None => line!(out, "unexpected response"),
        }
    }
}

pub(super) fn watch(printer: &Printer, answer: &Watched, out: &mut Vec<u8>) {
    for event in answer.events.iter().flatten() {
        line!(out, "{}", event_type(event.r#type()));
        if let Some(kv) = &event.prev_kv {
            pair(printer, kv, out);
        }
        pair(printer, &event.kv.clone().unwrap_or_default(), out);
    }
}

/// The name of an event's type.
pub(crate) fn event_type(kind: EventType) -> &'static str {
    match kind {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}

pub(super) fn lease_grant(answer: &LeaseGrantResponse, out: &mut Vec<u8>) {
    line!(
        out,
        "lease {:016x} granted with TTL({}s)",
        answer.id,
        answer.ttl
    );
}

pub(super) fn lease_keep_alive(answer: &LeaseKeepAliveResponse, out: &mut Vec<u8>) {
    line!(
        out,
        "lease {:016x} keepalived with TTL({})",
        answer.id,
        answer.ttl
    );
}

pub(super) fn lease_time_to_live(answer: &LeaseTimeToLiveResponse, keys: bool, out: &mut Vec<u8>) {
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        line!(out, "lease {:016x} already expired", answer.id);
        return;
    }
    let _ = write!(
        out,
        "lease {:016x} granted with TTL({}s), remaining({}s)",
        answer.id, answer.granted_ttl, answer.ttl
    );
    if keys {
        let keys: Vec<&[u8]> = answer.keys.iter().map(Bytes::as_ref).collect();
        out.extend_from_slice(b", attached keys([");
        out.extend_from_slice(&keys.join(&b' '));
        out.extend_from_slice(b"])");
    }
    out.push(b'\n');
}

pub(super) fn lease_list(answer: &LeaseLeasesResponse, out: &mut Vec<u8>) {
    line!(out, "found {} leases", answer.leases.len());
    for lease in &answer.leases {
        line!(out, "{:016x}", lease.id);
    }
}

pub(super) fn alarm(answer: &AlarmResponse, out: &mut Vec<u8>) {
    for member in &answer.alarms {
        let mut parts = Vec::new();
        if member.member_id != 0 {
            parts.push(format!("memberID:{}", member.member_id));
        }
        if member.alarm != 0 {
            parts.push(format!("alarm:{}", member.alarm().as_str_name()));
        }
        line!(out, "{}", parts.join(" "));
    }
}

pub(super) fn role_get(role: &[u8], answer: &AuthRoleGetResponse, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Role ");
    raw(role, false, out);
    let is_all = role == b"root" && answer.perm.is_empty();
    for (head, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        line!(out, "{head}");
        if is_all {
            line!(out, "\t[, <open ended>");
        }
        let granted = |p: &&Permission| p.perm_type() == kind || p.perm_type() == Type::Readwrite;
        for permission in answer.perm.iter().filter(granted) {
            permission_line(permission, out);
        }
    }
}

fn permission_line(permission: &Permission, out: &mut Vec<u8>) {
    let (key, end) = (&permission.key, &permission.range_end);
    out.push(b'\t');
    match end.as_ref() {
        b"" => out.extend_from_slice(key),
        end => {
            out.push(b'[');
            out.extend_from_slice(key);
            out.extend_from_slice(b", ");
            if end == b"\0" {
                out.extend_from_slice(b"<open ended>");
            } else {
                out.extend_from_slice(end);
                out.push(b')');
            }
            if prefix_end(key) == *end && !key.is_empty() {
                out.extend_from_slice(b" (prefix ");
                out.extend_from_slice(key);
                out.push(b')');
            }
        }
    }
    out.push(b'\n');
}

pub(super) fn user_get(user: &[u8], answer: &AuthUserGetResponse, out: &mut Vec<u8>) {
    out.extend_from_slice(b"User: ");
    raw(user, false, out);
    out.extend_from_slice(b"Roles:");
    for role in &answer.roles {
        let _ = write!(out, " {role}");
    }
    out.push(b'\n');
}

pub(super) fn names(names: &[String], out: &mut Vec<u8>) {
    for name in names {
        line!(out, "{name}");
    }
}

pub(super) fn auth_status(answer: &AuthStatusResponse, out: &mut Vec<u8>) {
    line!(out, "Authentication Status: {}", answer.enabled);
    line!(out, "AuthRevision: {}", answer.auth_revision);
}

pub(super) fn rows(rows: &[Vec<String>], out: &mut Vec<u8>) {
    for row in rows {
        line!(out, "{}", row.join(", "));
    }
}

/// The healthy ones; the others are said on standard error.
pub(super) fn endpoint_health(answers: &[At<Health>], out: &mut Vec<u8>) {
    for at in answers.iter().filter(|at| at.answer.error.is_empty()) {
        let took = &at.answer.took;
        line!(
            out,
            "{} is healthy: successfully committed proposal: took = {took}",
            at.endpoint
        );
    }
}
