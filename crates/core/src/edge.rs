//! What messages from other members are let through to raft.
//!
//! Raft trusts its peers: some messages that no peer should send would end the process or break promises. They are
//! refused here, before they are translated. Source: `interop.md`, must 9, and the panics of raft 0.7.0.
use std::collections::BTreeMap;
use std::fmt;

use prost::Message as _;
use quorate_proto::MemberId;
use quorate_proto::raftpb::{ConfState, Entry, EntryType, Message, MessageType};

use crate::cluster;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is for another member.
    NotForUs,
    /// It comes from nobody, or from ourselves.
    NoSender,
    /// Its sender was removed from the cluster.
    RemovedSender,
    /// Its type, or that of an entry, is none that members send each other.
    UnknownType,
    /// It has no entries where there must be some, or some where their order makes no sense.
    BadEntries,
    /// It proposes a change of the configuration that etcd could not apply.
    BadChange,
    /// Its term makes no sense for its type.
    BadTerm,
    /// Its snapshot has no position, or a configuration that makes no sense.
    BadSnapshot,
    /// It speaks of entries that were never here.
    Ahead,
    /// It contradicts what is committed here.
    Conflict,
    /// A snapshot is being installed, and it cannot be handled meanwhile.
    Busy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotForUs => "addressed to another member",
            Self::NoSender => "sent by nobody",
            Self::RemovedSender => "sent by a removed member",
            Self::UnknownType => "of an unknown type",
            Self::BadEntries => "with entries that make no sense",
            Self::BadChange => "with a configuration change that cannot be applied",
            Self::BadTerm => "with a term that makes no sense",
            Self::BadSnapshot => "with a snapshot that makes no sense",
            Self::Ahead => "about entries that were never here",
            Self::Conflict => "against what is committed",
            Self::Busy => "while a snapshot is installed",
        })
    }
}

/// Checks what a message says without looking at raft's state; returns its type.
pub(crate) fn check(
    message: &Message,
    own: MemberId,
    is_removed: impl Fn(u64) -> bool,
) -> Result<MessageType, Refusal> {
    let kind =
        MessageType::try_from(message.r#type.unwrap_or(0)).map_err(|_| Refusal::UnknownType)?;
    if message.to != Some(own.0) {
        return Err(Refusal::NotForUs);
    }
    let from = message.from.unwrap_or(0);
    if from == 0 || from == own.0 {
        return Err(Refusal::NoSender);
    }
    if is_removed(from) {
        return Err(Refusal::RemovedSender);
    }
    let term = message.term.unwrap_or(0);
    use MessageType as T;
    match kind {
        T::MsgProp => {
            check_term(term == 0)?;
            check_proposed(&message.entries)?;
        }
        T::MsgReadIndex => {
            check_term(term == 0)?;
            // Raft takes the first entry for the question without looking.
            if message.entries.len() != 1 {
                return Err(Refusal::BadEntries);
            }
        }
        T::MsgApp => {
            check_term(term > 0)?;
            check_appended(message, term)?;
        }
        T::MsgSnap => {
            check_term(term > 0)?;
            check_snapshot(message)?;
        }
        T::MsgAppResp
        | T::MsgVote
        | T::MsgVoteResp
        | T::MsgHeartbeat
        | T::MsgHeartbeatResp
        | T::MsgTransferLeader
        | T::MsgTimeoutNow
        | T::MsgReadIndexResp
        | T::MsgPreVote
        | T::MsgPreVoteResp => check_term(term > 0)?,
        _ => return Err(Refusal::UnknownType),
    }
    Ok(kind)
}

fn check_term(makes_sense: bool) -> Result<(), Refusal> {
    if makes_sense {
        Ok(())
    } else {
        Err(Refusal::BadTerm)
    }
}

fn check_proposed(entries: &[Entry]) -> Result<(), Refusal> {
    if entries.is_empty() {
        return Err(Refusal::BadEntries);
    }
    for entry in entries {
        match entry_type(entry)? {
            EntryType::EntryNormal => {}
            EntryType::EntryConfChange => {
                cluster::check_change(entry.data.as_deref().unwrap_or_default())
                    .map_err(|_| Refusal::BadChange)?;
            }
            // One committed would end every etcd member.
            EntryType::EntryConfChangeV2 => return Err(Refusal::BadChange),
        }
    }
    Ok(())
}

/// Entries follow each other from right behind the message's index, and their terms do not fall.
fn check_appended(message: &Message, term: u64) -> Result<(), Refusal> {
    let mut index = message.index.unwrap_or(0);
    let mut before = message.log_term.unwrap_or(0);
    for entry in &message.entries {
        entry_type(entry)?;
        let entry_term = entry.term.unwrap_or(0);
        index = index.checked_add(1).ok_or(Refusal::BadEntries)?;
        if entry.index != Some(index) || entry_term < before.max(1) || entry_term > term {
            return Err(Refusal::BadEntries);
        }
        before = entry_term;
    }
    Ok(())
}

fn entry_type(entry: &Entry) -> Result<EntryType, Refusal> {
    EntryType::try_from(entry.r#type.unwrap_or(0)).map_err(|_| Refusal::UnknownType)
}

fn check_snapshot(message: &Message) -> Result<(), Refusal> {
    let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
    let metadata = metadata.ok_or(Refusal::BadSnapshot)?;
    let conf = metadata.conf_state.as_ref().ok_or(Refusal::BadSnapshot)?;
    let position = metadata.index.unwrap_or(0) > 0 && metadata.term.unwrap_or(0) > 0;
    if position && metadata.term <= message.term && makes_sense(conf) {
        Ok(())
    } else {
        Err(Refusal::BadSnapshot)
    }
}

/// No id twice, some voter, and no joint configuration, which no member of this kind ever makes.
fn makes_sense(conf: &ConfState) -> bool {
    let mut ids: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ids.len() == count
        && !ids.contains(&0)
        && !conf.voters.is_empty()
        && conf.voters_outgoing.is_empty()
        && conf.learners_next.is_empty()
}

/// Puts the appends of one sender and term in the order of their index, and leaves everything else where it is.
///
/// etcd 3.7.1 sends the messages of one step in reverse order, and raft refuses an append that comes before the one
/// that it follows.
pub(crate) fn sort_appends(messages: &mut [Message]) {
    // The places of each sender and term, ascending.
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (at, message) in messages.iter().enumerate() {
        if message.r#type == Some(MessageType::MsgApp.into()) {
            let group = groups.entry((message.from, message.term));
            group.or_default().push(at);
        }
    }
    for places in groups.values() {
        if places.is_sorted_by_key(|at| messages[*at].index) {
            continue;
        }
        let take = |at: &usize| std::mem::take(&mut messages[*at]);
        let mut appends: Vec<Message> = places.iter().map(take).collect();
        appends.sort_by_key(|message| message.index);
        for (at, message) in places.iter().zip(appends) {
            messages[*at] = message;
        }
    }
}

/// Decodes the change in an entry's data, for its id.
pub(crate) fn change_id(data: &[u8]) -> u64 {
    quorate_proto::raftpb::ConfChange::decode(data).map_or(0, |change| change.id.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_proto::raftpb::{ConfChange, Snapshot, SnapshotMetadata};

    use super::*;

    const OWN: MemberId = MemberId(1);

    fn message(kind: MessageType, term: u64) -> Message {
        Message {
            r#type: Some(kind.into()),
            to: Some(1),
            from: Some(2),
            term: Some(term),
            ..Message::default()
        }
    }

    fn checked(message: &Message) -> Result<MessageType, Refusal> {
        check(message, OWN, |id| id == 9)
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index: Some(index),
            term: Some(term),
            r#type: Some(0),
            data: None,
        }
    }

    #[test]
    fn only_what_members_send_each_other_is_let_through() {
        assert!(checked(&message(MessageType::MsgHeartbeat, 1)).is_ok());
        for kind in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 24, i32::MAX, -1] {
            let strange = Message {
                r#type: Some(kind),
                ..message(MessageType::MsgHeartbeat, 1)
            };
            assert_eq!(checked(&strange), Err(Refusal::UnknownType), "type {kind}");
        }
    }

    #[test]
    fn faults_n9_strangers_and_removed_members_are_refused() {
        let good = message(MessageType::MsgVote, 5);
        let to = |to| Message { to, ..good.clone() };
        let from = |from| Message {
            from,
            ..good.clone()
        };
        assert_eq!(checked(&to(Some(2))), Err(Refusal::NotForUs));
        assert_eq!(checked(&to(None)), Err(Refusal::NotForUs));
        assert_eq!(checked(&from(Some(0))), Err(Refusal::NoSender));
        assert_eq!(checked(&from(Some(1))), Err(Refusal::NoSender));
        assert_eq!(checked(&from(Some(9))), Err(Refusal::RemovedSender));
        assert_eq!(
            checked(&message(MessageType::MsgVote, 0)),
            Err(Refusal::BadTerm)
        );
    }

    #[test]
    fn empty_proposals_and_questions_are_refused() {
        assert_eq!(
            checked(&message(MessageType::MsgProp, 0)),
            Err(Refusal::BadEntries)
        );
        assert_eq!(
            checked(&message(MessageType::MsgReadIndex, 0)),
            Err(Refusal::BadEntries)
        );
        let mut proposal = message(MessageType::MsgProp, 0);
        proposal.entries.push(entry(0, 0));
        assert!(checked(&proposal).is_ok());
        proposal.term = Some(3);
        assert_eq!(checked(&proposal), Err(Refusal::BadTerm));
    }

    #[test]
    fn changes_that_would_end_an_etcd_member_are_not_proposed() {
        let proposal = |kind, data: Vec<u8>| {
            let mut proposal = message(MessageType::MsgProp, 0);
            proposal.entries.push(Entry {
                r#type: Some(kind),
                data: Some(data.into()),
                ..entry(0, 0)
            });
            checked(&proposal)
        };
        let change = |kind, id, context: &str| {
            ConfChange {
                id: Some(1),
                r#type: Some(kind),
                node_id: Some(id),
                context: Some(Bytes::copy_from_slice(context.as_bytes())),
            }
            .encode_to_vec()
        };
        assert!(
            proposal(
                1,
                change(3, 5, r#"{"id":5,"peerURLs":["u"],"isLearner":true}"#)
            )
            .is_ok()
        );
        assert!(proposal(1, change(1, 5, "")).is_ok());
        assert_eq!(proposal(2, vec![]), Err(Refusal::BadChange));
        assert_eq!(
            proposal(1, change(0, 5, "no json")),
            Err(Refusal::BadChange)
        );
        assert_eq!(
            proposal(1, change(0, 5, r#"{"id":6}"#)),
            Err(Refusal::BadChange)
        );
        assert_eq!(proposal(1, change(2, 5, "")), Err(Refusal::BadChange));
        assert_eq!(
            proposal(1, change(4, 5, r#"{"id":5}"#)),
            Err(Refusal::BadChange)
        );
        assert_eq!(proposal(1, vec![0xff]), Err(Refusal::BadChange));
    }

    #[test]
    fn appended_entries_follow_each_other() {
        let append = |index, log_term, entries: &[(u64, u64)]| {
            let mut append = message(MessageType::MsgApp, 3);
            append.index = Some(index);
            append.log_term = Some(log_term);
            append.entries = entries.iter().map(|(i, t)| entry(*i, *t)).collect();
            checked(&append)
        };
        assert!(append(4, 2, &[(5, 2), (6, 3)]).is_ok());
        assert!(append(0, 0, &[(1, 1)]).is_ok());
        for bad in [
            &[(6, 2)][..],
            &[(5, 2), (7, 2)],
            &[(5, 1)],
            &[(5, 4)],
            &[(5, 0)],
        ] {
            assert_eq!(append(4, 2, bad), Err(Refusal::BadEntries), "{bad:?}");
        }
        assert_eq!(append(u64::MAX, 2, &[(0, 2)]), Err(Refusal::BadEntries));
    }

    #[test]
    fn snapshots_have_a_position_and_a_plain_configuration() {
        let snapshot = |index, voters: &[u64], learners: &[u64], outgoing: &[u64]| {
            let conf_state = ConfState {
                voters: voters.to_vec(),
                learners: learners.to_vec(),
                voters_outgoing: outgoing.to_vec(),
                ..ConfState::default()
            };
            let metadata = SnapshotMetadata {
                conf_state: Some(conf_state),
                index: Some(index),
                term: Some(2),
            };
            checked(&Message {
                snapshot: Some(Snapshot {
                    data: None,
                    metadata: Some(metadata),
                }),
                ..message(MessageType::MsgSnap, 3)
            })
        };
        assert!(snapshot(7, &[1, 2], &[3], &[]).is_ok());
        assert_eq!(snapshot(0, &[1], &[], &[]), Err(Refusal::BadSnapshot));
        assert_eq!(snapshot(7, &[], &[1], &[]), Err(Refusal::BadSnapshot));
        assert_eq!(snapshot(7, &[1, 1], &[], &[]), Err(Refusal::BadSnapshot));
        assert_eq!(snapshot(7, &[1], &[1], &[]), Err(Refusal::BadSnapshot));
        assert_eq!(snapshot(7, &[1], &[], &[2]), Err(Refusal::BadSnapshot));
        assert_eq!(
            checked(&message(MessageType::MsgSnap, 3)),
            Err(Refusal::BadSnapshot)
        );
    }

    #[test]
    fn appends_of_one_sender_and_term_are_put_in_order() {
        let append = |from, term, index| Message {
            from: Some(from),
            index: Some(index),
            ..message(MessageType::MsgApp, term)
        };
        let beat = message(MessageType::MsgHeartbeat, 1);
        let mut messages = vec![
            append(2, 1, 9),
            beat.clone(),
            append(3, 1, 1),
            append(2, 1, 5),
            append(2, 2, 4),
            append(2, 1, 7),
        ];
        sort_appends(&mut messages);
        let expected = vec![
            append(2, 1, 5),
            beat,
            append(3, 1, 1),
            append(2, 1, 7),
            append(2, 2, 4),
            append(2, 1, 9),
        ];
        assert_eq!(messages, expected);
    }
}
