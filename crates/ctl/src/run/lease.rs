//! `lease grant`, `revoke`, `timetolive`, `list` and `keep-alive`.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Session;
use super::session::Connected;
use crate::client::{Repeat, STREAM_QUEUE_MAX, is_unreached};
use crate::failure::{Failure, Outcome, status};
use crate::go::number::parse_int;
use crate::print::Format;
use crate::status::CallError;
use crate::terminal::print;

const NOT_FOUND: &str = "etcdserver: requested lease not found";
/// The pause before a broken stream of renewals is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

fn lease_id(args: &[Vec<u8>], missing: &str) -> Outcome<i64> {
    let [id] = args else {
        return Err(Failure::bad_args(missing));
    };
    parse_int(id, 16)
        .map_err(|e| Failure::bad_args(format!("bad lease ID arg ({e}), expecting ID in Hex")))
}

fn bad_connection(error: CallError) -> Failure {
    Failure::new(status::BAD_CONNECTION, error.to_string())
}

pub(super) async fn grant(session: Session) -> Outcome {
    let [ttl] = session.args.as_slice() else {
        return Err(Failure::bad_args("lease grant command needs TTL argument"));
    };
    let ttl = parse_int(ttl, 10).map_err(|e| Failure::bad_args(format!("bad TTL ({e})")))?;
    let s = session.connect().await?;
    let request = LeaseGrantRequest { ttl, id: 0 };
    let answer: Result<LeaseGrantResponse, CallError> = s
        .client
        .call("Lease/LeaseGrant", &request, s.deadline(), Repeat::Never)
        .await;
    let answer = answer.map_err(|e| Failure::error(format!("failed to grant lease ({e})")))?;
    print(&s.printer.lease_grant(&answer)?);
    Ok(())
}

pub(super) async fn revoke(session: Session) -> Outcome {
    let id = lease_id(&session.args, "lease revoke command needs 1 argument")?;
    let s = session.connect().await?;
    let request = LeaseRevokeRequest { id };
    let answer: Result<LeaseRevokeResponse, CallError> = s
        .client
        .call("Lease/LeaseRevoke", &request, s.deadline(), Repeat::Never)
        .await;
    let answer = answer.map_err(|e| Failure::error(format!("failed to revoke lease ({e})")))?;
    let line = format!("lease {id:016x} revoked");
    print(
        &s.printer
            .line(&answer, answer.header.as_ref(), line.as_bytes())?,
    );
    Ok(())
}

pub(super) async fn time_to_live(session: Session) -> Outcome {
    let id = lease_id(
        &session.args,
        "lease timetolive command needs lease ID as argument",
    )?;
    let keys = session.flags.bool("keys");
    let s = session.connect().await?;
    let request = LeaseTimeToLiveRequest { id, keys };
    let answer = s
        .client
        .call("Lease/LeaseTimeToLive", &request, None, Repeat::Safe)
        .await;
    print(
        &s.printer
            .lease_time_to_live(&answer.map_err(bad_connection)?, keys)?,
    );
    Ok(())
}

pub(super) async fn list(session: Session) -> Outcome {
    let s = session.connect().await?;
    let answer = s
        .client
        .call(
            "Lease/LeaseLeases",
            &LeaseLeasesRequest {},
            None,
            Repeat::Safe,
        )
        .await;
    print(&s.printer.lease_list(&answer.map_err(bad_connection)?)?);
    Ok(())
}

pub(super) async fn keep_alive(session: Session) -> Outcome {
    let id = lease_id(
        &session.args,
        "lease keep-alive command needs lease ID as argument",
    )?;
    let s = session.connect().await?;
    if s.flags.bool("once") {
        return keep_alive_once(&s, id).await;
    }
    // Until the first answer nothing is known of how long the lease lives.
    let mut expires: Option<Instant> = None;
    while expires.is_none_or(|at| Instant::now() < at) {
        match renew(&s, id, &mut expires).await? {
            Ended::Expired => break,
            Ended::Broken => tokio::time::sleep(REOPEN_PAUSE).await,
        }
    }
    if s.printer.format == Format::Simple {
        print(format!("lease {id:016x} expired or revoked.\n").as_bytes());
    }
    Ok(())
}

async fn keep_alive_once(s: &Connected, id: i64) -> Outcome {
    loop {
        let (_sender, mut answers) = match open(s, id).await {
            Ok(open) => open,
            Err(CallError::Status(status)) if is_unreached(&status) => {
                s.client.drop_channel();
                tokio::time::sleep(REOPEN_PAUSE).await;
                continue;
            }
            Err(error) => return Err(bad_connection(error)),
        };
        match answers.message().await {
            Ok(Some(answer)) if answer.ttl <= 0 => {
                return Err(Failure::new(status::BAD_CONNECTION, NOT_FOUND));
            }
            Ok(Some(answer)) => {
                print(&s.printer.lease_keep_alive(&answer)?);
                return Ok(());
            }
            Err(status) if !is_unreached(&status) => {
                return Err(bad_connection(CallError::Status(status)));
            }
            Ok(None) | Err(_) => {
                s.client.drop_channel();
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    }
}

type Renewals = (
    mpsc::Sender<LeaseKeepAliveRequest>,
    tonic::Streaming<LeaseKeepAliveResponse>,
);

/// Opens a stream whose first request is under way.
async fn open(s: &Connected, id: i64) -> Result<Renewals, CallError> {
    let (sender, requests) = mpsc::channel(STREAM_QUEUE_MAX);
    sender
        .try_send(LeaseKeepAliveRequest { id })
        .expect("a new queue has room");
    let answers = s
        .client
        .stream("Lease/LeaseKeepAlive", requests, false)
        .await?;
    Ok((sender, answers))
}

/// Why renewing stopped.
enum Ended {
    Expired,
    Broken,
}

/// Renews on one stream, each time after a third of the lease's life.
async fn renew(s: &Connected, id: i64, expires: &mut Option<Instant>) -> Outcome<Ended> {
    let Ok((sender, mut answers)) = open(s, id).await else {
        s.client.drop_channel();
        return Ok(Ended::Broken);
    };
    loop {
        let answer = match expires {
            Some(at) => tokio::time::timeout_at(*at, answers.message()).await,
            None => Ok(answers.message().await),
        };
        let answer = match answer {
            Err(_) => return Ok(Ended::Expired),
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Ok(Ended::Broken),
            Ok(Err(status)) if is_unreached(&status) => {
                s.client.drop_channel();
                return Ok(Ended::Broken);
            }
            Ok(Err(status)) => return Err(bad_connection(CallError::Status(status))),
        };
        if answer.ttl <= 0 {
            return Ok(Ended::Expired);
        }
        print(&s.printer.lease_keep_alive(&answer)?);
        let life = Duration::from_secs(answer.ttl.unsigned_abs());
        *expires = Instant::now().checked_add(life);
        tokio::time::sleep(life / 3).await;
        if sender.send(LeaseKeepAliveRequest { id }).await.is_err() {
            return Ok(Ended::Broken);
        }
    }
}
