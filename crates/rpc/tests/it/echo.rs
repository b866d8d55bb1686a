//! A service for tests, a front door around it, and a client.
use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use prost::Message as _;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_rpc::{
    Answer, Clock, FrontDoor, HttpRequest, HttpResponse, Inbound, Later, Message, Metadata, Method,
    Options, Outbound, Registry, Service, Status, Stop,
};

/// Counters that the test looks at from outside.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Unary calls handled.
    pub(crate) unary: AtomicUsize,
    /// Handlers that are alive.
    pub(crate) alive: AtomicUsize,
    /// Messages that streams were able to send.
    pub(crate) streamed: AtomicUsize,
    /// What slow work waits for.
    pub(crate) gate: parking_lot::Mutex<()>,
}

/// - Range: echoes the request in a put's value.
/// - Put: answers a value of as many bytes as the key says in decimal.
/// - LeaseGrant: never answers.
/// - LeaseRevoke: answers when work beside the thread has passed the gate.
/// - Watch: echoes every message until the client is done.
/// - RangeStream: sends messages of 16 KiB for ever.
#[derive(Debug)]
pub(crate) struct Echo {
    seen: Arc<Seen>,
    ticks: Cell<u64>,
}

struct Alive(Arc<Seen>);

impl Alive {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.alive.fetch_add(1, Ordering::SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

fn value(bytes: Bytes) -> Message {
    Message::encode(&PutRequest {
        value: bytes,
        ..Default::default()
    })
}

impl Service for Echo {
    fn unary(&self, method: Method, metadata: Metadata, body: Bytes) -> Answer {
        self.seen.unary.fetch_add(1, Ordering::SeqCst);
        match method {
            Method::KvRange if metadata.token.as_deref() == Some("bad") => {
                Answer::Now(Err(Status::INVALID_AUTH_TOKEN))
            }
            Method::KvRange => Answer::Now(Ok(value(body))),
            Method::KvPut => {
                let put = PutRequest::decode(body).unwrap();
                let len: usize = std::str::from_utf8(&put.key).unwrap().parse().unwrap();
                Answer::Now(Ok(value(vec![b'v'; len].into())))
            }
            Method::KvTxn => {
                let alive = Alive::new(&self.seen);
                Answer::later(async move {
                    let _alive = alive;
                    tokio::task::yield_now().await;
                    Ok(value(body))
                })
            }
            Method::LeaseGrant => {
                let alive = Alive::new(&self.seen);
                Answer::later(async move {
                    let _alive = alive;
                    std::future::pending().await
                })
            }
            Method::LeaseRevoke => {
                let (alive, seen) = (Alive::new(&self.seen), self.seen.clone());
                Answer::later(async move {
                    let _alive = alive;
                    let passed = tokio::task::spawn_blocking(move || drop(seen.gate.lock()));
                    passed.await.map_err(|_| Status::STOPPED)?;
                    Ok(value(body))
                })
            }
            other => Answer::Now(Err(Status::unknown_method(other.service(), other.name()))),
        }
    }

    fn stream(
        &self,
        method: Method,
        _metadata: Metadata,
        mut inbound: Inbound,
        outbound: Outbound,
    ) -> Later<Result<(), Status>> {
        let alive = Alive::new(&self.seen);
        let seen = self.seen.clone();
        Box::pin(async move {
            let _alive = alive;
            if method == Method::KvRangeStream {
                inbound.only().await?;
                loop {
                    outbound.send(value(vec![b's'; 16 * 1024].into())).await?;
                    seen.streamed.fetch_add(1, Ordering::SeqCst);
                }
            }
            while let Some(message) = inbound.next().await? {
                outbound.send(value(message)).await?;
            }
            Ok(())
        })
    }

    fn http(&self, request: HttpRequest) -> Later<HttpResponse> {
        Box::pin(async move {
            let body = format!("{} {} {}", request.method, request.path, request.query);
            HttpResponse {
                status: 200,
                headers: vec![("content-type", "text/plain")],
                body: body.into(),
            }
        })
    }

    fn stop(&self) {}

    fn tick(&self, now_ms: u64) {
        assert!(now_ms >= self.ticks.get(), "the clock never goes back");
        self.ticks.set(now_ms);
    }
}

/// A running front door; it is stopped and joined when dropped.
#[derive(Debug)]
pub(crate) struct Door {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// What the service saw.
    pub(crate) seen: Arc<Seen>,
    /// Its metrics.
    pub(crate) registry: Arc<Registry>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Door {
    /// Opens a front door on a free port.
    pub(crate) fn open(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let registry = Arc::new(Registry::new(options.threads));
        let door = FrontDoor::new(vec![listener], &options, Clock::start(), &registry).unwrap();
        let threads = door
            .workers
            .into_iter()
            .map(|worker| {
                let seen = seen.clone();
                let run = move || {
                    worker
                        .run(|| Echo {
                            seen,
                            ticks: Cell::new(0),
                        })
                        .unwrap()
                };
                std::thread::Builder::new()
                    .name("worker".to_owned())
                    .spawn(run)
                    .unwrap()
            })
            .collect();
        Self {
            addr,
            seen,
            registry,
            stop: door.stop,
            threads,
        }
    }

    /// Tells the workers to stop, without waiting.
    pub(crate) fn begin_stop(&self) {
        self.stop.stop();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a worker panicked");
            }
        }
    }
}

/// Runs a test's client.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = std::time::Duration::from_secs(60);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(limit, test)
            .await
            .expect("the test takes too long")
    })
}

/// Waits until something is true.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// Connects a client; how its connection ended is put into the cell.
pub(crate) async fn connect(
    addr: SocketAddr,
) -> (SendRequest<Bytes>, Rc<Cell<Option<Result<(), h2::Error>>>>) {
    let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_max_send_streams(100_000)
        .data_frame_budget(1 << 30)
        .handshake(socket)
        .await
        .unwrap();
    let ended = Rc::new(Cell::new(None));
    let result = ended.clone();
    tokio::task::spawn_local(async move { result.set(Some(connection.await)) });
    (client, ended)
}

/// Puts gRPC's prefix before a message.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::from(&[0][..]);
    out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out.freeze()
}

/// Makes a request's header.
pub(crate) fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A call's answer.
#[derive(Debug, Default)]
pub(crate) struct Called {
    /// The response header.
    pub(crate) head: Response<()>,
    /// Everything that came, with prefixes.
    pub(crate) data: Vec<u8>,
    /// The trailers, or the header when there are none.
    pub(crate) trailers: HeaderMap,
}

impl Called {
    /// Returns the status code and text.
    pub(crate) fn status(&self) -> (u8, String) {
        let code = self.trailers["grpc-status"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let text = self
            .trailers
            .get("grpc-message")
            .map_or("", |v| v.to_str().unwrap());
        (code, text.to_owned())
    }

    /// Returns the value of the put that is the only message.
    pub(crate) fn value(&self) -> Bytes {
        assert_eq!(self.status(), (0, String::new()));
        let (prefix, body) = self.data.split_at(5);
        assert_eq!(prefix[0], 0);
        assert_eq!(
            u32::from_be_bytes(prefix[1..].try_into().unwrap()),
            u32::try_from(body.len()).unwrap()
        );
        PutRequest::decode(body).unwrap().value
    }
}

/// Calls with a header and a body, and waits for the end.
pub(crate) async fn call(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Called, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut send) = client.send_request(request, body.is_none())?;
    if let Some(body) = body {
        send.send_data(body, true)?;
    }
    collect(response.await?).await
}

/// Reads a response to its end.
pub(crate) async fn collect(response: Response<h2::RecvStream>) -> Result<Called, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut data = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part?;
        data.extend_from_slice(&part);
        let _ = stream.flow_control().release_capacity(part.len());
    }
    let trailers = stream
        .trailers()
        .await?
        .unwrap_or_else(|| parts.headers.clone());
    Ok(Called {
        head: Response::from_parts(parts, ()),
        data,
        trailers,
    })
}

/// Calls a method with one message.
pub(crate) async fn unary(client: &SendRequest<Bytes>, path: &str, message: &[u8]) -> Called {
    call(client, post(path).body(()).unwrap(), Some(framed(message)))
        .await
        .unwrap()
}

/// A put whose answer will have so many bytes.
pub(crate) fn sized(len: usize) -> Vec<u8> {
    PutRequest {
        key: len.to_string().into(),
        ..Default::default()
    }
    .encode_to_vec()
}
