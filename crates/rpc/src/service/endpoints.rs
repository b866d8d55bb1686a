//! HTTP/1.1: health, version, metrics.
use std::time::Instant;

use quorate_proto::etcdserverpb as pb;

use super::context::Context;
use super::measure;
use crate::message::Message;
use crate::metrics::{Check, content_type};
use crate::seam::{HttpRequest, HttpResponse};
use crate::status::Status;

const PLAIN: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
const NO_SNIFF: (&str, &str) = ("x-content-type-options", "nosniff");

/// What every response on the client port carries.
///
/// Source: etcd v3.7.1 server/embed/serve.go `addCORSHeader`; the default whitelist allows every origin.
const CORS: [(&str, &str); 3] = [
    (
        "access-control-allow-methods",
        "POST, GET, OPTIONS, PUT, DELETE",
    ),
    ("access-control-allow-origin", "*"),
    (
        "access-control-allow-headers",
        "accept, content-type, authorization",
    ),
];

fn response(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: impl Into<bytes::Bytes>,
) -> HttpResponse {
    let headers = CORS.iter().chain(headers).copied().collect();
    HttpResponse {
        status,
        headers,
        body: body.into(),
    }
}

/// Answers as Go's `http.Error`: plain text that ends with a newline.
fn error(status: u16, headers: &[(&'static str, &'static str)], text: &str) -> HttpResponse {
    let headers: Vec<_> = [PLAIN, NO_SNIFF].iter().chain(headers).copied().collect();
    response(status, &headers, format!("{text}\n"))
}

/// Answers a request.
pub(super) async fn answer(context: &Context, request: &HttpRequest) -> HttpResponse {
    if &*request.method == "OPTIONS" {
        return response(200, &[], "");
    }
    let path = &*request.path;
    let checks = match path
        .split_once('/')
        .map(|(_, rest)| rest.split_once('/').unwrap_or((rest, "")))
    {
        Some(("livez", name)) => Check::find(true, name),
        Some(("readyz", name)) => Check::find(false, name),
        _ => None,
    };
    let is_known =
        checks.is_some() || matches!(path, "/health" | "/version" | "/metrics" | "/debug/vars");
    if !is_known || (path.ends_with('/') && path != "/") {
        return error(404, &[], "404 page not found");
    }
    if &*request.method != "GET" && !matches!(path, "/metrics" | "/debug/vars") {
        return error(405, &[("allow", "GET")], "Method Not Allowed");
    }
    if let Some(checks) = checks {
        return run_checks(context, checks, request).await;
    }
    match path {
        "/version" => version(context),
        "/debug/vars" => {
            let json = [("content-type", "application/json; charset=utf-8")];
            response(200, &json, context.registry.variables())
        }
        "/metrics" => response(
            200,
            &[("content-type", content_type(&request.accept))],
            context.registry.scrape(),
        ),
        _ => health(context, request).await,
    }
}

fn version(context: &Context) -> HttpResponse {
    let view = &context.handles.view;
    let or = |version: &str, unset: &str| {
        if version.is_empty() {
            unset.to_owned()
        } else {
            version.to_owned()
        }
    };
    let body = format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}}"#,
        context.options.server_version,
        or(&view.cluster_version(), "not_decided"),
        or(&view.storage_version(), "unknown"),
    );
    response(200, &[("content-type", "application/json")], body)
}

/// Reads one key as the member itself, to see whether reads work.
async fn read(context: &Context, is_serializable: bool) -> Result<(), String> {
    let begun = Instant::now();
    let outcome = async {
        if !is_serializable {
            // A sole voter could answer without its log; a member whose disk hangs is not healthy for all that.
            if context.is_log_stuck() {
                return Err(Status::TIMEOUT);
            }
            context.read_index_by_engine().await?;
        }
        let request = pb::RangeRequest {
            limit: 1,
            keys_only: true,
            ..pb::RangeRequest::default()
        };
        let result = context.reader().range(&request);
        let gave = result.map(|r| (Message::default(), r.kvs.len()));
        measure::range(context, begun, &request, gave.map_err(Status::from))
    };
    let answer: Result<Message, Status> = outcome.await;
    match answer {
        Ok(_) => Ok(()),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// Source: etcd v3.7.1 server/etcdserver/api/etcdhttp/health.go `HandleHealth`.
async fn health(context: &Context, request: &HttpRequest) -> HttpResponse {
    let reason = unhealthy(context, request).await;
    context.registry.count_health(reason.is_none());
    match reason {
        None => response(200, &[PLAIN], r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let reason = reason.replace('\\', "\\\\").replace('"', "\\\"");
            error(
                503,
                &[],
                &format!(r#"{{"health":"false","reason":"{reason}"}}"#),
            )
        }
    }
}

async fn unhealthy(context: &Context, request: &HttpRequest) -> Option<String> {
    let excluded = query(request, "exclude");
    for alarm in &*context.handles.view.alarms() {
        let name =
            pb::AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
        if !excluded.iter().any(|e| e == name) {
            return Some(format!(
                "ALARM {}",
                if name == "NONE" { "UNKNOWN" } else { name }
            ));
        }
    }
    let is_serializable = query(request, "serializable")
        .first()
        .is_some_and(|v| v == "true");
    if !is_serializable && context.handles.view.leader().0 == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    read(context, is_serializable)
        .await
        .err()
        .map(|text| format!("RANGE ERROR:{text}"))
}

/// Source: etcd v3.7.1 server/etcdserver/api/etcdhttp/health.go `newHealthHandler`.
async fn run_checks(context: &Context, checks: &[Check], request: &HttpRequest) -> HttpResponse {
    // Only the root paths take exclusions.
    let is_root = request.path.matches('/').count() == 1;
    let excluded = if is_root {
        query(request, "exclude")
    } else {
        Vec::new()
    };
    let (mut lines, mut is_ok) = (String::new(), true);
    for check in checks
        .iter()
        .filter(|c| !excluded.iter().any(|e| e == c.name()))
    {
        let result = run_check(context, *check).await;
        context.registry.count_check(*check, result.is_ok());
        match result {
            Ok(()) => lines += &format!("[+]{} ok\n", check.name()),
            Err(text) => {
                lines += &format!("[-]{} failed: {text}\n", check.name());
                is_ok = false;
            }
        }
    }
    if !is_ok {
        return error(503, &[], &lines);
    }
    if !has_key(request, "verbose") {
        lines.clear();
    }
    response(200, &[PLAIN, NO_SNIFF], lines + "ok\n")
}

async fn run_check(context: &Context, check: Check) -> Result<(), String> {
    match check {
        Check::LiveSerializableRead | Check::ReadySerializableRead => read(context, true).await,
        Check::LinearizableRead => read(context, false).await,
        Check::DataCorruption => {
            let corrupt = i32::from(pb::AlarmType::Corrupt);
            let is_corrupt = context
                .handles
                .view
                .alarms()
                .iter()
                .any(|a| a.alarm == corrupt);
            if is_corrupt {
                Err("alarm activated: CORRUPT".to_owned())
            } else {
                Ok(())
            }
        }
        Check::NonLearner if context.handles.view.is_learner() => {
            Err("not supported for learner".to_owned())
        }
        Check::NonLearner => Ok(()),
    }
}

fn pairs(request: &HttpRequest) -> impl Iterator<Item = (&str, &str)> {
    request
        .query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn has_key(request: &HttpRequest, key: &str) -> bool {
    pairs(request).any(|(name, _)| name == key)
}

/// Returns the values of a key that are not empty, in order.
fn query(request: &HttpRequest, key: &str) -> Vec<String> {
    pairs(request)
        .filter(|(name, value)| *name == key && !value.is_empty())
        .map(|(_, value)| crate::metadata::decode_grpc_message(value.replace('+', " ").as_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_decoded_and_empty_ones_left_out() {
        let request = HttpRequest {
            query: "exclude=NO%53PACE&exclude=&x=1&exclude=b+c&verbose".into(),
            ..HttpRequest::default()
        };
        assert_eq!(query(&request, "exclude"), ["NOSPACE", "b c"]);
        assert!(has_key(&request, "verbose"));
        assert!(!has_key(&request, "serializable"));
    }
}
