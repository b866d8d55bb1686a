//! Answers around bytes that are encoded already: key-value pairs and events are never decoded to be sent.
//!
//! What comes out is what prost makes of the same messages, byte for byte: fields in the order of their numbers,
//! defaults left out.
use bytes::Bytes;
use quorate_mvcc::{OpResult, RangeResult, TxnResult, WatchResponse};
use quorate_proto::etcdserverpb::ResponseHeader;

use crate::merge::group_responses;
use crate::message::{Gather, Message};

/// Tags: field number and wire type 0 (varint) or 2 (length-delimited).
mod tag {
    const fn varint(field: u8) -> u8 {
        field << 3
    }
    const fn bytes(field: u8) -> u8 {
        field << 3 | 2
    }

    pub(super) const HEADER_CLUSTER: u8 = varint(1);
    pub(super) const HEADER_MEMBER: u8 = varint(2);
    pub(super) const HEADER_REVISION: u8 = varint(3);
    pub(super) const HEADER_TERM: u8 = varint(4);
    /// `header` of every response.
    pub(super) const HEADER: u8 = bytes(1);
    pub(super) const RANGE_KVS: u8 = bytes(2);
    pub(super) const RANGE_MORE: u8 = varint(3);
    pub(super) const RANGE_COUNT: u8 = varint(4);
    pub(super) const PUT_PREV_KV: u8 = bytes(2);
    pub(super) const DELETE_DELETED: u8 = varint(2);
    pub(super) const DELETE_PREV_KVS: u8 = bytes(3);
    pub(super) const TXN_SUCCEEDED: u8 = varint(2);
    pub(super) const TXN_RESPONSES: u8 = bytes(3);
    pub(super) const OP_RANGE: u8 = bytes(1);
    pub(super) const OP_PUT: u8 = bytes(2);
    pub(super) const OP_DELETE: u8 = bytes(3);
    pub(super) const OP_TXN: u8 = bytes(4);
    pub(super) const STREAM_RANGE: u8 = bytes(1);
    pub(super) const WATCH_ID: u8 = varint(2);
    pub(super) const WATCH_CREATED: u8 = varint(3);
    pub(super) const WATCH_CANCELED: u8 = varint(4);
    pub(super) const WATCH_COMPACT_REVISION: u8 = varint(5);
    pub(super) const WATCH_CANCEL_REASON: u8 = bytes(6);
    pub(super) const WATCH_FRAGMENT: u8 = varint(7);
}

/// Returns how many bytes a number takes.
const fn varint_len(value: u64) -> usize {
    // One byte for each seven bits begun: 9/64 is near enough to 1/7 for 64 bits.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

/// Returns how many bytes a field takes whose default is 0.
fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Returns how many bytes a length-delimited field takes.
fn field_len(len: usize) -> usize {
    1 + varint_len(wide(len)) + len
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn put_number(out: &mut Gather, tag: u8, value: u64) {
    if value != 0 {
        out.put_slice(&[tag]);
        out.put_varint(value);
    }
}

fn put_len(out: &mut Gather, tag: u8, len: usize) {
    out.put_slice(&[tag]);
    out.put_varint(wide(len));
}

fn put_spliced(out: &mut Gather, tag: u8, bytes: &Bytes) {
    out.splice_field(tag, bytes);
}

fn header_len(header: &ResponseHeader) -> usize {
    number_len(header.cluster_id)
        + number_len(header.member_id)
        + number_len(unsigned(header.revision))
        + number_len(header.raft_term)
}

fn put_header(out: &mut Gather, header: &ResponseHeader) {
    put_len(out, tag::HEADER, header_len(header));
    put_number(out, tag::HEADER_CLUSTER, header.cluster_id);
    put_number(out, tag::HEADER_MEMBER, header.member_id);
    put_number(out, tag::HEADER_REVISION, unsigned(header.revision));
    put_number(out, tag::HEADER_TERM, header.raft_term);
}

/// Room for what is neither key-value pairs nor events of one message.
const FIXED_BYTES: usize = 96;

/// A range's answer before its header is known to be there.
struct RangeParts<'a> {
    header: Option<&'a ResponseHeader>,
    kvs: &'a [Bytes],
    more: bool,
    count: i64,
}

impl RangeParts<'_> {
    fn len(&self) -> usize {
        self.header.map_or(0, |h| field_len(header_len(h)))
            + self.kvs.iter().map(|kv| field_len(kv.len())).sum::<usize>()
            + number_len(u64::from(self.more))
            + number_len(unsigned(self.count))
    }

    /// Starts a message that has these parts, of so many bytes in all.
    fn gather(&self, body_len: usize) -> Gather {
        let mut out = Gather::with_spliced(body_len, FIXED_BYTES, self.kvs.iter().map(Bytes::len));
        out.begin(body_len);
        out
    }

    fn put(&self, out: &mut Gather) {
        if let Some(header) = self.header {
            put_header(out, header);
        }
        for kv in self.kvs {
            put_spliced(out, tag::RANGE_KVS, kv);
        }
        put_number(out, tag::RANGE_MORE, u64::from(self.more));
        put_number(out, tag::RANGE_COUNT, unsigned(self.count));
    }
}

/// Encodes a `RangeResponse`.
pub(crate) fn range(header: &ResponseHeader, result: &RangeResult) -> Message {
    let parts = RangeParts {
        header: Some(header),
        kvs: &result.kvs,
        more: result.more,
        count: result.count,
    };
    let mut out = parts.gather(parts.len());
    parts.put(&mut out);
    out.finish()
}

/// Encodes a `RangeStreamResponse`; only the last chunk has a header, `more` and a count.
pub(crate) fn range_chunk(last: Option<(&ResponseHeader, bool, i64)>, kvs: &[Bytes]) -> Message {
    let (header, more, count) =
        last.map_or((None, false, 0), |(h, more, count)| (Some(h), more, count));
    let parts = RangeParts {
        header,
        kvs,
        more,
        count,
    };
    let len = parts.len();
    let mut out = parts.gather(field_len(len));
    put_len(&mut out, tag::STREAM_RANGE, len);
    parts.put(&mut out);
    out.finish()
}

fn put_body_len(header: &ResponseHeader, prev: Option<&Bytes>) -> usize {
    field_len(header_len(header)) + prev.map_or(0, |kv| field_len(kv.len()))
}

fn put_put_body(out: &mut Gather, header: &ResponseHeader, prev: Option<&Bytes>) {
    put_header(out, header);
    if let Some(kv) = prev {
        put_spliced(out, tag::PUT_PREV_KV, kv);
    }
}

/// Encodes a `PutResponse`.
pub(crate) fn put(header: &ResponseHeader, prev: Option<&Bytes>) -> Message {
    let mut out =
        Gather::with_capacity(FIXED_BYTES + prev.map_or(0, |kv| Gather::copied(kv.len())));
    out.begin(put_body_len(header, prev));
    put_put_body(&mut out, header, prev);
    out.finish()
}

fn delete_body_len(header: &ResponseHeader, deleted: i64, prevs: &[Bytes]) -> usize {
    field_len(header_len(header))
        + number_len(unsigned(deleted))
        + prevs.iter().map(|kv| field_len(kv.len())).sum::<usize>()
}

fn put_delete_body(out: &mut Gather, header: &ResponseHeader, deleted: i64, prevs: &[Bytes]) {
    put_header(out, header);
    put_number(out, tag::DELETE_DELETED, unsigned(deleted));
    for kv in prevs {
        put_spliced(out, tag::DELETE_PREV_KVS, kv);
    }
}

/// Encodes a `DeleteRangeResponse`.
pub(crate) fn delete_range(header: &ResponseHeader, deleted: i64, prevs: &[Bytes]) -> Message {
    let copied: usize = prevs.iter().map(|kv| Gather::copied(kv.len()) + 6).sum();
    let mut out = Gather::with_capacity(FIXED_BYTES + copied);
    out.begin(delete_body_len(header, deleted, prevs));
    put_delete_body(&mut out, header, deleted, prevs);
    out.finish()
}

/// The header of an answer inside a transaction: nothing but a revision.
fn inner(revision: i64) -> ResponseHeader {
    ResponseHeader {
        revision,
        ..ResponseHeader::default()
    }
}

/// Lengths of a transaction's parts in the order in which they are written; measured once, however deep they nest.
#[derive(Default)]
struct Lengths {
    lengths: Vec<usize>,
    next: usize,
}

impl Lengths {
    fn take(&mut self) -> usize {
        let len = self.lengths[self.next];
        self.next += 1;
        len
    }

    /// Measures the `TxnResponse`s below and including this one; the order is that of [`put_txn_body`].
    fn txn(&mut self, header: &ResponseHeader, succeeded: bool, responses: &[OpResult]) -> usize {
        let ops: usize = responses.iter().map(|op| field_len(self.op(op))).sum();
        field_len(header_len(header)) + number_len(u64::from(succeeded)) + ops
    }

    /// Measures a `ResponseOp`; what is kept is the length of the answer in it.
    fn op(&mut self, op: &OpResult) -> usize {
        let at = self.lengths.len();
        self.lengths.push(0);
        let body = match op {
            OpResult::Empty => return 0,
            OpResult::Range(range) => range_parts(&inner(range.revision), range).len(),
            OpResult::Put { revision, prev } => put_body_len(&inner(*revision), prev.as_ref()),
            OpResult::Delete {
                revision,
                deleted,
                prevs,
            } => delete_body_len(&inner(*revision), *deleted, prevs),
            OpResult::Txn {
                succeeded,
                responses,
            } => self.txn(&ResponseHeader::default(), *succeeded, responses),
        };
        self.lengths[at] = body;
        field_len(body)
    }
}

fn range_parts<'a>(header: &'a ResponseHeader, range: &'a RangeResult) -> RangeParts<'a> {
    RangeParts {
        header: Some(header),
        kvs: &range.kvs,
        more: range.more,
        count: range.count,
    }
}

fn put_txn_body(
    out: &mut Gather,
    lengths: &mut Lengths,
    header: &ResponseHeader,
    succeeded: bool,
    responses: &[OpResult],
) {
    put_header(out, header);
    put_number(out, tag::TXN_SUCCEEDED, u64::from(succeeded));
    for op in responses {
        let body = lengths.take();
        let is_empty = matches!(op, OpResult::Empty);
        put_len(
            out,
            tag::TXN_RESPONSES,
            if is_empty { 0 } else { field_len(body) },
        );
        match op {
            OpResult::Empty => {}
            OpResult::Range(range) => {
                put_len(out, tag::OP_RANGE, body);
                range_parts(&inner(range.revision), range).put(out);
            }
            OpResult::Put { revision, prev } => {
                put_len(out, tag::OP_PUT, body);
                put_put_body(out, &inner(*revision), prev.as_ref());
            }
            OpResult::Delete {
                revision,
                deleted,
                prevs,
            } => {
                put_len(out, tag::OP_DELETE, body);
                put_delete_body(out, &inner(*revision), *deleted, prevs);
            }
            OpResult::Txn {
                succeeded,
                responses,
            } => {
                put_len(out, tag::OP_TXN, body);
                put_txn_body(
                    out,
                    lengths,
                    &ResponseHeader::default(),
                    *succeeded,
                    responses,
                );
            }
        }
    }
}

/// Encodes a `TxnResponse`. Answers inside it have a header with a revision only, nested transactions an empty one.
pub(crate) fn txn(header: &ResponseHeader, result: &TxnResult) -> Message {
    let mut lengths = Lengths::default();
    let len = lengths.txn(header, result.succeeded, &result.responses);
    // Values that are large are referred to, so the most that is copied is bounded by the number of answers.
    let mut out = Gather::with_capacity(len.min(FIXED_BYTES * (1 + lengths.lengths.len())));
    out.begin(len);
    put_txn_body(
        &mut out,
        &mut lengths,
        header,
        result.succeeded,
        &result.responses,
    );
    out.finish()
}

/// A response header as it is put in front of many answers, encoded once.
struct Head {
    revision: i64,
    /// The field with its tag and length.
    field: Vec<u8>,
}

impl Head {
    fn new(header: &ResponseHeader) -> Self {
        let mut out = Gather::with_capacity(FIXED_BYTES);
        put_header(&mut out, header);
        Self {
            revision: header.revision,
            field: out.into_unframed(),
        }
    }
}

fn watch_fields_len(response: &WatchResponse) -> usize {
    let reason = response.cancel_reason.len();
    number_len(unsigned(response.watch_id))
        + number_len(u64::from(response.created))
        + number_len(u64::from(response.canceled))
        + number_len(unsigned(response.compact_revision))
        + if reason == 0 { 0 } else { field_len(reason) }
        + number_len(u64::from(response.fragment))
}

fn put_watch_fields(out: &mut Gather, response: &WatchResponse) {
    put_number(out, tag::WATCH_ID, unsigned(response.watch_id));
    put_number(out, tag::WATCH_CREATED, u64::from(response.created));
    put_number(out, tag::WATCH_CANCELED, u64::from(response.canceled));
    put_number(
        out,
        tag::WATCH_COMPACT_REVISION,
        unsigned(response.compact_revision),
    );
    if !response.cancel_reason.is_empty() {
        put_len(out, tag::WATCH_CANCEL_REASON, response.cancel_reason.len());
        out.put_slice(response.cancel_reason.as_bytes());
    }
    put_number(out, tag::WATCH_FRAGMENT, u64::from(response.fragment));
}

/// Encodes a stream's answers as messages one after the other, a watcher's events together where that is possible.
/// `header` is theirs but for the revision.
pub(crate) fn watch(header: ResponseHeader, responses: &[WatchResponse]) -> Message {
    let copied: usize = responses
        .iter()
        .map(|r| FIXED_BYTES + r.cancel_reason.len() + Gather::copied(r.events.bytes().len()))
        .sum();
    let mut out = Gather::with_capacity(copied);
    // Answers that leave together mostly have the same revision.
    let mut head = Head::new(&header);
    for group in group_responses(responses) {
        let first = &responses[group.first];
        let last = &responses[group.later.last().copied().unwrap_or(group.first)];
        if head.revision != last.revision {
            head = Head::new(&ResponseHeader {
                revision: last.revision,
                ..header
            });
        }
        // The events come with their tags and lengths.
        let later = || group.later.iter().map(|at| responses[*at].events.bytes());
        let events_len = first.events.bytes().len() + later().map(Bytes::len).sum::<usize>();
        out.begin(head.field.len() + watch_fields_len(first) + events_len);
        out.put_slice(&head.field);
        put_watch_fields(&mut out, first);
        out.splice(first.events.bytes());
        later().for_each(|events| out.splice(events));
    }
    out.finish()
}

#[cfg(test)]
mod tests;
