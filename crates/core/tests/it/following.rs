//! A member that another one leads, whose messages are written by hand.
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::Backend;
use quorate_core::{LogStart, Member, Outcome, Submission, Token};
use quorate_disk::{Disk, SimDisk};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{ConfState, Entry, EntryType, Message, MessageType};
use quorate_wal::{HardState, Identity, Wal};

use crate::harness::{MEMBER, config, restore};

const LEADER: u64 = 2;

/// A follower and its log.
fn follower() -> (Member, Wal) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    disk.create_dir_all(Path::new("/d")).unwrap();
    let options = quorate_backend::Options::default();
    let backend = Backend::open(Arc::clone(&disk), Path::new("/d/db"), options).unwrap();
    let identity = Identity {
        cluster_id: 7,
        member_id: MEMBER,
    };
    let options = quorate_wal::Options::default();
    let wal = Wal::create(disk, Path::new("/d/wal"), identity, options).unwrap();
    let log = LogStart {
        snapshot: quorate_wal::SnapshotMark::default(),
        entries: Vec::new(),
        hard_state: HardState {
            term: 1,
            ..HardState::default()
        },
        conf_state: ConfState {
            voters: vec![MEMBER, LEADER, 3],
            ..ConfState::default()
        },
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let member = Member::new(config(), log, restore(&backend), &logger, 0).unwrap();
    (member, wal)
}

fn from_leader(kind: MessageType) -> Message {
    Message {
        r#type: Some(kind.into()),
        from: Some(LEADER),
        to: Some(MEMBER),
        term: Some(1),
        ..Message::default()
    }
}

fn entry(index: u64, data: Vec<u8>) -> Entry {
    Entry {
        r#type: Some(EntryType::EntryNormal.into()),
        term: Some(1),
        index: Some(index),
        data: Some(data.into()),
    }
}

fn put() -> Vec<u8> {
    let request = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader {
            id: 77,
            ..pb::RequestHeader::default()
        }),
        put: Some(pb::PutRequest {
            key: Bytes::from("a"),
            value: Bytes::from("1"),
            ..pb::PutRequest::default()
        }),
        ..pb::InternalRaftRequest::default()
    };
    request.encode_to_vec()
}

/// A request in a field that no version has yet.
const OF_NEWER_VERSION: [u8; 3] = [0xca, 0x30, 0];

/// Gives a member two entries, commits them together, and returns what a read hears that waits for the first, and why the member
/// ends.
fn read_beside(second: Vec<u8>) -> (Vec<(Token, Outcome)>, Option<String>) {
    let (mut member, mut wal) = follower();
    member.handle_messages(vec![from_leader(MessageType::MsgHeartbeat)]);
    member.handle_submissions(vec![Submission::ReadIndex { token: Token(5) }]);
    let sent = member.take_actions().send;
    let asked = sent
        .iter()
        .find(|m| m.r#type() == MessageType::MsgReadIndex);
    member.handle_messages(vec![
        Message {
            index: Some(1),
            entries: asked.unwrap().entries.clone(),
            ..from_leader(MessageType::MsgReadIndexResp)
        },
        Message {
            index: Some(0),
            log_term: Some(0),
            entries: vec![entry(1, put()), entry(2, second)],
            commit: Some(2),
            ..from_leader(MessageType::MsgApp)
        },
    ]);
    let actions = member.take_actions();
    assert!(actions.replies.is_empty(), "nothing is stored");
    member.handle_synced(&wal.append(&actions.persist).unwrap());
    let actions = member.take_actions();
    (actions.replies, actions.fatal)
}

/// The first entry was applied, but is not published when the second ends the member: whoever read now would miss it.
#[test]
fn no_read_is_answered_by_a_member_that_ends_in_the_middle_of_a_batch() {
    let (replies, fatal) = read_beside(put());
    assert!(matches!(replies[..], [(Token(5), Outcome::ReadReady)]));
    assert_eq!(fatal, None);
    let (replies, fatal) = read_beside(OF_NEWER_VERSION.to_vec());
    assert!(replies.is_empty(), "{replies:?}");
    let why = fatal.unwrap();
    assert!(
        why.contains("it holds a request of a newer version"),
        "{why}"
    );
}
