//! What is told of a slow call.
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::{delete_text, put_text, range_text, txn_text};
use quorate_proto::etcdserverpb as pb;

use crate::frame::PREFIX_BYTES;
use crate::message::Message;
use crate::method::Method;
use crate::metrics::{Report, ThreadMetrics};
use crate::status::Status;

/// The most bytes of an answer that are looked into for what they hold.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Says whether a method's request is kept until its answer, to be told of.
pub(super) fn keeps_request(method: Method) -> bool {
    matches!(
        method,
        Method::KvRange | Method::KvPut | Method::KvDeleteRange | Method::KvTxn
    )
}

/// Reports a call. Of requests other than those of `KV` nothing but the method is told.
///
/// Source: etcd v3.7.1 server/etcdserver/api/v3rpc/interceptor.go `logUnaryRequestStats`.
pub(super) fn report(
    metrics: &ThreadMetrics,
    took: Duration,
    method: Method,
    request: &Bytes,
    result: &Result<Message, Status>,
) {
    let about = About::of(method, request, result.as_ref().ok());
    let has_sizes = keeps_request(method) && result.is_ok();
    let size = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    let answer = |m: &Message| size(m.body_len());
    metrics.report(Report::SlowCall {
        took,
        method: method.path(),
        request_count: about.request_count,
        request_bytes: if has_sizes { size(request.len()) } else { -1 },
        response_count: about.response_count,
        response_bytes: result.as_ref().map_or(-1, answer),
        request: about.request,
        is_routine: took <= metrics.limits().0,
    });
}

/// What a call was about.
struct About {
    request_count: i64,
    response_count: i64,
    request: String,
}

impl About {
    const UNKNOWN: Self = Self {
        request_count: -1,
        response_count: -1,
        request: String::new(),
    };

    fn of(method: Method, request: &Bytes, answer: Option<&Message>) -> Self {
        let Some(answer) = answer else {
            return Self::UNKNOWN;
        };
        let about = match method {
            Method::KvRange => pb::RangeRequest::decode(request.clone()).map(|r| Self {
                request_count: 0,
                response_count: decode::<pb::RangeResponse>(answer).map_or(-1, |a| a.count),
                request: range_text(&r),
            }),
            Method::KvPut => pb::PutRequest::decode(request.clone()).map(|r| Self {
                request_count: 1,
                response_count: 0,
                request: put_text(&r),
            }),
            Method::KvDeleteRange => {
                pb::DeleteRangeRequest::decode(request.clone()).map(|r| Self {
                    request_count: 0,
                    response_count: decode::<pb::DeleteRangeResponse>(answer)
                        .map_or(-1, |a| a.deleted),
                    request: delete_text(&r),
                })
            }
            Method::KvTxn => pb::TxnRequest::decode(request.clone()).map(|r| {
                let succeeded = decode::<pb::TxnResponse>(answer).is_some_and(|a| a.succeeded);
                let branch = if succeeded { &r.success } else { &r.failure };
                Self {
                    request_count: i64::try_from(branch.len()).unwrap_or(i64::MAX),
                    response_count: 0,
                    request: txn_text(&r),
                }
            }),
            _ => return Self::UNKNOWN,
        };
        about.unwrap_or(Self::UNKNOWN)
    }
}

fn decode<M: prost::Message + Default>(answer: &Message) -> Option<M> {
    if answer.wire_len() > ANSWER_MAX_BYTES {
        return None;
    }
    M::decode(answer.to_wire().slice(PREFIX_BYTES..)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::metrics::{Measuring, Registry};

    #[test]
    fn a_slow_range_is_told_of_with_its_counts_and_an_unknown_call_with_its_method() {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = reports.clone();
        let measuring = Measuring {
            reporter: Box::new(move |report| sink.lock().unwrap().push(report)),
            ..Measuring::default()
        };
        let metrics = Registry::measuring(1, measuring).thread(0);
        let request = pb::RangeRequest {
            key: "k".into(),
            limit: 3,
            ..pb::RangeRequest::default()
        };
        let answer = Message::encode(&pb::RangeResponse {
            count: 9,
            ..pb::RangeResponse::default()
        });
        let took = Duration::from_secs(1);
        let body = Bytes::from(request.encode_to_vec());
        report(&metrics, took, Method::KvRange, &body, &Ok(answer));
        let none = Err(Status::STOPPED);
        let short = Duration::ZERO;
        report(&metrics, short, Method::LeaseGrant, &Bytes::new(), &none);
        let reports = reports.lock().unwrap();
        let expected = Report::SlowCall {
            took,
            method: "/etcdserverpb.KV/Range",
            request_count: 0,
            request_bytes: 5,
            response_count: 9,
            response_bytes: 2,
            request: "key:\"k\" limit:3".to_owned(),
            is_routine: false,
        };
        assert_eq!(reports[0], expected);
        let expected = Report::SlowCall {
            took: short,
            method: "/etcdserverpb.Lease/LeaseGrant",
            request_count: -1,
            request_bytes: -1,
            response_count: -1,
            response_bytes: -1,
            request: String::new(),
            is_routine: true,
        };
        assert_eq!(reports[1], expected);
    }
}
