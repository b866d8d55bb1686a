//! The service `Cluster`.
use std::rc::Rc;

use bytes::Bytes;
use quorate_auth::{Operation, Stage};
use quorate_core::{Error, MemberChange, Outcome, Submission};
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode, unexpected};
use super::lease::of_leader;
use crate::leader::Refused;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::seam::Answer;
use crate::status::Status;

pub(super) fn member_list(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    let request: pb::MemberListRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        if request.linearizable {
            context.read_index().await?;
        }
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::MemberList)?;
        let members = context.handles.view.members().to_vec();
        // The cluster's answers never carry a revision.
        Ok(Message::encode(&pb::MemberListResponse {
            header: Some(context.header(0)),
            members,
        }))
    })
}

pub(super) fn member_add(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    let request: pb::MemberAddRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let Some(peer_urls) = peer_urls(&request.peer_ur_ls) else {
        return Answer::Now(Err(Status::MEMBER_BAD_URLS));
    };
    let context = context.clone();
    Answer::later(async move {
        let is_learner = request.is_learner;
        let change = MemberChange::Add {
            peer_urls,
            is_learner,
        };
        let (id, members) = change_members(&context, &metadata, change).await?;
        // The member as it was added: what it has published since is not told.
        let added = members.iter().find(|m| m.id == id.0);
        let member = pb::Member {
            id: id.0,
            peer_ur_ls: added.map(|m| m.peer_ur_ls.clone()).unwrap_or_default(),
            is_learner,
            ..pb::Member::default()
        };
        Ok(Message::encode(&pb::MemberAddResponse {
            header: Some(context.header(0)),
            member: Some(member),
            members,
        }))
    })
}

pub(super) fn member_remove(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    let request: pb::MemberRemoveRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        let change = MemberChange::Remove {
            id: MemberId(request.id),
        };
        let (_, members) = change_members(&context, &metadata, change).await?;
        Ok(Message::encode(&pb::MemberRemoveResponse {
            header: Some(context.header(0)),
            members,
        }))
    })
}

pub(super) fn member_update(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    let request: pb::MemberUpdateRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        let change = MemberChange::Update {
            id: MemberId(request.id),
            peer_urls: request.peer_ur_ls,
        };
        let (_, members) = change_members(&context, &metadata, change).await?;
        Ok(Message::encode(&pb::MemberUpdateResponse {
            header: Some(context.header(0)),
            members,
        }))
    })
}

async fn change_members(
    context: &Context,
    metadata: &Metadata,
    change: MemberChange,
) -> Result<(MemberId, Vec<pb::Member>), Status> {
    let identity = context.identity(metadata).await?;
    context.gate(&identity, &Operation::MemberChange)?;
    let submit = |token| Submission::ChangeMembers { token, change };
    match context.engine.submit(submit).await {
        Outcome::Members { id, members } => Ok((id, members)),
        other => Err(unexpected(other)),
    }
}

pub(super) fn member_promote(context: &Rc<Context>, metadata: Metadata, body: Bytes) -> Answer {
    let request: pb::MemberPromoteRequest = match decode(body) {
        Ok(request) => request,
        Err(status) => return Answer::Now(Err(status)),
    };
    let context = context.clone();
    Answer::later(async move {
        may_promote(&context, &metadata)
            .await
            .inspect_err(|error| context.handles.view.promotions().refused(error))?;
        let members = promote(&context, &metadata, MemberId(request.id)).await?;
        Ok(Message::encode(&pb::MemberPromoteResponse {
            header: Some(context.header(0)),
            members,
        }))
    })
}

/// Waits until the caller can be judged and what was committed is applied.
async fn may_promote(context: &Context, metadata: &Metadata) -> Result<(), Error> {
    let identity = context.judged(metadata).await.map_err(Error::Auth)?;
    let none = |_| Vec::new();
    let operation = Operation::MemberChange;
    let gate = context
        .auth()
        .gate(&identity, Stage::Door, &operation, none);
    gate.map_err(Error::Auth)?;
    let caught_up = context.catch_up().await;
    caught_up.map_err(|_| Error::TimeoutWaitApplied)
}

/// Promotes here or on the leader, whoever that turns out to be.
///
/// Source: etcd v3.7.1 server/etcdserver/server.go PromoteMember.
async fn promote(
    context: &Context,
    metadata: &Metadata,
    id: MemberId,
) -> Result<Vec<pb::Member>, Status> {
    let token = metadata.token.as_deref().map(str::to_owned);
    let promoted = of_leader(
        context,
        |token| Submission::ChangeMembers {
            token,
            change: MemberChange::Promote { id },
        },
        |outcome| {
            context.handles.view.promotions().count(&outcome);
            match outcome {
                Outcome::Members { members, .. } => Ok(members),
                other => Err(other),
            }
        },
        |leader, to, left| leader.promote(to, id, token.clone(), left),
    );
    promoted.await?.map_err(|refused| match refused {
        Refused::NotFound => Status::MEMBER_NOT_FOUND,
        Refused::NotLearner => Status::MEMBER_NOT_LEARNER,
        Refused::LearnerNotReady => Status::LEARNER_NOT_READY,
        // It was asked again until the time was over.
        Refused::Unavailable(_) => Status::TIMEOUT,
    })
}

/// Checks and sorts peer URLs; `None` when there is none or one is not a URL to listen on.
///
/// Source: etcd v3.7.1 client/pkg/types/urls.go NewURLs.
fn peer_urls(texts: &[String]) -> Option<Vec<String>> {
    let mut urls = Vec::with_capacity(texts.len());
    for text in texts {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://")?;
        let is_plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let is_url = match &scheme.to_ascii_lowercase()[..] {
            "http" | "https" => is_host_and_port(rest),
            "unix" | "unixs" => true,
            _ => false,
        };
        if !is_plain || !is_url {
            return None;
        }
        urls.push(text.to_owned());
    }
    urls.sort();
    (!urls.is_empty()).then_some(urls)
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.ends_with(']'),
        None => !host.contains([':', '/', '?', '#', '[', ']']),
    };
    is_host && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_checked_as_etcd_does_and_sorted() {
        let check =
            |texts: &[&str]| peer_urls(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let sorted = check(&["http://b:2", " http://a:1 ", "unix://x"]).unwrap();
        assert_eq!(sorted, ["http://a:1", "http://b:2", "unix://x"]);
        assert!(check(&["https://[::1]:2380"]).is_some());
        for bad in [
            "a:1",
            "ftp://a:1",
            "http://a",
            "http://a:1/",
            "http://a:1/x",
            "http://::1:1",
            "http://a:x",
            "",
        ] {
            assert!(check(&[bad]).is_none(), "{bad}");
        }
        assert!(check(&[]).is_none());
    }
}
