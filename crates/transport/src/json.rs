//! JSON between members, as Go's encoder writes it.
use std::fmt::Write as _;

use quorate_proto::etcdserverpb::Member;
use serde_json::{Map, Value};

use crate::time::{format_rfc3339, parse_rfc3339};
use crate::{HashKv, Versions};

/// What etcd shows for a cluster version that is not decided, and for a storage version that is not known.
const NOT_DECIDED: &str = "not_decided";
const UNKNOWN: &str = "unknown";

/// Quotes a string; Go escapes the signs that mean something in HTML.
fn quote(text: &str) -> String {
    let mut quoted = Value::from(text).to_string();
    for (sign, escaped) in [
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        if quoted.contains(sign) {
            quoted = quoted.replace(sign, escaped);
        }
    }
    quoted
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(","))
}

/// Writes members, ordered by id, with a final line feed.
///
/// Source: etcd v3.7.1 server/etcdserver/api/membership/member.go `Member`.
pub(crate) fn write_members(mut members: Vec<Member>) -> String {
    members.sort_by_key(|member| member.id);
    let mut out = String::from("[");
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let _ = write!(out, "{{\"id\":{},\"peerURLs\":", member.id);
        out.push_str(&list(&member.peer_ur_ls));
        if member.is_learner {
            out.push_str(",\"isLearner\":true");
        }
        if !member.name.is_empty() {
            let _ = write!(out, ",\"name\":{}", quote(&member.name));
        }
        if !member.client_ur_ls.is_empty() {
            let _ = write!(out, ",\"clientURLs\":{}", list(&member.client_ur_ls));
        }
        out.push('}');
    }
    out.push_str("]\n");
    out
}

/// Reads members; `None` for anything else.
pub(crate) fn parse_members(body: &[u8]) -> Option<Vec<Member>> {
    let Value::Array(all) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    all.into_iter().map(parse_member).collect()
}

fn parse_member(value: Value) -> Option<Member> {
    let Value::Object(fields) = value else {
        return None;
    };
    Some(Member {
        id: fields.get("id")?.as_u64()?,
        name: match fields.get("name") {
            None | Some(Value::Null) => String::new(),
            Some(name) => name.as_str()?.to_owned(),
        },
        peer_ur_ls: parse_list(&fields, "peerURLs")?,
        client_ur_ls: parse_list(&fields, "clientURLs")?,
        is_learner: match fields.get("isLearner") {
            None | Some(Value::Null) => false,
            Some(flag) => flag.as_bool()?,
        },
    })
}

fn parse_list(fields: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(all)) => all
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect(),
        Some(_) => None,
    }
}

/// Writes the answer of `/version`.
pub(crate) fn write_versions(versions: &Versions) -> String {
    format!(
        "{{\"etcdserver\":{},\"etcdcluster\":{},\"storage\":{}}}",
        quote(&versions.server),
        quote(versions.cluster.as_deref().unwrap_or(NOT_DECIDED)),
        quote(versions.storage.as_deref().unwrap_or(UNKNOWN)),
    )
}

/// Reads the answer of `/version`.
pub(crate) fn parse_versions(body: &[u8]) -> Option<Versions> {
    let Value::Object(fields) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Versions {
        server: text("etcdserver")?,
        cluster: text("etcdcluster").filter(|version| version != NOT_DECIDED),
        storage: text("storage").filter(|version| version != UNKNOWN && !version.is_empty()),
    })
}

/// Writes the answer of `/members/hashkv`: zeros are left out.
pub(crate) fn write_hash(hash: &HashKv) -> String {
    let header = if hash.revision == 0 {
        String::from("{}")
    } else {
        format!("{{\"revision\":{}}}", hash.revision)
    };
    let mut out = format!("{{\"header\":{header}");
    let fields = [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compact_revision),
        ("hash_revision", hash.hash_revision),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| *value != 0) {
        let _ = write!(out, ",\"{name}\":{value}");
    }
    out.push('}');
    out
}

/// Reads the answer of `/members/hashkv`.
pub(crate) fn parse_hash(body: &[u8]) -> Option<HashKv> {
    let Value::Object(fields) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    let number = |fields: &Map<String, Value>, name: &str| match fields.get(name) {
        None | Some(Value::Null) => Some(0),
        Some(value) => value.as_i64(),
    };
    let revision = match fields.get("header") {
        Some(Value::Object(header)) => number(header, "revision")?,
        _ => 0,
    };
    Some(HashKv {
        revision,
        hash: u32::try_from(number(&fields, "hash")?).ok()?,
        compact_revision: number(&fields, "compact_revision")?,
        hash_revision: number(&fields, "hash_revision")?,
    })
}

/// Writes the request of `/members/hashkv`.
pub(crate) fn write_hash_request(revision: i64) -> String {
    if revision == 0 {
        return String::from("{}");
    }
    format!("{{\"revision\":{revision}}}")
}

/// Reads the request of `/members/hashkv`: a revision that is missing is 0.
pub(crate) fn parse_hash_request(body: &[u8]) -> Option<i64> {
    match serde_json::from_slice(body).ok()? {
        Value::Null => Some(0),
        Value::Object(fields) => match fields.get("revision") {
            None | Some(Value::Null) => Some(0),
            Some(value) => value.as_i64(),
        },
        _ => None,
    }
}

/// Writes the answer to a probe at a time in nanoseconds since 1970.
pub(crate) fn write_probe(now_ns: i64) -> String {
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", format_rfc3339(now_ns))
}

/// Reads the time out of the answer to a probe, if all is well there.
pub(crate) fn parse_probe(body: &[u8]) -> Option<i64> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let is_ok = value.get("OK")?.as_bool()?;
    is_ok.then(|| parse_rfc3339(value.get("Now")?.as_str()?))?
}

/// Writes an error as etcd's handlers do.
pub(crate) fn write_error(message: &str) -> String {
    format!("{{\"message\":{}}}", quote(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> Member {
        Member {
            id,
            name: name.to_owned(),
            peer_ur_ls: vec!["http://10.0.0.1:2380".to_owned()],
            ..Member::default()
        }
    }

    #[test]
    fn members_are_written_as_go_does() {
        let mut learner = member(3, "");
        learner.is_learner = true;
        let mut named = member(u64::MAX, "a<&>\"\u{1}");
        named.client_ur_ls = vec!["http://10.0.0.1:2379".to_owned()];
        let text = write_members(vec![named.clone(), learner.clone()]);
        assert_eq!(
            text,
            "[{\"id\":3,\"peerURLs\":[\"http://10.0.0.1:2380\"],\"isLearner\":true},\
             {\"id\":18446744073709551615,\"peerURLs\":[\"http://10.0.0.1:2380\"],\
             \"name\":\"a\\u003c\\u0026\\u003e\\\"\\u0001\",\"clientURLs\":[\"http://10.0.0.1:2379\"]}]\n"
        );
        assert_eq!(parse_members(text.as_bytes()), Some(vec![learner, named]));
        assert_eq!(write_members(vec![]), "[]\n");
    }

    #[test]
    fn what_is_no_list_of_members_is_refused() {
        for bad in [
            "",
            "{}",
            "[1]",
            "[{}]",
            "[{\"id\":-1}]",
            "[{\"id\":1.5}]",
            "[{\"id\":1,\"peerURLs\":[1]}]",
            "[{\"id\":1,\"name\":2}]",
            "[{\"id\":1}] x",
        ] {
            assert_eq!(parse_members(bad.as_bytes()), None, "{bad}");
        }
        assert!(parse_members(b"[{\"id\":1,\"peerURLs\":null}]").is_some());
    }

    #[test]
    fn hashes_and_versions_survive_the_way() {
        let hash = HashKv {
            revision: 7,
            hash: u32::MAX,
            compact_revision: 0,
            hash_revision: 5,
        };
        let text = write_hash(&hash);
        assert_eq!(
            text,
            "{\"header\":{\"revision\":7},\"hash\":4294967295,\"hash_revision\":5}"
        );
        assert_eq!(parse_hash(text.as_bytes()), Some(hash));
        let versions = Versions {
            server: "3.7.1".to_owned(),
            cluster: None,
            storage: None,
        };
        let text = write_versions(&versions);
        assert_eq!(
            text,
            "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"not_decided\",\"storage\":\"unknown\"}"
        );
        assert_eq!(parse_versions(text.as_bytes()), Some(versions));
        assert_eq!(parse_hash_request(b"{}"), Some(0));
        assert_eq!(parse_hash_request(b"{\"revision\":9}"), Some(9));
        assert_eq!(parse_hash_request(b"{\"revision\":\"9\"}"), None);
        assert_eq!(parse_hash_request(b""), None);
    }

    #[test]
    fn probes_carry_the_time() {
        let text = write_probe(1_700_000_000_123_456_789);
        assert_eq!(
            text,
            "{\"OK\":true,\"Now\":\"2023-11-14T22:13:20.123456789Z\"}\n"
        );
        assert_eq!(
            parse_probe(text.as_bytes()),
            Some(1_700_000_000_123_456_789)
        );
        assert_eq!(
            parse_probe(b"{\"OK\":false,\"Now\":\"2023-11-14T22:13:20Z\"}"),
            None
        );
    }
}
