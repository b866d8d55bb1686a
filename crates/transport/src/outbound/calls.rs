//! Questions to other members, over HTTP.
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, Member,
};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use quorate_proto::{ClusterId, LeaseId, MemberId};

use super::pool::{Call, Dial, Pool, Reply};
use crate::headers::{CLUSTER_ID, parse_id};
use crate::json;
use crate::url::PeerUrl;
use crate::{Error, HashKv, Refusal, TimeToLive, Versions};

/// Longest list of members, hash or version.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Longest description of a lease: it may have many keys.
///
/// Source: etcd v3.7.1 server/lease/leasehttp/http.go `maxLeaseHTTPResponseSize`.
const LEASE_ANSWER_BYTES_MAX: usize = 512 << 20;

/// Asks other members, of one's own cluster or of one that is to be joined. Cheap to clone; connections are shared.
///
/// The URLs of a member are tried in turn until one answers; a member's own word is final, and a link that fails is not.
/// All functions need a running tokio runtime with time and sockets.
#[derive(Clone)]
pub struct PeerClient {
    pool: Arc<Pool>,
}

impl PeerClient {
    /// Makes a client that gives up on a connection, and on an answer that does not go on, after `timeout`; it dials from an
    /// address, or from the one that the system chooses.
    #[must_use]
    pub fn new(timeout: Duration, from: Option<IpAddr>) -> Self {
        let dial = Dial {
            time_max: timeout,
            stall_max: timeout,
            from,
        };
        Self {
            pool: Arc::new(Pool::new(dial)),
        }
    }

    pub(crate) fn over(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// Asks who the members are: `GET /members`. Returns the cluster's id, too.
    ///
    /// # Errors
    ///
    /// The last URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn members(
        &self,
        urls: &[String],
        timeout: Duration,
    ) -> Result<(ClusterId, Vec<Member>), Error> {
        let call = get("/members", timeout);
        self.first(urls, &call, |reply| {
            expect_ok(reply)?;
            let cluster = reply.headers.get(CLUSTER_ID);
            let cluster = cluster.and_then(|id| parse_id(id.to_str().ok()?));
            let cluster = cluster.ok_or(Error::Malformed("cluster id in an answer"))?;
            let members =
                json::parse_members(&reply.body).ok_or(Error::Malformed("list of members"))?;
            Ok((ClusterId(cluster.0), members))
        })
        .await
    }

    /// Asks for a member's versions: `GET /version`.
    ///
    /// # Errors
    ///
    /// The last URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn versions(&self, urls: &[String], timeout: Duration) -> Result<Versions, Error> {
        self.first(urls, &get("/version", timeout), |reply| {
            expect_ok(reply)?;
            json::parse_versions(&reply.body).ok_or(Error::Malformed("versions"))
        })
        .await
    }

    /// Asks whether a downgrade is under way: `GET /downgrade/enabled`.
    ///
    /// # Errors
    ///
    /// The last URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn downgrade_enabled(
        &self,
        urls: &[String],
        timeout: Duration,
    ) -> Result<bool, Error> {
        self.first(urls, &get("/downgrade/enabled", timeout), |reply| {
            expect_ok(reply)?;
            match reply.text().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Error::Malformed("answer that is neither true nor false")),
            }
        })
        .await
    }

    /// Asks for the hash of the keys at a revision: `GET /members/hashkv`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`Refusal::Compacted`], [`Refusal::FutureRevision`] or [`Refusal::ClusterMismatch`]; the
    /// last URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn hash_kv(
        &self,
        urls: &[String],
        cluster: ClusterId,
        revision: i64,
        timeout: Duration,
    ) -> Result<HashKv, Error> {
        let mut call = get("/members/hashkv", timeout);
        let json_type = HeaderValue::from_static("application/json");
        call.headers.insert(CONTENT_TYPE, json_type);
        let id = HeaderValue::from_str(&cluster.to_string())
            .map_err(|_| Error::Malformed("id of a cluster"))?;
        call.headers.insert(CLUSTER_ID, id);
        call.body = Bytes::from(json::write_hash_request(revision));
        self.first(urls, &call, |reply| {
            let text = reply.text();
            for refusal in [
                Refusal::Compacted,
                Refusal::FutureRevision,
                Refusal::ClusterMismatch,
            ] {
                let is_refused = matches!(
                    reply.status,
                    StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED
                );
                if is_refused && text.contains(&refusal.to_string()) {
                    return Err(refusal.into());
                }
            }
            expect_ok(reply)?;
            json::parse_hash(&reply.body).ok_or(Error::Malformed("hash"))
        })
        .await
    }

    /// Asks the leader to promote a learner, in the name of the token's user: `POST /members/promote/ID`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`Refusal::MemberNotFound`], [`Refusal::NotLearner`] or [`Refusal::LearnerNotReady`];
    /// [`Error::TimedOut`]; the last URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, the learner may be promoted or not.
    pub async fn promote(
        &self,
        urls: &[String],
        id: MemberId,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Vec<Member>, Error> {
        let mut call = get("", timeout);
        call.method = Method::POST;
        call.repeatable = false;
        call.path = format!("/members/promote/{}", id.0);
        if let Some(token) = token {
            let token = HeaderValue::from_str(token).map_err(|_| Error::Malformed("token"))?;
            call.headers.insert(AUTHORIZATION, token);
        }
        self.first(urls, &call, |reply| match reply.status {
            StatusCode::REQUEST_TIMEOUT => Err(Error::TimedOut("promotion")),
            StatusCode::NOT_FOUND => Err(Refusal::MemberNotFound.into()),
            StatusCode::PRECONDITION_FAILED => {
                let text = reply.text();
                let known = [Refusal::LearnerNotReady, Refusal::NotLearner];
                let said = known.into_iter().find(|r| text.contains(&r.to_string()));
                Err(said.unwrap_or(Refusal::Other(text)).into())
            }
            _ => {
                expect_ok(reply)?;
                json::parse_members(&reply.body).ok_or(Error::Malformed("list of members"))
            }
        })
        .await
    }

    /// Asks the leader to renew a lease: `POST /leases`. Returns the seconds it has.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`Refusal::LeaseNotFound`], [`Refusal::NotPrimary`] or [`Refusal::NotCaughtUp`]; the last
    /// URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, the lease may be renewed or not.
    pub async fn renew_lease(
        &self,
        urls: &[String],
        id: LeaseId,
        timeout: Duration,
    ) -> Result<i64, Error> {
        let request = LeaseKeepAliveRequest { id: id.0 };
        let call = lease_call("/leases", request.encode_to_vec(), timeout);
        self.first(urls, &call, |reply| {
            expect_lease(reply)?;
            let answer = LeaseKeepAliveResponse::decode(&reply.body[..])
                .map_err(|_| Error::Malformed("answer about a lease"))?;
            if answer.id != id.0 {
                return Err(Error::Malformed("answer about another lease"));
            }
            Ok(answer.ttl)
        })
        .await
    }

    /// Asks the leader what a lease has: `POST /leases/internal`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`Refusal::LeaseNotFound`], [`Refusal::NotPrimary`] or [`Refusal::NotCaughtUp`]; the last
    /// URL's, if none answers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn time_to_live(
        &self,
        urls: &[String],
        id: LeaseId,
        keys: bool,
        timeout: Duration,
    ) -> Result<TimeToLive, Error> {
        let request = LeaseInternalRequest {
            lease_time_to_live_request: Some(LeaseTimeToLiveRequest { id: id.0, keys }),
        };
        let mut call = lease_call("/leases/internal", request.encode_to_vec(), timeout);
        call.answer_bytes_max = LEASE_ANSWER_BYTES_MAX;
        self.first(urls, &call, |reply| {
            expect_lease(reply)?;
            let answer = LeaseInternalResponse::decode(&reply.body[..])
                .map_err(|_| Error::Malformed("answer about a lease"))?;
            match answer.lease_time_to_live_response {
                Some(lease) if lease.id == id.0 => Ok(TimeToLive {
                    ttl_s: lease.ttl,
                    granted_ttl_s: lease.granted_ttl,
                    keys: lease.keys,
                }),
                _ => Err(Error::Malformed("answer about another lease")),
            }
        })
        .await
    }

    /// Asks one URL after the other until one gives an answer that is read, or a refusal.
    async fn first<T>(
        &self,
        urls: &[String],
        call: &Call,
        read: impl Fn(&Reply) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut failed = Error::Url {
            url: String::new(),
            what: "is missing",
        };
        for url in urls {
            let answered = async {
                let url = PeerUrl::parse(url)?;
                read(&self.pool.call(&url, call).await?)
            };
            match answered.await {
                Ok(answer) => return Ok(answer),
                Err(refused @ Error::Refused(_)) => return Err(refused),
                Err(error) => {
                    tracing::debug!(address = %url, path = %call.path, error = %error, "failed to ask a member");
                    failed = error;
                }
            }
        }
        Err(failed)
    }
}

fn get(path: &str, timeout: Duration) -> Call {
    Call {
        method: Method::GET,
        path: path.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        repeatable: true,
        time_max: timeout,
        answer_bytes_max: ANSWER_BYTES_MAX,
    }
}

fn lease_call(path: &str, body: Vec<u8>, timeout: Duration) -> Call {
    let mut call = get(path, timeout);
    call.method = Method::POST;
    let protobuf = HeaderValue::from_static("application/protobuf");
    call.headers.insert(CONTENT_TYPE, protobuf);
    call.body = Bytes::from(body);
    call
}

fn expect_ok(reply: &Reply) -> Result<(), Error> {
    if reply.status == StatusCode::OK {
        return Ok(());
    }
    Err(reply.unexpected())
}

fn expect_lease(reply: &Reply) -> Result<(), Error> {
    let text = reply.text();
    match reply.status {
        StatusCode::OK => Ok(()),
        StatusCode::REQUEST_TIMEOUT => Err(Refusal::NotCaughtUp.into()),
        StatusCode::NOT_FOUND => Err(Refusal::LeaseNotFound.into()),
        _ if text.contains(&Refusal::NotPrimary.to_string()) => Err(Refusal::NotPrimary.into()),
        _ => Err(reply.unexpected()),
    }
}

/// Runs a question on a transport's own runtime, so that it can be awaited on any other.
pub(crate) async fn on_runtime<T: Send + 'static>(
    handle: &tokio::runtime::Handle,
    question: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    handle.spawn(question).await.map_err(|_| Error::Stopped)?
}
