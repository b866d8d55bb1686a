//! Random histories against plain maps.

use crate::support::{Model, disk, open, read_all};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use quorate_backend::{Applied, Backend, FlushJob, ReadTxn, Revision, Table};
use quorate_disk::{CrashPolicy, SimDisk};

#[derive(Debug, Clone)]
enum Op {
    Apply {
        gap: u64,
        revisions: Vec<(u8, bool, u16)>,
        writes: Vec<(u8, u8, Option<u16>)>,
        commit: bool,
    },
    Seal,
    Flush,
    DropJob,
    Maintain {
        writes: Vec<(u8, u8, Option<u16>)>,
        deletes: u8,
    },
    Read,
    HoldReader,
    Reopen,
    Crash(u64),
    CrashInFlush {
        operation: u64,
        seed: u64,
    },
}

const TABLES: [Table; 3] = [Table::Auth, Table::Lease, Table::Meta];

fn writes() -> impl Strategy<Value = Vec<(u8, u8, Option<u16>)>> {
    vec((0..3_u8, 0..12_u8, prop::option::of(0..300_u16)), 0..6)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0..3_u64, vec((0..3_u8, any::<bool>(), 0..2500_u16), 0..12), writes(), 0..10_u8).prop_map(
            |(gap, revisions, writes, commit)| Op::Apply { gap, revisions, writes, commit: commit > 0 }
        ),
        4 => Just(Op::Seal),
        4 => Just(Op::Flush),
        1 => Just(Op::DropJob),
        3 => (writes(), 0..20_u8).prop_map(|(writes, deletes)| Op::Maintain { writes, deletes }),
        4 => Just(Op::Read),
        2 => Just(Op::HoldReader),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
        3 => (0..40_u64, any::<u64>()).prop_map(|(operation, seed)| Op::CrashInFlush { operation, seed }),
    ]
}

/// The store and what it must hold.
struct Run {
    disk: SimDisk,
    backend: Backend,
    job: Option<FlushJob>,
    current: Model,
    /// What the sealed layers come to.
    sealed: Option<Model>,
    durable: Model,
    held: Vec<(ReadTxn, Model)>,
    last: Revision,
}

impl Run {
    fn new(seed: u64) -> Run {
        let disk = disk(seed);
        Run {
            backend: open(&disk).unwrap(),
            disk,
            job: None,
            current: Model::default(),
            sealed: None,
            durable: Model::default(),
            held: Vec::new(),
            last: Revision::new(1, 0),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Apply {
                gap,
                revisions,
                writes,
                commit,
            } => self.apply(gap, &revisions, &writes, commit),
            Op::Seal => self.seal(),
            Op::Flush => self.flush(),
            Op::DropJob => self.job = None,
            Op::Maintain { writes, deletes } => self.maintain(&writes, deletes),
            Op::Read => self.read(),
            Op::HoldReader => {
                let reader = self.backend.read().unwrap();
                self.held.push((reader, self.current.clone()));
            }
            Op::Reopen => {
                self.check_held();
                self.job = None;
                let disk = self.disk.clone();
                self.reopen(disk);
            }
            Op::Crash(seed) => {
                self.check_held();
                let disk = self.disk.crash(&CrashPolicy::Seeded(seed));
                self.reopen(disk);
            }
            Op::CrashInFlush { operation, seed } => self.crash_in_flush(operation, seed),
        }
        assert_eq!(self.backend.applied(), self.current.applied);
        assert_eq!(self.backend.durable(), self.durable.applied);
    }

    fn apply(
        &mut self,
        gap: u64,
        revisions: &[(u8, bool, u16)],
        writes: &[(u8, u8, Option<u16>)],
        commit: bool,
    ) {
        let before = self.current.applied;
        let applied = Applied {
            index: before.index + gap,
            term: before.term + gap / 2,
            digest: before.digest.wrapping_mul(31) + 1,
        };
        let mut next = self.current.clone();
        let mut last = self.last;
        let mut txn = self.backend.begin_apply(applied.index, applied.term);
        for (step, tombstone, len) in revisions {
            last = match step {
                0 => Revision::new(last.main, last.sub + 1),
                step => Revision::new(last.main + i64::from(*step), 0),
            };
            let record = Bytes::from(vec![len.to_le_bytes()[0]; usize::from(*len)]);
            txn.put_revision(last, *tombstone, record.clone());
            next.set(
                Table::Key,
                last.table_key(*tombstone).as_bytes(),
                Some(record.clone()),
            );
            assert_eq!(txn.value(last).unwrap(), Some(record));
        }
        for (table, key, value) in writes {
            let (table, key, value) = write(*table, *key, *value);
            match &value {
                Some(value) => txn.put(table, &key, value.clone()),
                None => txn.delete(table, &key),
            }
            assert_eq!(txn.get(table, &key).unwrap(), value);
            next.set(table, &key, value);
        }
        for (table, key, value) in &next.sample() {
            assert_eq!(txn.get(*table, key).unwrap().as_ref(), Some(value));
        }
        if commit {
            txn.commit(applied.digest);
            next.set_applied(applied);
            self.current = next;
            self.last = last;
        }
    }

    fn seal(&mut self) {
        if self.job.is_none() {
            self.job = self.backend.seal();
            if self.job.is_some() {
                self.sealed = Some(self.current.clone());
            }
        } else {
            assert!(self.backend.seal().is_none());
        }
    }

    fn flush(&mut self) {
        if let Some(job) = self.job.take() {
            self.durable = self.sealed.take().unwrap();
            assert_eq!(job.run().unwrap(), self.durable.applied);
        }
    }

    fn maintain(&mut self, writes: &[(u8, u8, Option<u16>)], deletes: u8) {
        let mut maintenance = self.backend.maintenance().unwrap();
        let deleted: Vec<_> = self
            .durable
            .revisions()
            .into_iter()
            .take(usize::from(deletes))
            .step_by(2)
            .collect();
        for row in &deleted {
            maintenance.delete_revision(row.rev, row.tombstone);
        }
        for (table, key, value) in writes {
            let (table, key, value) = write(*table, *key, *value);
            match value {
                Some(value) => maintenance.put(table, &key, value),
                None => maintenance.delete(table, &key),
            }
        }
        maintenance.commit().unwrap();
        for model in [&mut self.current, &mut self.durable]
            .into_iter()
            .chain(&mut self.sealed)
        {
            for row in &deleted {
                model.set(Table::Key, row.table_key().as_bytes(), None);
            }
            for (table, key, value) in writes {
                let (table, key, value) = write(*table, *key, *value);
                model.set(table, &key, value);
            }
        }
    }

    fn read(&self) {
        let txn = self.backend.read().unwrap();
        assert_eq!(read_all(&txn, 5).unwrap(), self.current);
        let rows = self.current.revisions();
        let found = txn.revisions(Revision::MIN, Revision::MAX, usize::MAX, usize::MAX);
        assert_eq!(found.unwrap(), rows);
        for row in rows {
            let value = self.backend.value(row.rev).unwrap();
            assert_eq!(value, Some(row.record));
        }
        let sizes = self.backend.sizes();
        assert!(sizes.in_use_bytes <= sizes.total_bytes);
    }

    fn check_held(&mut self) {
        for (reader, model) in self.held.drain(..) {
            assert_eq!(read_all(&reader, 9).unwrap(), model);
            let rows = reader.revisions(Revision::MIN, Revision::MAX, usize::MAX, usize::MAX);
            assert_eq!(rows.unwrap(), model.revisions());
            for row in self.current.revisions() {
                let value = reader.value(row.rev).unwrap();
                let key = row.table_key();
                let expected = model.tables.get(&Table::Key);
                let expected = expected.and_then(|rows| rows.get(key.as_bytes()));
                assert_eq!(value.as_ref(), expected);
            }
        }
    }

    /// Replaces the store by what the disk has, which must be the durable state.
    fn reopen(&mut self, disk: SimDisk) {
        self.job = None;
        self.disk = disk;
        // The old handle goes first, since it holds the lock.
        let parked = crate::support::disk(0);
        self.backend = open(&parked).unwrap();
        self.backend = open(&self.disk).unwrap();
        self.current = self.durable.clone();
        self.sealed = None;
        let rows = self.current.revisions();
        self.last = rows.last().map_or(Revision::new(1, 0), |row| row.rev);
        self.read();
    }

    fn crash_in_flush(&mut self, operation: u64, seed: u64) {
        self.check_held();
        if self.job.is_none() {
            self.seal();
        }
        let Some(job) = self.job.take() else {
            return;
        };
        let sealed = self.sealed.take().unwrap();
        self.disk.power_off_at(self.disk.operations() + operation);
        let flushed = job.run();
        let disk = self.disk.crash(&CrashPolicy::Seeded(seed));
        let found = {
            let look = disk.crash(&CrashPolicy::KeepAll);
            let backend = open(&look).unwrap();
            read_all(&backend.read().unwrap(), 50).unwrap()
        };
        if flushed.is_ok() || found == sealed {
            self.durable = sealed;
        }
        self.reopen(disk);
    }
}

impl Model {
    /// A few rows of all tables but that of the consistent index.
    fn sample(&self) -> Vec<(Table, Bytes, Bytes)> {
        let rows = |table| self.rows(table).into_iter().rev().take(3);
        [Table::Auth, Table::Lease, Table::Key]
            .into_iter()
            .flat_map(|table| rows(table).map(move |(key, value)| (table, key, value)))
            .collect()
    }
}

fn write(table: u8, key: u8, value: Option<u16>) -> (Table, Vec<u8>, Option<Bytes>) {
    let value = value.map(|len| Bytes::from(vec![len.to_le_bytes()[0]; usize::from(len)]));
    (
        TABLES[usize::from(table)],
        format!("key{key}").into_bytes(),
        value,
    )
}

#[test]
fn any_history_is_as_plain_maps() {
    let config = ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let cases = std::env::var("PROPTEST_CASES").map(|cases| cases.parse().unwrap());
    let config = ProptestConfig {
        cases: cases.unwrap_or(config.cases),
        ..config
    };
    // Always the same histories; more of them show other ones.
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, chance);
    runner
        .run(&(any::<u64>(), vec(op(), 1..80)), |(seed, ops)| {
            let mut run = Run::new(seed);
            for op in ops {
                run.step(op);
            }
            run.read();
            run.check_held();
            Ok(())
        })
        .unwrap();
}

#[test]
fn maintenance_overwrites_a_key_in_every_layer() {
    let value = |len| vec![(2, 5, len)];
    let apply = Op::Apply {
        gap: 0,
        revisions: Vec::new(),
        writes: value(None),
        commit: true,
    };
    let mut run = Run::new(0);
    for op in [
        apply.clone(),
        Op::Seal,
        apply,
        Op::Maintain {
            writes: value(Some(0)),
            deletes: 0,
        },
        Op::Flush,
        Op::Reopen,
    ] {
        run.step(op);
    }
}
