//! `endpoint health`, `status` and `hashkv`, `defrag` and `move-leader`: what is asked of each server by itself.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use quorate_backend::{Backend, DefragmentOptions, Options};
use quorate_core::backend_path;
use quorate_disk::RealDisk;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, HashKvRequest,
    MemberListRequest, MemberListResponse, MoveLeaderRequest, MoveLeaderResponse, RangeRequest,
    RangeResponse, StatusRequest, StatusResponse,
};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::Session;
use super::session::Connected;
use crate::client::{Client, Deadline, Repeat, Settings};
use crate::failure::{Failure, Outcome, status};
use crate::go::duration;
use crate::go::number::parse_uint;
use crate::print::{At, Format, Health};
use crate::status::CallError;
use crate::terminal::{complain, print};

const PERMISSION_DENIED: &str = "etcdserver: permission denied";

/// The given endpoints, or those of all members.
async fn endpoints(s: &Connected) -> Outcome<Vec<String>> {
    if !s.flags.bool("cluster") {
        return Ok(s.settings.endpoints.clone());
    }
    let request = MemberListRequest { linearizable: true };
    let answer: Result<MemberListResponse, CallError> = s
        .client
        .call("Cluster/MemberList", &request, s.deadline(), Repeat::Safe)
        .await;
    let answer = answer.map_err(|e| {
        Failure::error(format!(
            "failed to fetch endpoints from etcd cluster member list: {e}"
        ))
    })?;
    Ok(answer
        .members
        .into_iter()
        .flat_map(|m| m.client_ur_ls)
        .collect())
}

/// A client of one endpoint only.
async fn client_of(settings: &Settings, endpoint: &str) -> Result<Client, CallError> {
    let settings = Settings {
        endpoints: vec![endpoint.to_owned()],
        ..settings.clone()
    };
    Client::new(settings).await
}

async fn connect(s: &Connected, endpoint: &str) -> Outcome<Client> {
    let client = client_of(&s.settings, endpoint).await;
    client.map_err(|e| Failure::new(status::BAD_CONNECTION, e.to_string()))
}

/// Asks all endpoints at once; they are shown in the order in which they answer.
pub(super) async fn health(session: Session) -> Outcome {
    let s = session.connect().await?;
    let endpoints = endpoints(&s).await?;
    let settings = Rc::new(s.settings.clone());
    let timeout = s.flags.duration("command-timeout");
    let local = LocalSet::new();
    let mut asked = JoinSet::new();
    for endpoint in endpoints {
        let settings = Rc::clone(&settings);
        let ask = async move {
            let answer = examine(&settings, &endpoint, Instant::now().checked_add(timeout)).await;
            At { endpoint, answer }
        };
        asked.spawn_local_on(ask, &local);
    }
    let mut answers = Vec::new();
    let collect = async {
        while let Some(Ok(answer)) = asked.join_next().await {
            answers.push(answer);
        }
    };
    local.run_until(collect).await;
    print(&s.printer.endpoint_health(&answers)?);
    let sick: Vec<&At<Health>> = answers
        .iter()
        .filter(|at| !at.answer.error.is_empty())
        .collect();
    if s.printer.format == Format::Simple {
        for at in &sick {
            complain(&format!(
                "{} is unhealthy: failed to commit proposal: {}",
                at.endpoint, at.answer.error
            ));
        }
    }
    if sick.is_empty() {
        return Ok(());
    }
    Err(Failure::error("unhealthy cluster"))
}

/// A server is healthy when it answers a read of any key, be it to deny it, and has no alarms.
async fn examine(settings: &Settings, endpoint: &str, deadline: Deadline) -> Health {
    let client = match client_of(settings, endpoint).await {
        Ok(client) => client,
        Err(error) => {
            return Health {
                is_healthy: false,
                took: String::new(),
                error: error.to_string(),
            };
        }
    };
    let begun = Instant::now();
    let request = RangeRequest {
        key: "health".into(),
        ..RangeRequest::default()
    };
    let read: Result<RangeResponse, CallError> = client
        .call("KV/Range", &request, deadline, Repeat::Safe)
        .await;
    let took = duration::format(begun.elapsed());
    let error = match read {
        Err(error) if !error.is(PERMISSION_DENIED) => error.to_string(),
        _ => alarms(&client, deadline).await,
    };
    Health {
        is_healthy: error.is_empty(),
        took,
        error,
    }
}

/// What speaks against a server that answers: its alarms, or that they cannot be read.
async fn alarms(client: &Client, deadline: Deadline) -> String {
    let answer: Result<AlarmResponse, CallError> = client
        .call(
            "Maintenance/Alarm",
            &AlarmRequest::default(),
            deadline,
            Repeat::Safe,
        )
        .await;
    let Ok(answer) = answer else {
        return "Unable to fetch the alarm list".to_owned();
    };
    if answer.alarms.is_empty() {
        return String::new();
    }
    let names = answer.alarms.iter().map(|alarm| match alarm.alarm() {
        AlarmType::Nospace => "NOSPACE ",
        AlarmType::Corrupt => "CORRUPT ",
        AlarmType::None => "UNKNOWN ",
    });
    format!("Active Alarm(s): {}", names.collect::<String>())
}

pub(super) async fn status(session: Session) -> Outcome {
    let s = session.connect().await?;
    let mut answers = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&s).await? {
        let client = connect(&s, &endpoint).await?;
        match client
            .call(
                "Maintenance/Status",
                &StatusRequest {},
                s.deadline(),
                Repeat::Safe,
            )
            .await
        {
            Ok(answer) => answers.push(At { endpoint, answer }),
            Err(error) => {
                failed = true;
                complain(&format!(
                    "Failed to get the status of endpoint {endpoint} ({error})"
                ));
            }
        }
    }
    print(&s.printer.endpoint_status(&answers)?);
    if failed {
        return Err(Failure::silent(status::ERROR));
    }
    Ok(())
}

pub(super) async fn hash_kv(session: Session) -> Outcome {
    let s = session.connect().await?;
    let request = HashKvRequest {
        revision: s.flags.int("rev"),
    };
    let mut answers = Vec::new();
    let mut last_error = None;
    for endpoint in endpoints(&s).await? {
        let client = connect(&s, &endpoint).await?;
        match client
            .call("Maintenance/HashKV", &request, s.deadline(), Repeat::Safe)
            .await
        {
            Ok(answer) => answers.push(At { endpoint, answer }),
            Err(error) => {
                complain(&format!(
                    "Failed to get the hash of endpoint {endpoint} ({error})"
                ));
                last_error = Some(error);
            }
        }
    }
    print(&s.printer.endpoint_hash_kv(&answers)?);
    match last_error {
        Some(error) => Err(Failure::error(error.to_string())),
        None => Ok(()),
    }
}

/// Defragments the database of a member that does not run, as `etcdutl defrag` does.
fn defrag_offline(data_dir: &Path) -> Outcome {
    let path = backend_path(data_dir);
    let options = Options {
        create: false,
        ..Options::default()
    };
    let begun = Instant::now();
    let defragmented = Backend::open(Arc::new(RealDisk), &path, options)
        .and_then(|backend| backend.defragment(DefragmentOptions::default())?.run());
    let dir = data_dir.display();
    let failed = |error| Failure::error(format!("Failed to defragment etcd data[{dir}] ({error})"));
    defragmented.map_err(failed)?;
    let took = duration::format(begun.elapsed());
    print(format!("Finished defragmenting directory[{dir}]. took {took}\n").as_bytes());
    Ok(())
}

pub(super) async fn defrag(session: Session) -> Outcome {
    let data_dir = session.flags.bytes("data-dir");
    if !data_dir.is_empty() {
        return defrag_offline(Path::new(&OsString::from_vec(data_dir)));
    }
    let s = session.connect().await?;
    let mut failed = false;
    for endpoint in endpoints(&s).await? {
        let client = connect(&s, &endpoint).await?;
        let begun = Instant::now();
        let answer: Result<DefragmentResponse, CallError> = client
            .call(
                "Maintenance/Defragment",
                &DefragmentRequest {},
                s.deadline(),
                Repeat::Never,
            )
            .await;
        let took = duration::format(begun.elapsed());
        match answer {
            Ok(_) => print(
                format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n").as_bytes(),
            ),
            Err(error) => {
                failed = true;
                complain(&format!(
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({error})"
                ));
            }
        }
    }
    if failed {
        return Err(Failure::silent(status::ERROR));
    }
    Ok(())
}

/// Asks the leader among the given endpoints to hand over.
pub(super) async fn move_leader(session: Session) -> Outcome {
    let [target] = session.args.as_slice() else {
        return Err(Failure::bad_args("move-leader command needs 1 argument"));
    };
    let target = parse_uint(target, 16).map_err(Failure::bad_args)?;
    let s = session.connect().await?;
    let deadline = s.deadline();
    for endpoint in &s.settings.endpoints {
        let client = connect(&s, endpoint).await?;
        let answer: Result<StatusResponse, CallError> = client
            .call(
                "Maintenance/Status",
                &StatusRequest {},
                deadline,
                Repeat::Safe,
            )
            .await;
        let answer = answer.map_err(super::session::fail)?;
        let leader = answer.header.map_or(0, |h| h.member_id);
        if leader != answer.leader {
            continue;
        }
        let request = MoveLeaderRequest { target_id: target };
        let moved: Result<MoveLeaderResponse, CallError> = client
            .call("Maintenance/MoveLeader", &request, deadline, Repeat::Never)
            .await;
        let moved = moved.map_err(super::session::fail)?;
        print(&s.printer.move_leader(leader, target, &moved)?);
        return Ok(());
    }
    let given = s.settings.endpoints.join(" ");
    Err(Failure::bad_args(format!(
        "no leader endpoint given at [{given}]"
    )))
}
