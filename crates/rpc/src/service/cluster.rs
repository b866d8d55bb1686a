//! The service `Cluster`, as far as one member needs it.
use std::rc::Rc;

use bytes::Bytes;
use quorate_auth::Operation;
use quorate_proto::etcdserverpb as pb;

use super::context::{Context, decode};
use crate::message::Message;
use crate::metadata::Metadata;
use crate::seam::Answer;

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
