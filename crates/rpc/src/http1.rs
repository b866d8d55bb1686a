//! HTTP/1.1 on the same port: health, version, metrics.
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::seam::{HttpRequest, HttpResponse, Service};

/// How long a client may take over a request's header.
///
/// Source: etcd v3.7.1 server/embed/serve.go, `ReadHeaderTimeout`.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The most bytes of a request that are held at one time.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

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
        async move { Ok::<_, Infallible>(respond(service.http(convert(&request)).await)) }
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

fn respond(answer: HttpResponse) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(answer.body));
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
