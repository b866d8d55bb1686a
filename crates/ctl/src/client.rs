//! Calls to the servers: finding one that answers, logging in, trying again.
//!
//! Source: the behaviour of etcd v3.7.1's Go client: a call waits until one of the endpoints can be connected or its time is up;
//! reads are tried again where the server was not reached, writes are not; a stale token is fetched anew.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use quorate_proto::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::log;
use crate::status::{CallError, rpc_text};

/// The pause between two rounds over the endpoints, doubled after each up to the second.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How often one call is sent at most.
const ATTEMPTS_MAX: u32 = 100;
/// The pause before a call is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Requests waiting on one stream.
pub(crate) const STREAM_QUEUE_MAX: usize = 64;

const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
const OLD_REVISION: &str = "etcdserver: revision of auth store is old";
const USER_EMPTY: &str = "etcdserver: user name is empty";
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

/// What a client needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Never empty, as given by the user.
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_response_bytes: usize,
    pub(crate) credentials: Option<Credentials>,
}

/// How to log in.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    Token(String),
    Password { name: String, password: String },
}

/// Whether a call may be sent again when it is not known to have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or doing it twice is as good as once.
    Safe,
    /// It changes something.
    Never,
}

/// A client of one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    /// The channel in use and the place of its endpoint.
    channel: RefCell<Option<(usize, Channel)>>,
    /// The endpoint to try first when there is no channel.
    next: RefCell<usize>,
    token: RefCell<Option<MetadataValue<Ascii>>>,
}

/// When a call must be over; `None` for never.
pub(crate) type Deadline = Option<Instant>;

impl Client {
    /// A client that has logged in, where it has to.
    ///
    /// # Errors
    /// Logging in failed or took longer than the dial timeout.
    pub(crate) async fn new(settings: Settings) -> Result<Client, CallError> {
        let client = Client {
            channel: RefCell::new(None),
            next: RefCell::new(0),
            token: RefCell::new(None),
            settings,
        };
        let deadline = Instant::now().checked_add(client.settings.dial_timeout);
        client.log_in(deadline).await?;
        Ok(client)
    }

    /// One unary call of the etcd API, `method` as in `KV/Put`.
    pub(crate) async fn call<Q, A>(
        &self,
        method: &str,
        request: &Q,
        deadline: Deadline,
        repeat: Repeat,
    ) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut attempt = 0;
        loop {
            let error = match self.call_once(method, request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.warn(method, attempt, &error);
            attempt += 1;
            let CallError::Status(status) = &error else {
                return Err(error);
            };
            if attempt >= ATTEMPTS_MAX {
                return Err(error);
            }
            if self.is_stale_token(status) {
                self.log_in(deadline).await?;
            } else if repeat == Repeat::Safe && is_unreached(status) {
                self.drop_channel();
            } else {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// A call that the server answers with many messages.
    pub(crate) async fn server_stream<Q, A>(
        &self,
        method: &str,
        request: Q,
        deadline: Deadline,
    ) -> Result<Streaming<A>, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc(deadline).await?;
        let request = self.request(request, deadline);
        let call = grpc.server_streaming(request, path(method), ProstCodec::<Q, A>::default());
        let answer = within(deadline, call).await?;
        Ok(answer.into_inner())
    }

    /// A stream both ways; with `needs_leader` the server ends it when the cluster has no leader.
    pub(crate) async fn stream<Q, A>(
        &self,
        method: &str,
        requests: mpsc::Receiver<Q>,
        needs_leader: bool,
    ) -> Result<Streaming<A>, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc(None).await?;
        let mut request = self.request(Outbox(requests), None);
        if needs_leader {
            request
                .metadata_mut()
                .insert("hasleader", MetadataValue::from_static("true"));
        }
        let call = grpc.streaming(request, path(method), ProstCodec::<Q, A>::default());
        let answer = call.await.map_err(CallError::Status)?;
        Ok(answer.into_inner())
    }

    /// Forgets the connection, so that the next call tries the next endpoint.
    pub(crate) fn drop_channel(&self) {
        if let Some((at, _)) = self.channel.borrow_mut().take() {
            *self.next.borrow_mut() = (at + 1) % self.settings.endpoints.len();
        }
    }

    async fn call_once<Q, A>(
        &self,
        method: &str,
        request: &Q,
        deadline: Deadline,
    ) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let (len, max) = (request.encoded_len(), self.settings.max_request_bytes);
        if len > max {
            let text = format!("trying to send message larger than max ({len} vs. {max})");
            return Err(CallError::Status(Status::resource_exhausted(text)));
        }
        let mut grpc = self.grpc(deadline).await?;
        let request = self.request(request.clone(), deadline);
        let call = grpc.unary(request, path(method), ProstCodec::<Q, A>::default());
        Ok(within(deadline, call).await?.into_inner())
    }

    /// A gRPC client on a channel that is ready.
    async fn grpc(&self, deadline: Deadline) -> Result<tonic::client::Grpc<Channel>, CallError> {
        let channel = self.connect(deadline).await?;
        let mut grpc = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(self.settings.max_response_bytes)
            .max_encoding_message_size(self.settings.max_request_bytes);
        if let Err(error) = grpc.ready().await {
            self.drop_channel();
            return Err(CallError::Status(Status::unavailable(error.to_string())));
        }
        Ok(grpc)
    }

    /// The channel in use, or one to the first endpoint that can be connected.
    async fn connect(&self, deadline: Deadline) -> Result<Channel, CallError> {
        if let Some((_, channel)) = self.channel.borrow().as_ref() {
            return Ok(channel.clone());
        }
        let mut pause = RECONNECT_MIN;
        loop {
            for _ in 0..self.settings.endpoints.len() {
                let at = *self.next.borrow();
                let endpoint = self.endpoint(&self.settings.endpoints[at]);
                let connected = match &endpoint {
                    Ok(endpoint) => within(deadline, async { Ok(endpoint.connect().await) })
                        .await?
                        .ok(),
                    Err(_) => None,
                };
                if let Some(channel) = connected {
                    *self.channel.borrow_mut() = Some((at, channel.clone()));
                    return Ok(channel);
                }
                *self.next.borrow_mut() = (at + 1) % self.settings.endpoints.len();
            }
            within(deadline, async {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await?;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    fn endpoint(&self, text: &str) -> Result<Endpoint, tonic::transport::Error> {
        let text = text.trim();
        let uri = if text.starts_with("unix:") || text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let endpoint = Endpoint::from_shared(uri)?.tcp_nodelay(true);
        Ok(match ping_interval(self.settings.keepalive_time) {
            None => endpoint,
            Some(interval) => endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(ping_timeout(self.settings.keepalive_timeout))
                .keep_alive_while_idle(false),
        })
    }

    fn request<T>(&self, message: T, deadline: Deadline) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let metadata = request.metadata_mut();
        metadata.insert("client-api-version", MetadataValue::from_static("3.7"));
        if let Some(token) = self.token.borrow().as_ref() {
            metadata.insert("token", token.clone());
        }
        request
    }

    async fn log_in(&self, deadline: Deadline) -> Result<(), CallError> {
        let token = match &self.settings.credentials {
            None => return Ok(()),
            Some(Credentials::Token(token)) => token.clone(),
            Some(Credentials::Password { name, password })
                if name.is_empty() || password.is_empty() =>
            {
                return Ok(());
            }
            Some(Credentials::Password { name, password }) => {
                let request = AuthenticateRequest {
                    name: name.clone(),
                    password: password.clone(),
                };
                *self.token.borrow_mut() = None;
                let answer: Result<AuthenticateResponse, CallError> = self
                    .call_once("Auth/Authenticate", &request, deadline)
                    .await;
                match answer {
                    Ok(answer) => answer.token,
                    Err(error) if error.is(AUTH_NOT_ENABLED) => return Ok(()),
                    Err(error) => {
                        self.warn("Auth/Authenticate", 0, &error);
                        return Err(error);
                    }
                }
            }
        };
        let token = token
            .parse()
            .map_err(|_| CallError::Status(Status::internal("the token is not valid metadata")))?;
        *self.token.borrow_mut() = Some(token);
        Ok(())
    }

    /// Whether logging in again may help.
    fn is_stale_token(&self, status: &Status) -> bool {
        matches!(&self.settings.credentials, Some(Credentials::Password { password, .. }) if !password.is_empty())
            && matches!(status.message(), INVALID_TOKEN | OLD_REVISION | USER_EMPTY)
    }

    fn warn(&self, method: &str, attempt: u32, error: &CallError) {
        let text = match error {
            CallError::DeadlineExceeded => {
                rpc_text(&Status::deadline_exceeded("no endpoint answered in time"))
            }
            CallError::Status(status) => rpc_text(status),
        };
        log::write(
            "warn",
            "retrying of unary invoker failed",
            &[
                ("target", &self.settings.endpoints.join(",")),
                ("method", path(method).as_str()),
                ("attempt", &attempt.to_string()),
                ("error", &text),
            ],
        );
    }
}

/// Requests handed to a stream one by one; the stream ends when the sender is dropped.
struct Outbox<T>(mpsc::Receiver<T>);

impl<T> futures_core::Stream for Outbox<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

/// Whether the server was not reached, or could not take the call.
pub(crate) fn is_unreached(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || (matches!(status.code(), Code::Unknown | Code::Internal)
            && std::error::Error::source(status).is_some())
}

/// Runs `call` until `deadline`.
///
/// # Cancel safety
/// The call is dropped, as it is when the deadline passes.
pub(crate) async fn within<T>(
    deadline: Deadline,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, CallError> {
    let Some(deadline) = deadline else {
        return call.await.map_err(CallError::Status);
    };
    match tokio::time::timeout_at(deadline, call).await {
        Ok(result) => result.map_err(|status| past(deadline, status)),
        Err(_) => Err(CallError::DeadlineExceeded),
    }
}

/// A status that only says that the call's time is up becomes just that.
fn past(deadline: Instant, status: Status) -> CallError {
    let is_timeout = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    if is_timeout && Instant::now() >= deadline {
        return CallError::DeadlineExceeded;
    }
    CallError::Status(status)
}

fn path(method: &str) -> PathAndQuery {
    let path = Bytes::from(format!("/etcdserverpb.{method}"));
    PathAndQuery::from_maybe_shared(path).expect("method names are plain ASCII")
}

/// The shortest time between two pings: servers send a client away that pings more often than every 5 s while they are silent.
///
/// Source: grpc-go v1.82.1 internal/internal.go `KeepaliveMinPingTime`.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Returns the time between two pings to a server that is silent; `None` is never.
fn ping_interval(asked: Duration) -> Option<Duration> {
    (!asked.is_zero()).then(|| asked.max(PING_INTERVAL_MIN))
}

/// The wait for the answer to a ping if none is asked for.
///
/// Source: grpc-go v1.82.1 internal/transport/defaults.go `defaultClientKeepaliveTimeout`.
const PING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// Returns how long the answer to a ping may take.
fn ping_timeout(asked: Duration) -> Duration {
    if asked.is_zero() {
        PING_TIMEOUT_DEFAULT
    } else {
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_never_so_frequent_that_a_server_ends_a_call_that_takes_its_time() {
        let of = |seconds| ping_interval(Duration::from_secs(seconds)).map(|d| d.as_secs());
        assert_eq!([0, 2, 10, 60].map(of), [None, Some(10), Some(10), Some(60)]);
    }

    #[test]
    fn without_a_timeout_a_ping_is_answered_in_time_or_after_the_default() {
        let of = |seconds| ping_timeout(Duration::from_secs(seconds)).as_secs();
        assert_eq!([0, 1, 60].map(of), [20, 1, 60]);
    }
}
