//! Judges the header of a request before anything is done for it.
use h2::RecvStream;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method as HttpMethod, Request, StatusCode};

use crate::frame::no_decompressor;
use crate::gzip;
use crate::metadata::{Metadata, parse_timeout_ms};
use crate::method::{Lookup, Method};
use crate::status::{Code, Status};

const GRPC: &str = "application/grpc";

/// A request that may go on.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) method: Method,
    pub(crate) metadata: Metadata,
    pub(crate) content_type: HeaderValue,
    /// Whether messages may be packed.
    pub(crate) is_gzip: bool,
    pub(crate) timeout_ms: Option<u64>,
}

/// A request that is answered at once.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) http_status: StatusCode,
    pub(crate) content_type: HeaderValue,
    pub(crate) status: Status,
}

/// Judges a request's header.
///
/// | found | answer |
/// |---|---|
/// | several `host` fields | 400, Internal |
/// | no content type of gRPC | 415, InvalidArgument |
/// | malformed `grpc-timeout` | 400, Internal |
/// | another method than POST | 405, Internal |
/// | a deadline that has passed | DeadlineExceeded |
/// | a path that names nothing | Unimplemented |
/// | an encoding that nobody can decode | Unimplemented |
///
/// Source: grpc-go v1.82.1 internal/transport/http2_server.go `operateHeaders`, server.go `handleStream`.
pub(crate) fn judge(request: &Request<RecvStream>) -> Result<Accepted, Box<Refused>> {
    let headers = request.headers();
    let first = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let given = first(CONTENT_TYPE.as_str()).unwrap_or(b"");
    let content_type = content_type(given);
    let echo = content_type
        .clone()
        .unwrap_or(HeaderValue::from_static(GRPC));
    let refuse = |http_status, status| {
        Err(Box::new(Refused {
            http_status,
            content_type: echo.clone(),
            status,
        }))
    };
    if let Some(text) = several_hosts(request) {
        return refuse(StatusCode::BAD_REQUEST, Status::new(Code::Internal, text));
    }
    let Some(content_type) = content_type else {
        let text = format!(
            "invalid gRPC request content-type {:?}",
            String::from_utf8_lossy(given)
        );
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Status::new(Code::InvalidArgument, text),
        );
    };
    let timeout_ms = match first("grpc-timeout").map(parse_timeout_ms).transpose() {
        Ok(timeout_ms) => timeout_ms,
        Err(text) => {
            let status = Status::new(Code::Internal, format!("malformed grpc-timeout: {text}"));
            return refuse(StatusCode::BAD_REQUEST, status);
        }
    };
    if request.method() != HttpMethod::POST {
        let text = format!(
            "Received a HEADERS frame with :method {:?} which should be POST",
            request.method().as_str()
        );
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            Status::new(Code::Internal, text),
        );
    }
    if timeout_ms == Some(0) {
        return refuse(StatusCode::OK, Status::CONTEXT_DEADLINE_EXCEEDED);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    let method = match find(path) {
        Ok(method) => method,
        Err(status) => return refuse(StatusCode::OK, status),
    };
    let is_gzip = match encoding(headers) {
        Ok(is_gzip) => is_gzip,
        Err(status) => return refuse(StatusCode::OK, status),
    };
    Ok(Accepted {
        method,
        metadata: Metadata::collect(first),
        content_type,
        is_gzip,
        timeout_ms,
    })
}

fn find(path: &str) -> Result<Method, Status> {
    match Method::find(path) {
        Lookup::Found(method) => Ok(method),
        Lookup::UnknownMethod { service, method } => Err(Status::unknown_method(service, method)),
        Lookup::UnknownService(service) => Err(Status::new(
            Code::Unimplemented,
            format!("unknown service {service}"),
        )),
        Lookup::Malformed => Err(Status::new(
            Code::Unimplemented,
            format!("malformed method name: {path:?}"),
        )),
    }
}

fn several_hosts(request: &Request<RecvStream>) -> Option<String> {
    let hosts = request.headers().get_all(http::header::HOST).iter().count();
    (hosts > 1).then(|| {
        let authorities = usize::from(request.uri().authority().is_some());
        format!(
            "num values of :authority: {authorities}, num values of host: {hosts}, both must only have 1 value as per HTTP/2 spec"
        )
    })
}

/// Returns the content type to answer with, or `None` when the request's is not of gRPC.
fn content_type(given: &[u8]) -> Option<HeaderValue> {
    let rest = given.strip_prefix(GRPC.as_bytes())?;
    match rest.split_first() {
        None => Some(HeaderValue::from_static(GRPC)),
        Some((b'+' | b';', b"")) => Some(HeaderValue::from_static(GRPC)),
        Some((b'+', b"proto")) => Some(HeaderValue::from_static("application/grpc+proto")),
        Some((b'+' | b';', subtype)) => {
            let value = [GRPC.as_bytes(), b"+", subtype].concat();
            Some(HeaderValue::from_bytes(&value).unwrap_or(HeaderValue::from_static(GRPC)))
        }
        Some(_) => None,
    }
}

/// Says whether messages may be packed. Of the compressions there are, etcd's server has gzip built in.
///
/// Differs from etcd: there the answers to such a call are packed too.
fn encoding(headers: &HeaderMap) -> Result<bool, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(false),
        Some(name) if name == gzip::NAME.as_bytes() => Ok(true),
        Some(other) => Err(no_decompressor(&String::from_utf8_lossy(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_judged_as_grpc_go_does() {
        let cases = [
            ("application/grpc", Some("application/grpc")),
            ("application/grpc+", Some("application/grpc")),
            ("application/grpc;", Some("application/grpc")),
            ("application/grpc+proto", Some("application/grpc+proto")),
            ("application/grpc;proto", Some("application/grpc+proto")),
            ("application/grpc+json", Some("application/grpc+json")),
            ("application/grpcd", None),
            ("application/json", None),
            ("Application/grpc", None),
            ("", None),
        ];
        for (given, expected) in cases {
            let answer = content_type(given.as_bytes());
            assert_eq!(
                answer.as_ref().and_then(|v| v.to_str().ok()),
                expected,
                "{given}"
            );
        }
    }
}
