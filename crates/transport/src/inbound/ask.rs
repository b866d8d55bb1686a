//! Questions of other members, and what etcd would answer.
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse, ResponseHeader,
};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use quorate_proto::{LeaseId, MemberId};

use super::answer::{Answer, error, method_not_allowed, whole};
use super::route::{close, read_body};
use crate::headers::CLUSTER_ID;
use crate::json;
use crate::outbound::now_ns;
use crate::shared::Shared;
use crate::{Error, Refusal};

/// Path of a promotion, before the id.
pub(super) const PROMOTE_PREFIX: &str = "/members/promote/";

/// Longest request for a hash.
const HASH_REQUEST_BYTES_MAX: usize = 64 << 10;

/// Longest request about a lease.
///
/// Source: etcd v3.7.1 server/lease/leasehttp/http.go `maxLeaseHTTPRequestSize`.
const LEASE_REQUEST_BYTES_MAX: usize = 64 << 10;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

/// Tells the time.
pub(super) fn probing() -> Answer {
    let text = json::write_probe(now_ns());
    whole(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// Lists the members: `GET /members`.
pub(super) fn members(shared: &Arc<Shared>, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return method_not_allowed(Some("GET"));
    }
    let text = json::write_members(shared.service.members());
    named(shared, whole(StatusCode::OK, JSON, text))
}

/// Tells the versions: `GET /version`.
pub(super) fn version(shared: &Arc<Shared>, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return method_not_allowed(Some("GET"));
    }
    let mut versions = shared.service.versions();
    versions.server.clone_from(&shared.config.server_version);
    whole(StatusCode::OK, JSON, json::write_versions(&versions))
}

/// Promotes a learner: `POST /members/promote/ID`.
pub(super) async fn promote(
    shared: &Arc<Shared>,
    path: &str,
    request: &Request<Incoming>,
) -> Answer {
    if request.method() != Method::POST {
        return method_not_allowed(Some("POST"));
    }
    let id = path.strip_prefix(PROMOTE_PREFIX).unwrap_or_default();
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let Some(id) = id.parse().ok().filter(|_| is_number) else {
        let text = format!("member {id} not found in cluster");
        return named(shared, error(StatusCode::NOT_FOUND, text));
    };
    let token = request.headers().get(AUTHORIZATION);
    let token = token
        .and_then(|token| token.to_str().ok())
        .map(str::to_owned);
    let answer = match shared.service.promote(MemberId(id), token).await {
        Ok(members) => whole(StatusCode::OK, JSON, json::write_members(members)),
        Err(refusal) => {
            tracing::warn!(
                "member-id" = %MemberId(id),
                error = %refusal,
                "failed to promote a member"
            );
            match refusal {
                Refusal::MemberNotFound => error(StatusCode::NOT_FOUND, refusal),
                Refusal::NotLearner | Refusal::LearnerNotReady => {
                    error(StatusCode::PRECONDITION_FAILED, refusal)
                }
                _ => {
                    let text = json::write_error("Internal Server Error");
                    whole(StatusCode::INTERNAL_SERVER_ERROR, JSON, text)
                }
            }
        }
    };
    named(shared, answer)
}

/// Hashes the keys: `GET /members/hashkv`.
///
/// Source: etcd v3.7.1 server/etcdserver/corrupt.go `hashKVHandler`.
pub(super) async fn hash_kv(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return method_not_allowed(Some("GET"));
    }
    let cluster = request.headers().get(CLUSTER_ID);
    if cluster.is_some_and(|id| !id.is_empty() && *id != shared.identity.cluster) {
        return error(StatusCode::PRECONDITION_FAILED, Refusal::ClusterMismatch);
    }
    let body = read_body(shared, request.into_body(), HASH_REQUEST_BYTES_MAX).await;
    let Ok(body) = body else {
        return error(StatusCode::BAD_REQUEST, "error reading body");
    };
    let Some(revision) = json::parse_hash_request(&body) else {
        return error(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    match shared.service.hash_kv(revision).await {
        Ok(hash) => named(shared, whole(StatusCode::OK, JSON, json::write_hash(&hash))),
        Err(refusal) => {
            tracing::warn!(
                "requested-revision" = revision,
                error = %refusal,
                "failed to get hashKV"
            );
            error(StatusCode::BAD_REQUEST, refusal)
        }
    }
}

/// Renews a lease: `POST /leases`.
///
/// Source: etcd v3.7.1 server/lease/leasehttp/http.go `leaseHandler`.
pub(super) async fn renew_lease(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let body = match lease_body(shared, request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(request) = LeaseKeepAliveRequest::decode(&body[..]) else {
        return error(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    match shared.service.renew_lease(LeaseId(request.id)).await {
        Ok(ttl) => {
            let answer = LeaseKeepAliveResponse {
                id: request.id,
                ttl,
                ..LeaseKeepAliveResponse::default()
            };
            whole(StatusCode::OK, PROTOBUF, answer.encode_to_vec())
        }
        Err(refusal) => refuse_lease(&refusal, StatusCode::BAD_REQUEST),
    }
}

/// Describes a lease: `POST /leases/internal`.
pub(super) async fn time_to_live(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let body = match lease_body(shared, request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let asked = LeaseInternalRequest::decode(&body[..]).ok();
    let Some(asked) = asked.and_then(|asked| asked.lease_time_to_live_request) else {
        return error(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    let described = shared.service.time_to_live(LeaseId(asked.id), asked.keys);
    match described.await {
        Ok(lease) => {
            let answer = LeaseTimeToLiveResponse {
                header: Some(ResponseHeader::default()),
                id: asked.id,
                ttl: lease.ttl_s,
                granted_ttl: lease.granted_ttl_s,
                keys: lease.keys,
            };
            let answer = LeaseInternalResponse {
                lease_time_to_live_response: Some(answer),
            };
            whole(StatusCode::OK, PROTOBUF, answer.encode_to_vec())
        }
        Err(refusal) => refuse_lease(&refusal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn lease_body(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Bytes, Answer> {
    if request.method() != Method::POST {
        return Err(method_not_allowed(None));
    }
    read_body(shared, request.into_body(), LEASE_REQUEST_BYTES_MAX)
        .await
        .map_err(|cause| match cause {
            Error::TooLarge { .. } => {
                let text = "request body too large";
                let mut refused = error(StatusCode::PAYLOAD_TOO_LARGE, text);
                close(&mut refused);
                let phrase = ReasonPhrase::from_static(b"Request Entity Too Large");
                refused.extensions_mut().insert(phrase);
                refused
            }
            _ => error(StatusCode::BAD_REQUEST, "error reading body"),
        })
}

fn refuse_lease(refusal: &Refusal, otherwise: StatusCode) -> Answer {
    let status = match refusal {
        Refusal::LeaseNotFound => StatusCode::NOT_FOUND,
        Refusal::NotCaughtUp => StatusCode::REQUEST_TIMEOUT,
        _ => otherwise,
    };
    error(status, refusal)
}

/// Tells whether a downgrade is under way: `GET /downgrade/enabled`.
pub(super) async fn downgrade_enabled(shared: &Arc<Shared>, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return method_not_allowed(Some("GET"));
    }
    let answer = match shared.service.downgrade_enabled().await {
        Ok(enabled) => whole(StatusCode::OK, "text/plain", enabled.to_string()),
        Err(refusal) => {
            let text = format!("failed linearized read: {refusal}");
            error(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    };
    named(shared, answer)
}

/// Says which cluster answers.
fn named(shared: &Shared, mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CLUSTER_ID, shared.identity.cluster.clone());
    answer
}
