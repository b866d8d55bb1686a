//! The service `KV`.
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use quorate_auth::{Identity, Operation};
use quorate_core::{Applied, Request, put_cost, txn_cost};
use quorate_mvcc::{
    RangeStreamOptions, is_read_only, is_serializable as is_txn_serializable, validate,
};
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode, decode_ref};
use super::measure;
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
        return Answer::Now(
            identity.and_then(|identity| read_range(context, begun, &identity, &request)),
        );
    }
    let (context, metadata) = (context.clone(), metadata.clone());
    let begun = Instant::now();
    Answer::later(async move {
        if !request.serializable {
            context.read_index().await?;
        }
        let identity = context.identity(&metadata).await?;
        read_range(&context, begun, &identity, &request)
    })
}

fn read_range(
    context: &Context,
    begun: Instant,
    identity: &Identity,
    request: &pb::RangeRequest,
) -> Result<Message, Status> {
    measure::range(context, begun, request, || {
        context.gate(identity, &Operation::Range(request))?;
        let result = context.reader().range(request)?;
        context.auth().recheck(identity)?;
        let answer = encode::range(&context.header(result.revision), &result);
        Ok((answer, result.kvs.len()))
    })
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
    while let Some(chunk) = stream.next_chunk()? {
        // Only what the reader of the stream asks for is read from the store.
        let header = chunk.end.map(|end| context.header(end.revision));
        let last = chunk
            .end
            .as_ref()
            .zip(header.as_ref())
            .map(|(end, header)| (header, end.more, end.count));
        outbound.send(encode::range_chunk(last, &chunk.kvs)).await?;
    }
    Ok(context.auth().recheck(&identity)?)
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
    !context.handles.quota.has_room(cost_bytes)
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
        return Answer::Now(
            identity.and_then(|identity| read_txn(context, begun, &identity, &request)),
        );
    }
    let (context, metadata) = (context.clone(), metadata.clone());
    let begun = Instant::now();
    Answer::later(async move {
        if !is_local {
            context.read_index().await?;
        }
        let identity = context.identity(&metadata).await?;
        read_txn(&context, begun, &identity, &request)
    })
}

fn read_txn(
    context: &Context,
    begun: Instant,
    identity: &Identity,
    request: &pb::TxnRequest,
) -> Result<Message, Status> {
    measure::txn(context, begun, request, || {
        context.gate(identity, &Operation::ReadOnlyTxn(request))?;
        let result = context.reader().txn_read_only(request)?;
        context.auth().recheck(identity)?;
        let answer = encode::txn(&context.header(result.revision), &result);
        Ok((answer, result))
    })
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
