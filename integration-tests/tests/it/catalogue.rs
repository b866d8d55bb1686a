//! The table of the fault catalogue says the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quorate_integration_tests::cluster::Scenario;

const TABLE: &str = include_str!("../../faults.md");

/// Rows that must be there: of the second section, and of the groups in the third.
fn expected() -> BTreeSet<String> {
    let groups = [
        ("2.", 40),
        ("C", 7),
        ("D", 12),
        ("T", 3),
        ("N", 9),
        ("L", 5),
    ];
    let rows = groups
        .iter()
        .flat_map(|(name, count)| (1..=*count).map(move |number| format!("{name}{number}")));
    rows.collect()
}

/// The rows of the table, each with what its last column names.
fn rows() -> Vec<(String, Vec<String>)> {
    let lines = TABLE.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split('|').collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0].trim() != "row");
    rows.map(|cells| {
        let [row, _, tests] = cells[..] else {
            panic!("not three columns: {cells:?}");
        };
        let names = tests.split('`').skip(1).step_by(2);
        (row.trim().to_owned(), names.map(str::to_owned).collect())
    })
    .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder that the tests of a name are in.
fn folder(name: &str) -> PathBuf {
    match name {
        "it" | "stepped" => root().join("integration-tests/tests").join(name),
        "checker" => root().join("integration-tests/src/checker"),
        _ => root().join("crates").join(name),
    }
}

/// The names of all test functions below a folder.
fn tests(folder: &Path) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![folder.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.extend(tests_in(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// The functions that an attribute calls tests.
fn tests_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && let Some((_, rest)) = line.split_once("fn ") {
            is_test = false;
            found.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
        }
    }
    found
}

#[test]
fn every_row_names_tests_that_exist() {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (row, names) in rows() {
        if names.is_empty() {
            wrong.push(format!("{row} has no test"));
        }
        for name in names {
            let (place, test) = name.split_once('/').expect("a folder and a name");
            let exists = if place == "chaos" {
                // A scenario says itself which rows it is about.
                Scenario::named(test).is_some_and(|scenario| names_row(scenario.rows, &row))
            } else {
                let of_folder = || tests(&folder(place));
                known
                    .entry(place.to_owned())
                    .or_insert_with(of_folder)
                    .contains(test)
            };
            if !exists {
                wrong.push(format!(
                    "{row}: there is no {name}, or it does not name the row"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a list of rows, with words behind it, has this one.
fn names_row(rows: &str, row: &str) -> bool {
    let list = rows.split_once(':').map_or(rows, |(list, _)| list);
    list.split(", ").any(|one| one.trim() == row)
}

#[test]
fn every_row_is_there_once() {
    let rows: Vec<String> = rows().into_iter().map(|(row, _)| row).collect();
    let set: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(set.len(), rows.len(), "a row comes twice");
    assert_eq!(set, expected());
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "#[test]\n#[ignore]\nfn one() {\n}\nfn two() {}\n#[tokio::test(start_paused = true)]\nasync fn three() {}";
    assert_eq!(tests_in(source), ["one", "three"]);
    assert!(names_row("C1, 2.1: words, 2.2", "2.1"));
    assert!(!names_row("C1, 2.1: words, 2.2", "2.2"));
    assert!(!names_row("C1, 2.10", "2.1"));
}
