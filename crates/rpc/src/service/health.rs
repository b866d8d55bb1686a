//! The standard health service: the server as a whole, and nothing else, has a status.
use bytes::Bytes;
use quorate_proto::grpc::health::v1::health_check_response::ServingStatus;
use quorate_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

use super::context::decode;
use crate::message::Message;
use crate::seam::{Answer, Inbound, Outbound};
use crate::status::Status;

fn status_message(status: ServingStatus) -> Message {
    Message::encode(&HealthCheckResponse {
        status: status.into(),
    })
}

pub(super) fn check(body: Bytes) -> Answer {
    let request = decode::<HealthCheckRequest>(body);
    Answer::Now(request.and_then(|request| match request.service.as_str() {
        "" => Ok(status_message(ServingStatus::Serving)),
        _ => Err(Status::UNKNOWN_HEALTH_SERVICE),
    }))
}

/// Tells the status, which does not change while the member serves; then stays until the caller leaves.
pub(super) async fn watch(mut inbound: Inbound, outbound: Outbound) -> Result<(), Status> {
    let request: HealthCheckRequest = decode(inbound.only().await?)?;
    let status = if request.service.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    };
    outbound.send(status_message(status)).await?;
    std::future::pending().await
}
