//! The service `KV`.
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quorate_auth::{Identity, Operation};
use quorate_core::{Applied, KeyWork, Request, View, put_cost, txn_cost};
use quorate_mvcc::{
    RangeStream, RangeStreamOptions, ReadLimit, Reader, is_read_only,
    is_serializable as is_txn_serializable, validate,
};
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode, decode_ref, header};
use super::measure;
use crate::beside::{SMALL_READ, piece_beside, read_beside};
use crate::encode;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::seam::{Answer, Inbound, Outbound};
use crate::status::Status;

/// Says whether a range request can be answered without a quorum.
pub(super) fn is_serializable(body: &Bytes) -> bool {
    decode_ref::<pb::RangeRequest>(body).is_ok_and(|request| request.serializable)
}

/// Answers a range: at once, when nothing has to be waited for.
pub(super) fn range(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::RangeRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    if let Err(error) = validate::range(&request) {
        return Answer::Now(Err(error.into()));
    }
    if (request.serializable || context.handles.view.reads_are_linearizable())
        && let Some(identity) = context.identity_now(metadata)
    {
        let begun = Instant::now();
        return match identity {
            Ok(identity) => read_range(context, begun, identity, request),
            Err(status) => Answer::Now(Err(status)),
        };
    }
    let (context, metadata) = (context.clone(), metadata.clone());
    let begun = Instant::now();
    Answer::later(async move {
        if !request.serializable {
            context.read_index().await?;
        }
        let identity = context.identity(&metadata).await?;
        read_range(&context, begun, identity, request).wait().await
    })
}

fn read_range(
    context: &Rc<Context>,
    begun: Instant,
    identity: Identity,
    request: pb::RangeRequest,
) -> Answer {
    let permitted = context.gate(&identity, &Operation::Range(&request));
    // One value is never too large to be read here.
    let limit = if request.range_end.is_empty() {
        ReadLimit::NONE
    } else {
        SMALL_READ
    };
    let make: Make<_, _> = |reader, view, request, limit| {
        let result = reader.range_within(request, limit)?;
        let answer = encode::range(&header(view, result.revision), &result);
        Ok((answer, result.kvs.len()))
    };
    let finish: Finish<_, _> = measure::range;
    read_here_or_beside(
        context,
        begun,
        (permitted, identity),
        limit,
        request,
        make,
        finish,
    )
}

/// Makes a read and encodes its answer; gives what is to be measured of it besides.
type Make<R, M> = fn(&Reader, &View, &R, ReadLimit) -> Result<(Message, M), quorate_mvcc::Error>;

/// Measures what a read gave.
type Finish<R, M> =
    fn(&Context, Instant, &R, Result<(Message, M), Status>) -> Result<Message, Status>;

/// Answers a read on this thread when it stays within `limit`, else beside it, so that the thread's other callers do not
/// wait for it.
fn read_here_or_beside<R: Send + Sync + 'static, M: Send + 'static>(
    context: &Rc<Context>,
    begun: Instant,
    (permitted, identity): (Result<(), Status>, Identity),
    limit: ReadLimit,
    request: R,
    make: Make<R, M>,
    finish: Finish<R, M>,
) -> Answer {
    let made = permitted.map(|()| make(&context.reader(), &context.handles.view, &request, limit));
    let gave = match made {
        Ok(Err(quorate_mvcc::Error::TooLarge)) => {
            let context = context.clone();
            return Answer::later(async move {
                let (reader, view) = (context.reader().clone(), context.handles.view.clone());
                let request = Arc::new(request);
                let shared = request.clone();
                let made = read_beside(move |limit| make(&reader, &view, &shared, limit)).await;
                let gave = made.and_then(|made| rechecked(&context, &identity, made));
                finish(&context, begun, &request, gave)
            });
        }
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(made)) => rechecked(context, &identity, made),
        Err(status) => Err(status),
    };
    Answer::Now(finish(context, begun, &request, gave))
}

/// Gives what was read, when the caller may still have it.
fn rechecked<T>(context: &Context, identity: &Identity, made: T) -> Result<T, Status> {
    context.auth().recheck(identity)?;
    Ok(made)
}

/// Streams a range.
pub(super) async fn range_stream(
    context: Rc<Context>,
    metadata: Metadata,
    mut inbound: Inbound,
    outbound: Outbound,
) -> Result<(), Status> {
    let request: pb::RangeRequest = decode(inbound.only().await?)?;
    validate::range_stream(&request)?;
    if !request.serializable {
        context.read_index().await?;
    }
    let identity = context.identity(&metadata).await?;
    context.gate(&identity, &Operation::Range(&request))?;
    let options = RangeStreamOptions {
        chunk_bytes: context.options.max_request_bytes,
    };
    let mut stream = context.reader().range_stream(&request, options)?;
    // The first piece has few keys.
    let mut piece = next_piece(&mut stream, &context.handles.view)?;
    while let Some(message) = piece {
        outbound.send_now(message)?;
        // Only what the reader of the stream asks for is read from the store.
        poll_fn(|cx| outbound.poll_room(cx)).await;
        if stream.has_ended() {
            break;
        }
        let view = context.handles.view.clone();
        (stream, piece) = piece_beside(options.chunk_bytes.saturating_mul(2), move || {
            let piece = next_piece(&mut stream, &view);
            (stream, piece)
        })
        .await?;
    }
    Ok(context.auth().recheck(&identity)?)
}

/// Reads and encodes the next piece of a streamed range.
fn next_piece(
    stream: &mut RangeStream,
    view: &View,
) -> Result<Option<Message>, quorate_mvcc::Error> {
    let Some(chunk) = stream.next_chunk()? else {
        return Ok(None);
    };
    let header = chunk.end.map(|end| header(view, end.revision));
    let last = chunk
        .end
        .as_ref()
        .zip(header.as_ref())
        .map(|(end, header)| (header, end.more, end.count));
    Ok(Some(encode::range_chunk(last, &chunk.kvs)))
}

/// Refuses what the quota has no room for, after the alarm that says so is raised.
///
/// Source: etcd v3.7.1 server/etcdserver/api/v3rpc/quota.go.
fn refuse_for_space(context: &Rc<Context>) -> Answer {
    let member_id = context.handles.view.member_id().0;
    let alarm = i32::from(pb::AlarmType::Nospace);
    let is_raised = context
        .handles
        .view
        .alarms()
        .iter()
        .any(|a| a.member_id == member_id && a.alarm == alarm);
    if is_raised {
        return Answer::Now(Err(Status::NO_SPACE));
    }
    let action = i32::from(pb::alarm_request::AlarmAction::Activate);
    let request = Request::Alarm(pb::AlarmRequest {
        action,
        member_id,
        alarm,
    });
    let wait = context.propose(request, None, Identity::NONE);
    let context = context.clone();
    Answer::later(async move {
        // Whether it was raised or not, there is no room.
        let _ = context.applied(wait).await;
        Err(Status::NO_SPACE)
    })
}

/// Says whether the quota has no room for a request of this cost.
pub(super) fn lacks_space(context: &Context, cost_bytes: i64) -> bool {
    !context.current().quota.has_room(cost_bytes)
}

/// Refuses a request for its cost, as [`put`] and [`txn`] do.
pub(super) fn space_refusal(context: &Rc<Context>) -> Answer {
    refuse_for_space(context)
}

/// Proposes a request and answers with what `encode` makes of its result.
pub(super) fn replicate(
    context: &Rc<Context>,
    metadata: &Metadata,
    request: Request,
    raw: Option<Bytes>,
    encode: impl Fn(&Context, Applied) -> Message + 'static,
) -> Answer {
    if let Some(identity) = context.identity_now(metadata) {
        let identity = match identity {
            Ok(identity) => identity,
            Err(status) => return Answer::Now(Err(status)),
        };
        // Submitted before anything is waited for, so that it goes over with the batch of this turn.
        let wait = context.propose(request, raw, identity);
        let context = context.clone();
        return Answer::later(async move {
            let applied = context.applied(wait).await?;
            Ok(encode(&context, applied))
        });
    }
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        let applied = context
            .applied(context.propose(request, raw, identity))
            .await?;
        Ok(encode(&context, applied))
    })
}

/// Stops at a result of another kind than was asked for: an invariant of the engine.
pub(super) fn mismatch(applied: &Applied) -> ! {
    unreachable!("the engine answers in kind, not with {applied:?}")
}

pub(super) fn put(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::PutRequest = match decode_ref(&body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    if lacks_space(context, put_cost(&request)) {
        return refuse_for_space(context);
    }
    if let Err(error) = validate::put(&request) {
        return Answer::Now(Err(error.into()));
    }
    replicate(
        context,
        metadata,
        Request::Put(request),
        Some(body),
        |context, applied| match applied {
            Applied::Put(result) => {
                encode::put(&context.header(result.revision), result.prev.as_ref())
            }
            other => mismatch(&other),
        },
    )
}

pub(super) fn delete_range(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::DeleteRangeRequest = match decode_ref(&body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    if let Err(error) = validate::delete_range(&request) {
        return Answer::Now(Err(error.into()));
    }
    replicate(
        context,
        metadata,
        Request::DeleteRange(request),
        Some(body),
        |context, applied| match applied {
            Applied::DeleteRange(result) => encode::delete_range(
                &context.header(result.revision),
                result.deleted,
                &result.prevs,
            ),
            other => mismatch(&other),
        },
    )
}

pub(super) fn txn(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::TxnRequest = match decode_ref(&body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    if lacks_space(context, txn_cost(&request)) {
        return refuse_for_space(context);
    }
    if let Err(error) = validate::txn(&request, &context.limits()) {
        return Answer::Now(Err(error.into()));
    }
    if is_read_only(&request) {
        return read_only_txn(context, metadata, request);
    }
    replicate(
        context,
        metadata,
        Request::Txn(request),
        Some(body),
        |context, applied| match applied {
            Applied::Txn(result) => encode::txn(&context.header(result.revision), &result),
            other => mismatch(&other),
        },
    )
}

fn read_only_txn(context: &Rc<Context>, metadata: &Metadata, request: pb::TxnRequest) -> Answer {
    let is_local = is_txn_serializable(&request);
    if (is_local || context.handles.view.reads_are_linearizable())
        && let Some(identity) = context.identity_now(metadata)
    {
        let begun = Instant::now();
        return match identity {
            Ok(identity) => read_txn(context, begun, identity, request),
            Err(status) => Answer::Now(Err(status)),
        };
    }
    let (context, metadata) = (context.clone(), metadata.clone());
    let begun = Instant::now();
    Answer::later(async move {
        if !is_local {
            context.read_index().await?;
        }
        let identity = context.identity(&metadata).await?;
        read_txn(&context, begun, identity, request).wait().await
    })
}

fn read_txn(
    context: &Rc<Context>,
    begun: Instant,
    identity: Identity,
    request: pb::TxnRequest,
) -> Answer {
    let permitted = context.gate(&identity, &Operation::ReadOnlyTxn(&request));
    let make: Make<pb::TxnRequest, _> = |reader, view, request, limit| {
        let result = reader.txn_read_only_within(request, limit)?;
        let answer = encode::txn(&header(view, result.revision), &result);
        let work = KeyWork::of_txn(request, result.succeeded, &result.responses);
        Ok((answer, (work, result.responses.len())))
    };
    let finish: Finish<_, _> = measure::txn;
    read_here_or_beside(
        context,
        begun,
        (permitted, identity),
        SMALL_READ,
        request,
        make,
        finish,
    )
}

pub(super) fn compact(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::CompactionRequest = match decode_ref(&body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Compact)?;
        let wait = context.propose(Request::Compaction(request), Some(body), identity);
        match context.applied(wait).await? {
            Applied::Compaction { .. } => Ok(Message::encode(&pb::CompactionResponse {
                header: Some(context.header_now()),
            })),
            other => mismatch(&other),
        }
    })
}
