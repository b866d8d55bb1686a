//! Measuring reads of the store.
use std::time::Instant;

use quorate_core::{KeyWork, range_text, txn_text};
use quorate_proto::etcdserverpb as pb;

use super::context::Context;
use crate::message::Message;
use crate::metrics::{Read, Report};
use crate::status::Status;

/// What a read gave: its answer, and what it holds in words.
type Gave = Result<(Message, String), Status>;

/// Measures a range whose call began then, by how many pairs it gave.
///
/// Source: etcd v3.7.1 server/etcdserver/v3_server.go `Range`.
pub(super) fn range(
    context: &Context,
    begun: Instant,
    request: &pb::RangeRequest,
    gave: Result<(Message, usize), Status>,
) -> Result<Message, Status> {
    let took = begun.elapsed();
    let metrics = &context.metrics;
    metrics.range(gave.is_ok(), took);
    let work = KeyWork {
        ranges: 1,
        ..KeyWork::default()
    };
    if !metrics.read(Read::Range, gave.is_ok(), took, work) {
        return gave.map(|(answer, _)| answer);
    }
    let gave = gave.map(|(answer, kvs)| {
        let text = format!("range_response_count:{kvs} size:{}", answer.body_len());
        (answer, text)
    });
    report(context, took, "read-only range ", range_text(request), gave)
}

/// Measures a transaction whose call began then, by what it read and how many answers it gave.
///
/// Source: etcd v3.7.1 server/etcdserver/v3_server.go `Txn`.
pub(super) fn txn(
    context: &Context,
    begun: Instant,
    request: &pb::TxnRequest,
    gave: Result<(Message, (KeyWork, usize)), Status>,
) -> Result<Message, Status> {
    let took = begun.elapsed();
    let work = gave
        .as_ref()
        .map_or_else(|_| KeyWork::default(), |(_, (work, _))| *work);
    let is_slow = context.metrics.read(Read::Txn, gave.is_ok(), took, work);
    if !is_slow {
        return gave.map(|(answer, _)| answer);
    }
    let gave = gave.map(|(answer, (_, responses))| {
        let text = format!("responses:{responses} size:{}", answer.body_len());
        (answer, text)
    });
    report(context, took, "read-only txn ", txn_text(request), gave)
}

/// Tells of a slow read and gives its answer on.
fn report(
    context: &Context,
    took: std::time::Duration,
    prefix: &'static str,
    request: String,
    gave: Gave,
) -> Result<Message, Status> {
    let (response, error) = match &gave {
        Ok((_, response)) => (response.clone(), None),
        Err(status) => (String::new(), Some(status.message().to_owned())),
    };
    context.metrics.report(Report::SlowRead {
        took,
        expected: context.metrics.limits().1,
        prefix,
        request,
        response,
        error,
    });
    gave.map(|(answer, _)| answer)
}
