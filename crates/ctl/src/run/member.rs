//! `member list`, `add`, `remove`, `update`, `promote`, and `downgrade`.

use prost::Message;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb::{
    DowngradeRequest, DowngradeResponse, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};

use super::Session;
use super::ops::is_serializable;
use super::session::Connected;
use crate::cli::command::Action;
use crate::client::Repeat;
use crate::failure::{Failure, Outcome};
use crate::go::number::parse_uint;
use crate::go::quote::quote;
use crate::print::{Format, MemberChange};
use crate::terminal::print;

pub(super) async fn list(session: Session) -> Outcome {
    let linearizable = !is_serializable(&session.flags.bytes("consistency"))?;
    let s = session.connect().await?;
    let request = MemberListRequest { linearizable };
    let answer: MemberListResponse = s
        .call("Cluster/MemberList", request, s.deadline(), Repeat::Safe)
        .await?;
    print(&s.printer.member_list(&answer)?);
    Ok(())
}

fn member_id(session: &Session) -> Outcome<u64> {
    let [id] = session.args.as_slice() else {
        return Err(Failure::bad_args("member ID is not provided"));
    };
    parse_uint(id, 16)
        .map_err(|e| Failure::bad_args(format!("bad member ID arg ({e}), expecting ID in Hex")))
}

fn peer_urls(session: &Session) -> Outcome<Vec<String>> {
    let urls = session.flags.string("peer-urls");
    if urls.is_empty() {
        return Err(Failure::bad_args("member peer urls not provided"));
    }
    Ok(urls.split(',').map(str::to_owned).collect())
}

pub(super) async fn add(session: Session) -> Outcome {
    match session.args.len() {
        0 => return Err(Failure::bad_args("member name not provided")),
        1 => {}
        _ => {
            let mut text = "too many arguments".to_owned();
            for arg in session.args.iter().map(|a| String::from_utf8_lossy(a)) {
                if arg.to_lowercase().starts_with("http") {
                    text += &format!(", did you mean --peer-urls={arg}");
                }
            }
            return Err(Failure::bad_args(text));
        }
    }
    let request = MemberAddRequest {
        peer_ur_ls: peer_urls(&session)?,
        is_learner: session.flags.bool("learner"),
    };
    let s = session.connect().await?;
    let answer: MemberAddResponse = s
        .call("Cluster/MemberAdd", request, s.deadline(), Repeat::Never)
        .await?;
    let member = answer.member.clone().unwrap_or_default();
    let role = if member.is_learner {
        " as learner "
    } else {
        " "
    };
    let line = format!(
        "Member {:16x} added{role}to cluster {:16x}\n",
        member.id,
        cluster(answer.header.as_ref())
    );
    show(&s, answer.header.as_ref(), &answer, line)?;
    if s.printer.format == Format::Simple {
        print(new_member_settings(&s, &answer, member.id).as_bytes());
    }
    Ok(())
}

/// The environment with which the new member is to be started.
fn new_member_settings(s: &Connected, answer: &MemberAddResponse, id: u64) -> String {
    let name = s.text(0);
    let mut cluster = Vec::new();
    for member in &answer.members {
        let name = if member.id == id { &name } else { &member.name };
        cluster.extend(member.peer_ur_ls.iter().map(|url| format!("{name}={url}")));
    }
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes()),
        quote(&s.flags.bytes("peer-urls"))
    )
}

fn cluster(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |h| h.cluster_id)
}

fn show<M>(s: &Connected, header: Option<&ResponseHeader>, message: &M, line: String) -> Outcome
where
    M: Message + crate::go::json::Json + crate::print::Members,
{
    let change = MemberChange {
        header,
        message,
        line,
    };
    print(&s.printer.member_change(&change)?);
    Ok(())
}

pub(super) async fn remove(session: Session) -> Outcome {
    let id = member_id(&session)?;
    let s = session.connect().await?;
    let request = MemberRemoveRequest { id };
    let answer: MemberRemoveResponse = s
        .call("Cluster/MemberRemove", request, s.deadline(), Repeat::Never)
        .await?;
    let header = answer.header.as_ref();
    let line = format!(
        "Member {id:16x} removed from cluster {:16x}\n",
        cluster(header)
    );
    show(&s, header, &answer, line)
}

pub(super) async fn update(session: Session) -> Outcome {
    let id = member_id(&session)?;
    let peer_ur_ls = peer_urls(&session)?;
    let s = session.connect().await?;
    let request = MemberUpdateRequest { id, peer_ur_ls };
    let answer: MemberUpdateResponse = s
        .call("Cluster/MemberUpdate", request, s.deadline(), Repeat::Never)
        .await?;
    let header = answer.header.as_ref();
    let line = format!(
        "Member {id:16x} updated in cluster {:16x}\n",
        cluster(header)
    );
    show(&s, header, &answer, line)
}

pub(super) async fn promote(session: Session) -> Outcome {
    let id = member_id(&session)?;
    let s = session.connect().await?;
    let request = MemberPromoteRequest { id };
    let answer: MemberPromoteResponse = s
        .call(
            "Cluster/MemberPromote",
            request,
            s.deadline(),
            Repeat::Never,
        )
        .await?;
    let header = answer.header.as_ref();
    let line = format!(
        "Member {id:16x} promoted in cluster {:16x}\n",
        cluster(header)
    );
    show(&s, header, &answer, line)
}

pub(super) async fn downgrade(session: Session, action: Action) -> Outcome {
    let (what, action) = match action {
        Action::DowngradeEnable => ("enable", DowngradeAction::Enable),
        Action::DowngradeCancel => ("cancel", DowngradeAction::Cancel),
        _ => ("validate", DowngradeAction::Validate),
    };
    if action != DowngradeAction::Cancel && session.args.is_empty() {
        return Err(Failure::bad_args("TARGET_VERSION not provided"));
    }
    if action != DowngradeAction::Cancel && session.args.len() > 1 {
        return Err(Failure::bad_args("too many arguments"));
    }
    let s = session.connect().await?;
    let version = s
        .args
        .first()
        .map(|v| String::from_utf8_lossy(v).into_owned());
    let request = DowngradeRequest {
        action: action.into(),
        version: version.unwrap_or_default(),
    };
    let answer: DowngradeResponse = s
        .call(
            "Maintenance/Downgrade",
            request,
            s.deadline(),
            Repeat::Never,
        )
        .await?;
    print(&s.printer.downgrade(what, &answer)?);
    Ok(())
}
