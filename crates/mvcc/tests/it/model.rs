//! A small obvious store: the list of everything that was ever written, read from the front each time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use quorate_backend::Revision;
use quorate_mvcc::KeyRange;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use quorate_proto::mvccpb::KeyValue;

use crate::harness::lease_exists;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) revision: Revision,
    pub(crate) key: Bytes,
    /// `None` for a deletion.
    pub(crate) kv: Option<KeyValue>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) rows: Vec<Row>,
    pub(crate) current: i64,
    pub(crate) compact: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Compacted,
    FutureRevision,
    LeaseNotFound,
    KeyNotFound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranged {
    pub(crate) revision: i64,
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) more: bool,
    pub(crate) count: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Range(Ranged),
    Put {
        revision: i64,
        prev: Option<KeyValue>,
    },
    Delete {
        revision: i64,
        deleted: i64,
        prevs: Vec<KeyValue>,
    },
    Txn {
        succeeded: bool,
        responses: Vec<Answer>,
    },
}

/// What a request is doing: its main revision, and how much it has changed.
struct Writing {
    main: i64,
    sub: i64,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            rows: Vec::new(),
            current: 1,
            compact: -1,
        }
    }

    /// Everything that exists at a revision, by key.
    pub(crate) fn at(&self, main: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.revision.main <= main) {
            match &row.kv {
                Some(kv) => state.insert(row.key.clone(), kv.clone()),
                None => state.remove(&row.key),
            };
        }
        state
    }

    fn at_revision_of(&self, key: &Bytes, main: i64) -> Option<Revision> {
        let newest = self
            .rows
            .iter()
            .rev()
            .find(|row| row.revision.main <= main && row.key == *key)?;
        newest.kv.is_some().then_some(newest.revision)
    }

    fn keys_in(&self, range: &KeyRange, main: i64) -> Vec<KeyValue> {
        self.at(main)
            .into_values()
            .filter(|kv| range.contains(&kv.key))
            .collect()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<Ranged, Failure> {
        self.range_of(request, self.current)
    }

    fn range_of(&self, request: &RangeRequest, current: i64) -> Result<Ranged, Failure> {
        if request.revision > current {
            return Err(Failure::FutureRevision);
        }
        let at = if request.revision <= 0 {
            current
        } else {
            request.revision
        };
        if at < self.compact {
            return Err(Failure::Compacted);
        }
        let mut kvs = self.keys_in(&KeyRange::from_wire(&request.key, &request.range_end), at);
        let count = i64::try_from(kvs.len()).unwrap();
        if request.count_only {
            return Ok(Ranged {
                revision: current,
                kvs: Vec::new(),
                more: false,
                count,
            });
        }
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let by_key =
            request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        if by_key && filters == [0; 4] && limit > 0 {
            kvs.truncate(limit + 1);
        }
        kvs.retain(|kv| passes_filters(request, kv));
        kvs.sort_by(|a, b| {
            let ordering = match request.sort_target {
                0 => a.key.cmp(&b.key),
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                _ => a.value.cmp(&b.value),
            };
            if request.sort_order == 2 {
                ordering.reverse()
            } else {
                ordering
            }
        });
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if request.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        Ok(Ranged {
            revision: current,
            kvs,
            more,
            count,
        })
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<Answer, Failure> {
        self.check_put(request, &self.at(self.current))?;
        let mut writing = self.begin();
        let answer = self.put_in(&mut writing, request);
        self.end(&writing);
        Ok(answer)
    }

    pub(crate) fn delete(&mut self, range: &KeyRange, prev_kv: bool) -> Answer {
        let mut writing = self.begin();
        let answer = self.delete_in(&mut writing, range, prev_kv);
        self.end(&writing);
        answer
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<(bool, Vec<Answer>), Failure> {
        let before = self.at(self.current);
        self.check_txn(request, &before, &mut before.clone())?;
        let mut writing = self.begin();
        let Answer::Txn {
            succeeded,
            responses,
        } = self.txn_in(&mut writing, request, &before)
        else {
            unreachable!("a transaction has a transaction's answer");
        };
        self.end(&writing);
        Ok((succeeded, responses))
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Failure> {
        if revision <= self.compact {
            return Err(Failure::Compacted);
        }
        if revision > self.current {
            return Err(Failure::FutureRevision);
        }
        self.compact = revision;
        Ok(())
    }

    /// The rows that are left when the compaction has ended.
    pub(crate) fn rows_left(&self) -> Vec<&Row> {
        let newest: BTreeSet<Revision> = self
            .rows
            .iter()
            .filter(|row| row.revision.main <= self.compact)
            .map(|row| (&row.key, row))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .filter(|row| row.kv.is_some() || row.revision.main == self.compact)
            .map(|row| row.revision)
            .collect();
        self.rows
            .iter()
            .filter(|row| row.revision.main > self.compact || newest.contains(&row.revision))
            .collect()
    }

    /// The hash as etcd's documentation has it, over the rows that are left.
    pub(crate) fn hash_kv(&self, revision: i64) -> Result<u32, Failure> {
        if revision > 0 && revision < self.compact {
            return Err(Failure::Compacted);
        }
        if revision > self.current {
            return Err(Failure::FutureRevision);
        }
        let at = if revision == 0 {
            self.current
        } else {
            revision
        };
        let keep: BTreeSet<Revision> = self
            .at(at)
            .into_keys()
            .filter_map(|key| self.at_revision_of(&key, at))
            .collect();
        let mut hashed = b"key".to_vec();
        for row in self.rows_left() {
            let main = row.revision.main;
            if main > at
                || (main <= self.compact && !keep.is_empty() && !keep.contains(&row.revision))
                || (main == self.compact && row.kv.is_none())
            {
                continue;
            }
            hashed.extend_from_slice(&main.to_be_bytes());
            hashed.push(b'_');
            hashed.extend_from_slice(&row.revision.sub.to_be_bytes());
            if row.kv.is_none() {
                hashed.push(b't');
            }
            hashed.extend_from_slice(&encode(row));
        }
        Ok(crc32c(&hashed))
    }

    fn begin(&self) -> Writing {
        Writing {
            main: self.current + 1,
            sub: 0,
        }
    }

    fn end(&mut self, writing: &Writing) {
        if writing.sub > 0 {
            self.current = writing.main;
        }
    }

    fn push(&mut self, writing: &mut Writing, key: Bytes, kv: Option<KeyValue>) {
        self.rows.push(Row {
            revision: Revision {
                main: writing.main,
                sub: writing.sub,
            },
            key,
            kv,
        });
        writing.sub += 1;
    }

    fn put_in(&mut self, writing: &mut Writing, request: &PutRequest) -> Answer {
        let prev = self.at(writing.main).remove(&request.key);
        let mut kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            lease: request.lease,
            create_revision: writing.main,
            mod_revision: writing.main,
            version: 1,
        };
        if let Some(prev) = &prev {
            kv.create_revision = prev.create_revision;
            kv.version = prev.version + 1;
            if request.ignore_value {
                kv.value = prev.value.clone();
            }
            if request.ignore_lease {
                kv.lease = prev.lease;
            }
        }
        self.push(writing, request.key.clone(), Some(kv));
        Answer::Put {
            revision: writing.main,
            prev: prev.filter(|_| request.prev_kv),
        }
    }

    fn delete_in(&mut self, writing: &mut Writing, range: &KeyRange, prev_kv: bool) -> Answer {
        let prevs = self.keys_in(range, writing.main);
        for kv in &prevs {
            self.push(writing, kv.key.clone(), None);
        }
        let revision = if writing.sub > 0 {
            writing.main
        } else {
            writing.main - 1
        };
        let deleted = i64::try_from(prevs.len()).unwrap();
        Answer::Delete {
            revision,
            deleted,
            prevs: if prev_kv { prevs } else { Vec::new() },
        }
    }

    fn txn_in(
        &mut self,
        writing: &mut Writing,
        request: &TxnRequest,
        before: &BTreeMap<Bytes, KeyValue>,
    ) -> Answer {
        let succeeded = holds(request, before);
        let mut responses = Vec::new();
        for op in branch(request, succeeded) {
            let visible = if writing.sub > 0 {
                writing.main
            } else {
                writing.main - 1
            };
            responses.push(match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    Answer::Range(self.range_of(range, visible).unwrap())
                }
                Request::RequestPut(put) => self.put_in(writing, put),
                Request::RequestDeleteRange(delete) => {
                    let range = KeyRange::from_wire(&delete.key, &delete.range_end);
                    self.delete_in(writing, &range, delete.prev_kv)
                }
                Request::RequestTxn(nested) => self.txn_in(writing, nested, before),
            });
        }
        Answer::Txn {
            succeeded,
            responses,
        }
    }

    fn check_put(
        &self,
        request: &PutRequest,
        existing: &BTreeMap<Bytes, KeyValue>,
    ) -> Result<(), Failure> {
        if request.lease != 0 && !lease_exists(request.lease) {
            return Err(Failure::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && !existing.contains_key(&request.key) {
            return Err(Failure::KeyNotFound);
        }
        Ok(())
    }

    /// Checks against the state before; `now` has in addition what the operations so far delete of that, or put back.
    fn check_txn(
        &self,
        request: &TxnRequest,
        before: &BTreeMap<Bytes, KeyValue>,
        now: &mut BTreeMap<Bytes, KeyValue>,
    ) -> Result<(), Failure> {
        for op in branch(request, holds(request, before)) {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision > self.current => {
                    return Err(Failure::FutureRevision);
                }
                Request::RequestRange(range)
                    if range.revision != 0 && range.revision < self.compact =>
                {
                    return Err(Failure::Compacted);
                }
                Request::RequestRange(_) => {}
                Request::RequestPut(put) => {
                    self.check_put(put, before)?;
                    self.check_put(put, now)?;
                    if let Some(kv) = before.get(&put.key) {
                        now.insert(put.key.clone(), kv.clone());
                    }
                }
                Request::RequestDeleteRange(delete) => {
                    let range = KeyRange::from_wire(&delete.key, &delete.range_end);
                    now.retain(|key, _| !range.contains(key));
                }
                Request::RequestTxn(nested) => self.check_txn(nested, before, now)?,
            }
        }
        Ok(())
    }
}

fn passes_filters(request: &RangeRequest, kv: &KeyValue) -> bool {
    (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
        && (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
        && (request.min_create_revision == 0 || kv.create_revision >= request.min_create_revision)
        && (request.max_create_revision == 0 || kv.create_revision <= request.max_create_revision)
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded {
        &request.success
    } else {
        &request.failure
    }
}

fn holds(request: &TxnRequest, state: &BTreeMap<Bytes, KeyValue>) -> bool {
    request.compare.iter().all(|compare| {
        let range = KeyRange::from_wire(&compare.key, &compare.range_end);
        let kvs: Vec<_> = state
            .values()
            .filter(|kv| range.contains(&kv.key))
            .collect();
        if kvs.is_empty() {
            compare.target != 3 && kv_holds(compare, &KeyValue::default())
        } else {
            kvs.iter().all(|kv| kv_holds(compare, kv))
        }
    })
}

fn kv_holds(compare: &Compare, kv: &KeyValue) -> bool {
    let given = compare.target_union.as_ref();
    let ordering = match compare.target {
        0 => kv.version.cmp(&given.map_or(0, |given| {
            if let TargetUnion::Version(version) = given {
                *version
            } else {
                0
            }
        })),
        1 => kv.create_revision.cmp(&given.map_or(0, |given| {
            if let TargetUnion::CreateRevision(revision) = given {
                *revision
            } else {
                0
            }
        })),
        2 => kv.mod_revision.cmp(&given.map_or(0, |given| {
            if let TargetUnion::ModRevision(revision) = given {
                *revision
            } else {
                0
            }
        })),
        3 => kv.value.cmp(&given.map_or(Bytes::new(), |given| {
            if let TargetUnion::Value(value) = given {
                value.clone()
            } else {
                Bytes::new()
            }
        })),
        4 => kv.lease.cmp(&given.map_or(0, |given| {
            if let TargetUnion::Lease(lease) = given {
                *lease
            } else {
                0
            }
        })),
        _ => Ordering::Equal,
    };
    match compare.result {
        0 => ordering == Ordering::Equal,
        1 => ordering == Ordering::Greater,
        2 => ordering == Ordering::Less,
        3 => ordering != Ordering::Equal,
        _ => true,
    }
}

pub(crate) fn encode(row: &Row) -> Vec<u8> {
    match &row.kv {
        Some(kv) => kv.encode_to_vec(),
        None => KeyValue {
            key: row.key.clone(),
            ..Default::default()
        }
        .encode_to_vec(),
    }
}

/// The checksum bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}
