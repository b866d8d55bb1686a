//! Listeners for metrics and health alone (`listen-metrics-urls`), open before the member serves anybody else.
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::http1;
use crate::metadata::Metadata;
use crate::method::Method;
use crate::seam::{Answer, HttpRequest, HttpResponse, Inbound, Later, Outbound, Service};
use crate::status::Status;
use crate::worker::Stop;

/// Connections open at one time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How often the service is told the time.
const TICK: Duration = Duration::from_millis(100);
/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A door for scrapers and health checks, served by a thread of its own.
#[derive(Debug)]
pub struct MetricsDoor {
    listeners: Vec<TcpListener>,
    clock: Clock,
    stopped: watch::Receiver<bool>,
}

impl MetricsDoor {
    /// Prepares the door behind sockets that listen already; what is returned with it closes it.
    ///
    /// # Errors
    ///
    /// What the operating system says to making the sockets non-blocking.
    pub fn new(listeners: Vec<TcpListener>, clock: Clock) -> io::Result<(Self, Stop)> {
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let (stop, stopped) = watch::channel(false);
        let door = Self {
            listeners,
            clock,
            stopped,
        };
        Ok((door, Stop::new(stop)))
    }

    /// Serves on this thread until the door is closed. `make` runs inside the thread's runtime and task set.
    ///
    /// # Errors
    ///
    /// When the operating system refuses what a runtime needs.
    pub fn run<S: Service>(self, make: impl FnOnce() -> S) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, async move {
            let service = Rc::new(MetricsOnly(make()));
            let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            for listener in self.listeners {
                let (service, limit) = (service.clone(), limit.clone());
                let stopped = self.stopped.clone();
                tokio::task::spawn_local(accept(listener, service, limit, stopped));
            }
            let mut stopped = self.stopped;
            let mut interval = tokio::time::interval(TICK);
            loop {
                tokio::select! {
                    _ = interval.tick() => service.tick(self.clock.now_ms()),
                    _ = stopped.wait_for(|stop| *stop) => return,
                }
            }
        });
        Ok(())
    }
}

/// Accepts for ever.
async fn accept<S: Service>(
    listener: TcpListener,
    service: Rc<S>,
    limit: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (service, stopped) = (service.clone(), stopped.clone());
        tokio::task::spawn_local(async move {
            let _permit = permit;
            http1::serve(socket, service, stopped).await;
        });
    }
}

/// Lets through what a metrics listener serves.
///
/// Source: etcd v3.7.1 server/etcdserver/api/etcdhttp/metrics.go, health.go.
struct MetricsOnly<S>(S);

impl<S: Service> Service for MetricsOnly<S> {
    fn unary(&self, _: Method, _: Metadata, _: Bytes) -> Answer {
        Answer::Now(Err(Status::STOPPED))
    }

    fn stream(&self, _: Method, _: Metadata, _: Inbound, _: Outbound) -> Later<Result<(), Status>> {
        Box::pin(async { Err(Status::STOPPED) })
    }

    fn http(&self, request: HttpRequest) -> Later<HttpResponse> {
        let first = request.path.split('/').nth(1).unwrap_or("");
        if !matches!(first, "metrics" | "health" | "livez" | "readyz") {
            return Box::pin(async { not_found() });
        }
        let answer = self.0.http(request);
        Box::pin(async move {
            let mut answer = answer.await;
            // Web pages of elsewhere are let in on the client listeners alone.
            let is_cors = |name: &str| name.starts_with("access-control-");
            answer.headers.retain(|(name, _)| !is_cors(name));
            answer
        })
    }

    fn stop(&self) {
        self.0.stop();
    }

    fn tick(&self, now_ms: u64) {
        self.0.tick(now_ms);
    }
}

fn not_found() -> HttpResponse {
    HttpResponse {
        status: 404,
        headers: vec![
            ("content-type", "text/plain; charset=utf-8"),
            ("x-content-type-options", "nosniff"),
        ],
        body: Bytes::from_static(b"404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    /// Answers with the path.
    struct Echo;

    impl Service for Echo {
        fn unary(&self, _: Method, _: Metadata, _: Bytes) -> Answer {
            Answer::Now(Err(Status::STOPPED))
        }
        fn stream(
            &self,
            _: Method,
            _: Metadata,
            _: Inbound,
            _: Outbound,
        ) -> Later<Result<(), Status>> {
            Box::pin(async { Err(Status::STOPPED) })
        }
        fn http(&self, request: HttpRequest) -> Later<HttpResponse> {
            Box::pin(async move {
                HttpResponse {
                    status: 200,
                    headers: vec![("access-control-allow-origin", "*")],
                    body: Bytes::from(request.path.to_string()),
                }
            })
        }
        fn stop(&self) {}

        fn tick(&self, _: u64) {}
    }

    #[test]
    fn metrics_and_health_are_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (door, stop) = MetricsDoor::new(vec![listener], Clock::start()).unwrap();
        let thread = std::thread::Builder::new()
            .spawn(move || door.run(|| Echo))
            .unwrap();
        for (path, status) in [
            ("/metrics", "200 OK"),
            ("/health?serializable=true", "200 OK"),
            ("/livez/serializable_read", "200 OK"),
            ("/readyz", "200 OK"),
            ("/version", "404 Not Found"),
            ("/metricsx", "404 Not Found"),
            ("/", "404 Not Found"),
        ] {
            let mut socket = TcpStream::connect(addr).unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{path}: {answer}"
            );
            assert!(!answer.contains("access-control"), "{answer}");
        }
        stop.stop();
        thread.join().unwrap().unwrap();
    }
}
