//! Between our types and raft's: entries, configurations, configuration changes.
use bytes::Bytes;
use quorate_proto::raftpb;
use raft::eraftpb::{
    ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata,
};

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

/// Reads the kind of a configuration change; `None` for one that this version does not know. Left out, it is the first.
pub(crate) fn change_kind(change: &raftpb::ConfChange) -> Option<raftpb::ConfChangeType> {
    raftpb::ConfChangeType::try_from(change.r#type.unwrap_or(0)).ok()
}

/// Translates an etcd configuration change for raft; `None` when raft has nothing to do.
pub(crate) fn translate_change(
    change: &raftpb::ConfChange,
    refused: bool,
) -> Option<raft::eraftpb::ConfChange> {
    use raft::eraftpb::ConfChangeType as To;
    use raftpb::ConfChangeType as From;
    let kind = match change_kind(change)? {
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

/// Makes raft's message of one from the wire that passed the checks of [`crate::edge`].
///
/// Fields 13 and 14 mean other things in the two schemas and are never copied. `None` for a type of message or entry that
/// raft does not know.
pub(crate) fn message_to_raft(message: raftpb::Message) -> Option<Message> {
    let kind = kind_to_raft(raftpb::MessageType::try_from(message.r#type.unwrap_or(0)).ok()?)?;
    let entries: Option<Vec<Entry>> = message.entries.into_iter().map(entry_to_raft).collect();
    let mut to = Message {
        to: message.to.unwrap_or(0),
        from: message.from.unwrap_or(0),
        term: message.term.unwrap_or(0),
        log_term: message.log_term.unwrap_or(0),
        index: message.index.unwrap_or(0),
        commit: message.commit.unwrap_or(0),
        reject: message.reject.unwrap_or(false),
        reject_hint: message.reject_hint.unwrap_or(0),
        context: message.context.unwrap_or_default(),
        ..Message::default()
    };
    to.set_msg_type(kind);
    to.set_entries(entries?.into());
    if kind == MessageType::MsgSnapshot {
        to.set_snapshot(snapshot_to_raft(message.snapshot.unwrap_or_default()));
    }
    Some(to)
}

/// Makes the message for the wire of raft's.
pub(crate) fn message_from_raft(mut message: Message) -> raftpb::Message {
    let kind = message.get_msg_type();
    let snapshot =
        (kind == MessageType::MsgSnapshot).then(|| snapshot_from_raft(message.take_snapshot()));
    let entries: Vec<Entry> = message.take_entries().into();
    raftpb::Message {
        r#type: Some(kind_from_raft(kind).into()),
        to: Some(message.to),
        from: Some(message.from),
        term: Some(message.term),
        log_term: Some(message.log_term),
        index: Some(message.index),
        entries: entries.into_iter().map(entry_from_raft).collect(),
        commit: Some(message.commit),
        vote: None,
        snapshot,
        reject: Some(message.reject),
        reject_hint: Some(message.reject_hint),
        context: (!message.context.is_empty()).then_some(message.context),
        responses: Vec::new(),
    }
}

fn entry_to_raft(entry: raftpb::Entry) -> Option<Entry> {
    let kind = match raftpb::EntryType::try_from(entry.r#type.unwrap_or(0)).ok()? {
        raftpb::EntryType::EntryNormal => EntryType::EntryNormal,
        raftpb::EntryType::EntryConfChange => EntryType::EntryConfChange,
        raftpb::EntryType::EntryConfChangeV2 => EntryType::EntryConfChangeV2,
    };
    let mut to = Entry {
        term: entry.term.unwrap_or(0),
        index: entry.index.unwrap_or(0),
        data: entry.data.unwrap_or_default(),
        ..Entry::default()
    };
    to.set_entry_type(kind);
    Some(to)
}

fn entry_from_raft(entry: Entry) -> raftpb::Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => raftpb::EntryType::EntryNormal,
        EntryType::EntryConfChange => raftpb::EntryType::EntryConfChange,
        EntryType::EntryConfChangeV2 => raftpb::EntryType::EntryConfChangeV2,
    };
    raftpb::Entry {
        term: Some(entry.term),
        index: Some(entry.index),
        r#type: Some(kind.into()),
        data: (!entry.data.is_empty()).then_some(entry.data),
    }
}

fn snapshot_to_raft(snapshot: raftpb::Snapshot) -> Snapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    let mut to = SnapshotMetadata {
        index: metadata.index.unwrap_or(0),
        term: metadata.term.unwrap_or(0),
        ..SnapshotMetadata::default()
    };
    to.set_conf_state(to_conf_state(&metadata.conf_state.unwrap_or_default()));
    // Raft has no use for the data: what is installed is the image.
    let mut raft = Snapshot::default();
    raft.set_metadata(to);
    raft
}

fn snapshot_from_raft(mut snapshot: Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.take_metadata();
    raftpb::Snapshot {
        data: None,
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(from_conf_state(metadata.get_conf_state())),
            index: Some(metadata.index),
            term: Some(metadata.term),
        }),
    }
}

macro_rules! kinds {
    ($($wire:ident $raft:ident;)*) => {
        fn kind_to_raft(kind: raftpb::MessageType) -> Option<MessageType> {
            match kind {
                $(raftpb::MessageType::$wire => Some(MessageType::$raft),)*
                _ => None,
            }
        }

        fn kind_from_raft(kind: MessageType) -> raftpb::MessageType {
            match kind {
                $(MessageType::$raft => raftpb::MessageType::$wire,)*
            }
        }
    };
}

kinds! {
    MsgHup MsgHup;
    MsgBeat MsgBeat;
    MsgProp MsgPropose;
    MsgApp MsgAppend;
    MsgAppResp MsgAppendResponse;
    MsgVote MsgRequestVote;
    MsgVoteResp MsgRequestVoteResponse;
    MsgSnap MsgSnapshot;
    MsgHeartbeat MsgHeartbeat;
    MsgHeartbeatResp MsgHeartbeatResponse;
    MsgUnreachable MsgUnreachable;
    MsgSnapStatus MsgSnapStatus;
    MsgCheckQuorum MsgCheckQuorum;
    MsgTransferLeader MsgTransferLeader;
    MsgTimeoutNow MsgTimeoutNow;
    MsgReadIndex MsgReadIndex;
    MsgReadIndexResp MsgReadIndexResp;
    MsgPreVote MsgRequestPreVote;
    MsgPreVoteResp MsgRequestPreVoteResponse;
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

    #[test]
    fn a_message_survives_both_ways_but_for_fields_that_mean_other_things() {
        let message = raftpb::Message {
            r#type: Some(raftpb::MessageType::MsgApp.into()),
            to: Some(1),
            from: Some(2),
            term: Some(u64::MAX),
            log_term: Some(4),
            index: Some(5),
            entries: vec![raftpb::Entry {
                term: Some(4),
                index: Some(6),
                r#type: Some(1),
                data: Some(Bytes::from_static(b"\x10\x03")),
            }],
            commit: Some(7),
            vote: Some(9),
            snapshot: None,
            reject: Some(true),
            reject_hint: Some(8),
            context: Some(Bytes::from_static(b"12345678")),
            responses: vec![raftpb::Message::default()],
        };
        let raft = message_to_raft(message.clone()).unwrap();
        assert_eq!((raft.request_snapshot, raft.deprecated_priority), (0, 0));
        assert_eq!((raft.commit_term, raft.priority), (0, 0));
        let back = message_from_raft(raft);
        let expected = raftpb::Message {
            vote: None,
            responses: Vec::new(),
            ..message
        };
        assert_eq!(back, expected);
    }

    #[test]
    fn what_raft_does_not_know_is_no_message() {
        for kind in 0..=18 {
            let message = raftpb::Message {
                r#type: Some(kind),
                ..raftpb::Message::default()
            };
            let raft = message_to_raft(message).unwrap();
            assert_eq!(message_from_raft(raft).r#type, Some(kind), "same numbers");
        }
        for kind in [19, 23, 24, -1] {
            let message = raftpb::Message {
                r#type: Some(kind),
                ..raftpb::Message::default()
            };
            assert!(message_to_raft(message).is_none());
        }
        let mut message = raftpb::Message {
            r#type: Some(3),
            ..raftpb::Message::default()
        };
        message.entries.push(raftpb::Entry {
            r#type: Some(3),
            ..raftpb::Entry::default()
        });
        assert!(message_to_raft(message).is_none());
    }

    #[test]
    fn etcds_numbers_of_configuration_changes_are_translated() {
        use raft::eraftpb::ConfChangeType as To;
        let translated = |kind| {
            let change = raftpb::ConfChange {
                r#type: Some(kind),
                node_id: Some(5),
                ..raftpb::ConfChange::default()
            };
            translate_change(&change, false).map(|c| (c.get_change_type(), c.node_id))
        };
        assert_eq!(translated(0), Some((To::AddNode, 5)));
        assert_eq!(translated(1), Some((To::RemoveNode, 5)));
        assert_eq!(translated(2), None, "an update is nothing to raft");
        assert_eq!(translated(3), Some((To::AddLearnerNode, 5)));
        assert_eq!(translated(4), None);
    }
}
