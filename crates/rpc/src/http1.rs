//! HTTP/1.1 on the same port: health, version, metrics.
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::gzip;
use crate::seam::{HttpRequest, HttpResponse, Service};

/// How long a client may take over a request's header.
///
/// Source: etcd v3.7.1 server/embed/serve.go, `ReadHeaderTimeout`.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The most bytes of a request that are held at one time.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// What is packed for clients that like it so: the one answer that is long.
const PACKED_PATH: &str = "/metrics";

/// Serves a connection to its end; when `stop` turns true, to the end of the request under way.
///
/// # Cancel safety
///
/// Dropping it drops the connection.
pub(crate) async fn serve<S, T>(io: T, service: Rc<S>, mut stop: watch::Receiver<bool>)
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let service = service.clone();
        async move {
            let may_pack = request.uri().path() == PACKED_PATH && takes_gzip(&request);
            let answer = respond(service.http(convert(&request)).await, may_pack);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(BUFFER_MAX_BYTES)
        .serve_connection(TokioIo::new(io), answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a client misbehaved is of no interest to anyone here.
        _ = connection.as_mut() => {}
        _ = stop.wait_for(|stop| *stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

fn convert(request: &hyper::Request<Incoming>) -> HttpRequest {
    HttpRequest {
        method: request.method().as_str().into(),
        path: request.uri().path().into(),
        query: request.uri().query().unwrap_or("").into(),
        accept: request
            .headers()
            .get(hyper::header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .into(),
    }
}

/// Says whether the client would rather have an answer packed than as it is.
///
/// Source: client_golang v1.23.2 prometheus/promhttp/http.go `negotiateEncodingWriter`.
fn takes_gzip<B>(request: &hyper::Request<B>) -> bool {
    let header = request.headers().get_all(ACCEPT_ENCODING).iter();
    let wishes: Vec<(&str, f32)> = header
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|wish| {
            let (name, parameters) = wish.split_once(';').unwrap_or((wish, ""));
            let weight = parameters.trim().strip_prefix("q=");
            let weight = weight.map_or(Ok(1.0), str::parse).unwrap_or(0.0);
            (name.trim(), weight)
        })
        .collect();
    let weight = |offer: &str| {
        let wanted = wishes
            .iter()
            .filter(|(name, _)| *name == offer || *name == "*");
        wanted.map(|(_, weight)| *weight).fold(0.0, f32::max)
    };
    weight(gzip::NAME) > weight("identity")
}

fn respond(answer: HttpResponse, may_pack: bool) -> hyper::Response<Full<Bytes>> {
    let is_packed = may_pack && answer.status == 200;
    let body = if is_packed {
        gzip::pack(&answer.body)
    } else {
        answer.body
    };
    let mut response = hyper::Response::new(Full::new(body));
    if is_packed {
        let name = hyper::header::HeaderValue::from_static(gzip::NAME);
        response.headers_mut().insert(CONTENT_ENCODING, name);
    }
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status)
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        response.headers_mut().insert(
            hyper::header::HeaderName::from_static(name),
            hyper::header::HeaderValue::from_static(value),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_chosen_as_by_prometheus() {
        let cases = [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("identity, gzip", false),
            ("identity;q=0.2, gzip;q=0.3", true),
            ("*", false),
            ("zstd", false),
            ("gzip;q=x", false),
        ];
        for (wish, expected) in cases {
            let request = hyper::Request::builder().header(ACCEPT_ENCODING, wish);
            assert_eq!(takes_gzip(&request.body(()).unwrap()), expected, "{wish}");
        }
        assert!(!takes_gzip(&hyper::Request::new(())));
    }

    #[test]
    fn answers_are_packed_when_all_went_well() {
        let answer = |status| HttpResponse {
            status,
            headers: vec![],
            body: Bytes::from_static(b"metrics"),
        };
        let packed =
            |response: &hyper::Response<_>| response.headers().get(CONTENT_ENCODING).is_some();
        assert!(packed(&respond(answer(200), true)));
        assert!(!packed(&respond(answer(500), true)));
        assert!(!packed(&respond(answer(200), false)));
    }
}
