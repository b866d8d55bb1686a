//! Requests as text for the log: keys, numbers and sizes, never values or passwords.
use std::fmt::Write as _;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Op;

use crate::Request;

/// The most bytes of a text; what is longer is cut.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// The most bytes of a key that are shown.
const KEY_BYTES_MAX: usize = 256;

/// Returns a request as a line of the log shows it.
///
/// Source: etcd v3.7.1 api/etcdserverpb/raft_internal_stringer.go, which redacts values too. Of requests about users
/// and roles only the kind is shown.
pub fn request_text(request: &Request) -> String {
    let text = match request {
        Request::Put(r) => format!("put:<{}>", put_text(r)),
        Request::DeleteRange(r) => format!("delete_range:<{}>", delete_text(r)),
        Request::Txn(r) => format!("txn:<{}>", txn_text(r)),
        Request::Compaction(r) => {
            format!(
                "compaction:<revision:{} physical:{}>",
                r.revision, r.physical
            )
        }
        Request::LeaseGrant(r) => format!("lease_grant:<ttl:{} id:{:x}>", r.ttl, r.id),
        Request::LeaseRevoke(r) => format!("lease_revoke:<id:{:x}>", r.id),
        other => Request::op_name(other.op()).to_owned(),
    };
    cut(text)
}

/// Returns a put without its value.
pub fn put_text(request: &pb::PutRequest) -> String {
    let mut text = format!(
        "key:{} value_size:{}",
        key(&request.key),
        request.value.len()
    );
    flags(
        &mut text,
        &[
            ("prev_kv", request.prev_kv),
            ("ignore_value", request.ignore_value),
            ("ignore_lease", request.ignore_lease),
        ],
    );
    if request.lease != 0 {
        let _ = write!(text, " lease:{}", request.lease);
    }
    text
}

/// Returns a deletion.
pub fn delete_text(request: &pb::DeleteRangeRequest) -> String {
    let mut text = format!("key:{}", key(&request.key));
    if !request.range_end.is_empty() {
        let _ = write!(text, " range_end:{}", key(&request.range_end));
    }
    flags(&mut text, &[("prev_kv", request.prev_kv)]);
    text
}

/// Returns a range.
pub fn range_text(request: &pb::RangeRequest) -> String {
    let mut text = format!("key:{}", key(&request.key));
    if !request.range_end.is_empty() {
        let _ = write!(text, " range_end:{}", key(&request.range_end));
    }
    for (name, value) in [("limit", request.limit), ("revision", request.revision)] {
        if value != 0 {
            let _ = write!(text, " {name}:{value}");
        }
    }
    flags(
        &mut text,
        &[
            ("serializable", request.serializable),
            ("keys_only", request.keys_only),
            ("count_only", request.count_only),
        ],
    );
    text
}

/// Returns a transaction without the values it compares and puts.
pub fn txn_text(request: &pb::TxnRequest) -> String {
    let mut text = String::new();
    for compare in &request.compare {
        let target = pb::compare::CompareTarget::try_from(compare.target)
            .map_or("UNKNOWN", |target| target.as_str_name());
        let _ = write!(text, "compare:<target:{target} key:{}> ", key(&compare.key));
    }
    for (name, ops) in [("success", &request.success), ("failure", &request.failure)] {
        for op in ops {
            if text.len() > TEXT_BYTES_MAX {
                return cut(text);
            }
            let op = match &op.request {
                Some(Op::RequestRange(r)) => format!("request_range:<{}>", range_text(r)),
                Some(Op::RequestPut(r)) => format!("request_put:<{}>", put_text(r)),
                Some(Op::RequestDeleteRange(r)) => {
                    format!("request_delete_range:<{}>", delete_text(r))
                }
                Some(Op::RequestTxn(r)) => format!("request_txn:<{}>", txn_text(r)),
                None => String::new(),
            };
            let _ = write!(text, "{name}:<{op}> ");
        }
    }
    text.truncate(text.trim_end().len());
    cut(text)
}

fn key(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(KEY_BYTES_MAX)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}{dots}\"", shown.escape_ascii())
}

fn flags(text: &mut String, flags: &[(&str, bool)]) {
    for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        let _ = write!(text, " {name}:true");
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_passwords_are_not_shown() {
        let put = pb::PutRequest {
            key: "k\n".into(),
            value: "secret".into(),
            lease: 7,
            prev_kv: true,
            ..pb::PutRequest::default()
        };
        assert_eq!(
            request_text(&Request::Put(put.clone())),
            r#"put:<key:"k\n" value_size:6 prev_kv:true lease:7>"#
        );
        let compare = pb::Compare {
            target: pb::compare::CompareTarget::Value.into(),
            key: "k".into(),
            target_union: Some(pb::compare::TargetUnion::Value("secret".into())),
            ..pb::Compare::default()
        };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp {
                request: Some(Op::RequestPut(put)),
            }],
            failure: vec![],
        };
        let text = request_text(&Request::Txn(txn));
        assert!(
            text.contains("target:VALUE") && !text.contains("secret"),
            "{text}"
        );
        let user = Request::AuthUserAdd(pb::AuthUserAddRequest {
            name: "u".into(),
            password: "secret".into(),
            ..pb::AuthUserAddRequest::default()
        });
        assert_eq!(request_text(&user), "AuthUserAdd");
    }

    #[test]
    fn long_texts_are_cut() {
        let range = pb::RangeRequest {
            key: vec![b'a'; 10_000].into(),
            ..pb::RangeRequest::default()
        };
        assert!(range_text(&range).len() < 300);
        let op = pb::RequestOp {
            request: Some(Op::RequestRange(range)),
        };
        let txn = pb::TxnRequest {
            success: vec![op; 10_000],
            ..pb::TxnRequest::default()
        };
        assert!(request_text(&Request::Txn(txn)).len() <= TEXT_BYTES_MAX);
    }
}
