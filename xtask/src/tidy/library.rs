//! `lib.rs` holds the crate's page, modules and what is exported; no code.

use super::tree::Tree;

/// The wire types include what is generated, which is their only content.
const EXCEPTIONS: &[&str] = &["crates/proto/src/lib.rs"];

/// Begins of statements that are no code.
const ALLOWED: &[&str] = &["mod ", "pub mod ", "use ", "pub use ", "pub(crate) use "];

pub(super) fn lib_holds_no_code(tree: &Tree) -> Vec<String> {
    let libraries = tree
        .files()
        .filter(|(path, _)| path.starts_with("crates/") && path.ends_with("/src/lib.rs"));
    libraries
        .filter(|(path, _)| !EXCEPTIONS.contains(path))
        .filter_map(|(path, text)| Some(format!("{path}: holds code: {:?}", code_in(text)?)))
        .collect()
}

/// Returns the first statement that is more than a module or an export.
fn code_in(text: &str) -> Option<String> {
    let mut statement = String::new();
    let mut attribute_depth = 0;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        if attribute_depth > 0 || line.starts_with("#[") || line.starts_with("#![") {
            attribute_depth += count(line, '[') - count(line, ']');
            continue;
        }
        statement.push_str(line);
        if line.ends_with(';') {
            let is_inline = statement.contains('{') && statement.contains("mod ");
            if is_inline || !ALLOWED.iter().any(|begin| statement.starts_with(begin)) {
                return Some(statement);
            }
            statement.clear();
        } else if !statement.contains("use ") {
            return Some(statement);
        }
    }
    (!statement.is_empty()).then_some(statement)
}

fn count(line: &str, wanted: char) -> i32 {
    line.chars().map(|c| i32::from(c == wanted)).sum()
}
