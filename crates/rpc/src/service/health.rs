//! The standard health service: the server as a whole, and nothing else, has a status.
use std::rc::Rc;

use bytes::Bytes;
use quorate_proto::grpc::health::v1::health_check_response::ServingStatus;
use quorate_proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse,
};

use super::context::{Context, decode};
use crate::message::Message;
use crate::seam::{Answer, Inbound, Outbound};
use crate::status::Status;

fn status_message(status: ServingStatus) -> Message {
    Message::encode(&HealthCheckResponse {
        status: status.into(),
    })
}

fn status_now(context: &Context) -> ServingStatus {
    if context.is_serving() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

pub(super) fn check(context: &Context, body: Bytes) -> Answer {
    let request = decode::<HealthCheckRequest>(body);
    Answer::Now(request.and_then(|request| match request.service.as_str() {
        "" => Ok(status_message(status_now(context))),
        _ => Err(Status::UNKNOWN_HEALTH_SERVICE),
    }))
}

/// Lists what has a status. Source: grpc-go v1.82.1 health/server.go `List`.
pub(super) fn list(context: &Context) -> Answer {
    let status = HealthCheckResponse {
        status: status_now(context).into(),
    };
    Answer::Now(Ok(Message::encode(&HealthListResponse {
        statuses: [(String::new(), status)].into(),
    })))
}

/// Tells the status, and once more when the member stops serving; stays until then or until the caller leaves.
///
/// Differs from etcd, which serves to the last.
pub(super) async fn watch(
    context: Rc<Context>,
    mut inbound: Inbound,
    outbound: Outbound,
) -> Result<(), Status> {
    let request: HealthCheckRequest = decode(inbound.only().await?)?;
    let is_known = request.service.is_empty();
    let status = || {
        if is_known {
            status_now(&context)
        } else {
            ServingStatus::ServiceUnknown
        }
    };
    outbound.send(status_message(status())).await?;
    context.stopping().await;
    if is_known {
        outbound.send_now(status_message(status()))?;
    }
    Err(Status::STOPPED)
}
