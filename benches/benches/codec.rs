//! Messages: requests off the wire, entries of the log, and answers.
//!
//! `cargo bench -p quorate-benches --bench codec`. Requests are decoded as the front door does, by prost from shared bytes.
//! Answers and entries are encoded by prost too, which is the yardstick for the front door's and the member's own encoders:
//! those splice encoded pairs, events and requests instead of building messages of them, and are not public.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    InternalRaftRequest, PutRequest, PutResponse, RangeResponse, RequestHeader, RequestOp,
    ResponseHeader, TxnRequest, WatchResponse,
};
use quorate_proto::mvccpb::{Event, KeyValue};
use quorate_rpc::Message;

/// As the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_BYTES: usize = 256;
/// Operations of the transaction.
const TXN_PUTS: usize = 16;
/// Pairs of the range's answer.
const PAIRS: usize = 1_000;

fn key(number: usize) -> Bytes {
    format!("/bench/keys/{number:020}").into()
}

fn value() -> Bytes {
    vec![b'v'; VALUE_BYTES].into()
}

fn put_request(number: usize) -> PutRequest {
    PutRequest {
        key: key(number),
        value: value(),
        ..PutRequest::default()
    }
}

fn txn_request() -> TxnRequest {
    let put = |number| RequestOp {
        request: Some(Request::RequestPut(put_request(number))),
    };
    TxnRequest {
        success: (0..TXN_PUTS).map(put).collect(),
        ..TxnRequest::default()
    }
}

fn entry() -> InternalRaftRequest {
    InternalRaftRequest {
        header: Some(RequestHeader {
            id: u64::MAX / 3,
            ..RequestHeader::default()
        }),
        put: Some(put_request(1)),
        ..InternalRaftRequest::default()
    }
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: u64::MAX / 3,
        member_id: u64::MAX / 5,
        revision: 1 << 30,
        raft_term: 2,
    })
}

fn pair(number: usize) -> KeyValue {
    KeyValue {
        key: key(number),
        create_revision: 1 << 20,
        mod_revision: 1 << 30,
        version: 7,
        value: value(),
        lease: 0,
    }
}

fn range_response() -> RangeResponse {
    RangeResponse {
        header: header(),
        kvs: (0..PAIRS).map(pair).collect(),
        more: false,
        count: i64::try_from(PAIRS).expect("the count is small"),
    }
}

fn watch_response() -> WatchResponse {
    WatchResponse {
        header: header(),
        watch_id: 1,
        events: vec![Event {
            kv: Some(pair(1)),
            ..Event::default()
        }],
        ..WatchResponse::default()
    }
}

/// Measures the decoding of a message that stands for so many requests or pairs.
fn decode<M: prost::Message + Default>(
    criterion: &mut Criterion,
    name: &str,
    message: &M,
    elements: usize,
) {
    let wire = Bytes::from(message.encode_to_vec());
    let mut group = criterion.benchmark_group("codec_decode");
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(BenchmarkId::new(name, elements), |bencher| {
        bencher.iter(|| M::decode(wire.clone()).expect("it was just encoded"));
    });
    group.finish();
}

/// Measures the encoding of a message that stands for so many requests, pairs or events.
fn encode<M: prost::Message, R>(
    criterion: &mut Criterion,
    name: &str,
    message: &M,
    elements: usize,
    encode: impl Fn(&M) -> R,
) {
    let mut group = criterion.benchmark_group("codec_encode");
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(BenchmarkId::new(name, elements), |bencher| {
        bencher.iter(|| encode(message));
    });
    group.finish();
}

fn requests(criterion: &mut Criterion) {
    decode(criterion, "put_request", &put_request(1), 1);
    decode(criterion, "txn_request", &txn_request(), TXN_PUTS);
    encode(criterion, "put_request", &put_request(1), 1, |message| {
        message.encode_to_vec()
    });
}

fn entries(criterion: &mut Criterion) {
    decode(criterion, "raft_request", &entry(), 1);
    encode(criterion, "raft_request", &entry(), 1, |message| {
        message.encode_to_vec()
    });
}

fn answers(criterion: &mut Criterion) {
    let put = PutResponse {
        header: header(),
        prev_kv: None,
    };
    encode(criterion, "put_response", &put, 1, Message::encode);
    let range = range_response();
    encode(criterion, "range_response", &range, PAIRS, Message::encode);
    encode(
        criterion,
        "watch_response",
        &watch_response(),
        1,
        Message::encode,
    );
}

criterion_group!(benches, requests, entries, answers);
criterion_main!(benches);
