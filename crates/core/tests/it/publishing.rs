//! When a member knows that the cluster knows it.
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_backend::{Backend, Table};
use quorate_core::{CONF_STATE_KEY, ClusterMember, Stores};
use quorate_disk::Disk;
use quorate_proto::raftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata};

use crate::harness::{Harness, MEMBER, config, restore};

const LEADER: u64 = 0x22;
const INDEX: u64 = 50;
const TERM: u64 = 9;

/// What a snapshot brings, in which this member goes by a name and client URLs.
fn stores(harness: &Harness, name: &str, client_url: &str) -> Stores {
    let disk: Arc<dyn Disk> = Arc::new(harness.disk.clone());
    let options = quorate_backend::Options::default();
    let backend = Backend::open(disk, Path::new("/d/received"), options).unwrap();
    let mut txn = backend.begin_apply(INDEX, TERM);
    for (id, name, client_url) in [(MEMBER, name, client_url), (LEADER, "m", "http://c:1")] {
        let member = ClusterMember {
            id,
            peer_urls: vec![format!("http://p:{id}")],
            name: name.to_owned(),
            client_urls: vec![client_url.to_owned()],
            ..ClusterMember::default()
        };
        let json = serde_json::to_vec(&member).unwrap();
        txn.put(Table::Members, format!("{id:x}").as_bytes(), json.into());
    }
    let conf_state = format!(r#"{{"voters":[{MEMBER},{LEADER}],"auto_leave":false}}"#);
    txn.put(Table::Meta, CONF_STATE_KEY, Bytes::from(conf_state));
    txn.commit(1);
    backend.seal().unwrap().run().unwrap();
    restore(&backend)
}

fn snapshot() -> Message {
    let metadata = SnapshotMetadata {
        conf_state: Some(ConfState {
            voters: vec![MEMBER, LEADER],
            ..ConfState::default()
        }),
        index: Some(INDEX),
        term: Some(TERM),
    };
    Message {
        r#type: Some(MessageType::MsgSnap.into()),
        from: Some(LEADER),
        to: Some(MEMBER),
        term: Some(TERM),
        snapshot: Some(Snapshot {
            data: None,
            metadata: Some(metadata),
        }),
        ..Message::default()
    }
}

/// A member that has published nothing yet and installs a snapshot of another leader.
fn installed(name: &str, client_url: &str) -> Harness {
    let mut harness = Harness::new();
    harness.member.handle_messages(vec![snapshot()]);
    harness.collect();
    harness.sync();
    assert_eq!(harness.install, Some(INDEX));
    assert!(!harness.ready);
    let stores = stores(&harness, name, client_url);
    drop(harness.member.handle_installed(stores));
    harness.collect();
    harness
}

#[test]
fn a_member_that_a_snapshot_has_published_is_ready() {
    let config = config();
    let mut harness = installed(&config.name, &config.client_urls[0]);
    assert!(harness.ready);
    assert_eq!(harness.unused_images, [INDEX], "what came of it twice goes");
    harness.ready = false;
    harness.run_ms(500);
    assert!(!harness.ready, "once");
}

#[test]
fn a_member_that_goes_by_other_attributes_in_a_snapshot_is_not_ready() {
    let config = config();
    for (name, client_url) in [
        ("other", config.client_urls[0].as_str()),
        ("", &config.client_urls[0]),
        (&config.name, "http://c:2"),
    ] {
        let mut harness = installed(name, client_url);
        harness.run_ms(500);
        assert!(!harness.ready, "{name} at {client_url}");
    }
}
