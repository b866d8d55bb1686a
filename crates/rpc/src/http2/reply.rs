//! The way back to a caller: header, messages, trailers.
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::SendStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::message::Message;
use crate::metadata::encode_grpc_message;
use crate::method::Method;
use crate::send::{Gauge, SendBuf};
use crate::status::{Code, Status};
use crate::thread::Thread;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

#[derive(Debug)]
enum Side {
    /// Nothing was sent.
    Fresh(SendResponse<SendBuf>),
    /// The header was sent.
    Open(SendStream<SendBuf>),
    /// Nothing more can be sent.
    Ended,
}

/// One call's answer as it goes out.
#[derive(Debug)]
pub(crate) struct Reply {
    side: Side,
    content_type: HeaderValue,
    method: Method,
    thread: Rc<Thread>,
}

impl Reply {
    pub(crate) fn new(
        respond: SendResponse<SendBuf>,
        content_type: HeaderValue,
        method: Method,
        thread: Rc<Thread>,
    ) -> Self {
        Self {
            side: Side::Fresh(respond),
            content_type,
            method,
            thread,
        }
    }

    /// Sends one message, and the header before the first.
    pub(crate) fn send(&mut self, message: Message, gauge: &Rc<Gauge>) -> Result<(), Status> {
        if let Side::Fresh(respond) = &mut self.side {
            let header = header(StatusCode::OK, self.content_type.clone());
            match respond.send_response(header, false) {
                Ok(stream) => self.side = Side::Open(stream),
                Err(_) => self.side = Side::Ended,
            }
        }
        let Side::Open(stream) = &mut self.side else {
            return Err(Status::CONTEXT_CANCELED);
        };
        let (count, len) = (message.count(), message.body_len());
        stream
            .send_data(SendBuf::new(message, gauge), false)
            .map_err(|_| Status::CONTEXT_CANCELED)?;
        self.thread.metrics.sent(self.method, count, len);
        Ok(())
    }

    /// Ends the call.
    pub(crate) fn finish(&mut self, end: Result<(), Status>) {
        let code = end.as_ref().err().map_or(Code::Ok, Status::code);
        self.thread.metrics.handled(self.method, code);
        match std::mem::replace(&mut self.side, Side::Ended) {
            // Failing here means that the caller is gone, which is no news to anyone.
            Side::Fresh(respond) => {
                let _ = send_trailers_only(
                    respond,
                    StatusCode::OK,
                    self.content_type.clone(),
                    end.err().as_ref(),
                );
            }
            Side::Open(mut stream) => {
                let mut trailers = HeaderMap::with_capacity(2);
                put_status(&mut trailers, end.err().as_ref());
                let _ = stream.send_trailers(trailers);
            }
            Side::Ended => {}
        }
    }

    /// Becomes ready when the caller has reset the stream or the connection is gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.side {
            Side::Fresh(respond) => respond.poll_reset(cx).map(|_| ()),
            Side::Open(stream) => stream.poll_reset(cx).map(|_| ()),
            Side::Ended => Poll::Ready(()),
        }
    }

    /// Counts a call whose caller left.
    pub(crate) fn abandon(&mut self) {
        self.thread.metrics.handled(self.method, Code::Canceled);
        self.side = Side::Ended;
    }
}

fn header(status: StatusCode, content_type: HeaderValue) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn put_status(headers: &mut HeaderMap, error: Option<&Status>) {
    let code = error.map_or(Code::Ok, Status::code);
    headers.insert(GRPC_STATUS, HeaderValue::from_static(code.text()));
    if let Some(error) = error {
        let message = encode_grpc_message(error.message());
        let value = HeaderValue::from_str(&message).expect("an encoded message is printable ASCII");
        headers.insert(GRPC_MESSAGE, value);
    }
}

/// Answers with a single header that is the end as well.
pub(crate) fn send_trailers_only(
    mut respond: SendResponse<SendBuf>,
    status: StatusCode,
    content_type: HeaderValue,
    error: Option<&Status>,
) -> Result<(), h2::Error> {
    let mut response = header(status, content_type);
    put_status(response.headers_mut(), error);
    respond.send_response(response, true).map(|_| ())
}
