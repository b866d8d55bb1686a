//! `get`, `put`, `del` and `compaction`.

use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, RangeRequest, RangeResponse, RangeStreamResponse,
};

use super::session::{Connected, fail};
use super::{Session, ops};
use crate::client::{Deadline, Repeat, within};
use crate::failure::{Failure, Outcome};
use crate::go::number::parse_int;
use crate::print::Format;
use crate::terminal::print;

pub(super) async fn get(session: Session) -> Outcome {
    let request = ops::range(&session.flags, &session.args)?;
    let s = session.connect().await?;
    let deadline = s.deadline();
    let answer = if s.flags.bool("stream") {
        stream(&s, request, deadline).await?
    } else {
        s.call("KV/Range", request, deadline, Repeat::Safe).await?
    };
    let mut printer = s.printer;
    if s.flags.bool("count-only") && printer.format != Format::Fields {
        return Err(Failure::bad_args(
            "--count-only is only for `--write-out=fields`",
        ));
    }
    if s.flags.bool("print-value-only") {
        if printer.format != Format::Simple {
            return Err(Failure::bad_args(
                "print-value-only is only for `--write-out=simple`",
            ));
        }
        printer.value_only = true;
    }
    print(&printer.range(&answer)?);
    Ok(())
}

/// Reads a range as a stream and joins its parts.
async fn stream(
    s: &Connected,
    request: RangeRequest,
    deadline: Deadline,
) -> Outcome<RangeResponse> {
    let parts = s
        .client
        .server_stream("KV/RangeStream", request, deadline)
        .await;
    let mut parts: tonic::Streaming<RangeStreamResponse> = parts.map_err(fail)?;
    let mut whole = RangeResponse::default();
    while let Some(part) = within(deadline, parts.message()).await.map_err(fail)? {
        let part = part.range_response.unwrap_or_default();
        whole.header = part.header.or(whole.header);
        whole.kvs.extend(part.kvs);
        whole.more |= part.more;
        whole.count = if part.count == 0 {
            whole.count
        } else {
            part.count
        };
    }
    Ok(whole)
}

pub(super) async fn put(session: Session) -> Outcome {
    let request = ops::put(&session.flags, &session.args)?;
    let s = session.connect().await?;
    let answer = s
        .call("KV/Put", request, s.deadline(), Repeat::Never)
        .await?;
    print(&s.printer.put(&answer)?);
    Ok(())
}

pub(super) async fn del(session: Session) -> Outcome {
    let request = ops::delete(&session.flags, &session.args).await?;
    let s = session.connect().await?;
    let answer = s
        .call("KV/DeleteRange", request, s.deadline(), Repeat::Never)
        .await?;
    print(&s.printer.delete(&answer)?);
    Ok(())
}

pub(super) async fn compaction(session: Session) -> Outcome {
    let [revision] = session.args.as_slice() else {
        return Err(Failure::bad_args("compaction command needs 1 argument"));
    };
    let request = CompactionRequest {
        revision: parse_int(revision, 10).map_err(Failure::error)?,
        physical: session.flags.bool("physical"),
    };
    let s = session.connect().await?;
    let _: CompactionResponse = s
        .call("KV/Compact", request, s.deadline(), Repeat::Never)
        .await?;
    print(format!("compacted revision {}\n", request.revision).as_bytes());
    Ok(())
}
