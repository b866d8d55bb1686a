//! Between HTTP/2 and the services: calls as bytes, with no type of an HTTP library in sight.
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::http2::{MessageStream, Reply};
use crate::message::Message;
use crate::metadata::Metadata;
use crate::method::Method;
use crate::send::Gauge;
use crate::status::Status;

/// A result that comes later, on the same thread.
pub type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// The answer to a unary call.
pub enum Answer {
    /// Known at once.
    Now(Result<Message, Status>),
    /// Known later; dropped when the caller goes away first.
    Later(Later<Result<Message, Status>>),
}

impl Answer {
    /// Gives the answer, whenever it comes.
    ///
    /// # Errors
    ///
    /// The status that the call ends with.
    ///
    /// # Cancel safety
    ///
    /// As that of the answer.
    pub async fn wait(self) -> Result<Message, Status> {
        match self {
            Self::Now(answer) => answer,
            Self::Later(later) => later.await,
        }
    }

    /// Makes an answer that comes later.
    pub fn later(future: impl Future<Output = Result<Message, Status>> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

/// An HTTP/1.1 request, without its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, in upper case.
    pub method: Box<str>,
    /// The path, still percent-encoded.
    pub path: Box<str>,
    /// What follows the `?`; empty when nothing does.
    pub query: Box<str>,
    /// The field `Accept`; empty when there is none or it is no text.
    pub accept: Box<str>,
}

/// An HTTP/1.1 response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// Header fields besides the length and the date.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body.
    pub body: Bytes,
}

/// What answers the calls that a connection thread receives. One value serves one thread.
pub trait Service: 'static {
    /// Answers a unary call.
    fn unary(&self, method: Method, metadata: Metadata, body: Bytes) -> Answer;

    /// Serves a call of any other kind until it ends; dropped when the caller goes away first.
    fn stream(
        &self,
        method: Method,
        metadata: Metadata,
        inbound: Inbound,
        outbound: Outbound,
    ) -> Later<Result<(), Status>>;

    /// Answers an HTTP/1.1 request.
    fn http(&self, request: HttpRequest) -> Later<HttpResponse>;

    /// Is told once that the front door closes: calls under way are about to end.
    fn stop(&self);

    /// Is called every tick of the thread's coarse clock.
    fn tick(&self, now_ms: u64);
}

/// The messages of a stream's caller.
#[derive(Debug)]
pub struct Inbound(MessageStream);

impl Inbound {
    pub(crate) fn new(stream: MessageStream) -> Self {
        Self(stream)
    }

    /// Gives the next message, or `None` once the caller has said that there are no more.
    ///
    /// # Errors
    ///
    /// The status that the stream must end with.
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for what [`Inbound::next`] gives.
    ///
    /// # Errors
    ///
    /// The status that the stream must end with.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        self.0.poll_message(cx)
    }

    /// Gives the one message of a call whose caller may send only one.
    ///
    /// # Errors
    ///
    /// The status that the stream must end with.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a message that came may be lost.
    pub async fn only(&mut self) -> Result<Bytes, Status> {
        let first = self.next().await?.ok_or(Status::NO_REQUEST)?;
        match self.next().await? {
            None => Ok(first),
            Some(_) => Err(Status::MANY_REQUESTS),
        }
    }
}

/// The way to a stream's caller, with back pressure.
#[derive(Clone, Debug)]
pub struct Outbound {
    reply: Rc<RefCell<Reply>>,
    gauge: Rc<Gauge>,
    max_bytes: usize,
}

impl Outbound {
    pub(crate) fn new(reply: Rc<RefCell<Reply>>, gauge: Rc<Gauge>, max_bytes: usize) -> Self {
        Self {
            reply,
            gauge,
            max_bytes,
        }
    }

    /// Waits until the caller has taken enough of what was sent, then sends.
    ///
    /// # Errors
    ///
    /// [`Status::CONTEXT_CANCELED`] when the caller is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe: the message is sent whole or not at all.
    pub async fn send(&self, message: Message) -> Result<(), Status> {
        poll_fn(|cx| self.poll_room(cx)).await;
        self.send_now(message)
    }

    /// Becomes ready when there is room for another message; only one task may wait.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.gauge.poll_below(cx, self.max_bytes)
    }

    /// Sends without waiting for room.
    ///
    /// # Errors
    ///
    /// [`Status::CONTEXT_CANCELED`] when the caller is gone.
    pub fn send_now(&self, message: Message) -> Result<(), Status> {
        self.reply.borrow_mut().send(message.check()?, &self.gauge)
    }
}
