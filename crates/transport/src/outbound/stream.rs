//! Reads what a peer writes for us, on a stream that we open.
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::time::Instant;

use super::body::RequestBody;
use super::pool::{Reply, read_whole, request};
use crate::Error;
use crate::codec::{Decoder, StreamKind, Unsealer};
use crate::headers::{CLUSTER_ID, CRC32, RAFT_TO, SERVER_VERSION, checksum_in, seal, version_in};
use crate::link::Link;
use crate::shared::Shared;
use crate::url::PeerUrl;
use crate::version::WITH_STREAMS;

/// Longest text of a refusal that is read.
const REFUSAL_BYTES_MAX: usize = 4096;

/// Keeps a stream from a peer open until the task is ended.
///
/// # Cancel safety
///
/// Cancel safe: the stream is closed.
pub(crate) async fn run_stream(shared: Arc<Shared>, link: Arc<Link>, kind: StreamKind) {
    let shortest = shared.config.redial_interval;
    let longest = (shared.config.election_timeout / 2).max(shortest);
    let mut pause = shortest;
    loop {
        let began = Instant::now();
        match open(&shared, &link, kind).await {
            Ok(Opened {
                sender,
                body,
                sealed,
            }) => {
                pause = shortest;
                link.activate();
                tracing::info!(
                    "stream-reader-type" = kind.name(),
                    "remote-peer-id" = %link.id,
                    "established TCP streaming connection with remote peer"
                );
                let error = read(&shared, &link, kind, body, sealed).await;
                drop(sender);
                tracing::warn!(
                    "stream-reader-type" = kind.name(),
                    "remote-peer-id" = %link.id,
                    error = %error,
                    "lost TCP streaming connection with remote peer"
                );
                // An orderly end says nothing about the peer; the next dial will.
                if !matches!(error, Error::Closed) {
                    link.deactivate("read", kind.name(), &error);
                }
            }
            Err(error) => {
                match error {
                    Error::IncompatibleVersion => tracing::warn!(
                        "remote-peer-id" = %link.id,
                        error = %error,
                        "request sent was ignored by remote peer due to server version incompatibility"
                    ),
                    Error::ClusterMismatch => tracing::warn!(
                        "remote-peer-id" = %link.id,
                        error = %error,
                        "request sent was ignored by remote peer due to cluster ID mismatch"
                    ),
                    _ => {}
                }
                link.deactivate("dial", kind.name(), &error);
            }
        }
        tokio::time::sleep_until(began + pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// A stream that a peer agreed to write.
struct Opened {
    /// Keeps the connection open.
    sender: SendRequest<RequestBody>,
    body: Incoming,
    /// Whether it has checksums.
    sealed: bool,
}

/// Dials the URL whose turn it is and asks for the stream.
async fn open(shared: &Shared, link: &Link, kind: StreamKind) -> Result<Opened, Error> {
    let url = link.picker.pick();
    let opened = tokio::time::timeout(
        shared.config.election_timeout,
        ask(shared, link, kind, &url),
    )
    .await
    .unwrap_or(Err(Error::TimedOut("no stream")));
    if opened.is_err() {
        link.picker.failed(&url);
    }
    opened
}

async fn ask(
    shared: &Shared,
    link: &Link,
    kind: StreamKind,
    url: &PeerUrl,
) -> Result<Opened, Error> {
    let mut headers = shared.identity.request_headers();
    let to = HeaderValue::from_str(&link.id.to_string())
        .map_err(|_| Error::Malformed("id of a member"))?;
    headers.insert(RAFT_TO, to);
    if shared.config.checksums {
        seal(&mut headers, CRC32);
    }
    let path = format!("/raft/stream/{}/{}", kind.path(), shared.identity.member_id);
    let mut sender = shared.pool.dial(url).await?;
    let body = RequestBody::Whole(None);
    let answer = sender
        .send_request(request(url, Method::GET, &path, headers, body)?)
        .await?;
    let (parts, body) = answer.into_parts();
    // Who says no version is taken for one without streams, whatever the status.
    if version_in(&parts.headers, SERVER_VERSION).is_none_or(|version| version < WITH_STREAMS) {
        return Err(Error::IncompatibleVersion);
    }
    let names_other_cluster = parts
        .headers
        .get(CLUSTER_ID)
        .is_some_and(|cluster| *cluster != shared.identity.cluster);
    match parts.status {
        StatusCode::OK => {
            let sealed = match checksum_in(&parts.headers)? {
                Some(value) if *value == CRC32 => true,
                // Without checksums nothing would notice what else is changed.
                None if !link.is_kindred() => false,
                _ => return Err(Error::Malformed("answer of a peer that has checksums")),
            };
            if sealed {
                link.set_kindred();
            }
            Ok(Opened {
                sender,
                body,
                sealed,
            })
        }
        StatusCode::GONE if !names_other_cluster => {
            shared.removed();
            Err(Error::Removed)
        }
        StatusCode::NOT_FOUND => Err(Error::UnknownSender),
        status => {
            let reply = Reply {
                status,
                headers: parts.headers,
                body: read_whole(body, REFUSAL_BYTES_MAX).await?,
            };
            Err(refusal(&reply))
        }
    }
}

/// Reads a refusal that both streams and posts get.
pub(crate) fn refusal(reply: &Reply) -> Error {
    if reply.status != StatusCode::PRECONDITION_FAILED {
        return reply.unexpected();
    }
    match reply.text().as_str() {
        "incompatible version" => Error::IncompatibleVersion,
        "cluster ID mismatch" => Error::ClusterMismatch,
        _ => reply.unexpected(),
    }
}

/// Hands on what comes until the stream breaks; returns why it did.
async fn read(
    shared: &Shared,
    link: &Link,
    kind: StreamKind,
    mut body: Incoming,
    sealed: bool,
) -> Error {
    let mut decoder = Decoder::new(kind, shared.identity.member_id, link.id);
    let mut unsealer = Unsealer::default();
    loop {
        let frame = match next_frame(&mut body, shared.config.read_timeout).await {
            Ok(frame) => frame,
            Err(Error::Closed)
                if !(decoder.is_between_messages() && unsealer.is_between_batches()) =>
            {
                return Error::Malformed("the stream ends inside a message");
            }
            Err(error) => return error,
        };
        link.counters.received_bytes.add(frame.len());
        revive(shared, link);
        let fed = if sealed {
            unsealer.push(&frame);
            unseal(&mut unsealer, &mut decoder)
        } else {
            decoder.push(&frame);
            Ok(())
        };
        // What was whole before the fault is of use still.
        if let Err(error) = deliver(link, &mut decoder).and(fed) {
            return error;
        }
    }
}

/// Takes a link for active again that carries both ways: a post or a snapshot that failed says nothing about streams, which may
/// be newer, and as long as they work nothing else would ever be tried.
///
/// Differs from etcd, whose peer stays inactive then until a stream is opened anew.
fn revive(shared: &Shared, link: &Link) {
    if link.active_since().is_some() {
        return;
    }
    let peers = shared.peers.read();
    let peer = peers.get(&link.id);
    if peer.is_some_and(|peer| peer.standing().streams_open > 0) {
        link.activate();
    }
}

fn unseal(unsealer: &mut Unsealer, decoder: &mut Decoder) -> Result<(), Error> {
    while let Some(batch) = unsealer.next()? {
        decoder.push(&batch);
    }
    Ok(())
}

async fn next_frame(body: &mut Incoming, silence_max: Duration) -> Result<bytes::Bytes, Error> {
    loop {
        let frame = tokio::time::timeout(silence_max, body.frame())
            .await
            .map_err(|_| Error::TimedOut("the stream is silent"))?;
        match frame {
            None => return Err(Error::Closed),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(data);
                }
            }
        }
    }
}

/// Gives all messages that are whole to the member.
fn deliver(link: &Link, decoder: &mut Decoder) -> Result<(), Error> {
    let mut messages = Vec::new();
    let end = loop {
        match decoder.next() {
            Ok(Some(message)) if is_link_heartbeat(&message) => {}
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if !messages.is_empty() && !link.is_paused() {
        let dropped = link.receiver.messages(messages);
        if dropped > 0 {
            link.counters.received_failures.add(dropped);
            tracing::warn!(
                "remote-peer-id" = %link.id,
                dropped,
                "dropped internal Raft message since receiving buffer is full (overloaded network)"
            );
        }
    }
    end
}

fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type() == MessageType::MsgHeartbeat && message.from() == 0 && message.to() == 0
}
