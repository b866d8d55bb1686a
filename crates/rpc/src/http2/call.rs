//! One call from its header to its trailers, as a future polled inside the connection's task.
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{MessageStream, Reply, slow};
use crate::deadline::Deadline;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::method::{Kind, Method};
use crate::metrics::CallStart;
use crate::seam::{Answer, Later, Service};
use crate::send::Gauge;
use crate::status::Status;
use crate::thread::{StreamGuard, Thread};

/// A call under way; ready when nothing more is to be done for it.
pub(crate) enum Call<S> {
    Unary(Box<Unary<S>>),
    Stream(Box<Stream>),
}

impl<S: Service> Future for Call<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Unary(unary) => unary.poll(cx),
            Self::Stream(stream) => stream.poll(cx),
        }
    }
}

impl<S> Call<S> {
    /// Ends a call that would not end by itself; the others go on.
    pub(crate) fn stop(&mut self) {
        if let Self::Stream(stream) = self {
            stream.stop();
        }
    }
}

/// What every kind of call has.
pub(crate) struct Base {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) thread: StreamGuard,
}

impl Base {
    /// Remembers when the call began.
    fn started(&self) -> CallStart {
        self.thread.metrics.call_started(self.thread.now_ms.get())
    }

    /// Counts how long the call took; gives it when it is to be reported.
    fn ended(&self, method: Method, started: CallStart) -> Option<std::time::Duration> {
        let Thread { clock, now_ms, .. } = &**self.thread;
        self.thread
            .metrics
            .call_ended(method, started, now_ms.get(), *clock)
    }

    fn is_due(&self, cx: &Context<'_>) -> bool {
        self.deadline
            .as_ref()
            .is_some_and(|d| d.is_due(self.thread.now_ms.get(), cx.waker()))
    }
}

enum Step {
    Receiving(MessageStream),
    Handling(Later<Result<Message, Status>>),
    Done,
}

/// A call with one message each way.
pub(crate) struct Unary<S> {
    base: Base,
    service: Rc<S>,
    method: Method,
    metadata: Metadata,
    reply: Reply,
    unsent: Rc<Gauge>,
    step: Step,
    started: CallStart,
    /// The request, where it is wanted when the call turns out slow.
    request: Bytes,
}

impl<S: Service> Unary<S> {
    pub(crate) fn new(
        base: Base,
        service: Rc<S>,
        (method, metadata): (Method, Metadata),
        inbound: MessageStream,
        reply: Reply,
        unsent: Rc<Gauge>,
    ) -> Self {
        let started = base.started();
        Self {
            started,
            request: Bytes::new(),
            base,
            service,
            method,
            metadata,
            reply,
            unsent,
            step: Step::Receiving(inbound),
        }
    }

    /// Goes as far as it can; the same as polling the future, before it is boxed and queued.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let answer = match &mut self.step {
                Step::Receiving(inbound) => match inbound.poll_unary(cx) {
                    Poll::Ready(Ok(body)) => match self.handle(body) {
                        Answer::Now(result) => Poll::Ready(result),
                        Answer::Later(future) => {
                            self.step = Step::Handling(future);
                            continue;
                        }
                    },
                    Poll::Ready(Err(status)) => Poll::Ready(Err(status)),
                    Poll::Pending => Poll::Pending,
                },
                Step::Handling(future) => future.as_mut().poll(cx),
                Step::Done => return Poll::Ready(()),
            };
            return match answer {
                Poll::Ready(result) => self.answer(result),
                Poll::Pending if self.base.is_due(cx) => {
                    self.answer(Err(Status::CONTEXT_DEADLINE_EXCEEDED))
                }
                Poll::Pending if self.reply.poll_gone(cx).is_ready() => {
                    self.step = Step::Done;
                    self.reply.abandon();
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn handle(&mut self, body: Bytes) -> Answer {
        if slow::keeps_request(self.method) {
            self.request = body.clone();
        }
        self.service
            .unary(self.method, std::mem::take(&mut self.metadata), body)
    }

    fn answer(&mut self, result: Result<Message, Status>) -> Poll<()> {
        // The stream and the handler go first, so that nothing of them outlives the answer.
        self.step = Step::Done;
        if let Some(took) = self.base.ended(self.method, self.started) {
            let metrics = &self.base.thread.metrics;
            slow::report(metrics, took, self.method, &self.request, &result);
        }
        let checked = result.and_then(Message::check);
        match checked.and_then(|message| self.reply.send(message, &self.unsent)) {
            Ok(()) => self.reply.finish(Ok(())),
            Err(status) => self.reply.finish(Err(status)),
        }
        Poll::Ready(())
    }
}

/// A call of any other kind.
pub(crate) struct Stream {
    base: Base,
    reply: Rc<RefCell<Reply>>,
    handler: Option<Later<Result<(), Status>>>,
    method: Method,
    started: CallStart,
}

impl Stream {
    pub(crate) fn new(
        base: Base,
        method: Method,
        reply: Rc<RefCell<Reply>>,
        handler: Later<Result<(), Status>>,
    ) -> Self {
        let started = base.started();
        Self {
            base,
            reply,
            handler: Some(handler),
            method,
            started,
        }
    }

    /// Ends a conversation; what only answers one request goes on to its end.
    fn stop(&mut self) {
        if self.method.kind() == Kind::BidiStream && self.handler.take().is_some() {
            let _ = self.base.ended(self.method, self.started);
            self.reply.borrow_mut().finish(Err(Status::STOPPED));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(handler) = &mut self.handler else {
            return Poll::Ready(());
        };
        let end = match handler.as_mut().poll(cx) {
            Poll::Ready(end) => Some(end),
            Poll::Pending if self.base.is_due(cx) => Some(Err(Status::CONTEXT_DEADLINE_EXCEEDED)),
            Poll::Pending if self.reply.borrow_mut().poll_gone(cx).is_ready() => None,
            Poll::Pending => return Poll::Pending,
        };
        self.handler = None;
        // Streams are as long as their callers like: their time is kept and never told of.
        let _ = self.base.ended(self.method, self.started);
        let mut reply = self.reply.borrow_mut();
        match end {
            Some(end) => reply.finish(end),
            None => reply.abandon(),
        }
        Poll::Ready(())
    }
}
