//! Rules of the sources that no lint knows.

mod crates;
mod library;
mod repository;
mod sources;
mod tree;

use crate::Outcome;
use crate::workspace::root;
use tree::Tree;

/// A rule: it returns a line for every breach.
type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[Rule] = &[
    repository::files_are_there,
    repository::changelog_is_kept,
    repository::ci_is_the_readmes_command,
    repository::clippy_files_are_few,
    crates::manifests_are_whole,
    crates::crates_explain_themselves,
    crates::errors_are_one_enum,
    crates::tests_are_one_binary,
    library::lib_holds_no_code,
    sources::text_is_clean,
    sources::files_are_short,
    sources::names_say_something,
    sources::nothing_is_unfinished,
    sources::no_machine_is_named,
];

/// Checks the repository.
pub(crate) fn run(_: &[String]) -> Outcome {
    let tree = Tree::read(&root())?;
    let breaches: Vec<String> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    if breaches.is_empty() {
        println!(
            "tidy: {} files keep {} rules",
            tree.files().count(),
            RULES.len()
        );
        return Ok(());
    }
    Err(format!("{} breaches\n  {}", breaches.len(), breaches.join("\n  ")).into())
}

#[cfg(test)]
mod tests;
