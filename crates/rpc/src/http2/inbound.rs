//! The messages that come in on one stream.
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

use crate::frame::MessageReader;
use crate::method::{Kind, Method};
use crate::send::Permit;
use crate::status::{Code, Status};
use crate::thread::Thread;

/// Reads whole messages from a stream; its window opens only as they are taken.
#[derive(Debug)]
pub(crate) struct MessageStream {
    recv: RecvStream,
    reader: MessageReader,
    thread: Rc<Thread>,
    method: Method,
    unfinished: Permit,
    is_ended: bool,
}

impl MessageStream {
    pub(crate) fn new(recv: RecvStream, is_gzip: bool, method: Method, thread: Rc<Thread>) -> Self {
        let reader = MessageReader::new(thread.options.max_message_bytes(), is_gzip);
        let unfinished = thread.unfinished.hold(0);
        Self {
            recv,
            reader,
            thread,
            method,
            unfinished,
            is_ended: false,
        }
    }

    /// Gives the next message, or `None` after the last.
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.reader.next()? {
                self.unfinished.resize(0);
                self.thread.metrics.received(self.method, message.len());
                return Poll::Ready(Ok(Some(message)));
            }
            self.unfinished.resize(self.reader.unfinished_bytes());
            if self.thread.unfinished.bytes() > self.thread.options.thread_unfinished_max_bytes {
                return Poll::Ready(Err(Status::UNFINISHED_REQUESTS));
            }
            if self.is_ended {
                let end = if self.reader.is_between_messages() {
                    Ok(None)
                } else {
                    Err(self.cut_message())
                };
                return Poll::Ready(end);
            }
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window cannot be left short: what is released was received just now.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    self.reader.push(data);
                }
                Some(Err(_)) => return Poll::Ready(Err(Status::CONTEXT_CANCELED)),
                None => self.is_ended = true,
            }
        }
    }

    /// Gives the message of a unary call; what follows it is not looked at.
    ///
    /// Source: grpc-go v1.82.1 server.go `processUnaryRPC`, which answers once the first message is there.
    pub(crate) fn poll_unary(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        let message = ready!(self.poll_message(cx))?;
        Poll::Ready(message.ok_or(Status::fixed(Code::Unknown, "EOF")))
    }

    fn cut_message(&self) -> Status {
        let code = if self.method.kind() == Kind::Unary {
            Code::Unknown
        } else {
            Code::Internal
        };
        Status::fixed(code, "unexpected EOF")
    }
}
