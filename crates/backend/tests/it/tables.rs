//! Reading over layers and file, sizes, and the bytes in the tables.

use crate::support::{Model, PATH, Random, disk, flush, open, read_all};
use bytes::Bytes;
use quorate_backend::{Backend, Error, Revision, Table};
use std::ops::{Bound, ControlFlow};
use std::path::Path;

fn lease_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

#[test]
fn an_empty_store_is_empty() {
    let backend = open(&disk(1)).unwrap();
    assert_eq!(
        read_all(&backend.read().unwrap(), 10).unwrap(),
        Model::default()
    );
    let sizes = backend.sizes();
    assert_eq!((sizes.in_use_bytes, sizes.total_bytes), (16_384, 16_384));
    assert_eq!(backend.pending_bytes(), 0);
    assert_eq!(backend.flushed_revision(), None);
}

#[test]
fn consistent_index_and_term_are_etcds_rows() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    backend.begin_apply(0x0102, 0x03).commit(9);
    let check = |backend: &Backend| {
        let txn = backend.read().unwrap();
        let index = txn.get(Table::Meta, b"consistent_index").unwrap().unwrap();
        assert_eq!(index, &b"\0\0\0\0\0\0\x01\x02"[..]);
        let rows = txn.scan(Table::Meta, Bound::Unbounded, 10).unwrap();
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, [&b"consistent_index"[..], b"term"]);
        assert_eq!(rows[1].1, &b"\0\0\0\0\0\0\0\x03"[..]);
        let behind = txn
            .scan(Table::Meta, Bound::Excluded(b"consistent_index"), 10)
            .unwrap();
        assert_eq!(behind.len(), 1);
    };
    check(&backend);
    flush(&backend);
    check(&backend);
    drop(backend);
    check(&open(&disk).unwrap());
}

#[test]
fn a_reader_keeps_its_state_through_applies_flushes_and_maintenance() {
    let backend = open(&disk(1)).unwrap();
    let apply = |index: u64, value: &'static [u8]| {
        let main = i64::try_from(index).unwrap();
        let mut txn = backend.begin_apply(index, 1);
        txn.put_revision(Revision::new(main, 0), false, Bytes::from_static(value));
        txn.put(Table::Lease, b"same", Bytes::from_static(value));
        txn.put(Table::Lease, &lease_key(index), Bytes::from_static(value));
        if index > 2 {
            txn.delete(Table::Lease, &lease_key(index - 2));
        }
        txn.commit(index);
    };
    let mut seen = Vec::new();
    for index in 2..40 {
        apply(index, b"value");
        let txn = backend.read().unwrap();
        let state = read_all(&txn, 3).unwrap();
        seen.push((txn, state));
        if index % 3 == 0 {
            flush(&backend);
        }
        if index % 7 == 0 {
            let mut maintenance = backend.maintenance().unwrap();
            maintenance.put(Table::Lease, b"same", Bytes::from_static(b"maintained"));
            maintenance.put(Table::Meta, b"mark", Bytes::from_static(b"x"));
            if let Some(flushed) = backend.flushed_revision() {
                maintenance.delete_revision(flushed, false);
            }
            maintenance.commit().unwrap();
            let value = backend.read().unwrap().get(Table::Lease, b"same");
            assert_eq!(value.unwrap().unwrap(), &b"maintained"[..]);
        }
    }
    for (txn, state) in seen {
        assert_eq!(read_all(&txn, 1000).unwrap(), state);
    }
}

#[test]
fn maintenance_is_not_undone_by_a_flush_of_older_work() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let mut txn = backend.begin_apply(1, 1);
    txn.put(Table::Meta, b"k", Bytes::from_static(b"old"));
    txn.put(Table::Meta, b"gone", Bytes::from_static(b"old"));
    txn.commit(1);
    let job = backend.seal().unwrap();
    let mut maintenance = backend.maintenance().unwrap();
    maintenance.put(Table::Meta, b"k", Bytes::from_static(b"new"));
    maintenance.delete(Table::Meta, b"gone");
    maintenance.commit().unwrap();
    let check = |backend: &Backend| {
        let txn = backend.read().unwrap();
        assert_eq!(txn.get(Table::Meta, b"k").unwrap().unwrap(), &b"new"[..]);
        assert_eq!(txn.get(Table::Meta, b"gone").unwrap(), None);
    };
    check(&backend);
    job.run().unwrap();
    check(&backend);
    drop(backend);
    check(&open(&disk).unwrap());
}

#[test]
fn maintenance_can_bring_revisions_before_anything_is_applied() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let mut maintenance = backend.maintenance().unwrap();
    for main in 2..100 {
        let key = Revision::new(main, 0).table_key(main % 10 == 0);
        maintenance.put(Table::Key, key.as_bytes(), Bytes::from_static(b"r"));
    }
    maintenance.commit().unwrap();
    assert_eq!(backend.flushed_revision(), Some(Revision::new(99, 0)));
    let mut txn = backend.begin_apply(1, 1);
    txn.put_revision(Revision::new(100, 0), false, Bytes::from_static(b"r"));
    txn.commit(0);
    flush(&backend);
    let rows = backend
        .read()
        .unwrap()
        .revisions(Revision::MIN, Revision::MAX, 1000, 1 << 20)
        .unwrap();
    assert_eq!(rows.len(), 99);
    assert!(
        rows.iter()
            .all(|row| row.tombstone == (row.rev.main % 10 == 0 && row.rev.main < 100))
    );
}

/// A store with rows in the file, in a sealed layer and in the open one.
fn layered() -> (Backend, quorate_backend::FlushJob, Model) {
    let backend = open(&disk(1)).unwrap();
    let mut random = Random::new(5);
    let mut model = Model::default();
    let mut main = 1;
    let mut job = None;
    for index in 1..=300 {
        let mut txn = backend.begin_apply(index, 1);
        for sub in 0..1 + i64::try_from(random.below(3)).unwrap() {
            main += i64::from(sub == 0);
            let rev = Revision::new(main, sub);
            let tombstone = random.below(4) == 0;
            let record = Bytes::from(vec![7; random.size(300)]);
            txn.put_revision(rev, tombstone, record.clone());
            model.set(
                Table::Key,
                rev.table_key(tombstone).as_bytes(),
                Some(record),
            );
        }
        for _ in 0..5 {
            let key = lease_key(random.below(200));
            let value = (random.below(3) > 0).then(|| Bytes::from(vec![1; random.size(20)]));
            match &value {
                Some(value) => txn.put(Table::Lease, &key, value.clone()),
                None => txn.delete(Table::Lease, &key),
            }
            model.set(Table::Lease, &key, value);
        }
        txn.commit(index);
        model.set_applied(backend.applied());
        if index == 100 {
            flush(&backend);
        }
        if index == 200 {
            job = backend.seal();
        }
    }
    (backend, job.unwrap(), model)
}

#[test]
fn scans_merge_layers_and_file() {
    let (backend, job, model) = layered();
    for _ in 0..2 {
        let txn = backend.read().unwrap();
        for step in [1, 2, 7, 100, 5000] {
            assert_eq!(read_all(&txn, step).unwrap(), model, "step {step}");
        }
        for table in [Table::Lease, Table::Key] {
            let rows = model.rows(table);
            for (at, (key, value)) in rows.iter().enumerate() {
                assert_eq!(txn.get(table, key).unwrap().as_ref(), Some(value));
                let inclusive = txn.scan(table, Bound::Included(key), 3).unwrap();
                assert_eq!(inclusive, rows[at..rows.len().min(at + 3)]);
                let exclusive = txn.scan(table, Bound::Excluded(key), 3).unwrap();
                assert_eq!(exclusive, rows[at + 1..rows.len().min(at + 4)]);
            }
        }
        assert!(
            txn.scan(Table::Key, Bound::Unbounded, 0)
                .unwrap()
                .is_empty()
        );
        if backend.seal().is_none() && backend.durable().index == 100 {
            break;
        }
    }
    job.run().unwrap();
    assert_eq!(read_all(&backend.read().unwrap(), 50).unwrap(), model);
    flush(&backend);
    assert_eq!(read_all(&backend.read().unwrap(), 50).unwrap(), model);
}

#[test]
fn revision_ranges_merge_layers_and_file() {
    let (backend, job, model) = layered();
    let rows = model.revisions();
    let check = || {
        let txn = backend.read().unwrap();
        let mut random = Random::new(3);
        for _ in 0..200 {
            let from = rows[random.size(rows.len() as u64)].rev;
            let to = rows[random.size(rows.len() as u64)].rev;
            let expected: Vec<_> = rows
                .iter()
                .filter(|row| row.rev >= from && row.rev < to)
                .cloned()
                .collect();
            let found = txn.revisions(from, to, usize::MAX, usize::MAX).unwrap();
            assert_eq!(found, expected);
            let limit = 1 + random.size(50);
            let found = txn.revisions(from, to, limit, usize::MAX).unwrap();
            assert_eq!(found, expected[..limit.min(expected.len())]);
            let bytes = random.size(3000);
            let found = txn.revisions(from, to, usize::MAX, bytes).unwrap();
            let mut sum = 0;
            let count = expected
                .iter()
                .take_while(|row| {
                    let more = sum == 0 || sum < bytes;
                    sum += row.record.len().max(1);
                    more
                })
                .count();
            assert!(found.len() >= count.min(1) && found.len() <= expected.len());
            assert_eq!(found, expected[..found.len()]);
            let taken: usize = found.iter().map(|row| row.record.len()).sum();
            assert!(found.len() == expected.len() || taken >= bytes || found.len() == 1);
            let mut visited = Vec::new();
            txn.visit_revisions(from, to, |rev, tombstone, record| {
                visited.push((rev, tombstone, record.len()));
                if visited.len() == limit {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
            let short: Vec<_> = expected
                .iter()
                .take(limit)
                .map(|row| (row.rev, row.tombstone, row.record.len()))
                .collect();
            assert_eq!(visited, short);
        }
        for row in &rows {
            assert_eq!(backend.value(row.rev).unwrap().as_ref(), Some(&row.record));
            assert_eq!(txn.value(row.rev).unwrap().as_ref(), Some(&row.record));
            let missing = Revision::new(row.rev.main, row.rev.sub + 9);
            assert_eq!(backend.value(missing).unwrap(), None);
        }
    };
    check();
    job.run().unwrap();
    check();
    flush(&backend);
    check();
}

#[test]
fn sizes_count_rows_and_shrink_when_told() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let empty = backend.sizes();
    let mut txn = backend.begin_apply(1, 1);
    for main in 2..52 {
        txn.put_revision(Revision::new(main, 0), false, Bytes::from(vec![1; 1000]));
    }
    txn.put(Table::Lease, b"l", Bytes::from(vec![2; 100]));
    txn.commit(0);
    let pending = backend.sizes();
    assert!(pending.in_use_bytes > empty.in_use_bytes + 50_000);
    assert!(backend.pending_bytes() > 50_000);
    flush(&backend);
    assert_eq!(backend.pending_bytes(), 0);
    let flushed = backend.sizes();
    assert_eq!(flushed.in_use_bytes, pending.in_use_bytes);
    assert_eq!(flushed.total_bytes, flushed.in_use_bytes);
    assert!(flushed.file_bytes >= 50_000);

    // A row that replaces another counts once when it is flushed.
    let mut txn = backend.begin_apply(2, 1);
    txn.put(Table::Lease, b"l", Bytes::from(vec![3; 100]));
    txn.commit(0);
    flush(&backend);
    assert_eq!(backend.sizes().in_use_bytes, flushed.in_use_bytes);

    let mut maintenance = backend.maintenance().unwrap();
    for main in 2..52 {
        maintenance.delete_revision(Revision::new(main, 0), false);
    }
    maintenance.commit().unwrap();
    let compacted = backend.sizes();
    assert_eq!(compacted.in_use_bytes, 20_480);
    assert_eq!(compacted.total_bytes, flushed.total_bytes);
    drop(backend);
    let backend = open(&disk).unwrap();
    assert_eq!(backend.sizes().total_bytes, flushed.total_bytes);
    let mut maintenance = backend.maintenance().unwrap();
    maintenance.reset_high_water();
    maintenance.commit().unwrap();
    assert_eq!(backend.sizes().total_bytes, 20_480);
}

#[test]
fn deleted_revisions_leave_the_cache() {
    let backend = open(&disk(1)).unwrap();
    let mut txn = backend.begin_apply(1, 1);
    for main in 2..6 {
        txn.put_revision(Revision::new(main, 0), main == 3, Bytes::from_static(b"v"));
    }
    txn.commit(0);
    flush(&backend);
    for main in 2..6 {
        assert!(backend.value(Revision::new(main, 0)).unwrap().is_some());
    }
    let mut maintenance = backend.maintenance().unwrap();
    maintenance.delete_revision(Revision::new(3, 0), true);
    maintenance.delete_revision(Revision::new(2, 0), false);
    maintenance.commit().unwrap();
    let found: Vec<_> = (2..6)
        .map(|main| backend.value(Revision::new(main, 0)).unwrap().is_some())
        .collect();
    assert_eq!(found, [false, false, true, true]);
}

#[test]
fn a_reader_outlives_its_backend() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let mut txn = backend.begin_apply(1, 1);
    for main in 2..300 {
        txn.put_revision(
            Revision::new(main, 0),
            false,
            Bytes::from(vec![main.to_le_bytes()[0]; 600]),
        );
    }
    txn.commit(0);
    flush(&backend);
    let mut txn = backend.begin_apply(2, 1);
    txn.put(Table::Auth, b"k", Bytes::from_static(b"pending"));
    txn.commit(0);
    let reader = backend.read().unwrap();
    drop(backend);
    assert_eq!(read_all(&reader, 10).unwrap().revisions().len(), 298);
    assert!(reader.get(Table::Auth, b"k").unwrap().is_some());
    assert!(matches!(open(&disk), Err(Error::Locked { .. })));
    drop(reader);
    open(&disk).unwrap();
}

#[test]
fn large_records_cross_the_groups_of_pages() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let record = |main: i64| {
        let len = 1_500_000 + usize::try_from(main).unwrap() * 700_001;
        Bytes::from(vec![main.to_le_bytes()[0]; len])
    };
    for main in 2..10_i64 {
        let mut txn = backend.begin_apply(main.cast_unsigned(), 1);
        txn.put_revision(Revision::new(main, 0), false, record(main));
        txn.commit(0);
        flush(&backend);
    }
    let mut maintenance = backend.maintenance().unwrap();
    maintenance.delete_revision(Revision::new(9, 0), false);
    maintenance.delete_revision(Revision::new(4, 0), false);
    maintenance.commit().unwrap();
    drop(backend);
    let backend = open(&disk).unwrap();
    let mut txn = backend.begin_apply(20, 1);
    txn.put_revision(Revision::new(20, 0), false, record(3));
    txn.commit(0);
    flush(&backend);
    for main in [2, 3, 5, 6, 7, 8] {
        let found = backend.value(Revision::new(main, 0)).unwrap();
        assert!(found == Some(record(main)), "{main}");
    }
    assert!(backend.value(Revision::new(20, 0)).unwrap() == Some(record(3)));
    assert!(backend.sizes().file_bytes > 3 * (4 << 20));
}

#[test]
fn the_same_run_writes_the_same_file() {
    let run = || {
        let disk = disk(1);
        let backend = open(&disk).unwrap();
        for index in 1..60_u64 {
            let mut txn = backend.begin_apply(index, 1);
            for sub in 0..7 {
                let rev = Revision::new(index.cast_signed() + 1, sub);
                txn.put_revision(rev, sub == 3, Bytes::from(vec![1; 900]));
            }
            txn.put(
                Table::Lease,
                &lease_key(index % 7),
                Bytes::from_static(b"x"),
            );
            txn.commit(index);
            if index % 4 == 0 {
                flush(&backend);
                let mut maintenance = backend.maintenance().unwrap();
                maintenance.delete_revision(Revision::new(index.cast_signed(), 0), false);
                maintenance.commit().unwrap();
            }
        }
        drop(backend);
        let bytes = disk.peek(Path::new(PATH)).unwrap();
        (bytes, disk.operations())
    };
    assert!(run() == run());
}

#[test]
fn an_image_fills_a_new_file() {
    let source = open(&disk(1)).unwrap();
    let mut txn = source.begin_apply(77, 3);
    for main in 2..400 {
        let record = Bytes::from(vec![3; 100]);
        txn.put_revision(Revision::new(main, 0), main % 9 == 0, record);
    }
    txn.put(Table::AuthUsers, b"root", Bytes::from_static(b"user"));
    txn.put(Table::Meta, b"confState", Bytes::from_static(b"{}"));
    txn.commit(5);
    let image = source.read().unwrap();

    let disk = disk(2);
    let target = open(&disk).unwrap();
    for table in Table::ALL {
        for rows in image
            .scan(table, Bound::Unbounded, 10_000)
            .unwrap()
            .chunks(64)
        {
            let mut maintenance = target.maintenance().unwrap();
            for (key, value) in rows {
                if !key.starts_with(b"consistent_index") && !key.starts_with(b"term") {
                    maintenance.put(table, key, value.clone());
                }
            }
            maintenance.commit().unwrap();
        }
    }
    assert_eq!(target.durable().index, 0);
    let applied = image.applied();
    let txn = target.begin_apply(applied.index, applied.term);
    txn.commit(applied.digest);
    flush(&target);
    drop(target);
    let target = open(&disk).unwrap();
    assert_eq!(
        read_all(&target.read().unwrap(), 100).unwrap(),
        read_all(&image, 100).unwrap()
    );
    assert_eq!(target.sizes().in_use_bytes, source.sizes().in_use_bytes);
}

#[test]
fn many_records_at_once_are_those_asked_for_one_by_one() {
    let backend = open(&disk(1)).unwrap();
    let mut random = Random::new(7);
    let mut there = Vec::new();
    let mut main = 1;
    for index in 1..400 {
        let mut txn = backend.begin_apply(index, 1);
        // Small and large gaps, and sometimes several rows of one revision.
        main += i64::try_from(1 + random.below(if index % 5 == 0 { 40 } else { 4 })).unwrap();
        for sub in 0..i64::try_from(1 + random.below(3)).unwrap() {
            let rev = Revision::new(main, sub);
            let value = vec![b'v'; random.size(60)];
            txn.put_revision(rev, random.below(5) == 0, value.into());
            there.push(rev);
        }
        txn.commit(0);
        if index % 90 == 0 {
            flush(&backend);
        }
    }
    for round in 0..200 {
        let mut wanted: Vec<Revision> = (0..random.below(60))
            .map(|_| match random.below(4) {
                0 => Revision::new(i64::try_from(random.below(3000)).unwrap(), 0),
                _ => there[random.size(there.len() as u64)],
            })
            .collect();
        if round % 2 == 0 {
            let start = random.size(there.len() as u64 - 50);
            wanted.extend(&there[start..start + 50]);
        }
        let single = |rev: &Revision| backend.value(*rev).unwrap();
        let mut known = std::collections::BTreeSet::new();
        wanted.retain(|rev| known.insert(*rev));
        let values = backend.values(&wanted, usize::MAX).unwrap();
        assert_eq!(
            values,
            wanted.iter().map(single).collect::<Vec<_>>(),
            "round {round}"
        );
        let cut = backend.values(&wanted, 100).unwrap();
        for (rev, value) in wanted.iter().zip(cut) {
            assert!(value.is_none() || value == single(rev));
        }
    }
}

#[test]
fn the_content_of_an_entry_is_the_same_in_any_batch_and_tells_records_apart() {
    let records = [&b"one"[..], b"two", b"three"];
    let row = |txn: &mut quorate_backend::ApplyTxn, number: usize, record: &'static [u8]| {
        let main = i64::try_from(number).unwrap();
        txn.put_revision(Revision::new(main, 0), false, Bytes::from_static(record));
    };
    let together = open(&disk(1)).unwrap();
    let mut txn = together.begin_apply(9, 1);
    let of_batch: Vec<u32> = (1..)
        .zip(records)
        .map(|(number, record)| {
            row(&mut txn, number, record);
            txn.take_content()
        })
        .collect();
    assert_eq!(txn.take_content(), 0, "nothing has been written since");
    let alone = open(&disk(1)).unwrap();
    for ((number, record), expected) in (1..).zip(records).zip(&of_batch) {
        let mut txn = alone.begin_apply(number as u64, 1);
        row(&mut txn, number, record);
        assert_eq!(txn.take_content(), *expected);
        txn.commit(0);
    }
    assert!(of_batch[0] != of_batch[1] && of_batch[1] != of_batch[2]);
}
