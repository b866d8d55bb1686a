//! The service `Lease`.
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quorate_auth::{Operation, Stage};
use quorate_core::{Applied, Error, Outcome, Request, Submission, Token};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{LeaseId, MemberId};

use super::context::{Context, decode, decode_ref, unexpected};
use super::kv::{lacks_space, mismatch, space_refusal};
use crate::leader::{Asked, Leader, LeaseTime, Refused};
use crate::message::Message;
use crate::metadata::Metadata;
use crate::metrics::StreamApi;
use crate::seam::{Answer, Inbound, Outbound};
use crate::status::{Code, Status};

/// Pause between two questions of a leader that does not answer. Source: etcd v3.7.1 v3_server.go LeaseRenew.
const FORWARD_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn grant(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::LeaseGrantRequest = match decode_ref(&body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let request = Request::LeaseGrant(request);
    if lacks_space(context, quorate_core::cost(&request)) {
        return space_refusal(context);
    }
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::LeaseGrant)?;
        match context
            .applied(context.propose(request, Some(body), identity))
            .await?
        {
            Applied::LeaseGrant { id, ttl_s } => Ok(Message::encode(&pb::LeaseGrantResponse {
                header: Some(context.header_now()),
                id: id.0,
                ttl: ttl_s,
                error: String::new(),
            })),
            other => mismatch(&other),
        }
    })
}

pub(super) fn revoke(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::LeaseRevokeRequest = match decode_ref(&body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::LeaseRevoke(LeaseId(request.id)))?;
        let wait = context.propose(Request::LeaseRevoke(request), Some(body), identity);
        match context.applied(wait).await? {
            Applied::LeaseRevoke { revision } => Ok(Message::encode(&pb::LeaseRevokeResponse {
                header: Some(context.header(revision)),
            })),
            other => mismatch(&other),
        }
    })
}

/// Renews leases, one request after the other.
pub(super) async fn keep_alive(
    context: Rc<Context>,
    metadata: Metadata,
    mut inbound: Inbound,
    outbound: Outbound,
) -> Result<(), Status> {
    let failed = |is_send, status: Status| {
        if status.code() != Code::Canceled {
            let api = StreamApi::LeaseKeepAlive;
            context.metrics.stream_failed(api, is_send);
        }
        status
    };
    while let Some(body) = inbound.next().await.map_err(|e| failed(false, e))? {
        let request: pb::LeaseKeepAliveRequest = decode(body)?;
        let id = LeaseId(request.id);
        // The header is made before the renewal, so that its revision is never ahead of a revocation that races it.
        let header = context.header_now();
        if context.auth().is_enabled() {
            let identity = context.identity(&metadata).await?;
            context
                .gate_lease(&identity, Operation::LeaseKeepAlive(id), Some(id))
                .await?;
            context.auth().recheck(&identity)?;
        }
        let ttl = renew(&context, id).await?;
        let response = pb::LeaseKeepAliveResponse {
            header: Some(header),
            id: id.0,
            ttl,
        };
        let sent = outbound.send(Message::encode(&response)).await;
        sent.map_err(|e| failed(true, e))?;
    }
    Ok(())
}

/// Asks here, and the leader when this is not it, until somebody knows or the time is over.
///
/// `ask` turns what the engine says into an answer, or into the leader to be asked with `forward`.
/// Source: etcd v3.7.1 server/etcdserver/v3_server.go LeaseRenew, leaseTimeToLive.
pub(super) async fn of_leader<T>(
    context: &Context,
    ask: impl Fn(Token) -> Submission,
    read: impl Fn(Outcome) -> Result<T, Outcome>,
    forward: impl Fn(&dyn Leader, MemberId, Duration) -> Asked<T>,
) -> Result<Result<T, Refused>, Status> {
    let ends_ms = context.now_ms() + context.request_timeout_ms();
    loop {
        let leader = match read(context.engine.submit(&ask).await) {
            Ok(answer) => return Ok(Ok(answer)),
            Err(Outcome::Failed(Error::NotLeader { leader })) => leader,
            Err(other) => return Err(unexpected(other)),
        };
        let left = Duration::from_millis(ends_ms.saturating_sub(context.now_ms()));
        if left.is_zero() {
            return Err(if leader.0 == 0 {
                Status::NO_LEADER
            } else {
                Status::TIMEOUT
            });
        }
        if let Some(link) = &context.options.leader.0
            && leader.0 != 0
            && leader != context.handles.view.member_id()
        {
            match forward(link.as_ref(), leader, left).await {
                Err(Refused::Unavailable(_)) => {}
                answer => return Ok(answer),
            }
        }
        tokio::time::sleep(FORWARD_PAUSE).await;
    }
}

/// Renews a lease wherever that can be done; 0 says that there is no such lease.
async fn renew(context: &Context, id: LeaseId) -> Result<i64, Status> {
    let renewed = of_leader(
        context,
        |token| Submission::LeaseRenew { token, id },
        |outcome| match outcome {
            Outcome::LeaseRenewed { ttl_s } => Ok(ttl_s),
            other => Err(other),
        },
        |leader, to, left| leader.renew_lease(to, id, left),
    );
    // Anything else that the leader refuses was asked again already.
    Ok(renewed.await?.unwrap_or(0))
}

async fn describe(context: &Context, id: LeaseId, keys: bool) -> Result<LeaseTime, Status> {
    let described = of_leader(
        context,
        |token| Submission::LeaseTimeToLive { token, id, keys },
        |outcome| match outcome {
            Outcome::LeaseTimeToLive {
                remaining_s,
                granted_s,
                keys,
            } => Ok(LeaseTime {
                remaining_s,
                granted_s,
                keys,
            }),
            other => Err(other),
        },
        |leader, to, left| leader.time_to_live(to, id, keys, left),
    );
    Ok(described.await?.unwrap_or(LeaseTime {
        remaining_s: -1,
        ..LeaseTime::default()
    }))
}

pub(super) fn time_to_live(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    let request: pb::LeaseTimeToLiveRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        let (id, keys) = (LeaseId(request.id), request.keys);
        let identity = context.identity(&metadata).await?;
        let operation = Operation::LeaseTimeToLive { id, keys };
        if keys {
            context.gate_lease(&identity, operation, Some(id)).await?;
        } else {
            context.gate(&identity, &operation)?;
        }
        let lease = describe(&context, id, keys).await?;
        if keys {
            // The keys may be others than those that were judged above.
            let gate = |_| lease.keys.clone();
            context
                .auth()
                .gate(&identity, Stage::Door, &operation, gate)?;
            context.auth().recheck(&identity)?;
        }
        Ok(Message::encode(&pb::LeaseTimeToLiveResponse {
            header: Some(context.header_now()),
            id: id.0,
            ttl: lease.remaining_s,
            granted_ttl: lease.granted_s,
            keys: lease.keys,
        }))
    })
}

pub(super) fn leases(context: &Rc<Context>, metadata: Metadata) -> Answer {
    /// Stands for every lease there is.
    const ALL: LeaseId = LeaseId(0);
    let context = context.clone();
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context
            .gate_lease(&identity, Operation::LeaseLeases(&[ALL]), None)
            .await?;
        match context
            .engine
            .submit(|token| Submission::LeaseLeases { token })
            .await
        {
            Outcome::LeaseLeases(ids) => {
                context.auth().recheck(&identity)?;
                let leases = ids.iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
                Ok(Message::encode(&pb::LeaseLeasesResponse {
                    header: Some(context.header_now()),
                    leases,
                }))
            }
            other => Err(unexpected(other)),
        }
    })
}
