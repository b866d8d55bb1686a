//! What other members begin: connections, and what they ask on them.
mod answer;
mod ask;
mod kindred;
mod path;
mod raft;
mod route;
mod snapshot;

pub(crate) use snapshot::{RECEIVED_MAX, is_taken};

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::io::Patient;
use crate::shared::Shared;

/// Connections that are served at the same time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;

/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long to wait when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the transport is stopped.
///
/// # Cancel safety
///
/// Cancel safe: connections have tasks of their own.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stopped = shared.stopped.subscribe();
    loop {
        let accepting = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepting => accepted,
            () = stop(&mut stopped) => return,
        };
        match accepted {
            Ok((socket, address)) => {
                let connection = connection(Arc::clone(&shared), socket, address, permit);
                tokio::spawn(connection);
            }
            Err(error) => {
                tracing::warn!(error = %error, "failed to accept a connection of a peer");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end. The one place where a link from another member begins; TLS belongs here.
async fn connection(
    shared: Arc<Shared>,
    socket: TcpStream,
    address: std::net::SocketAddr,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let Ok(socket) = Patient::new(socket, shared.config.write_timeout) else {
        return;
    };
    let mut stopped = shared.stopped.subscribe();
    let answering = Arc::clone(&shared);
    let door = socket.door();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&door));
        let shared = Arc::clone(&answering);
        async move { Ok::<_, Infallible>(route::answer(&shared, request).await) }
    });
    // A silent connection is closed after as long as etcd's listener waits for a read.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.read_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(socket), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = stop(&mut stopped) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            // Streams end once what waited on them is sent; a stalled write ends by itself.
            let patience = shared.config.write_timeout;
            tokio::time::timeout(patience, serving)
                .await
                .unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error = %error, "a connection of a peer broke off");
    }
}

/// Waits until the transport is stopped.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // A transport that is gone altogether is stopped, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
