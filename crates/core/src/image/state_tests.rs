use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_backend::{Backend, Options};
use quorate_disk::{Disk, Fault, SimDisk};

use super::tests::{all_rows, new_disk, sample};
use super::*;
use crate::DIGEST_KEY;

const DIR: &str = "/data";

fn sent(backend: &Backend) -> Vec<u8> {
    let mut state = Vec::new();
    let mut stream = StateStream::new(backend.read().unwrap());
    stream.read_to_end(&mut state).unwrap();
    state
}

/// Takes a state in, in pieces, and makes a database of it.
fn receive(disk: &Arc<dyn Disk>, state: &[u8], piece_bytes: usize) -> Result<PathBuf, ImageError> {
    let mut reader = StateReader::default();
    let filling = Filling::begin(disk, Path::new(DIR), 1, Options::default())?;
    for piece in state.chunks(piece_bytes) {
        reader.push(piece);
        while let Some(rows) = reader.batch()? {
            filling.append(&rows)?;
        }
    }
    let (rows, state) = reader.finish()?;
    filling.append(&rows)?;
    filling.keep(state)
}

fn names(disk: &Arc<dyn Disk>) -> Vec<String> {
    let names = disk.read_dir(Path::new(DIR)).unwrap();
    let mut names: Vec<_> = names
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn refusal(state: &[u8]) -> String {
    let mut reader = StateReader::default();
    reader.push(state);
    let read = reader.batch().map(drop);
    read.and_then(|()| reader.finish().map(drop))
        .unwrap_err()
        .to_string()
}

#[test]
fn state_of_a_backend_becomes_an_equal_backend_in_pieces_of_any_size() {
    let disk = new_disk();
    let backend = sample(&disk);
    let expected = all_rows(&backend);
    let state = sent(&backend);
    assert!(StateReader::is_state(&state));
    let index = backend.applied().index;
    for piece_bytes in [1, 7, 4_096, state.len()] {
        let path = receive(&disk, &state, piece_bytes).unwrap();
        assert_eq!(path, Path::new(DIR).join(received_file(index)));
        assert_eq!(names(&disk), [received_file(index).as_str(), "db"]);
        let installed = install_received(&disk, Path::new(DIR), index, Options::default());
        let installed = installed.unwrap().unwrap();
        assert_eq!(installed.durable(), backend.applied());
        let mut found = all_rows(&installed);
        found.retain(|row| row.1 != DIGEST_KEY);
        assert_eq!(found.len(), expected.len());
        assert!(found == expected);
        assert_eq!(names(&disk), ["db", BACKEND_FILE]);
        drop(installed);
        disk.remove_file(&Path::new(DIR).join(BACKEND_FILE))
            .unwrap();
    }
    let none = install_received(&disk, Path::new(DIR), index, Options::default());
    assert!(none.unwrap().is_none());
}

#[test]
fn state_that_breaks_off_is_refused_and_leaves_nothing() {
    let disk = new_disk();
    let state = sent(&sample(&disk));
    let cuts = (0..200)
        .chain((200..state.len()).step_by(9_973))
        .chain(state.len() - 20..state.len());
    for cut in cuts {
        let refused = receive(&disk, &state[..cut], 1 << 16).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("received state is cut short"),
            "{cut}: {text}"
        );
        assert_eq!(names(&disk), ["db"]);
    }
    let more = [&state[..], b"x"].concat();
    assert!(refusal(&more).contains("longer than it says"));
}

#[test]
fn state_that_a_failing_disk_cannot_take_leaves_nothing() {
    let source = new_disk();
    let backend = sample(&source);
    let (state, index) = (sent(&backend), backend.applied().index);
    for fault in [Fault::Fail, Fault::NoSpace] {
        let mut failed = 0;
        for at in (0..40).chain((40..).step_by(37)) {
            let sim = SimDisk::new(3);
            sim.create_dir_all(Path::new(DIR)).unwrap();
            sim.inject(sim.operations() + at, fault);
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let received = receive(&disk, &state, 1 << 16);
            let is_over = sim.operations() < at;
            sim.clear_faults();
            match received {
                Ok(_) => assert_eq!(names(&disk), [received_file(index)]),
                Err(_) => {
                    failed += 1;
                    assert!(names(&disk).is_empty(), "{fault:?} at {at}");
                }
            }
            if is_over {
                break;
            }
        }
        assert!(failed > 10, "{fault:?}: {failed}");
    }
}

#[test]
fn no_changed_byte_of_a_state_ends_the_process() {
    let disk = new_disk();
    let state = sent(&sample(&disk));
    let mut refused = 0;
    for at in (0..2_000).chain((2_000..state.len()).step_by(4_999)) {
        let mut bad = state.clone();
        bad[at] ^= 0x81;
        let mut reader = StateReader::default();
        reader.push(&bad);
        let mut batches = Vec::new();
        let read = loop {
            match reader.batch() {
                Ok(Some(rows)) => batches.push(rows),
                Ok(None) => break reader.finish(),
                Err(why) => break Err(why),
            }
        };
        refused += usize::from(read.is_err());
        if at % 100 == 0 {
            // Whatever the reader lets through, a database can be made of.
            let filling = Filling::begin(&disk, Path::new(DIR), 1, Options::default()).unwrap();
            for rows in batches
                .iter()
                .chain(read.as_ref().ok().map(|(rows, _)| rows))
            {
                filling.append(rows).unwrap();
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn states_that_no_member_sends_are_refused() {
    let table = |name: &str| {
        let bytes = u8::try_from(name.len()).unwrap();
        [&[1, bytes][..], name.as_bytes()].concat()
    };
    let row = |key: &[u8]| {
        let bytes = u32::try_from(key.len()).unwrap().to_le_bytes();
        [&[2], &bytes[..], &[1, 0, 0, 0], key, b"v"].concat()
    };
    let of = |records: &[Vec<u8>]| [b"QUORROW\x01", &records.concat()[..]].concat();
    let end = |rows: u64| [&[3][..], &rows.to_le_bytes()].concat();
    for (records, why) in [
        (vec![row(b"a")], "a row without a table"),
        (vec![table("auth"), table("auth")], "tables that are out of"),
        (
            vec![table("auth"), table("alarm")],
            "tables that are out of",
        ),
        (vec![table("authx")], "is not known"),
        (
            vec![table("auth"), row(b"b"), row(b"a")],
            "keys that are out",
        ),
        (
            vec![table("auth"), row(b"b"), row(b"b")],
            "keys that are out",
        ),
        (vec![table("auth"), row(b"")], "rows too large"),
        (vec![table("auth"), row(&[1; 40_000])], "rows too large"),
        (vec![table("key"), row(b"a")], "not a revision"),
        (vec![table("auth"), row(b"a"), end(2)], "all of its rows"),
        (vec![table("auth"), row(b"a"), end(1)], "a place in the log"),
        (vec![vec![9]], "no record"),
    ] {
        let text = refusal(&of(&records));
        assert!(text.contains(why), "{text} instead of {why}");
    }
    assert!(refusal(b"QUORROW\x02").contains("not a state that is known"));
    assert!(
        StateReader::is_state(b"QUORROW\x02"),
        "refused, not stored as an image"
    );
    assert!(!StateReader::is_state(&[0; 8]));
}

#[test]
fn database_of_the_same_state_that_is_there_stays_and_no_other_is_taken() {
    let disk = new_disk();
    let backend = sample(&disk);
    let state = sent(&backend);
    let path = receive(&disk, &state, 1 << 16).unwrap();
    let kept = Backend::open(Arc::clone(&disk), &path, Options::default()).unwrap();
    let refused = receive(&disk, &state, 1 << 16).unwrap_err();
    assert!(
        matches!(&refused, ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists),
        "{refused}"
    );
    assert_eq!(names(&disk).len(), 2);
    assert_eq!(kept.durable(), backend.applied());
}
