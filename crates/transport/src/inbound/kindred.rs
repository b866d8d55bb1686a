//! Requests that only members of our own kind make.
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, Bytes};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use quorate_proto::LeaseId;

use super::answer::{Answer as HttpAnswer, error, method_not_allowed, whole};
use super::route::{check_sender, read_body};
use crate::headers::{CHECKSUM, checksum_of, checksum_of_request};
use crate::outbound::{BODY_BYTES_MAX, KINDRED_PREFIX, LEASES, RENEWALS_MAX, write_renewed};
use crate::shared::Shared;
use crate::{Answer, Refusal};

/// Answers `POST /quorate/TOPIC`.
pub(super) async fn exchange(shared: &Arc<Shared>, request: Request<Incoming>) -> HttpAnswer {
    if request.method() != Method::POST {
        return method_not_allowed(Some("POST"));
    }
    if let Err(refused) = check_sender(shared, &request) {
        return *refused;
    }
    let path = request.uri().path();
    let topic = path.strip_prefix(KINDRED_PREFIX).unwrap_or_default();
    let topic = topic.to_owned();
    let checksum = request.headers().get(CHECKSUM).cloned();
    let body = match read_body(shared, request.into_body(), BODY_BYTES_MAX).await {
        Ok(body) if checksum == Some(checksum_of_request(&topic, &body)) => body,
        _ => return error(StatusCode::BAD_REQUEST, "error reading body"),
    };
    let answered = if topic == LEASES {
        renew(shared, body).await
    } else {
        shared.service.exchange(topic, body).await
    };
    match answered {
        Ok(body) => {
            let checksum = checksum_of(&body);
            let mut answer = whole(StatusCode::OK, "application/octet-stream", body);
            answer.headers_mut().insert(CHECKSUM, checksum);
            answer
        }
        Err(refusal) => error(StatusCode::CONFLICT, refusal),
    }
}

/// Renews leases, all at once.
async fn renew(shared: &Arc<Shared>, mut ids: Bytes) -> Result<Bytes, Refusal> {
    if !ids.len().is_multiple_of(8) || ids.len() / 8 > RENEWALS_MAX {
        return Err(Refusal::Other("malformed list of leases".to_owned()));
    }
    let mut asked = Vec::with_capacity(ids.len() / 8);
    while ids.has_remaining() {
        asked.push(shared.service.renew_lease(LeaseId(ids.get_i64())));
    }
    Ok(write_renewed(&all(asked).await))
}

/// Waits for all answers at the same time.
async fn all<T: Unpin>(mut waiting: Vec<Answer<T>>) -> Vec<T> {
    let mut answers: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut is_ready = true;
        for (answer, asked) in answers.iter_mut().zip(&mut waiting) {
            if answer.is_none() {
                match asked.as_mut().poll(cx) {
                    Poll::Ready(value) => *answer = Some(value),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}
