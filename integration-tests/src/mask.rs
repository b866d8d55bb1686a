//! What is compared of an answer: not what differs from run to run or is the server's own affair.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Fields of a status that say nothing about the history.
const STATUS_FIELDS: [&str; 10] = [
    "dbSize",
    "dbSizeInUse",
    "dbSizeQuota",
    "raftIndex",
    "raftAppliedIndex",
    "raftTerm",
    "leader",
    "version",
    "storageVersion",
    "downgradeInfo",
];

/// Takes out ids, terms, sizes, tokens and the exact time left of leases.
pub(crate) fn mask(rpc: &str, value: Value) -> Value {
    let object = match value {
        Value::Array(items) => return items.into_iter().map(|item| mask(rpc, item)).collect(),
        Value::Object(object) => object,
        other => return other,
    };
    let masked = object.into_iter().map(|(name, value)| {
        let value = match name.as_str() {
            "header" => json!({"revision": text(&value, "revision", "0")}),
            "TTL" if rpc == "Lease/LeaseTimeToLive" && value != "-1" && value != "0" => {
                json!("positive")
            }
            // The API leaves the order of a lease's keys open.
            "keys" if rpc == "Lease/LeaseTimeToLive" => sorted(value),
            "token" => json!("token"),
            field if rpc == "Maintenance/Status" && STATUS_FIELDS.contains(&field) => {
                json!("present")
            }
            _ => mask(rpc, value),
        };
        (name, value)
    });
    Value::Object(masked.collect())
}

fn sorted(value: Value) -> Value {
    let Value::Array(mut items) = value else {
        return value;
    };
    items.sort_by_key(Value::to_string);
    Value::Array(items)
}

/// A text field of an object.
fn text(object: &Value, field: &str, default: &str) -> String {
    object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or(default)
        .to_owned()
}

/// What arrived on a stream.
#[derive(Debug, Clone)]
pub(crate) enum Arrived {
    Message(Value),
    Error(Value),
    End,
}

impl Arrived {
    /// As recordings show what is not a message.
    pub(crate) fn plain(self, rpc: &str) -> Value {
        match self {
            Arrived::Message(message) => mask(rpc, message),
            Arrived::Error(error) => error,
            Arrived::End => json!({"end": true}),
        }
    }
}

/// The answers of a watch as one list of events and control messages by watch id: how a server groups events into answers is its
/// own affair, their order and content is not.
pub(crate) fn flatten_watch(arrived: &[Arrived]) -> Value {
    let mut by_id: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for item in arrived {
        let message = match item {
            Arrived::Message(message) => mask("Watch/Watch", message.clone()),
            other => {
                let rows = by_id.entry("stream".to_owned()).or_default();
                rows.push(other.clone().plain("Watch/Watch"));
                continue;
            }
        };
        let rows = by_id.entry(text(&message, "watch_id", "0")).or_default();
        let revision = message
            .get("header")
            .map_or_else(|| "0".to_owned(), |h| text(h, "revision", "0"));
        let mut control = Map::new();
        for field in ["created", "canceled", "compact_revision", "cancel_reason"] {
            if let Some(value) = message.get(field) {
                control.insert(field.to_owned(), value.clone());
            }
        }
        let events = message.get("events").and_then(Value::as_array);
        if control.is_empty() {
            if events.is_none_or(Vec::is_empty) {
                rows.push(json!({"progress": revision}));
            }
        } else {
            if control.contains_key("created") || control.contains_key("compact_revision") {
                control.insert("revision".to_owned(), json!(revision));
            }
            rows.push(Value::Object(control));
        }
        rows.extend(
            events
                .into_iter()
                .flatten()
                .map(|event| json!({"event": event})),
        );
    }
    json!(by_id)
}

/// The chunks of a range stream as one answer: where a server cuts them is its own affair.
pub(crate) fn join_chunks(messages: Vec<Value>) -> Value {
    let (mut whole, mut kvs) = (Map::new(), Vec::new());
    for message in messages {
        let Some(Value::Object(mut part)) = message.get("range_response").cloned() else {
            continue;
        };
        if let Some(Value::Array(more)) = part.remove("kvs") {
            kvs.extend(more);
        }
        whole.extend(part);
    }
    whole.insert("kvs".to_owned(), Value::Array(kvs));
    json!([{"range_response": whole}])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_masked() {
        let answer = json!({"header": {"cluster_id": "1", "revision": "5"}, "TTL": "7", "list": [{"token": "x"}]});
        assert_eq!(
            mask("Lease/LeaseTimeToLive", answer.clone()),
            json!({"header": {"revision": "5"}, "TTL": "positive", "list": [{"token": "token"}]})
        );
        assert_eq!(mask("Lease/LeaseGrant", answer)["TTL"], "7");
        assert_eq!(
            mask("Lease/LeaseTimeToLive", json!({"keys": ["Yg==", "YWI="]})),
            json!({"keys": ["YWI=", "Yg=="]})
        );
        assert_eq!(
            mask("Lease/LeaseTimeToLive", json!({"TTL": "-1", "header": {}})),
            json!({"TTL": "-1", "header": {"revision": "0"}})
        );
        assert_eq!(
            mask("Maintenance/Status", json!({"dbSize": "9"})),
            json!({"dbSize": "present"})
        );
    }

    #[test]
    fn watch_answers_are_flattened_by_id() {
        let message = |value: Value| Arrived::Message(value);
        let arrived = [
            message(json!({"header": {"revision": "3"}, "created": true, "watch_id": "1"})),
            message(
                json!({"header": {"revision": "4"}, "watch_id": "1", "events": [{"kv": {}}, {"type": "DELETE"}]}),
            ),
            message(json!({"header": {"revision": "4"}, "watch_id": "1"})),
            Arrived::End,
        ];
        assert_eq!(
            flatten_watch(&arrived),
            json!({
                "1": [{"created": true, "revision": "3"}, {"event": {"kv": {}}}, {"event": {"type": "DELETE"}}, {"progress": "4"}],
                "stream": [{"end": true}],
            })
        );
    }

    #[test]
    fn chunks_are_joined() {
        let chunks = vec![
            json!({"range_response": {"kvs": [1], "header": {"revision": "1"}}}),
            json!({"range_response": {"kvs": [2], "count": "2"}}),
        ];
        assert_eq!(
            join_chunks(chunks),
            json!([{"range_response": {"kvs": [1, 2], "header": {"revision": "1"}, "count": "2"}}])
        );
        assert_eq!(
            join_chunks(Vec::new()),
            json!([{"range_response": {"kvs": []}}])
        );
    }
}
