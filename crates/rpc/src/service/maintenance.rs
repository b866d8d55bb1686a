//! The service `Maintenance`, as far as it is built.
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_auth::Operation;
use quorate_core::{Applied, DEFAULT_QUOTA_BYTES, DowngradeAction, Outcome, Request, Submission};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode, unexpected};
use super::kv::mismatch;
use crate::beside::hash_beside;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::seam::Answer;
use crate::status::{Code, Status};

pub(super) fn alarm(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::AlarmRequest = match decode(body.clone()) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Alarm(&request))?;
        match context
            .applied(context.propose(Request::Alarm(request), Some(body), identity))
            .await?
        {
            Applied::Alarm(alarms) => Ok(Message::encode(&pb::AlarmResponse {
                header: Some(context.header_now()),
                alarms,
            })),
            other => mismatch(&other),
        }
    })
}

pub(super) fn status(context: &Rc<Context>, metadata: &Metadata) -> Answer {
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Status)?;
        Ok(Message::encode(&status_of(&context)))
    })
}

fn status_of(context: &Context) -> pb::StatusResponse {
    let view = &context.handles.view;
    let sizes = context.current().backend.sizes();
    let leader = view.leader().0;
    let no_leader = (leader == 0).then(|| Status::NO_LEADER.message().to_owned());
    let alarms = view.alarms();
    let alarms = alarms.iter().map(|alarm| {
        let name = pb::AlarmType::try_from(alarm.alarm).map_or("", |kind| kind.as_str_name());
        format!("memberID:{}  alarm:{name}", alarm.member_id)
    });
    let quota = context.options.quota_bytes;
    pb::StatusResponse {
        header: Some(context.header_now()),
        version: context.options.server_version.clone(),
        db_size: signed(sizes.total_bytes),
        leader,
        raft_index: view.committed(),
        raft_term: view.term(),
        raft_applied_index: view.applied(),
        errors: no_leader.into_iter().chain(alarms).collect(),
        db_size_in_use: signed(sizes.in_use_bytes),
        is_learner: view.is_learner(),
        storage_version: view.storage_version().to_string(),
        db_size_quota: if quota == 0 {
            DEFAULT_QUOTA_BYTES
        } else {
            quota
        },
        downgrade_info: Some(match view.downgrade_target() {
            None => pb::DowngradeInfo::default(),
            Some(target) => pb::DowngradeInfo {
                enabled: true,
                target_version: target.to_string(),
            },
        }),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) fn hash(context: &Rc<Context>, metadata: &Metadata) -> Answer {
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Maintenance)?;
        let reader = context.reader().clone();
        let started = Instant::now();
        let (hash, revision) = hash_beside(move || reader.hash()).await??;
        context.registry.maintenance().hashed(started);
        Ok(Message::encode(&pb::HashResponse {
            header: Some(context.header(revision)),
            hash,
        }))
    })
}

pub(super) fn hash_kv(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::HashKvRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Maintenance)?;
        let reader = context.reader().clone();
        wait_for_compaction(&context, request.revision).await;
        let started = Instant::now();
        let hash = hash_beside(move || reader.hash_kv(request.revision)).await??;
        context.registry.maintenance().hashed_kv(started);
        Ok(Message::encode(&pb::HashKvResponse {
            header: Some(context.header(hash.revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    })
}

/// Waits a while for the compaction at exactly this revision to end, because its end stores the hash that is asked for.
async fn wait_for_compaction(context: &Context, revision: i64) {
    const LOOK: Duration = Duration::from_millis(2);
    const LOOKS_MAX: u32 = 500;
    for _ in 0..LOOKS_MAX {
        let waits = context.handles.view.is_compacting();
        if !waits || context.reader().compact_revision() != revision {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) fn move_leader(context: &Rc<Context>, metadata: &Metadata, body: Bytes) -> Answer {
    let request: pb::MoveLeaderRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Maintenance)?;
        let target = MemberId(request.target_id);
        match context
            .engine
            .submit(|token| Submission::MoveLeader { token, target })
            .await
        {
            Outcome::LeaderMoved => Ok(Message::encode(&pb::MoveLeaderResponse { header: None })),
            other => Err(unexpected(other)),
        }
    })
}

pub(super) fn downgrade(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    use pb::downgrade_request::DowngradeAction as Wire;
    let request: pb::DowngradeRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Maintenance)?;
        let action = match Wire::try_from(request.action) {
            Ok(Wire::Validate) => DowngradeAction::Validate,
            Ok(Wire::Enable) => DowngradeAction::Enable,
            Ok(Wire::Cancel) => DowngradeAction::Cancel,
            Err(_) => return Err(Status::new(Code::Unknown, "etcdserver: unknown method")),
        };
        let before = context.handles.view.cluster_version();
        let submit = |token| Submission::Downgrade {
            token,
            action,
            version: request.version,
        };
        match context.engine.submit(submit).await {
            Outcome::Done => Ok(Message::encode(&pb::DowngradeResponse {
                header: Some(context.header_now()),
                version: short(&before),
            })),
            other => Err(unexpected(other)),
        }
    })
}

/// Cuts a version down to its first two numbers.
fn short(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}
