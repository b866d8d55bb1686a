//! Answers, as Go's HTTP server writes them.
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};

use crate::codec::Chunks;
use crate::lane::StreamBody;

pub(super) type Answer = Response<AnswerBody>;

/// An answer instead of what was wanted.
pub(super) type Refused = Box<Answer>;

const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// What an answer carries.
pub(crate) enum AnswerBody {
    /// Bytes with their length.
    Whole(Option<Bytes>),
    /// Messages, until the link ends.
    Stream(StreamBody),
}

impl Body for AnswerBody {
    type Data = Chunks;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunks>, Infallible>>> {
        match self.get_mut() {
            AnswerBody::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|b| Ok(Frame::data(Chunks::from(b)))))
            }
            AnswerBody::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Buf::remaining) as u64)
            }
            AnswerBody::Stream(_) => SizeHint::default(),
        }
    }
}

fn answer(status: StatusCode, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

/// An answer with a body of a content type.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let body = AnswerBody::Whole(Some(body.into()).filter(|body: &Bytes| !body.is_empty()));
    let mut answer = answer(status, body);
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// An error in words; a line feed follows.
pub(super) fn error(status: StatusCode, text: impl std::fmt::Display) -> Answer {
    let mut answer = whole(status, "text/plain; charset=utf-8", format!("{text}\n"));
    let no_sniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(NO_SNIFF, no_sniff);
    answer
}

/// The answer to a path that is not served.
pub(super) fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// The answer to a method that is not served.
pub(super) fn method_not_allowed(allowed: Option<&'static str>) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Some(allowed) = allowed {
        let allowed = HeaderValue::from_static(allowed);
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

/// Success without a word.
pub(super) fn no_content() -> Answer {
    answer(StatusCode::NO_CONTENT, AnswerBody::Whole(None))
}

/// The begin of a stream.
pub(super) fn stream(body: StreamBody) -> Answer {
    answer(StatusCode::OK, AnswerBody::Stream(body))
}
