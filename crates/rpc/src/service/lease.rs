//! The service `Lease`.
use std::rc::Rc;

use bytes::Bytes;
use quorate_auth::{Operation, Stage};
use quorate_core::{Applied, Outcome, Request, Submission};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode, decode_ref, unexpected};
use super::kv::{lacks_space, mismatch, space_refusal};
use crate::message::Message;
use crate::metadata::Metadata;
use crate::metrics::StreamApi;
use crate::seam::{Answer, Inbound, Outbound};
use crate::status::{Code, Status};

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
        let ttl = match context
            .engine
            .submit(|token| Submission::LeaseRenew { token, id })
            .await
        {
            Outcome::LeaseRenewed { ttl_s } => ttl_s,
            other => return Err(unexpected(other)),
        };
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
        match context
            .engine
            .submit(|token| Submission::LeaseTimeToLive { token, id, keys })
            .await
        {
            Outcome::LeaseTimeToLive {
                remaining_s,
                granted_s,
                keys,
            } => {
                if request.keys {
                    // The keys may be others than those that were judged above.
                    let gate = |_| keys.clone();
                    context
                        .auth()
                        .gate(&identity, Stage::Door, &operation, gate)?;
                    context.auth().recheck(&identity)?;
                }
                Ok(Message::encode(&pb::LeaseTimeToLiveResponse {
                    header: Some(context.header_now()),
                    id: id.0,
                    ttl: remaining_s,
                    granted_ttl: granted_s,
                    keys,
                }))
            }
            other => Err(unexpected(other)),
        }
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
