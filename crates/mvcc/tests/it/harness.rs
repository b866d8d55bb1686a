//! A store on a simulated disk, driven as a member drives it.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_backend::{ApplyTxn, Backend, Table};
use quorate_disk::{CrashPolicy, Disk, SimDisk};
use quorate_mvcc::{
    CompactionJob, DeleteResult, Error, Options, Progress, PutResult, Reader, Restoring, Store,
    TxnResult,
};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use quorate_proto::mvccpb::KeyValue;

const PATH: &str = "/data/db";

/// Leases up to this one exist.
pub(crate) const LEASES: i64 = 9;

pub(crate) struct Db {
    pub(crate) disk: SimDisk,
    pub(crate) backend: Backend,
    pub(crate) store: Store,
    pub(crate) leases: Vec<(Bytes, LeaseId)>,
    pub(crate) index: u64,
    options: Options,
}

/// Limits so small that every edge is common.
pub(crate) fn small() -> Options {
    Options {
        index_chunk_keys: 3,
        compaction_batch_rows: 2,
        scan_batch_bytes: 200,
        scan_batch_rows: 3,
        event_log_bytes_max: 2000,
        recent_births_max: 6,
    }
}

/// What an index is made of that sees all rows on their way into the backend.
fn passed_rows(backend: &Backend, options: &Options) -> Restoring {
    let txn = backend.read().unwrap();
    let rows = txn.scan(Table::Key, Bound::Unbounded, usize::MAX).unwrap();
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(key, record)| (Table::Key, key, record))
        .collect();
    let mut restoring = Restoring::new(options);
    restoring
        .add_rows(&[(Table::Meta, Bytes::new(), Bytes::new())])
        .unwrap();
    for batch in rows.chunks(3) {
        restoring.add_rows(batch).unwrap();
    }
    restoring
}

impl Db {
    pub(crate) fn new(options: Options) -> Db {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        Db::open(disk, options)
    }

    pub(crate) fn open(disk: SimDisk, options: Options) -> Db {
        let backend_options = quorate_backend::Options {
            page_cache_bytes: 64 << 10,
            value_cache_bytes: 4 << 10,
            ..quorate_backend::Options::default()
        };
        let backend =
            Backend::open(Arc::new(disk.clone()), Path::new(PATH), backend_options).unwrap();
        let index = backend.applied().index;
        // Both ways to restore are as good as each other, so the tests take now this one, now that.
        let passed = (index % 2 == 1).then(|| passed_rows(&backend, &options));
        let (store, leases) = Store::restore_passed(&backend, options.clone(), passed).unwrap();
        Db {
            disk,
            backend,
            store,
            leases,
            index,
            options,
        }
    }

    /// Closes and opens again; with a policy, after a power loss that keeps what it says.
    pub(crate) fn reopen(self, power_loss: Option<&CrashPolicy>) -> Db {
        let Db {
            disk,
            backend,
            store,
            options,
            ..
        } = self;
        let disk = match power_loss {
            Some(policy) => disk.crash(policy),
            None => {
                if let Some(job) = backend.seal() {
                    job.run().unwrap();
                }
                disk
            }
        };
        drop((store, backend));
        Db::open(disk, options)
    }

    pub(crate) fn flush(&self) {
        if let Some(job) = self.backend.seal() {
            job.run().unwrap();
        }
    }

    /// Applies one batch and publishes it.
    pub(crate) fn apply<R>(&mut self, change: impl FnOnce(&mut Store, &mut ApplyTxn) -> R) -> R {
        self.index += 1;
        let mut txn = self.backend.begin_apply(self.index, 1);
        let result = change(&mut self.store, &mut txn);
        txn.commit(0);
        self.store.publish();
        result
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> PutResult {
        self.try_put(&put(key, value)).unwrap()
    }

    pub(crate) fn try_put(&mut self, request: &PutRequest) -> Result<PutResult, Error> {
        self.apply(|store, txn| store.put(txn, request, lease_exists))
    }

    pub(crate) fn delete(&mut self, key: &str, range_end: &str) -> DeleteResult {
        let request = delete(key, range_end);
        self.apply(|store, txn| store.delete_range(txn, &request))
            .unwrap()
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResult, Error> {
        self.apply(|store, txn| store.txn(txn, request, lease_exists))
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<CompactionJob, Error> {
        self.apply(|store, txn| store.compact(txn, revision))
    }

    /// Compacts, physically too.
    pub(crate) fn compact_fully(&mut self, revision: i64) {
        let mut job = self.compact(revision).unwrap();
        self.flush();
        assert!(matches!(job.run().unwrap(), Progress::Done(_)));
    }

    pub(crate) fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Reads everything there is at a revision, 0 meaning now.
    pub(crate) fn all(&self, revision: i64) -> Result<Vec<String>, Error> {
        let request = RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            revision,
            ..Default::default()
        };
        Ok(show(&self.reader().range(&request)?.kvs))
    }
}

pub(crate) fn lease_exists(lease: i64) -> bool {
    lease <= LEASES
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..Default::default()
    }
}

pub(crate) fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: true,
    }
}

pub(crate) fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        ..Default::default()
    }
}

pub(crate) fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

pub(crate) fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..Default::default()
    }
}

pub(crate) fn decode(kv: &Bytes) -> KeyValue {
    KeyValue::decode(kv.clone()).unwrap()
}

/// Shows pairs as `key=value create/mod/version`, and the lease if there is one.
pub(crate) fn show(kvs: &[Bytes]) -> Vec<String> {
    kvs.iter()
        .map(|kv| {
            let kv = decode(kv);
            let lease = if kv.lease == 0 {
                String::new()
            } else {
                format!(" lease {}", kv.lease)
            };
            format!(
                "{}={} {}/{}/{}{lease}",
                String::from_utf8_lossy(&kv.key),
                String::from_utf8_lossy(&kv.value),
                kv.create_revision,
                kv.mod_revision,
                kv.version
            )
        })
        .collect()
}

/// Shows a transaction's answers, one line each, nested ones indented.
pub(crate) fn show_ops(responses: &[quorate_mvcc::OpResult]) -> Vec<String> {
    use quorate_mvcc::OpResult;
    responses
        .iter()
        .flat_map(|response| match response {
            OpResult::Range(range) => {
                vec![format!(
                    "range @{} count {} {:?}",
                    range.revision,
                    range.count,
                    show(&range.kvs)
                )]
            }
            OpResult::Put { revision, prev } => {
                vec![format!(
                    "put @{revision} {:?}",
                    show(&prev.iter().cloned().collect::<Vec<_>>())
                )]
            }
            OpResult::Delete {
                revision,
                deleted,
                prevs,
            } => {
                vec![format!("delete @{revision} {deleted} {:?}", show(prevs))]
            }
            OpResult::Txn {
                succeeded,
                responses,
            } => {
                let mut lines = vec![format!("txn {succeeded}")];
                lines.extend(
                    show_ops(responses)
                        .into_iter()
                        .map(|line| format!("  {line}")),
                );
                lines
            }
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}
