//! Rules of each package.

use super::tree::Tree;

/// Libraries that a stranger could use alone.
const FOR_STRANGERS: &[&str] = &["wal", "snap", "backend", "mvcc", "lease", "auth"];

/// Shortest README that says anything, in lines that are not empty.
const README_LINES_MIN: usize = 4;

pub(super) fn manifests_are_whole(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in own_packages(tree) {
        let path = format!("{package}/Cargo.toml");
        let text = tree.text(&path).unwrap_or_default();
        if !section(text, "lints").any(|line| line == "workspace = true") {
            breaches.push(format!("{path}: does not take the workspace's lints"));
        }
        if package.starts_with("crates/") {
            let head: Vec<&str> = section(text, "package").collect();
            for key in [
                "name",
                "description",
                "license",
                "repository",
                "readme",
                "keywords",
                "categories",
            ] {
                if !head.iter().any(|line| line.starts_with(key)) {
                    breaches.push(format!("{path}: lacks {key}"));
                }
            }
            let folder = package.trim_start_matches("crates/");
            if !head.contains(&format!("name = \"quorate-{folder}\"").as_str()) {
                breaches.push(format!(
                    "{path}: a package is named after its folder, quorate-{folder}"
                ));
            }
        }
    }
    breaches
}

pub(super) fn crates_explain_themselves(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in own_packages(tree).filter(|package| package.starts_with("crates/")) {
        let readme = tree
            .text(&format!("{package}/README.md"))
            .unwrap_or_default();
        if readme
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count()
            < README_LINES_MIN
        {
            breaches.push(format!(
                "{package}/README.md: says less than {README_LINES_MIN} lines"
            ));
        }
        let lib = format!("{package}/src/lib.rs");
        let Some(text) = tree.text(&lib) else {
            continue;
        };
        if !text.starts_with("//! ") {
            breaches.push(format!("{lib}: does not begin with what the crate is"));
        }
        let for_strangers = FOR_STRANGERS
            .iter()
            .any(|name| package.trim_start_matches("crates/") == *name);
        if for_strangers && !text.lines().any(|line| line.trim_end() == "//! ```") {
            breaches.push(format!("{lib}: has no example that compiles"));
        }
    }
    breaches
}

pub(super) fn errors_are_one_enum(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for name in FOR_STRANGERS {
        if tree.text(&format!("crates/{name}/Cargo.toml")).is_none() {
            continue;
        }
        let path = format!("crates/{name}/src/error.rs");
        let text = tree.text(&path).unwrap_or_default();
        if !text.contains("#[non_exhaustive]") || !text.contains("pub enum Error {") {
            breaches.push(format!("{path}: holds no non-exhaustive enum Error"));
        }
    }
    breaches
}

pub(super) fn tests_are_one_binary(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, _) in tree.files() {
        let Some((package, rest)) = path.split_once("/tests/") else {
            continue;
        };
        let is_crate =
            package.starts_with("crates/") && !package.trim_start_matches("crates/").contains('/');
        if is_crate && rest.ends_with(".rs") && !rest.contains('/') {
            breaches.push(format!(
                "{path}: integration tests are one binary, tests/it"
            ));
        }
    }
    breaches
}

/// Returns the packages of the workspace.
fn own_packages(tree: &Tree) -> impl Iterator<Item = &str> {
    let is_foreign =
        |package: &&str| package.starts_with("tools/") || package.starts_with("integration-tests/");
    tree.packages()
        .filter(move |package| !is_foreign(package) && !package.contains("/fixtures/"))
}

/// Returns the lines of a section of a manifest.
fn section<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let header = format!("[{name}]");
    let from = manifest
        .lines()
        .skip_while(move |line| *line != header)
        .skip(1);
    from.take_while(|line| !line.starts_with('['))
}
