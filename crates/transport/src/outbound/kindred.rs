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

/// Topic of questions about leases in batches.
pub(crate) const LEASES: &str = "leases";

/// Longest request and answer.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Questions in a batch.
const QUESTIONS_MAX: usize = 512;

/// Questions that wait for a batch; more are refused.
const QUESTIONS_QUEUED_MAX: usize = 16 << 10;

/// Bytes of a question: what is asked, and the lease.
const QUESTION_BYTES: usize = 9;

/// Bytes of an answer: a code, the seconds left and the seconds granted.
const ANSWER_BYTES: usize = 17;

/// What a leader is asked of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseQuestion {
    /// To renew it.
    Renew(LeaseId),
    /// What is left of it. Its keys are asked for alone: they may be many.
    TimeToLive(LeaseId),
}

/// What is left of a lease, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseSeconds {
    /// Negative once its time is over.
    pub(crate) left: i64,
    /// The same as `left` once it is renewed.
    pub(crate) granted: i64,
}

/// A question that waits, and who waits for its answer.
pub(crate) type LeaseAsked = (LeaseQuestion, oneshot::Sender<Result<LeaseSeconds, Error>>);

/// Makes a queue of questions about leases.
pub(crate) fn lease_queue() -> (mpsc::Sender<LeaseAsked>, mpsc::Receiver<LeaseAsked>) {
    mpsc::channel(QUESTIONS_QUEUED_MAX)
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

/// Asks what is queued about leases, as much at once as waits, until the task is ended.
///
/// # Cancel safety
///
/// Cancelled, the leases of a batch under way may be renewed or not.
pub(crate) async fn run_lease_batches(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut queue: mpsc::Receiver<LeaseAsked>,
) {
    let mut batch: Vec<LeaseAsked> = Vec::new();
    while queue.recv_many(&mut batch, QUESTIONS_MAX).await > 0 {
        // Whoever stopped waiting needs no answer.
        batch.retain(|(_, waiter)| !waiter.is_closed());
        if batch.is_empty() {
            continue;
        }
        let body = write_questions(batch.iter().map(|(question, _)| *question));
        let asked = exchange(&shared, &link, LEASES, body, ANSWER_TIMEOUT).await;
        let answers = asked.and_then(|answers| read_answers(answers, batch.len()));
        match answers {
            Ok(answers) => {
                for ((_, waiter), answer) in batch.drain(..).zip(answers) {
                    let _ = waiter.send(answer);
                }
            }
            Err(error) => {
                tracing::debug!("remote-peer-id" = %link.id, error = %error, "failed to ask about leases");
                for (_, waiter) in batch.drain(..) {
                    let _ = waiter.send(Err(Error::Closed));
                }
            }
        }
    }
}

/// Writes questions about leases.
///
/// **Shape**: for each what is asked (0 to renew, 1 what is left) and the lease, 8 bytes, big-endian.
fn write_questions(questions: impl Iterator<Item = LeaseQuestion>) -> Bytes {
    let mut out = BytesMut::new();
    for question in questions {
        let (what, id) = match question {
            LeaseQuestion::Renew(id) => (0, id),
            LeaseQuestion::TimeToLive(id) => (1, id),
        };
        out.put_u8(what);
        out.put_i64(id.0);
    }
    out.freeze()
}

/// Reads what [`write_questions`] wrote; `None` if these are no questions, or too many.
pub(crate) fn read_questions(mut bytes: Bytes) -> Option<Vec<LeaseQuestion>> {
    let count = bytes.len() / QUESTION_BYTES;
    if !bytes.len().is_multiple_of(QUESTION_BYTES) || count > QUESTIONS_MAX {
        return None;
    }
    let mut read = || {
        let (what, id) = (bytes.get_u8(), LeaseId(bytes.get_i64()));
        match what {
            0 => Some(LeaseQuestion::Renew(id)),
            1 => Some(LeaseQuestion::TimeToLive(id)),
            _ => None,
        }
    };
    (0..count).map(|_| read()).collect()
}

/// Writes the answers to questions about leases, in their order.
///
/// **Shape**: for each a code (0 answered, 1 no such lease, 2 not the leader, 3 not caught up, 4 other) and the seconds left
/// and granted, 8 bytes each, big-endian.
pub(crate) fn write_answers(answers: &[Result<LeaseSeconds, Refusal>]) -> Bytes {
    let mut out = BytesMut::with_capacity(answers.len() * ANSWER_BYTES);
    for answer in answers {
        out.put_u8(match answer {
            Ok(_) => 0,
            Err(Refusal::LeaseNotFound) => 1,
            Err(Refusal::NotPrimary) => 2,
            Err(Refusal::NotCaughtUp) => 3,
            Err(_) => 4,
        });
        let seconds = answer.as_ref().ok();
        out.put_i64(seconds.map_or(0, |s| s.left));
        out.put_i64(seconds.map_or(0, |s| s.granted));
    }
    out.freeze()
}

fn read_answers(mut bytes: Bytes, count: usize) -> Result<Vec<Result<LeaseSeconds, Error>>, Error> {
    if bytes.len() != count * ANSWER_BYTES {
        return Err(Error::Malformed("answers about leases"));
    }
    let mut read = || {
        let code = bytes.get_u8();
        let (left, granted) = (bytes.get_i64(), bytes.get_i64());
        Err(Error::Refused(match code {
            0 => return Ok(LeaseSeconds { left, granted }),
            1 => Refusal::LeaseNotFound,
            2 => Refusal::NotPrimary,
            3 => Refusal::NotCaughtUp,
            _ => Refusal::Other("lease: unknown error".to_owned()),
        }))
    };
    Ok((0..count).map(|_| read()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_about_leases_are_read_as_written() {
        let questions = [
            LeaseQuestion::Renew(LeaseId(7)),
            LeaseQuestion::TimeToLive(LeaseId(-1)),
        ];
        let written = write_questions(questions.into_iter());
        assert_eq!(written[..9], [0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(read_questions(written.clone()).unwrap(), questions);
        assert_eq!(read_questions(Bytes::new()).unwrap(), []);
        for bad in [
            written.slice(1..),
            written.slice(..17),
            Bytes::from_static(&[2; 9]),
        ] {
            assert_eq!(read_questions(bad), None);
        }
        let many = |count| write_questions(std::iter::repeat_n(questions[0], count));
        assert_eq!(
            read_questions(many(QUESTIONS_MAX)).unwrap().len(),
            QUESTIONS_MAX
        );
        assert_eq!(read_questions(many(QUESTIONS_MAX + 1)), None);

        let seconds = LeaseSeconds {
            left: -2,
            granted: 10,
        };
        let refusals = [
            Refusal::LeaseNotFound,
            Refusal::NotPrimary,
            Refusal::NotCaughtUp,
        ];
        let answers: Vec<_> = std::iter::once(Ok(seconds))
            .chain(refusals.iter().cloned().map(Err))
            .collect();
        let written = write_answers(&answers);
        let read = read_answers(written.clone(), 4).unwrap();
        assert!(matches!(&read[0], Ok(s) if *s == seconds));
        for (refusal, answer) in refusals.iter().zip(&read[1..]) {
            assert!(
                matches!(answer, Err(Error::Refused(r)) if r == refusal),
                "{answer:?}"
            );
        }
        assert!(read_answers(written, 3).is_err());
    }
}
