//! Rules of the repository as a whole.

use super::tree::Tree;

/// What stands at the top.
const REQUIRED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "rust-toolchain.toml",
    "clippy.toml",
    ".ci/run",
];

/// The one command that tests everything.
const TEST_COMMAND: &str = "cargo xtask ci";

/// Packages that may lift a ban of the root's `clippy.toml`: those that own threads, clocks or files, and tools.
const OWN_CLIPPY: &[&str] = &[
    "crates/disk",
    "crates/transport",
    "crates/rpc",
    "crates/server",
    "crates/ctl",
    "xtask",
    "benches",
    "integration-tests",
];

/// Rules that no crate lifts; the tools keep the first.
const KEPT_RULES: &[&str] = &[
    "too-many-lines-threshold = 70",
    "std::collections::HashMap",
    "std::collections::HashSet",
];

pub(super) fn files_are_there(tree: &Tree) -> Vec<String> {
    let missing = REQUIRED.iter().filter(|path| tree.text(path).is_none());
    missing.map(|path| format!("{path}: is missing")).collect()
}

pub(super) fn changelog_is_kept(tree: &Tree) -> Vec<String> {
    match tree.text("CHANGELOG.md") {
        Some(text) if !text.lines().any(|line| line.starts_with("## ")) => {
            vec!["CHANGELOG.md: has no release and no \"## Unreleased\"".to_owned()]
        }
        _ => Vec::new(),
    }
}

pub(super) fn ci_is_the_readmes_command(tree: &Tree) -> Vec<String> {
    let lacks = |path: &str| {
        !tree
            .text(path)
            .is_some_and(|text| text.lines().any(|line| line == TEST_COMMAND))
    };
    ["README.md", ".ci/run"]
        .into_iter()
        .filter(|path| lacks(path))
        .map(|path| format!("{path}: has no line \"{TEST_COMMAND}\""))
        .collect()
}

pub(super) fn clippy_files_are_few(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in tree.files() {
        let Some(package) = path.strip_suffix("/clippy.toml") else {
            continue;
        };
        if package.starts_with("tools/") {
            continue;
        }
        if !OWN_CLIPPY.contains(&package) {
            breaches.push(format!("{path}: this package keeps to the root's rules"));
        }
        // Its own file replaces the root's whole file, so what no crate lifts must be in it again.
        let kept: &[&str] = if package.starts_with("crates/") {
            KEPT_RULES
        } else {
            &KEPT_RULES[..1]
        };
        for rule in kept {
            if !text.contains(*rule) {
                breaches.push(format!("{path}: lacks the root's rule on {rule}"));
            }
        }
    }
    breaches
}
