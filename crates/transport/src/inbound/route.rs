//! Which path is answered by what.
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::answer::{Answer, Refused, error, not_found, redirect};
use super::path::{Meant, meant};
use super::{ask, kindred, raft, snapshot};
use crate::Error;
use crate::headers::{CLUSTER_ID, PEER_URLS, SERVER_FROM, id_in};
use crate::outbound::KINDRED_PREFIX;
use crate::shared::Shared;
use crate::transport::add_remote;

/// Longest time for the body of a request that is no snapshot.
///
/// Source: etcd v3.7.1 server/embed/etcd.go: the peer server's read timeout.
const BODY_TIME_MAX: Duration = Duration::from_secs(300);

/// Longest body that nobody has asked for and that is passed over to get at the next request.
///
/// Source: Go 1.26 net/http server.go `maxPostHandlerReadBytes`.
const IGNORED_BYTES_MAX: u64 = 256 << 10;

/// Answers one request.
///
/// Source: etcd v3.7.1 server/etcdserver/api/etcdhttp/peer.go `newPeerHandler`.
pub(super) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    if shared.is_stopped() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "stopped");
    }
    let path = match meant(request.uri()) {
        Meant::Path(path) => path,
        Meant::Elsewhere(location) => return redirect(request.method(), &location),
    };
    let is_ignored = has_long_body(&request) && !is_body_read(request.method(), &path);
    let mut answer = answer_path(shared, &path, request).await;
    if is_ignored {
        close(&mut answer);
    }
    answer
}

async fn answer_path(shared: &Arc<Shared>, path: &str, request: Request<Incoming>) -> Answer {
    match path {
        "/raft" => raft::pipeline(shared, request).await,
        "/raft/snapshot" => snapshot::receive(shared, request).await,
        "/raft/probing" => ask::probing(),
        path if path.starts_with("/raft/stream/") => raft::stream(shared, path, &request),
        "/members" => ask::members(shared, &request),
        "/members/hashkv" => ask::hash_kv(shared, request).await,
        path if path.starts_with(ask::PROMOTE_PREFIX) => ask::promote(shared, path, &request).await,
        "/leases" => ask::renew_lease(shared, request).await,
        "/leases/internal" => ask::time_to_live(shared, request).await,
        "/downgrade/enabled" => ask::downgrade_enabled(shared, &request).await,
        path if path.starts_with(KINDRED_PREFIX) => kindred::exchange(shared, request).await,
        "/version" => ask::version(shared, &request),
        _ => not_found(),
    }
}

/// Says on an answer that the connection ends with it.
pub(super) fn close(answer: &mut Answer) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
}

fn has_long_body(request: &Request<Incoming>) -> bool {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length: u64| length > IGNORED_BYTES_MAX)
}

/// Says whether whoever answers a path looks at the body.
fn is_body_read(method: &Method, path: &str) -> bool {
    match path {
        "/raft" | "/raft/snapshot" | "/leases" | "/leases/internal" => method == Method::POST,
        "/members/hashkv" => method == Method::GET,
        path => path.starts_with(KINDRED_PREFIX),
    }
}

/// Refuses a sender of another cluster or an incompatible version.
pub(super) fn check_sender(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
) -> Result<(), Refused> {
    shared.identity.check(request.headers()).map_err(|refusal| {
        let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
        let (from, cluster) = (text(SERVER_FROM), text(CLUSTER_ID));
        if matches!(refusal, Error::ClusterMismatch) {
            tracing::warn!(
                "remote-peer-server-name" = from,
                "remote-peer-cluster-id" = cluster,
                "request cluster ID mismatch"
            );
        } else {
            tracing::warn!(
                "remote-peer-server-name" = from,
                error = %refusal,
                "failed version compatibility check"
            );
        }
        Box::new(error(StatusCode::PRECONDITION_FAILED, refusal))
    })
}

/// Remembers where a sender is reached, in case it is not known from the log yet.
pub(super) fn remember_sender(shared: &Arc<Shared>, request: &Request<Incoming>) {
    if let Some(id) = id_in(request.headers(), SERVER_FROM) {
        remember(shared, id, request);
    }
}

/// Remembers where a member is reached, if the request says it.
pub(super) fn remember(
    shared: &Arc<Shared>,
    id: quorate_proto::MemberId,
    request: &Request<Incoming>,
) {
    let urls = request.headers().get(PEER_URLS);
    let Some(urls) = urls.and_then(|urls| urls.to_str().ok()) else {
        return;
    };
    let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
    if let Err(error) = add_remote(shared, id, &urls) {
        tracing::debug!("remote-peer-id" = %id, error = %error, "a peer's address is of no use");
    }
}

/// Reads the body of a request that may not be longer than `bytes_max`.
pub(super) async fn read_body(
    shared: &Shared,
    mut body: Incoming,
    bytes_max: usize,
) -> Result<Bytes, Error> {
    let reading = async {
        let mut share = shared.unfinished.share();
        let mut whole = BytesMut::new();
        while let Some(data) = next_data(&mut body, shared.config.read_timeout).await? {
            if whole.len() + data.len() > bytes_max {
                return Err(Error::TooLarge {
                    bytes: (whole.len() + data.len()) as u64,
                    limit: bytes_max as u64,
                });
            }
            share.grow(data.len())?;
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(BODY_TIME_MAX, reading)
        .await
        .unwrap_or(Err(Error::TimedOut("the body does not end")))
}

/// Waits for the next bytes of a body; `None` at its end.
pub(super) async fn next_data(
    body: &mut Incoming,
    silence_max: Duration,
) -> Result<Option<Bytes>, Error> {
    loop {
        let frame = tokio::time::timeout(silence_max, body.frame())
            .await
            .map_err(|_| Error::TimedOut("the body does not go on"))?;
        match frame {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
