//! Requests that only members of our own kind understand: they go to no other.
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{Method, StatusCode};
use quorate_proto::LeaseId;
use tokio::sync::{mpsc, oneshot};

use super::pool::Call;
use crate::config::ANSWER_TIMEOUT;
use crate::headers::{CHECKSUM, checksum_of, checksum_of_request};
use crate::link::Link;
use crate::shared::Shared;
use crate::{Error, Refusal};

/// Path of such a request, before its topic.
pub(crate) const PREFIX: &str = "/quorate/";

/// Topic of renewals in batches.
pub(crate) const LEASES: &str = "leases";

/// Longest request and answer.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Renewals in a batch.
pub(crate) const RENEWALS_MAX: usize = 512;

/// Renewals that wait for a batch; more are refused.
const RENEWALS_QUEUED_MAX: usize = 16 << 10;

/// Bytes of a renewal's answer: a code and the time to live.
const RENEWED_BYTES: usize = 9;

/// A renewal that waits, and who waits for it.
pub(crate) type Renewal = (LeaseId, oneshot::Sender<Result<i64, Error>>);

/// Makes a queue of renewals.
pub(crate) fn renewals() -> (mpsc::Sender<Renewal>, mpsc::Receiver<Renewal>) {
    mpsc::channel(RENEWALS_QUEUED_MAX)
}

/// Asks a peer of our kind.
///
/// # Errors
///
/// [`Error::Refused`] if the peer is not known to be of our kind, or refuses.
///
/// # Cancel safety
///
/// Cancelled, the request may have had its effect or not.
pub(crate) async fn exchange(
    shared: &Shared,
    link: &Link,
    topic: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, Error> {
    if !link.is_kindred() {
        let text = "the member does not know this request".to_owned();
        return Err(Refusal::Other(text).into());
    }
    let mut headers = shared.identity.request_headers();
    headers.insert(CHECKSUM, checksum_of_request(topic, &body));
    let call = Call {
        method: Method::POST,
        path: format!("{PREFIX}{topic}"),
        headers,
        body,
        repeatable: true,
        time_max: timeout,
        answer_bytes_max: BODY_BYTES_MAX,
    };
    let reply = shared.pool.call(&link.picker.pick(), &call).await?;
    match reply.status {
        StatusCode::OK if reply.headers.get(CHECKSUM) == Some(&checksum_of(&reply.body)) => {
            Ok(reply.body)
        }
        StatusCode::OK => Err(Error::Malformed("checksum of an answer")),
        StatusCode::CONFLICT => Err(Refusal::Other(reply.text()).into()),
        _ => Err(reply.unexpected()),
    }
}

/// Renews what is queued, as many leases at once as wait, until the task is ended.
///
/// # Cancel safety
///
/// Cancelled, the leases of a batch under way may be renewed or not.
pub(crate) async fn run_renewals(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut queue: mpsc::Receiver<Renewal>,
) {
    let mut batch: Vec<Renewal> = Vec::new();
    while queue.recv_many(&mut batch, RENEWALS_MAX).await > 0 {
        // Whoever stopped waiting needs no answer.
        batch.retain(|(_, waiter)| !waiter.is_closed());
        let mut body = BytesMut::with_capacity(batch.len() * 8);
        batch.iter().for_each(|(id, _)| body.put_i64(id.0));
        let asked = exchange(&shared, &link, LEASES, body.freeze(), ANSWER_TIMEOUT).await;
        let answers = asked.and_then(|answers| read_renewed(answers, batch.len()));
        match answers {
            Ok(answers) => {
                for ((_, waiter), answer) in batch.drain(..).zip(answers) {
                    let _ = waiter.send(answer);
                }
            }
            Err(error) => {
                tracing::debug!("remote-peer-id" = %link.id, error = %error, "failed to renew leases");
                for (_, waiter) in batch.drain(..) {
                    let _ = waiter.send(Err(Error::Closed));
                }
            }
        }
    }
}

/// Writes the answers to renewals, in their order.
///
/// **Shape**: for each a code (0 renewed, 1 no such lease, 2 not the leader, 3 not caught up, 4 other) and the time to live in
/// seconds, 8 bytes, big-endian.
pub(crate) fn write_renewed(answers: &[Result<i64, Refusal>]) -> Bytes {
    let mut out = BytesMut::with_capacity(answers.len() * RENEWED_BYTES);
    for answer in answers {
        out.put_u8(match answer {
            Ok(_) => 0,
            Err(Refusal::LeaseNotFound) => 1,
            Err(Refusal::NotPrimary) => 2,
            Err(Refusal::NotCaughtUp) => 3,
            Err(_) => 4,
        });
        out.put_i64(*answer.as_ref().unwrap_or(&0));
    }
    out.freeze()
}

fn read_renewed(mut bytes: Bytes, count: usize) -> Result<Vec<Result<i64, Error>>, Error> {
    if bytes.len() != count * RENEWED_BYTES {
        return Err(Error::Malformed("answers about leases"));
    }
    let mut read = || {
        let code = bytes.get_u8();
        let ttl = bytes.get_i64();
        Err(Error::Refused(match code {
            0 => return Ok(ttl),
            1 => Refusal::LeaseNotFound,
            2 => Refusal::NotPrimary,
            3 => Refusal::NotCaughtUp,
            _ => Refusal::Other("lease: unknown error".to_owned()),
        }))
    };
    Ok((0..count).map(|_| read()).collect())
}
