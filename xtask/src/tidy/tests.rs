use super::*;

#[test]
fn this_repository_is_tidy() {
    run(&[]).unwrap();
}

fn lines(count: usize) -> String {
    "let x = 1;\n".repeat(count)
}

/// Checks what one rule says about one file.
fn check(rule: Rule, path: &str, text: &str, breaches: &[&str]) {
    assert_eq!(
        rule(&Tree::of(&[(path, text)])),
        breaches,
        "{path}: {text:?}"
    );
}

#[test]
fn missing_files_are_found() {
    let breaches = repository::files_are_there(&Tree::of(&[("README.md", "x")]));
    assert!(
        breaches.contains(&"CHANGELOG.md: is missing".to_owned()) && breaches.len() == 8,
        "{breaches:?}"
    );
    check(
        repository::changelog_is_kept,
        "CHANGELOG.md",
        "# Changelog\n\n## Unreleased\n",
        &[],
    );
    check(
        repository::changelog_is_kept,
        "CHANGELOG.md",
        "# Changelog\n",
        &["CHANGELOG.md: has no release and no \"## Unreleased\""],
    );
}

#[test]
fn ci_and_readme_agree() {
    let good = Tree::of(&[
        ("README.md", "```sh\ncargo xtask ci\n```\n"),
        (".ci/run", "cargo xtask ci\n"),
    ]);
    assert!(repository::ci_is_the_readmes_command(&good).is_empty());
    let bad = Tree::of(&[
        ("README.md", "cargo test\n"),
        (".ci/run", "cargo xtask ci --fast\n"),
    ]);
    assert_eq!(repository::ci_is_the_readmes_command(&bad).len(), 2);
}

#[test]
fn clippy_files_lift_no_more_than_they_may() {
    let rules =
        "too-many-lines-threshold = 70\nstd::collections::HashMap std::collections::HashSet\n";
    check(
        repository::clippy_files_are_few,
        "crates/server/clippy.toml",
        rules,
        &[],
    );
    check(
        repository::clippy_files_are_few,
        "crates/mvcc/clippy.toml",
        rules,
        &["crates/mvcc/clippy.toml: this package keeps to the root's rules"],
    );
    check(
        repository::clippy_files_are_few,
        "crates/rpc/clippy.toml",
        "too-many-lines-threshold = 70\nstd::collections::HashMap\n",
        &["crates/rpc/clippy.toml: lacks the root's rule on std::collections::HashSet"],
    );
}

#[test]
fn manifests_that_lack_something_are_found() {
    let whole = "[package]\nname = \"quorate-x\"\ndescription = \"x\"\nlicense.workspace = true\n\
                 repository.workspace = true\nreadme = \"README.md\"\nkeywords = []\ncategories = []\n\
                 [lints]\nworkspace = true\n[dependencies]\n";
    check(
        crates::manifests_are_whole,
        "crates/x/Cargo.toml",
        whole,
        &[],
    );
    check(
        crates::manifests_are_whole,
        "crates/x/Cargo.toml",
        &whole
            .replace("workspace = true\n[dep", "[dep")
            .replace("quorate-x", "x"),
        &[
            "crates/x/Cargo.toml: does not take the workspace's lints",
            "crates/x/Cargo.toml: a package is named after its folder, quorate-x",
        ],
    );
    check(
        crates::manifests_are_whole,
        "crates/x/Cargo.toml",
        &whole.replace("keywords = []\n", ""),
        &["crates/x/Cargo.toml: lacks keywords"],
    );
    check(
        crates::manifests_are_whole,
        "benches/Cargo.toml",
        "[package]\nname = \"b\"\n[dependencies]\nx = { workspace = true }\n",
        &["benches/Cargo.toml: does not take the workspace's lints"],
    );
}

#[test]
fn crates_without_a_page_are_found() {
    let readme = "# wal\n\na\nb\nc\n";
    let page = "//! The log.\n//!\n//! ```\n//! assert!(true);\n//! ```\n";
    let tree = |readme: &str, page: &str| {
        let files = [
            ("crates/wal/Cargo.toml", ""),
            ("crates/wal/README.md", readme),
            ("crates/wal/src/lib.rs", page),
        ];
        crates::crates_explain_themselves(&Tree::of(&files))
    };
    assert!(tree(readme, page).is_empty());
    assert_eq!(
        tree("# wal\n", page),
        ["crates/wal/README.md: says less than 4 lines"]
    );
    assert_eq!(
        tree(readme, "//! The log.\n"),
        ["crates/wal/src/lib.rs: has no example that compiles"]
    );
    assert_eq!(
        tree(readme, &format!("\n{page}")),
        ["crates/wal/src/lib.rs: does not begin with what the crate is"]
    );
}

#[test]
fn errors_that_cannot_grow_are_found() {
    let tree = |text: &str| {
        let files = [
            ("crates/wal/Cargo.toml", ""),
            ("crates/wal/src/error.rs", text),
        ];
        crates::errors_are_one_enum(&Tree::of(&files))
    };
    assert!(tree("#[non_exhaustive]\npub enum Error {\n").is_empty());
    assert_eq!(
        tree("pub enum Error {\n"),
        ["crates/wal/src/error.rs: holds no non-exhaustive enum Error"]
    );
}

#[test]
fn a_second_test_binary_is_found() {
    check(
        crates::tests_are_one_binary,
        "crates/wal/tests/it/main.rs",
        "",
        &[],
    );
    check(
        crates::tests_are_one_binary,
        "crates/wal/src/log/tests/x.rs",
        "",
        &[],
    );
    check(
        crates::tests_are_one_binary,
        "crates/wal/tests/more.rs",
        "",
        &["crates/wal/tests/more.rs: integration tests are one binary, tests/it"],
    );
}

#[test]
fn code_in_a_lib_is_found() {
    let good = "//! Page.\n#![deny(\n    x\n)]\n\nmod a;\n/// Doc.\n#[cfg(test)]\npub mod b;\n\npub use a::{\n    A,\n    B,\n};\npub use c::*;\n";
    check(library::lib_holds_no_code, "crates/x/src/lib.rs", good, &[]);
    for code in [
        "fn f() {}",
        "pub fn f() {",
        "const X: u8 = 1;",
        "pub struct X;",
        "mod a { }",
        "pub mod a {",
        "static X: u8 = 1;",
        "impl X for Y {}",
        "macro_rules! x {",
        "type X = u8;",
    ] {
        let breaches = library::lib_holds_no_code(&Tree::of(&[(
            "crates/x/src/lib.rs",
            &format!("{good}{code}\n"),
        )]));
        assert_eq!(breaches.len(), 1, "{code}");
        let unended = library::lib_holds_no_code(&Tree::of(&[(
            "crates/x/src/lib.rs",
            &format!("{code}\n{good}"),
        )]));
        assert_eq!(unended.len(), 1, "{code}");
    }
}

#[test]
fn unclean_text_is_found() {
    check(sources::text_is_clean, "a.rs", "fn f() {}\n", &[]);
    check(
        sources::text_is_clean,
        "a.md",
        "x \ny\n",
        &["a.md:1: ends with a blank"],
    );
    check(
        sources::text_is_clean,
        "a.toml",
        "x\r\n",
        &["a.toml:1: ends with a carriage return"],
    );
    check(
        sources::text_is_clean,
        "a.rs",
        "x\n\ty\n",
        &["a.rs:2: begins with a tab"],
    );
    check(
        sources::text_is_clean,
        "a.rs",
        "x",
        &["a.rs: does not end with a line feed"],
    );
    check(
        sources::text_is_clean,
        "crates/proto/src/generated/a.rs",
        "x ",
        &[],
    );
}

#[test]
fn long_files_are_found() {
    check(sources::files_are_short, "src/a.rs", &lines(500), &[]);
    check(
        sources::files_are_short,
        "src/a.rs",
        &lines(501),
        &["src/a.rs: has 501 lines, at most 500 are wanted"],
    );
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        lines(500),
        lines(300)
    );
    check(sources::files_are_short, "src/a.rs", &tested, &[]);
    check(
        sources::files_are_short,
        "src/a/tests.rs",
        &lines(1500),
        &[],
    );
    let breach = "src/a/tests.rs: has 1501 lines, at most 1500 are wanted";
    check(
        sources::files_are_short,
        "src/a/tests.rs",
        &lines(1501),
        &[breach],
    );
}

#[test]
fn names_that_say_nothing_are_found() {
    check(
        sources::names_say_something,
        "src/segment.rs",
        "pub struct Segment;\nfn target() {}\n",
        &[],
    );
    check(
        sources::names_say_something,
        "src/utils.rs",
        "",
        &["src/utils.rs: the name \"utils\" says nothing"],
    );
    check(
        sources::names_say_something,
        "src/common/a.rs",
        "",
        &["src/common/a.rs: the name \"common\" says nothing"],
    );
    check(
        sources::names_say_something,
        "a.rs",
        "pub(crate) struct LeaseManager<T> {\n",
        &["a.rs:1: the name LeaseManager says nothing"],
    );
    check(
        sources::names_say_something,
        "a.rs",
        "x\n    pub const fn get_index(&self) {\n",
        &["a.rs:2: get_index begins with a word that is not needed"],
    );
}

#[test]
fn unfinished_work_is_found() {
    for line in [
        concat!("to", "do!()"),
        concat!("// TO", "DO: x"),
        concat!("db", "g!(x)"),
        concat!("#[ign", "ore]"),
    ] {
        assert_eq!(
            sources::nothing_is_unfinished(&Tree::of(&[("a.rs", line)])).len(),
            1,
            "{line}"
        );
    }
    check(
        sources::nothing_is_unfinished,
        "a.rs",
        concat!("#[ign", "ore = \"needs a minute\"]"),
        &[],
    );
}

#[test]
fn places_on_one_machine_are_found() {
    let line = concat!("see /wo", "rk/main/x\n");
    assert_eq!(
        sources::no_machine_is_named(&Tree::of(&[("a.md", line)])).len(),
        1
    );
    check(
        sources::no_machine_is_named,
        "a.md",
        "see /var/lib/quorate\n",
        &[],
    );
}
