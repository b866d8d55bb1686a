//! `alarm list` and `alarm disarm`.

use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::{AlarmRequest, AlarmResponse};

use super::Session;
use super::session::Connected;
use crate::client::{Deadline, Repeat};
use crate::failure::{Failure, Outcome};
use crate::status::CallError;
use crate::terminal::print;

pub(super) async fn list(session: Session) -> Outcome {
    if !session.args.is_empty() {
        return Err(Failure::bad_args("alarm list command accepts no arguments"));
    }
    let s = session.connect().await?;
    let answer = fetch(&s, s.deadline())
        .await
        .map_err(super::session::fail)?;
    print(&s.printer.alarm(&answer)?);
    Ok(())
}

/// All alarms of the cluster.
pub(super) async fn fetch(s: &Connected, deadline: Deadline) -> Result<AlarmResponse, CallError> {
    s.client
        .call(
            "Maintenance/Alarm",
            &AlarmRequest::default(),
            deadline,
            Repeat::Safe,
        )
        .await
}

pub(super) async fn disarm(session: Session) -> Outcome {
    if !session.args.is_empty() {
        return Err(Failure::bad_args(
            "alarm disarm command accepts no arguments",
        ));
    }
    let s = session.connect().await?;
    let deadline = s.deadline();
    let raised = fetch(&s, deadline).await.map_err(super::session::fail)?;
    // The answer that is shown is put together here and has no header.
    let mut cleared = AlarmResponse::default();
    for alarm in raised.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let answer: AlarmResponse = s
            .call("Maintenance/Alarm", request, deadline, Repeat::Never)
            .await?;
        cleared.alarms.extend(answer.alarms);
    }
    print(&s.printer.alarm(&cleared)?);
    Ok(())
}
