//! Answers, as Go's HTTP server writes them.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
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
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Chunks>>>> {
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

/// Sends the client to another path, which holds no byte that has a meaning in a header.
pub(super) fn redirect(method: &Method, location: &str) -> Answer {
    let status = StatusCode::TEMPORARY_REDIRECT;
    let mut answer = if method == Method::GET || method == Method::HEAD {
        let mut link = String::new();
        for c in location.chars() {
            match c {
                '&' => link.push_str("&amp;"),
                '<' => link.push_str("&lt;"),
                '>' => link.push_str("&gt;"),
                '"' => link.push_str("&#34;"),
                '\'' => link.push_str("&#39;"),
                other => link.push(other),
            }
        }
        let text = format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n");
        whole(status, "text/html; charset=utf-8", text)
    } else {
        answer(status, AnswerBody::Whole(None))
    };
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(LOCATION, location);
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
