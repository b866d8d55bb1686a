//! Between our types and raft's: entries, configurations, configuration changes.
use bytes::Bytes;
use quorate_proto::raftpb;
use raft::eraftpb::{ConfState, Entry, EntryType};

/// Meta key of the configuration at the applied index. Source: etcd v3.7.1 server/storage/schema/schema.go.
pub const CONF_STATE_KEY: &[u8] = b"confState";

pub(crate) fn normal_entry(data: Bytes) -> Entry {
    Entry {
        data,
        ..Entry::default()
    }
}

pub(crate) fn to_raft(entry: quorate_wal::Entry) -> Entry {
    let mut to = Entry {
        term: entry.term,
        index: entry.index,
        data: entry.data,
        ..Entry::default()
    };
    to.set_entry_type(match entry.kind {
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => EntryType::EntryNormal,
    });
    to
}

pub(crate) fn from_raft(entry: Entry) -> quorate_wal::Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    quorate_wal::Entry {
        term: entry.term,
        index: entry.index,
        kind,
        data: entry.data,
    }
}

pub(crate) fn to_conf_state(conf: &raftpb::ConfState) -> ConfState {
    ConfState {
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: conf.auto_leave.unwrap_or(false),
        ..ConfState::default()
    }
}

pub(crate) fn from_conf_state(conf: &ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: Some(conf.auto_leave),
    }
}

/// Writes a configuration as etcd keeps it in the `meta` table: what is empty is left out, and the order counts, since `Hash` covers it.
pub(crate) fn conf_state_json(conf: &ConfState) -> String {
    let mut json = String::from("{");
    let mut list = |name: &str, ids: &[u64]| {
        if !ids.is_empty() {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            json += &format!("\"{name}\":[{}],", ids.join(","));
        }
    };
    list("voters", &conf.voters);
    list("learners", &conf.learners);
    list("voters_outgoing", &conf.voters_outgoing);
    list("learners_next", &conf.learners_next);
    json + &format!("\"auto_leave\":{}}}", conf.auto_leave)
}

/// Translates an etcd configuration change for raft; `None` when raft has nothing to do.
pub(crate) fn translate_change(
    change: &raftpb::ConfChange,
    refused: bool,
) -> Option<raft::eraftpb::ConfChange> {
    use raft::eraftpb::ConfChangeType as To;
    use raftpb::ConfChangeType as From;
    let kind = match change.r#type() {
        From::ConfChangeAddNode => To::AddNode,
        From::ConfChangeRemoveNode => To::RemoveNode,
        From::ConfChangeAddLearnerNode => To::AddLearnerNode,
        From::ConfChangeUpdateNode => return None,
    };
    // Raft ignores member id 0, but still learns that the change is over.
    let node_id = if refused {
        0
    } else {
        change.node_id.unwrap_or(0)
    };
    let mut to = raft::eraftpb::ConfChange {
        node_id,
        ..raft::eraftpb::ConfChange::default()
    };
    to.set_change_type(kind);
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_etcds_bytes() {
        let mut conf = ConfState {
            voters: vec![3_993_966_038_013_325_754, 2],
            ..ConfState::default()
        };
        assert_eq!(
            conf_state_json(&conf),
            r#"{"voters":[3993966038013325754,2],"auto_leave":false}"#
        );
        conf.learners = vec![7];
        assert_eq!(
            conf_state_json(&conf),
            r#"{"voters":[3993966038013325754,2],"learners":[7],"auto_leave":false}"#
        );
    }
}
