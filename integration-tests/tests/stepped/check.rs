//! What must hold whatever goes wrong.
use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use crate::node::Node;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Who led each term.
    leaders: BTreeMap<u64, u64>,
    /// The digest after each entry.
    digests: BTreeMap<u64, u64>,
    /// What callers were told is stored, by revision.
    acknowledged: BTreeMap<i64, (String, String)>,
    pub(crate) reads: u64,
}

impl Oracle {
    /// Looks at a member after a step.
    pub(crate) fn observe(&mut self, node: &mut Node, now_ms: u64) {
        let id = node.id;
        let Some(running) = &mut node.running else {
            return;
        };
        let member = &running.member;
        let view = member.view();
        if member.leads() {
            let before = *self.leaders.entry(view.term()).or_insert(id);
            assert_eq!(
                before,
                id,
                "two leaders in term {} at {now_ms}",
                view.term()
            );
        }
        let others: BTreeSet<u64> = view.members().iter().map(|m| m.id).collect();
        let others = &others - &BTreeSet::from([id]);
        assert_eq!(
            running.peers, others,
            "{id} has links to all other members, and to nobody else, at {now_ms}"
        );
        let applied = view.applied();
        assert!(
            applied >= running.compared,
            "the applied index goes back on {id}"
        );
        assert!(
            applied <= view.committed(),
            "what is applied on {id} is committed"
        );
        for index in running.compared + 1..=applied {
            let Some(digest) = member.digest_at(index) else {
                continue;
            };
            let before = *self.digests.entry(index).or_insert(digest);
            assert_eq!(
                before, digest,
                "members differ after entry {index}, seen on {id}"
            );
        }
        running.compared = applied;
    }

    pub(crate) fn acknowledged(&mut self, revision: i64, key: &str, value: &str) {
        let what = (key.to_owned(), value.to_owned());
        let before = self.acknowledged.insert(revision, what);
        assert_eq!(before, None, "revision {revision} was given to two writes");
    }

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.len()
    }

    /// The newest revision that anybody was told of.
    pub(crate) fn newest(&self) -> i64 {
        self.acknowledged.last_key_value().map_or(1, |(r, _)| *r)
    }

    /// Checks members that have all applied the same.
    pub(crate) fn check_end(&self, nodes: &BTreeMap<u64, Node>) {
        let mut hashes = BTreeMap::new();
        for node in nodes.values() {
            let Some(member) = node.member() else {
                continue;
            };
            let stores = member.stores();
            let reader = stores.kv.reader();
            let current = reader.current_revision();
            let compact = reader.compact_revision();
            let first = compact.max(1) + 1;
            for (revision, (key, value)) in self.acknowledged.range(first..) {
                let request = pb::RangeRequest {
                    key: key.clone().into(),
                    revision: *revision,
                    ..Default::default()
                };
                let range = reader.range(&request).unwrap();
                let record = range.kvs.first().expect("an acknowledged key is there");
                let record = KeyValue::decode(record.clone()).unwrap();
                assert_eq!(
                    (record.mod_revision, &record.value[..]),
                    (*revision, value.as_bytes())
                );
            }
            let history = reader
                .history(first, current + 1, 1 << 20, 1 << 30)
                .unwrap();
            let seen: Vec<i64> = history.iter().map(|r| r.main).collect();
            assert_eq!(
                seen,
                (first..=current).collect::<Vec<_>>(),
                "revisions are dense"
            );
            // Not at 0, which a member that has compacted at 0 answers with what it stored then, as etcd does.
            let hash = reader.hash_kv(current).unwrap();
            hashes.insert(node.id, (current, compact, hash.hash));
            assert_eq!(
                stores.backend.applied().index,
                member.view().applied(),
                "what is shown is what is there"
            );
        }
        let mut values = hashes.values();
        let first = values.next();
        assert!(
            values.all(|v| Some(v) == first),
            "members differ: {hashes:?}"
        );
    }
}
