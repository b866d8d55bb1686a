//! Requests that only members of our own kind make.
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::answer::{Answer as HttpAnswer, error, method_not_allowed, whole};
use super::route::{check_sender, read_body};
use crate::headers::{CHECKSUM, checksum_of, checksum_of_request};
use crate::outbound::{
    BODY_BYTES_MAX, KINDRED_PREFIX, LEASES, LeaseQuestion, LeaseSeconds, read_questions,
    write_answers,
};
use crate::shared::Shared;
use crate::{Answer, Refusal, Service};

/// Longest wait for a renewal in a batch: a little longer than for what is committed to be applied.
const RENEWAL_TIME_MAX: Duration = Duration::from_millis(1_500);

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
        answer_questions(shared, body).await
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

/// Answers questions about leases, all at once.
async fn answer_questions(shared: &Arc<Shared>, body: Bytes) -> Result<Bytes, Refusal> {
    let Some(questions) = read_questions(body) else {
        return Err(Refusal::Other(
            "malformed questions about leases".to_owned(),
        ));
    };
    let ask = |question: LeaseQuestion| answer_question(&*shared.service, question);
    let answers = all(questions.into_iter().map(ask).collect()).await;
    Ok(write_answers(&answers))
}

/// Answers a question about a lease, or says after some time that it is to be asked again: the renewal of a lease whose time is
/// over waits until it is revoked, and others in its batch must not.
fn answer_question(
    service: &dyn Service,
    question: LeaseQuestion,
) -> Answer<Result<LeaseSeconds, Refusal>> {
    match question {
        LeaseQuestion::Renew(id) => {
            let renewing = service.renew_lease(id);
            Box::pin(async move {
                let renewed = tokio::time::timeout(RENEWAL_TIME_MAX, renewing).await;
                let ttl_s = renewed
                    .map_err(|_| Refusal::Other("lease: not answered in time".to_owned()))??;
                Ok(LeaseSeconds {
                    left: ttl_s,
                    granted: ttl_s,
                })
            })
        }
        LeaseQuestion::TimeToLive(id) => {
            let asked = service.seconds_left(id);
            Box::pin(async move {
                let lease = asked.await?;
                Ok(LeaseSeconds {
                    left: lease.ttl_s,
                    granted: lease.granted_ttl_s,
                })
            })
        }
    }
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
