//! What clients write down, as messages of the API and back.

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest,
    WatchRequest, WatchResponse, request_op, response_op, watch_request,
};
use quorate_proto::mvccpb::{self, KeyValue, event::EventType};
use tonic::{Code, Status};

use crate::checker::{
    Answer, Comparison, Event, KeyRange, Kv, Message, Op, OpResult, Reading, Relation, Reply,
    Request, Txn, Watch, shorten,
};
use crate::client::Client;

/// Sends a request and waits for the answer. `padding` makes the values of plain puts longer.
pub(super) async fn send(client: &Client, request: &Request) -> Result<Answer, Status> {
    match request {
        Request::Keys(txn) => send_keys(client, txn).await,
        Request::Compact(revision) => {
            let request = CompactionRequest {
                revision: *revision,
                physical: false,
            };
            let answer: CompactionResponse = client.call("KV/Compact", request).await?;
            Ok(plain(answer.header, Vec::new()))
        }
        Request::Grant { lease, ttl } => {
            let request = LeaseGrantRequest {
                id: *lease,
                ttl: *ttl,
            };
            let answer: LeaseGrantResponse = client.call("Lease/LeaseGrant", request).await?;
            Ok(Answer {
                ttl: answer.ttl,
                ..plain(answer.header, Vec::new())
            })
        }
        Request::Renew(lease) => {
            let request = LeaseKeepAliveRequest { id: *lease };
            let opened =
                client.stream::<_, LeaseKeepAliveResponse>("Lease/LeaseKeepAlive", request);
            let (_requests, mut answers) = opened.await?;
            let ended = || Status::unavailable("the stream ended");
            let answer = answers.message().await?.ok_or_else(ended)?;
            Ok(Answer {
                ttl: answer.ttl,
                ..plain(answer.header, Vec::new())
            })
        }
        Request::Revoke(lease) => {
            let request = LeaseRevokeRequest { id: *lease };
            let answer: LeaseRevokeResponse = client.call("Lease/LeaseRevoke", request).await?;
            Ok(plain(answer.header, Vec::new()))
        }
    }
}

async fn send_keys(client: &Client, txn: &Txn) -> Result<Answer, Status> {
    let serializable = txn.reading == Reading::Serializable;
    let is_plain = txn.conditions.is_empty() && txn.otherwise.is_empty();
    let [op] = &txn.then[..] else {
        return send_txn(client, txn).await;
    };
    if !is_plain {
        return send_txn(client, txn).await;
    }
    match op {
        Op::Put { .. } => {
            let answer: PutResponse = client.call("KV/Put", put(op)).await?;
            let result = OpResult::Put(answer.prev_kv.map(kv));
            Ok(plain(answer.header, vec![result]))
        }
        Op::Delete { range, previous } => {
            let request = delete(range, *previous);
            let answer: DeleteRangeResponse = client.call("KV/DeleteRange", request).await?;
            let result = OpResult::Delete(answer.deleted, kvs(answer.prev_kvs));
            Ok(plain(answer.header, vec![result]))
        }
        Op::Range(keys) => {
            let request = RangeRequest {
                revision: txn.at,
                ..range(keys, serializable)
            };
            let answer: RangeResponse = client.call("KV/Range", request).await?;
            Ok(plain(answer.header, vec![OpResult::Range(kvs(answer.kvs))]))
        }
    }
}

async fn send_txn(client: &Client, txn: &Txn) -> Result<Answer, Status> {
    let serializable = txn.reading == Reading::Serializable;
    let ops = |ops: &[Op]| ops.iter().map(|op| request_op(op, serializable)).collect();
    let request = TxnRequest {
        compare: txn.conditions.iter().map(compare).collect(),
        success: ops(&txn.then),
        failure: ops(&txn.otherwise),
    };
    let answer: TxnResponse = client.call("KV/Txn", request).await?;
    let results = answer.responses.into_iter().filter_map(result).collect();
    Ok(Answer {
        succeeded: answer.succeeded,
        ..plain(answer.header, results)
    })
}

fn plain(header: Option<ResponseHeader>, results: Vec<OpResult>) -> Answer {
    Answer {
        revision: header.unwrap_or_default().revision,
        succeeded: true,
        results,
        ttl: 0,
    }
}

fn put(op: &Op) -> PutRequest {
    let Op::Put {
        key,
        value,
        lease,
        previous,
    } = op
    else {
        return PutRequest::default();
    };
    PutRequest {
        key: key.clone(),
        value: value.clone(),
        lease: *lease,
        prev_kv: *previous,
        ..PutRequest::default()
    }
}

fn delete(range: &KeyRange, previous: bool) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: range.key.clone(),
        range_end: range.end.clone(),
        prev_kv: previous,
    }
}

fn range(range: &KeyRange, serializable: bool) -> RangeRequest {
    RangeRequest {
        key: range.key.clone(),
        range_end: range.end.clone(),
        serializable,
        ..RangeRequest::default()
    }
}

fn request_op(op: &Op, serializable: bool) -> RequestOp {
    let request = match op {
        Op::Put { .. } => request_op::Request::RequestPut(put(op)),
        Op::Delete { range, previous } => {
            request_op::Request::RequestDeleteRange(delete(range, *previous))
        }
        Op::Range(keys) => request_op::Request::RequestRange(range(keys, serializable)),
    };
    RequestOp {
        request: Some(request),
    }
}

fn result(response: ResponseOp) -> Option<OpResult> {
    match response.response? {
        response_op::Response::ResponsePut(put) => Some(OpResult::Put(put.prev_kv.map(kv))),
        response_op::Response::ResponseDeleteRange(delete) => {
            Some(OpResult::Delete(delete.deleted, kvs(delete.prev_kvs)))
        }
        response_op::Response::ResponseRange(range) => Some(OpResult::Range(kvs(range.kvs))),
        response_op::Response::ResponseTxn(_) => None,
    }
}

fn compare(comparison: &Comparison) -> Compare {
    let (key, relation, target, union) = match comparison {
        Comparison::Version(key, relation, version) => (
            key,
            relation,
            CompareTarget::Version,
            TargetUnion::Version(*version),
        ),
        Comparison::Modified(key, relation, revision) => (
            key,
            relation,
            CompareTarget::Mod,
            TargetUnion::ModRevision(*revision),
        ),
        Comparison::Value(key, relation, value) => (
            key,
            relation,
            CompareTarget::Value,
            TargetUnion::Value(value.clone()),
        ),
    };
    let result = match relation {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
        ..Compare::default()
    }
}

fn kv(kv: KeyValue) -> Kv {
    Kv {
        value: shorten(&kv.value),
        key: kv.key,
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn kvs(kvs: Vec<KeyValue>) -> Vec<Kv> {
    kvs.into_iter().map(kv).collect()
}

/// A request as it is written down: long values shortened, as those of answers are.
pub(super) fn shortened(mut request: Request) -> Request {
    if let Request::Keys(txn) = &mut request {
        for op in txn.then.iter_mut().chain(&mut txn.otherwise) {
            if let Op::Put { value, .. } = op {
                *value = shorten(value);
            }
        }
    }
    request
}

/// What an error says about whether the request was carried out.
pub(super) fn reply(status: &Status) -> Reply {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::PermissionDenied
        | Code::Unauthenticated => Reply::Refused(text),
        _ => Reply::Unknown(text),
    }
}

/// The request that begins a watch.
pub(super) fn watch_request(watch: &Watch) -> WatchRequest {
    let create = WatchCreateRequest {
        key: watch.range.key.clone(),
        range_end: watch.range.end.clone(),
        start_revision: watch.from,
        prev_kv: watch.previous,
        ..WatchCreateRequest::default()
    };
    WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    }
}

/// An answer of a watch, which came at `at_us`.
pub(super) fn message(answer: WatchResponse, at_us: u64) -> Message {
    Message {
        at_us,
        revision: answer.header.unwrap_or_default().revision,
        is_created: answer.created,
        compacted: answer.compact_revision,
        events: answer.events.into_iter().map(event).collect(),
    }
}

fn event(event: mvccpb::Event) -> Event {
    let is_put = event.r#type() == EventType::Put;
    let kv_of = |found: Option<KeyValue>| kv(found.unwrap_or_default());
    Event {
        is_put,
        kv: kv_of(event.kv),
        previous: event.prev_kv.map(kv),
    }
}

/// A value nobody else writes, of about `len` bytes.
pub(super) fn unique_value(client: usize, number: u64, len: usize) -> Bytes {
    let mut value = format!("c{client}-{number}-").into_bytes();
    let fill = b'a' + u8::try_from(number % 26).unwrap_or_default();
    value.resize(len.max(value.len()), fill);
    value.into()
}
