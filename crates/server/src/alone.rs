//! A member that goes on as the only one of its cluster (`--force-new-cluster`), after the others are lost for good.
//!
//! All of its log counts as committed, and entries that remove the others are appended: the state comes about as if the cluster
//! had agreed on it. Differs from etcd, which drops what this member does not know to be committed. That may have been
//! acknowledged by a leader that is lost now; and what was not acknowledged may happen late, as after any lost answer.
use std::collections::BTreeSet;

use prost::Message as _;
use quorate_core::{Cluster, ClusterMember, LogStart};
use quorate_proto::raftpb::{ConfChange, ConfChangeType};
use quorate_wal::{Batch, Entry, Error, Wal};

/// Entry type of a configuration change.
const CONF_CHANGE: u8 = 1;
/// Where a member that is not in its own configuration is said to listen. Source: etcd v3.7.1 server/storage/util.go.
const SOME_URL: &str = "http://localhost:2380";

/// Takes the whole log for committed, and appends the removal of every other member.
///
/// `applied` is what the database holds.
///
/// # Errors
/// When the log cannot be written.
///
/// # Durability
/// The new end of the log is on stable storage when it returns.
/// Source: etcd v3.7.1 server/etcdserver/bootstrap.go, server/storage/util.go CreateConfigChangeEnts.
pub(crate) fn go_on(
    wal: &mut Wal,
    log: &mut LogStart,
    own: u64,
    applied: u64,
) -> Result<(), Error> {
    let last = log.entries.last().map_or(applied, |e| e.index);
    let added = changes(&members_at(log, applied), own);
    let term = log.hard_state.term;
    let entries: Vec<Entry> = (last + 1..)
        .zip(added)
        .map(|(index, data)| Entry {
            term,
            index,
            kind: CONF_CHANGE,
            data: data.into(),
        })
        .collect();
    log.hard_state.commit = entries.last().map_or(last, |e| e.index);
    tracing::info!(
        commit_index = log.hard_state.commit,
        removed_members = entries.len(),
        "forcing restart member"
    );
    let batch = Batch {
        ticket: 0,
        entries: entries.clone(),
        hard_state: Some(log.hard_state),
        snapshot: None,
        must_sync: true,
    };
    let _synced = wal.append(&[batch])?;
    log.entries.extend(entries);
    Ok(())
}

/// Returns the members as they are after the last entry of the log.
fn members_at(log: &LogStart, applied: u64) -> BTreeSet<u64> {
    let conf = &log.conf_state;
    let mut ids: BTreeSet<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    let later = log
        .entries
        .iter()
        .filter(|e| e.index > applied && e.kind == CONF_CHANGE);
    for entry in later {
        // One that does not decode has no effect when it is applied, or ends the member then.
        let Ok(change) = ConfChange::decode(entry.data.clone()) else {
            continue;
        };
        let id = change.node_id.unwrap_or(0);
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                ids.insert(id);
            }
            ConfChangeType::ConfChangeRemoveNode => {
                ids.remove(&id);
            }
            ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    ids
}

/// Makes the changes that leave only `own`: it comes first, because there must always be a voter.
fn changes(members: &BTreeSet<u64>, own: u64) -> Vec<Vec<u8>> {
    let mut changes = Vec::new();
    if !members.contains(&own) {
        let member = ClusterMember {
            id: own,
            peer_urls: vec![SOME_URL.to_owned()],
            ..ClusterMember::default()
        };
        changes.push(ConfChange {
            id: None,
            r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
            node_id: Some(own),
            context: Some(Cluster::founding_context(&member)),
        });
    }
    let others = members.iter().filter(|id| **id != own);
    changes.extend(others.map(|id| ConfChange {
        id: None,
        r#type: Some(ConfChangeType::ConfChangeRemoveNode.into()),
        node_id: Some(*id),
        context: None,
    }));
    changes.iter().map(ConfChange::encode_to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use quorate_disk::{Disk, SimDisk};
    use quorate_proto::raftpb::ConfState;
    use quorate_wal::{HardState, Identity, Options, SnapshotMark};

    use super::*;

    const NORMAL: u8 = 0;

    fn entry(index: u64, kind: u8, data: Vec<u8>) -> Entry {
        Entry {
            term: 3,
            index,
            kind,
            data: data.into(),
        }
    }

    #[test]
    fn the_whole_log_stays_and_the_others_are_removed_for_good() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let identity = Identity {
            cluster_id: 1,
            member_id: 5,
        };
        let dir = Path::new("wal");
        let mut wal = Wal::create(disk.clone(), dir, identity, Options::default()).unwrap();
        let add = ConfChange {
            id: None,
            r#type: Some(ConfChangeType::ConfChangeAddLearnerNode.into()),
            node_id: Some(9),
            context: None,
        };
        let entries = vec![
            entry(1, NORMAL, b"a".to_vec()),
            entry(2, CONF_CHANGE, add.encode_to_vec()),
            entry(3, NORMAL, b"not known to be committed".to_vec()),
        ];
        let hard_state = HardState {
            term: 4,
            vote: 5,
            commit: 1,
        };
        let batch = Batch {
            ticket: 0,
            entries: entries.clone(),
            hard_state: Some(hard_state),
            snapshot: None,
            must_sync: true,
        };
        let _ = wal.append(&[batch]).unwrap();
        let mut log = LogStart {
            snapshot: SnapshotMark::default(),
            entries,
            hard_state,
            conf_state: ConfState {
                voters: vec![5, 6, 7],
                learners: vec![9],
                ..ConfState::default()
            },
        };
        go_on(&mut wal, &mut log, 5, 2).unwrap();
        drop(wal);
        let (_, recovered) = Wal::open(disk, dir, Options::default()).unwrap();
        assert_eq!(recovered.entries, log.entries);
        assert_eq!(recovered.hard_state, log.hard_state);
        assert_eq!(log.hard_state.commit, 6);
        let removed: Vec<_> = log.entries[3..]
            .iter()
            .map(|e| {
                assert_eq!((e.term, e.kind), (4, CONF_CHANGE));
                ConfChange::decode(e.data.clone()).unwrap().node_id.unwrap()
            })
            .collect();
        assert_eq!(removed, [6, 7, 9]);
    }
}
