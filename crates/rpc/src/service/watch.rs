//! The service `Watch`: one stream's requests into the thread's hub, the hub's answers out to the stream.
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{self, Poll};
use std::time::Instant;

use bytes::Bytes;
use quorate_auth::Operation;
use quorate_mvcc::{StreamId, WatchCreate, WatchResponse};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;

use super::context::{Context, decode};
use crate::encode;
use crate::metadata::Metadata;
use crate::metrics::{StreamApi, WatchSent};
use crate::seam::{Inbound, Outbound};
use crate::status::{Code, Status};

/// The most bytes of answers taken from the hub at one time, so that many streams share the thread.
const TAKE_MAX_BYTES: usize = 128 * 1024;

/// How many turns a stream takes before others get theirs.
const TURNS_MAX: usize = 64;

/// A stream of the hub; closed when dropped.
struct Stream {
    context: Rc<Context>,
    id: StreamId,
    metadata: Metadata,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.watch.close(self.id);
    }
}

/// Serves one stream until its caller resets it. A caller that sends no more keeps getting events.
pub(super) async fn serve(
    context: Rc<Context>,
    metadata: Metadata,
    mut inbound: Inbound,
    outbound: Outbound,
) -> Result<(), Status> {
    let id = context.watch.hub.borrow_mut().open_stream(context.now_ms());
    let stream = Stream {
        context,
        id,
        metadata,
    };
    let mut is_ended = false;
    loop {
        let request = poll_fn(|cx| stream.poll(cx, &mut inbound, &outbound, &mut is_ended)).await?;
        stream.handle(request).await?;
    }
}

impl Stream {
    /// Sends what there is to send; ready when the caller wants something.
    fn poll(
        &self,
        cx: &mut task::Context<'_>,
        inbound: &mut Inbound,
        outbound: &Outbound,
        is_ended: &mut bool,
    ) -> Poll<Result<Bytes, Status>> {
        self.context.watch.wait(self.id, cx.waker());
        for _ in 0..TURNS_MAX {
            let sent = self.send(cx, outbound)?;
            let has_room = self.context.watch.hub.borrow().has_room(self.id);
            if !*is_ended && has_room {
                match inbound
                    .poll_next(cx)
                    .map_err(|status| self.failed(false, status))?
                {
                    Poll::Ready(Some(request)) => return Poll::Ready(Ok(request)),
                    Poll::Ready(None) => *is_ended = true,
                    Poll::Pending => {}
                }
            }
            if !sent {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends answers as far as the caller takes them; says whether there were any.
    fn send(&self, cx: &mut task::Context<'_>, outbound: &Outbound) -> Result<bool, Status> {
        if outbound.poll_room(cx).is_pending() {
            return Ok(false);
        }
        let responses = self
            .context
            .watch
            .hub
            .borrow_mut()
            .take(self.id, TAKE_MAX_BYTES);
        if responses.is_empty() {
            return Ok(false);
        }
        let started = Instant::now();
        outbound
            .send_now(encode::watch(self.context.header(0), &responses))
            .map_err(|status| self.failed(true, status))?;
        let metrics = &self.context.metrics;
        metrics.watch_sent(count(&responses), started.elapsed());
        // Watchers that waited for room can go on.
        self.context.watch.nudge();
        Ok(true)
    }

    /// Counts a stream that failed, unless its caller left, and returns what it ends with.
    fn failed(&self, is_send: bool, status: Status) -> Status {
        if status.code() != Code::Canceled {
            self.context
                .metrics
                .stream_failed(StreamApi::Watch, is_send);
        }
        canceled(status)
    }

    async fn handle(&self, request: Bytes) -> Result<(), Status> {
        let request: pb::WatchRequest = decode(request)?;
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.context
                    .watch
                    .hub
                    .borrow_mut()
                    .cancel(self.id, cancel.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.context
                    .watch
                    .hub
                    .borrow_mut()
                    .request_progress(self.id);
            }
            // Unknown requests are ignored, as etcd does.
            None => {}
        }
        self.context.watch.nudge();
        Ok(())
    }

    /// Creates a watcher, or refuses it in the stream.
    ///
    /// A negative start revision is refused before permissions are looked at.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/api/v3rpc/watch.go `recvLoop`.
    async fn create(&self, request: pb::WatchCreateRequest) {
        if request.start_revision >= 0
            && let Err(status) = self.permit(&request).await
        {
            let reason = refusal(status).to_string();
            return self.context.watch.hub.borrow_mut().refuse(self.id, reason);
        }
        self.context
            .watch
            .hub
            .borrow_mut()
            .create(self.id, WatchCreate::from(request));
    }

    async fn permit(&self, request: &pb::WatchCreateRequest) -> Result<(), Status> {
        let identity = self.context.identity(&self.metadata).await?;
        self.context.gate(&identity, &Operation::Watch(request))
    }
}

/// Counts what responses hold.
fn count(responses: &[WatchResponse]) -> WatchSent {
    let mut sent = WatchSent::default();
    for response in responses {
        if response.created || response.canceled {
            sent.control += 1;
        } else if response.events.is_empty() {
            sent.progress += 1;
        } else {
            sent.responses += 1;
            sent.events += response.events.len() as u64;
        }
    }
    sent
}

/// Returns the status whose text goes into the refusal; every failure but three is a denied permission.
fn refusal(status: Status) -> Status {
    let named = [
        Status::INVALID_AUTH_TOKEN,
        Status::AUTH_OLD_REVISION,
        Status::USER_EMPTY,
    ];
    if named.contains(&status) {
        status
    } else {
        Status::PERMISSION_DENIED
    }
}

/// Returns what a stream ends with whose caller is gone.
fn canceled(status: Status) -> Status {
    if status.code() == Code::Canceled {
        Status::WATCH_CANCELED
    } else {
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_in_go() {
        assert_eq!(
            refusal(Status::INVALID_AUTH_TOKEN).to_string(),
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
        );
        assert_eq!(refusal(Status::TIMEOUT), Status::PERMISSION_DENIED);
    }
}
