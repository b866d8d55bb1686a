//! Requests with short answers, over connections that are used again while they are fresh.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::body::RequestBody;
use crate::Error;
use crate::io::connect;
use crate::url::PeerUrl;

/// Longest time for which a connection is kept unused: a peer closes it after its read timeout of 5 s.
const IDLE_MAX: Duration = Duration::from_secs(3);

/// Connections to one address that are kept.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// Longest text of an error that is kept.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

/// A request whose body is at hand, so that it can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether it may arrive twice: then it is repeated when a connection that was used before breaks off.
    pub(crate) repeatable: bool,
    /// Longest time until the whole answer is there.
    pub(crate) time_max: Duration,
    /// Longest answer.
    pub(crate) answer_bytes_max: usize,
}

/// An answer that came whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Returns the body as text, cut short, without its last line feed.
    pub(crate) fn text(&self) -> String {
        let shown = &self.body[..self.body.len().min(ERROR_TEXT_BYTES_MAX)];
        let text = String::from_utf8_lossy(shown);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    pub(crate) fn unexpected(&self) -> Error {
        Error::Status {
            code: self.status.as_u16(),
            text: self.text(),
        }
    }
}

/// Connections to members, by address.
pub(crate) struct Pool {
    idle: Mutex<BTreeMap<String, Vec<Idle>>>,
    dial: Dial,
}

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    /// Longest time for a connection to be made.
    pub(crate) time_max: Duration,
    /// Longest time in which nothing can be written.
    pub(crate) stall_max: Duration,
    /// Own address; the system's choice if `None`.
    pub(crate) from: Option<IpAddr>,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(dial: Dial) -> Self {
        Self {
            idle: Mutex::new(BTreeMap::new()),
            dial,
        }
    }

    /// Makes a request and waits for its whole answer. A request on a connection that turns out to be closed is
    /// repeated once on a new one, if it was not sent or may arrive twice.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the connection is closed; whether the request had its effect is not known.
    pub(crate) async fn call(&self, url: &PeerUrl, call: &Call) -> Result<Reply, Error> {
        tokio::time::timeout(call.time_max, self.call_patiently(url, call))
            .await
            .map_err(|_| Error::TimedOut("no answer"))?
    }

    async fn call_patiently(&self, url: &PeerUrl, call: &Call) -> Result<Reply, Error> {
        if let Some(mut sender) = self.take_idle(url)
            && sender.ready().await.is_ok()
        {
            match self.exchange(url, sender, call).await {
                Err(Error::Http(error))
                    if error.is_canceled()
                        || (call.repeatable && error.is_incomplete_message()) => {}
                answered => return answered,
            }
        }
        let sender = self.dial(url).await?;
        self.exchange(url, sender, call).await
    }

    /// Opens a connection of its own.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn dial(&self, url: &PeerUrl) -> Result<SendRequest<RequestBody>, Error> {
        dial(url, self.dial).await
    }

    /// As [`Self::dial`], with another limit to the time in which nothing can be written.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn dial_patiently(
        &self,
        url: &PeerUrl,
        stall_max: Duration,
    ) -> Result<SendRequest<RequestBody>, Error> {
        let how = Dial {
            stall_max,
            ..self.dial
        };
        dial(url, how).await
    }

    async fn exchange(
        &self,
        url: &PeerUrl,
        mut sender: SendRequest<RequestBody>,
        call: &Call,
    ) -> Result<Reply, Error> {
        let body = RequestBody::from(call.body.clone());
        let request = request(
            url,
            call.method.clone(),
            &call.path,
            call.headers.clone(),
            body,
        )?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = read_whole(body, call.answer_bytes_max).await?;
        if sender.ready().await.is_ok() {
            self.keep(url, sender);
        }
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    fn take_idle(&self, url: &PeerUrl) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(url.authority())?;
        kept.retain(|one| one.since.elapsed() < IDLE_MAX && !one.sender.is_closed());
        let newest = kept.pop();
        if kept.is_empty() {
            idle.remove(url.authority());
        }
        newest.map(|one| one.sender)
    }

    fn keep(&self, url: &PeerUrl, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.lock();
        idle.retain(|_, kept| {
            kept.retain(|one| one.since.elapsed() < IDLE_MAX);
            !kept.is_empty()
        });
        let kept = idle.entry(url.authority().to_owned()).or_default();
        if kept.len() < IDLE_CONNECTIONS_MAX {
            kept.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Closes what is kept.
    pub(crate) fn clear(&self) {
        self.idle.lock().clear();
    }
}

/// Opens a connection and sees to it on a task of its own.
///
/// # Cancel safety
///
/// Cancel safe.
async fn dial(url: &PeerUrl, how: Dial) -> Result<SendRequest<RequestBody>, Error> {
    let connecting = connect(url, how.from, how.stall_max);
    let socket = tokio::time::timeout(how.time_max, connecting)
        .await
        .map_err(|_| Error::TimedOut("no connection"))??;
    let (sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(socket))
        .await?;
    // It ends when the sender and the answer's body are dropped, or the socket fails.
    tokio::spawn(connection);
    Ok(sender)
}

/// Puts a request together.
pub(crate) fn request(
    url: &PeerUrl,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Request<RequestBody>, Error> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path
        .parse()
        .map_err(|_| Error::Malformed("path of a request"))?;
    *request.headers_mut() = headers;
    let host = http::HeaderValue::from_str(url.authority())
        .map_err(|_| Error::Malformed("host of a request"))?;
    request.headers_mut().insert(http::header::HOST, host);
    Ok(request)
}

/// Reads a body that is short enough.
pub(crate) async fn read_whole(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if whole.len() + data.len() > bytes_max {
            return Err(Error::TooLarge {
                bytes: (whole.len() + data.len()) as u64,
                limit: bytes_max as u64,
            });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
