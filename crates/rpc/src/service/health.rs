//! The standard health service: the server as a whole, and nothing else, has a status.
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::grpc::health::v1::health_check_response::ServingStatus;
use quorate_proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse,
};

use super::context::{Context, decode};
use crate::message::Message;
use crate::seam::{Answer, Inbound, Outbound};
use crate::status::Status;

/// How often a watcher's status is looked at where defragmenting changes it.
const LOOK: Duration = Duration::from_millis(50);

fn status_message(status: ServingStatus) -> Message {
    Message::encode(&HealthCheckResponse {
        status: status.into(),
    })
}

fn status_now(context: &Context) -> ServingStatus {
    let stops = context.options.unhealthy_while_defragmenting;
    if context.is_serving() && !(stops && context.registry.maintenance().is_defragmenting()) {
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

/// Tells the status, and once more whenever it changes; stays until the member stops or the caller leaves.
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
    let mut told = status();
    outbound.send(status_message(told)).await?;
    while context.is_serving() {
        tokio::select! {
            () = context.stopping() => {}
            () = tokio::time::sleep(LOOK), if context.options.unhealthy_while_defragmenting => {}
        }
        if status() != told {
            told = status();
            outbound.send_now(status_message(told))?;
        }
    }
    Err(Status::STOPPED)
}
