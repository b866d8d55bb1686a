//! Messages by post, and streams that other members open.
use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use quorate_proto::MemberId;
use quorate_proto::raftpb::Message;

use super::answer::{Answer, Refused, error, method_not_allowed, no_content, stream as begin};
use super::route::{check_sender, close, read_body, remember, remember_sender};
use crate::codec::{StreamKind, decode_message};
use crate::headers::{
    CLUSTER_ID, CRC32, RAFT_TO, SERVER_VERSION, checksum_in, checksum_of, parse_id, seal,
};
use crate::io::Door;
use crate::shared::Shared;

/// Longest message by post. The pipeline is the fallback of the streams; what is longer waits for one.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Takes one message: `POST /raft`.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/http.go `pipelineHandler`.
pub(super) async fn pipeline(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    if request.method() != Method::POST {
        return method_not_allowed(Some("POST"));
    }
    let mut answer = match check_sender(shared, &request) {
        Ok(()) => take_message(shared, request).await,
        Err(refused) => *refused,
    };
    let headers = answer.headers_mut();
    headers.insert(CLUSTER_ID, shared.identity.cluster.clone());
    answer
}

async fn take_message(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    remember_sender(shared, &request);
    let checksum = checksum_in(request.headers()).map(Option::<&HeaderValue>::cloned);
    let body = match read_body(shared, request.into_body(), MESSAGE_BYTES_MAX).await {
        Ok(body) => body,
        Err(cause) => {
            tracing::warn!(error = %cause, "failed to read Raft message");
            shared.registry.of_sender(None).received_failures.add(1);
            return error(StatusCode::BAD_REQUEST, "error reading raft message");
        }
    };
    let is_whole = |from: MemberId| match &checksum {
        Ok(Some(checksum)) => *checksum == checksum_of(&body),
        Ok(None) => !is_kindred(shared, from),
        Err(_) => false,
    };
    let Some(message) = decode_message(&body, MESSAGE_BYTES_MAX)
        .ok()
        .filter(|message| is_whole(MemberId(message.from())))
    else {
        tracing::warn!("failed to unmarshal Raft message");
        shared.registry.of_sender(None).received_failures.add(1);
        return error(StatusCode::BAD_REQUEST, "error unmarshalling raft message");
    };
    let from = MemberId(message.from());
    let counters = shared.registry.of_sender(Some(from));
    counters.received_bytes.add(body.len());
    if check_message(shared, &message).is_ok() {
        if is_paused(shared, from) || shared.receiver.messages(vec![message]) == 0 {
            return no_content();
        }
        counters.received_failures.add(1);
    }
    let text = "error processing raft message";
    let mut refused = error(StatusCode::INTERNAL_SERVER_ERROR, text);
    close(&mut refused);
    refused
}

/// Refuses messages of removed members, and those that are for another member; says why.
///
/// That is no 403, though etcd's code means it to be: the binary says 500 for whatever a member cannot process. Who was removed
/// is told so on its streams.
///
/// Source: etcd v3.7.1 server/etcdserver/server.go `Process`, api/rafthttp/http.go `writerToResponse`.
pub(super) fn check_message(shared: &Shared, message: &Message) -> Result<(), &'static str> {
    let from = MemberId(message.from());
    if shared.service.is_removed(from) {
        tracing::warn!("removed-member-id" = %from, "rejected Raft message from removed member");
        return Err("cannot process message from removed member");
    }
    if MemberId(message.to()) != shared.identity.member_id {
        tracing::warn!(
            "mismatch-member-id" = %MemberId(message.to()),
            "rejected Raft message to mismatch member"
        );
        return Err("cannot process message to mismatch member");
    }
    Ok(())
}

fn refuse(status: StatusCode, text: &str) -> Refused {
    Box::new(error(status, text))
}

/// Tells whether messages of a peer are dropped for a test.
pub(super) fn is_paused(shared: &Shared, from: MemberId) -> bool {
    let peers = shared.peers.read();
    peers.get(&from).is_some_and(|peer| peer.link.is_paused())
}

/// Tells whether a peer has said that it has checksums; without one, something has been changed on the way. So it has when the
/// sender is nobody who is known while all who are have them: its id may be what was changed.
pub(super) fn is_kindred(shared: &Shared, from: MemberId) -> bool {
    let peers = shared.peers.read();
    let all = || !peers.is_empty() && peers.values().all(|peer| peer.link.is_kindred());
    let known = peers.get(&from).map(|peer| peer.link.is_kindred());
    shared.config.checksums && known.unwrap_or_else(all)
}

/// Begins a stream to the member that asks: `GET /raft/stream/KIND/ID`.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/http.go `streamHandler`.
pub(super) fn stream(shared: &Arc<Shared>, path: &str, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return method_not_allowed(Some("GET"));
    }
    // Whoever gets no version takes us for one without streams, and does not look at the status.
    let mut answer = check_sender(shared, request)
        .and_then(|()| begin_stream(shared, path, request))
        .unwrap_or_else(|refused| *refused);
    let headers = answer.headers_mut();
    headers.insert(SERVER_VERSION, shared.identity.server_version.clone());
    headers.insert(CLUSTER_ID, shared.identity.cluster.clone());
    answer
}

fn begin_stream(
    shared: &Arc<Shared>,
    path: &str,
    request: &Request<Incoming>,
) -> Result<Answer, Refused> {
    let rest = path.strip_prefix("/raft/stream/").unwrap_or(path);
    let kinds = [StreamKind::MsgApp, StreamKind::Message];
    let asked = rest.split_once('/').and_then(|(name, id)| {
        let kind = kinds.into_iter().find(|kind| kind.path() == name)?;
        (!id.contains('/')).then_some((kind, id))
    });
    let Some((kind, id)) = asked else {
        return Err(refuse(StatusCode::NOT_FOUND, "invalid path"));
    };
    let Some(from) = parse_id(id) else {
        tracing::warn!(path, "failed to parse path into ID");
        return Err(refuse(StatusCode::NOT_FOUND, "invalid from"));
    };
    if shared.service.is_removed(from) {
        tracing::warn!(
            "remote-peer-id-from" = %from,
            "rejected stream from remote peer because it was removed"
        );
        return Err(refuse(StatusCode::GONE, "removed member"));
    }
    let Some(peer) = shared.peers.read().get(&from).cloned() else {
        remember(shared, from, request);
        tracing::warn!("remote-peer-id-from" = %from, "failed to find remote peer in cluster");
        return Err(refuse(StatusCode::NOT_FOUND, "error sender not found"));
    };
    let to = request.headers().get(RAFT_TO);
    if to.map(HeaderValue::as_bytes) != Some(shared.identity.member_id.to_string().as_bytes()) {
        tracing::warn!(
            "remote-peer-id-header" = ?to,
            "remote-peer-id-from" = %from,
            "ignored streaming request; ID mismatch"
        );
        return Err(refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch"));
    }
    let asked = checksum_in(request.headers());
    let sealed = shared.config.checksums && matches!(asked, Ok(Some(value)) if *value == CRC32);
    if asked.is_err() || !sealed && is_kindred(shared, from) {
        return Err(refuse(StatusCode::BAD_REQUEST, "stream without checksums"));
    }
    // Older versions know no chunks.
    let is_chunked = request.version() == Version::HTTP_11;
    let door = request.extensions().get::<Arc<Door>>();
    let door = door.filter(|_| is_chunked).cloned();
    let lane = peer.lane(kind);
    let body = lane.attach(&shared.config, sealed, door);
    let mut answer = begin(body);
    if sealed {
        // Nobody else asks for them; what is sent next, a snapshot above all, need not find out for itself.
        peer.link.set_takes_checksums();
        seal(answer.headers_mut(), CRC32);
    }
    Ok(answer)
}
