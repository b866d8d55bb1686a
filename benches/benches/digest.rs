//! The running digest: what telling members that differ costs an entry.
//!
//! `cargo bench -p quorate-benches --bench digest`. To be held against what a put costs a member, all in all: `compare` prints that.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use quorate_core::fold_digest;
use quorate_proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
use quorate_proto::mvccpb::KeyValue;
use raft::eraftpb::Entry;
use std::hint::black_box;

const KEY_BYTES: usize = 32;
const VALUE_BYTES: usize = 256;

/// An entry with a put, and the record that it leaves behind.
fn put() -> (Entry, Bytes) {
    let (key, value) = (vec![b'k'; KEY_BYTES], vec![b'v'; VALUE_BYTES]);
    let request = InternalRaftRequest {
        header: Some(RequestHeader {
            id: 1 << 62,
            ..RequestHeader::default()
        }),
        put: Some(PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    };
    let record = KeyValue {
        key: key.into(),
        create_revision: 1_000_000,
        mod_revision: 2_000_000,
        version: 7,
        value: value.into(),
        lease: 0,
    };
    let entry = Entry {
        index: 2_000_000,
        term: 3,
        data: request.encode_to_vec().into(),
        ..Entry::default()
    };
    (entry, record.encode_to_vec().into())
}

/// All that an entry costs more: its bytes and what it wrote are summed up, and both go into the digest.
fn a_put(criterion: &mut Criterion) {
    let (entry, record) = put();
    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Elements(1));
    let mut digest = 1;
    group.bench_function("a put of 256 B", |bencher| {
        bencher.iter(|| {
            let content = crc32c::crc32c_append(0, black_box(&record));
            digest = fold_digest(digest, black_box(&entry), u64::from(content));
            digest
        });
    });
    group.finish();
}

criterion_group!(benches, a_put);
criterion_main!(benches);
