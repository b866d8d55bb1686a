//! Calls with the generated messages.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tonic::codec::Codec;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::failure::{Failure, Outcome};

/// How long a unary call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The same where it is tried again anyway.
const LAZY_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests waiting on one stream.
const QUEUE_MAX: usize = 1_024;

/// The requests' end of a stream; dropped, it ends the requests.
pub type Sender<T> = mpsc::Sender<T>;

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn connect(endpoint: &str) -> Outcome<Client> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await?;
        Ok(Client { channel })
    }

    /// A connection that is made when it is needed, and again whenever it is lost.
    ///
    /// # Errors
    /// The endpoint is no address.
    pub fn lazy(endpoint: &str) -> Outcome<Client> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))?
            .connect_timeout(LAZY_CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Client { channel })
    }

    fn grpc(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// One call, `method` as in `KV/Put`.
    ///
    /// # Errors
    /// What the server answered, or that it was not reached.
    ///
    /// # Cancel safety
    /// The call may have been carried out.
    pub async fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        self.unary(&etcd_path(method), request, codec, MetadataMap::new())
            .await
    }

    /// One call with a codec and metadata of the caller's.
    ///
    /// # Errors
    /// As [`Client::call`].
    ///
    /// # Cancel safety
    /// As [`Client::call`].
    pub async fn unary<C>(
        &self,
        path: &str,
        request: C::Encode,
        codec: C,
        metadata: MetadataMap,
    ) -> Result<C::Decode, Status>
    where
        C: Codec,
        C::Encode: Send + Sync + 'static,
        C::Decode: Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let mut request = Request::from_parts(metadata, tonic::Extensions::default(), request);
        request.set_timeout(CALL_TIMEOUT);
        let answer = tokio::time::timeout(
            CALL_TIMEOUT,
            grpc.unary(request, path_and_query(path), codec),
        )
        .await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("the call took too long"))?;
        Ok(answer?.into_inner())
    }

    /// A call answered by a stream.
    ///
    /// # Errors
    /// As [`Client::call`].
    ///
    /// # Cancel safety
    /// The call is dropped.
    pub async fn server_stream<C>(
        &self,
        path: &str,
        request: C::Encode,
        codec: C,
        metadata: MetadataMap,
    ) -> Result<Streaming<C::Decode>, Status>
    where
        C: Codec,
        C::Encode: Send + Sync + 'static,
        C::Decode: Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let request = Request::from_parts(metadata, tonic::Extensions::default(), request);
        let answer = grpc
            .server_streaming(request, path_and_query(path), codec)
            .await?;
        Ok(answer.into_inner())
    }

    /// Opens a stream both ways with a first request: servers may wait for it before they answer at all.
    ///
    /// # Errors
    /// As [`Client::call`].
    ///
    /// # Cancel safety
    /// The stream is dropped.
    pub async fn stream<Q, A>(
        &self,
        method: &str,
        first: Q,
    ) -> Result<(Sender<Q>, Streaming<A>), Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        sender
            .try_send(first)
            .map_err(|e| Status::internal(e.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let answers = self
            .both_ways(&etcd_path(method), requests, codec, MetadataMap::new())
            .await?;
        Ok((sender, answers))
    }

    /// A stream both ways whose requests come from `requests`.
    ///
    /// # Errors
    /// As [`Client::call`].
    ///
    /// # Cancel safety
    /// The stream is dropped.
    pub async fn both_ways<C>(
        &self,
        path: &str,
        requests: mpsc::Receiver<C::Encode>,
        codec: C,
        metadata: MetadataMap,
    ) -> Result<Streaming<C::Decode>, Status>
    where
        C: Codec,
        C::Encode: Send + Sync + 'static,
        C::Decode: Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let request = Request::from_parts(metadata, tonic::Extensions::default(), Outbox(requests));
        let answer = grpc.streaming(request, path_and_query(path), codec).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = self.grpc();
        grpc.ready()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(grpc)
    }
}

/// A queue as the stream of requests.
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

fn etcd_path(method: &str) -> String {
    format!("/etcdserverpb.{method}")
}

fn path_and_query(path: &str) -> PathAndQuery {
    path.parse().expect("method names are plain ASCII")
}

/// Code and message of a status, for comparing.
#[must_use]
pub fn error_text(status: &Status) -> String {
    Failure::from(status.clone()).to_string()
}
