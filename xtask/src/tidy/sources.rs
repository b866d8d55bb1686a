//! Rules of every source file.

use super::tree::Tree;

/// Longest source without its tests, in lines.
const SOURCE_LINES_MAX: usize = 500;
/// Longest file of tests alone, in lines.
const TEST_LINES_MAX: usize = 1500;

/// Files that are longer for a reason.
#[rustfmt::skip]
const LONG_FILES: &[(&str, usize, &str)] = &[
    ("crates/backend/src/pages.rs", 700, "one page format: its encoder, decoder and checks belong together"),
    ("crates/ctl/src/cli/commands.rs", 700, "a table of commands and their flags"),
    ("crates/lease/src/lessor.rs", 600, "one type whose operations share every field"),
    ("crates/mvcc/src/index/tree.rs", 600, "one tree: insertion, deletion and counting keep one set of invariants"),
    ("crates/mvcc/src/watch/hub.rs", 600, "one type whose operations share every field"),
    ("crates/mvcc/src/store.rs", 600, "one type whose operations share every field"),
    ("crates/rpc/src/status.rs", 600, "a table of errors with their codes and texts"),
    ("crates/wal/src/recovery.rs", 650, "the decision table of opening, read from top to bottom"),
    ("crates/wal/src/wal.rs", 600, "one type whose operations share every field"),
];

/// Names that say nothing about what is in a file or type.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "manager", "stuff",
];

/// Ends of files in which blanks at the end of a line mean nothing.
const CLEAN_ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".proto", ".yml", ".sh", ".ci/run"];

pub(super) fn text_is_clean(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_clean_kind = |path: &str| CLEAN_ENDINGS.iter().any(|ending| path.ends_with(ending));
    for (path, text) in tree
        .files()
        .filter(|(path, _)| is_clean_kind(path) && !path.contains("/generated/"))
    {
        for (at, line) in text.split('\n').enumerate() {
            let fault = if line.ends_with('\r') {
                "ends with a carriage return"
            } else if line.ends_with([' ', '\t']) {
                "ends with a blank"
            } else if path.ends_with(".rs") && line.starts_with('\t') {
                "begins with a tab"
            } else {
                continue;
            };
            breaches.push(format!("{path}:{}: {fault}", at + 1));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            breaches.push(format!("{path}: does not end with a line feed"));
        }
    }
    breaches
}

pub(super) fn files_are_short(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in tree.rust_files() {
        let of_tools = ["benches/", "integration-tests/"]
            .iter()
            .any(|folder| path.starts_with(folder));
        let holds_tests = of_tools || path.ends_with("/tests.rs") || path.contains("/tests/");
        let (lines, usual) = if holds_tests {
            (text.lines().count(), TEST_LINES_MAX)
        } else {
            (lines_before_tests(text), SOURCE_LINES_MAX)
        };
        let exception = LONG_FILES.iter().find(|(long, _, _)| *long == path);
        let limit = exception.map_or(usual, |(_, limit, _)| *limit);
        if lines > limit {
            breaches.push(format!(
                "{path}: has {lines} lines, at most {limit} are wanted"
            ));
        }
    }
    let gone = LONG_FILES
        .iter()
        .filter(|(path, _, _)| tree.files().count() > 100 && tree.text(path).is_none());
    breaches.extend(gone.map(|(path, _, _)| format!("{path}: has an exception and is not there")));
    breaches
}

fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let begins_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests");
    lines
        .windows(2)
        .position(begins_tests)
        .unwrap_or(lines.len())
}

pub(super) fn names_say_something(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in tree.rust_files() {
        let parts = path.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            breaches.push(format!("{path}: the name {part:?} says nothing"));
        }
        for (at, line) in text.lines().enumerate() {
            if let Some(name) =
                type_name(line).filter(|name| name.ends_with("Manager") || name.ends_with("Helper"))
            {
                breaches.push(format!("{path}:{}: the name {name} says nothing", at + 1));
            }
            if let Some(name) = function_name(line).filter(|name| {
                (name.starts_with("get_") && *name != "get_mut") || name.starts_with("test_")
            }) {
                breaches.push(format!(
                    "{path}:{}: {name} begins with a word that is not needed",
                    at + 1
                ));
            }
        }
    }
    breaches
}

fn type_name(line: &str) -> Option<&str> {
    word_after(line, &["struct ", "enum ", "trait ", "type "])
}

fn function_name(line: &str) -> Option<&str> {
    word_after(line, &["fn "])
}

/// Returns the identifier after a keyword that begins a line, after its visibility.
fn word_after<'a>(line: &'a str, keywords: &[&str]) -> Option<&'a str> {
    let mut rest = line.trim_start();
    for visibility in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
    ] {
        rest = rest.strip_prefix(visibility).unwrap_or(rest);
    }
    let name = keywords
        .iter()
        .find_map(|keyword| rest.strip_prefix(keyword))?;
    let end = name
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(name.len());
    Some(&name[..end])
}

pub(super) fn nothing_is_unfinished(tree: &Tree) -> Vec<String> {
    // Written in parts, so that this file does not hold them.
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X:"),
    ];
    let mut breaches = Vec::new();
    for (path, text) in tree.rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                breaches.push(format!("{path}:{}: {word} is not finished work", at + 1));
            }
            if line.trim() == concat!("#[ign", "ore]") {
                breaches.push(format!(
                    "{path}:{}: a test is left out without a reason",
                    at + 1
                ));
            }
        }
    }
    breaches
}

pub(super) fn no_machine_is_named(tree: &Tree) -> Vec<String> {
    let places = [
        concat!("/wo", "rk/main"),
        concat!("/wo", "rk/shared"),
        concat!("/tmp", "/ref"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    let mut breaches = Vec::new();
    for (path, text) in tree.files() {
        for (at, line) in text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(*place)) {
                breaches.push(format!(
                    "{path}:{}: {place} is a place on one machine",
                    at + 1
                ));
            }
        }
    }
    breaches
}
