//! Posts messages one by one, while a peer has no stream open.
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use prost::Message as _;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::sync::{Mutex, mpsc};

use super::pool::{Call, Reply};
use super::stream::refusal;
use crate::Error;
use crate::config::ANSWER_TIMEOUT;
use crate::headers::{CLUSTER_ID, checksum_of, seal};
use crate::link::Link;
use crate::shared::Shared;

/// Messages that are posted at the same time.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/pipeline.go `connPerPipeline`.
pub(crate) const CONNECTIONS: usize = 4;

/// Messages that wait to be posted; more are dropped.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/pipeline.go `pipelineBufSize`.
const QUEUED_MESSAGES_MAX: usize = 64;

/// Longest answer to a post.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The queue's two ends: one in front, several behind.
pub(crate) struct Pipeline {
    sender: mpsc::Sender<Message>,
    receiver: Arc<Mutex<mpsc::Receiver<Message>>>,
}

impl Pipeline {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED_MESSAGES_MAX);
        Self {
            sender,
            receiver: Arc::new(Mutex::new(receiver)),
        }
    }

    /// Queues messages and returns how many were dropped. Never blocks.
    pub(crate) fn push(&self, messages: Vec<Message>) -> usize {
        let refused = messages
            .into_iter()
            .filter_map(|message| self.sender.try_send(message).err());
        refused.count()
    }

    /// Returns one of the [`CONNECTIONS`] ends.
    pub(crate) fn end(&self) -> Arc<Mutex<mpsc::Receiver<Message>>> {
        Arc::clone(&self.receiver)
    }
}

/// Posts what is queued until the task is ended.
///
/// # Cancel safety
///
/// Cancel safe: a message that was being posted may or may not have arrived.
pub(crate) async fn run_pipeline(
    shared: Arc<Shared>,
    link: Arc<Link>,
    queue: Arc<Mutex<mpsc::Receiver<Message>>>,
) {
    loop {
        let Some(message) = queue.lock().await.recv().await else {
            return;
        };
        match post(&shared, &link, &message).await {
            Ok(bytes) => {
                link.activate();
                link.counters.sent_bytes.add(bytes);
            }
            Err(error) => {
                link.deactivate("write", "pipeline", &error);
                link.lost(1);
            }
        }
    }
}

/// Posts a message and returns its length. Raft takes any twice but a proposal, which would be appended, and applied, once for each time.
async fn post(shared: &Shared, link: &Link, message: &Message) -> Result<usize, Error> {
    let body = Bytes::from(message.encode_to_vec());
    let bytes = body.len();
    let mut headers = shared.identity.request_headers();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/protobuf"),
    );
    if shared.config.checksums {
        seal(&mut headers, checksum_of(&body));
    }
    let call = Call {
        method: Method::POST,
        path: "/raft".to_owned(),
        headers,
        body,
        repeatable: message.r#type() != MessageType::MsgProp,
        time_max: ANSWER_TIMEOUT,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let url = link.picker.pick();
    let posted = match shared.pool.call(&url, &call).await {
        Ok(reply) => judge_post(shared, &reply, MemberId(message.from())),
        Err(error) => Err(error),
    };
    if posted.is_err() {
        link.picker.failed(&url);
    }
    posted.map(|()| bytes)
}

/// Reads the answer to a posted message of `author`.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/util.go `checkPostResponse`.
/// Differs from etcd: a 403 ends this member only if it says that it was removed; not if a message went astray, nor if
/// the message is one of a removed member that raft passes on to the leader.
pub(crate) fn judge_post(shared: &Shared, reply: &Reply, author: MemberId) -> Result<(), Error> {
    let names_other_cluster = reply
        .headers
        .get(CLUSTER_ID)
        .is_some_and(|cluster| *cluster != shared.identity.cluster);
    match reply.status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN
            if author == shared.identity.member_id
                && !names_other_cluster
                && reply.text().contains("from removed member") =>
        {
            shared.removed();
            Err(Error::Removed)
        }
        _ => Err(refusal(reply)),
    }
}
