//! The copy of the sources in which all mutants are built at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::patch::Texts;

/// What the simulator is built of.
const PARTS: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "clippy.toml",
    "crates",
    "rust-toolchain.toml",
    "simulator",
];

/// Makes the copy, or brings it up to date, and returns where it is. Files that stay the same are not written, so that little
/// is built again.
///
/// # Errors
/// What the system says.
pub(super) fn prepare(root: &Path, texts: &Texts) -> io::Result<PathBuf> {
    let copy = root.join("target/mutants/workspace");
    let mut wanted = Vec::new();
    for part in PARTS {
        list(root, Path::new(part), &mut wanted)?;
    }
    wanted.extend(texts.keys().map(PathBuf::from));
    wanted.sort();
    wanted.dedup();
    for path in &wanted {
        let bytes = match texts.get(&path.to_string_lossy().into_owned()) {
            Some(text) => text.clone().into_bytes(),
            None if path == Path::new("Cargo.toml") => {
                without_tools(&fs::read_to_string(root.join(path))?).into_bytes()
            }
            None => fs::read(root.join(path))?,
        };
        let to = copy.join(path);
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(above) = to.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&to, bytes)?;
    }
    let mut there = Vec::new();
    list(&copy, Path::new("crates"), &mut there)?;
    list(&copy, Path::new("simulator"), &mut there)?;
    for path in there {
        if wanted.binary_search(&path).is_err() {
            fs::remove_file(copy.join(path))?;
        }
    }
    Ok(copy)
}

/// Lists the files below a path, by their paths from the root.
fn list(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let full = root.join(path);
    if !full.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(&full)? {
        list(root, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

/// Leaves the packages out of the workspace that are not copied.
fn without_tools(manifest: &str) -> String {
    let mut out = String::new();
    for line in manifest.lines() {
        out += match line.split_once(" = [") {
            Some(("members", _)) => "members = [\"crates/*\", \"simulator\"]",
            Some(("default-members", _)) => "default-members = [\"simulator\"]",
            _ => line,
        };
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_built_is_in_the_workspace() {
        let manifest = fs::read_to_string(crate::workspace::root().join("Cargo.toml")).unwrap();
        let without = without_tools(&manifest);
        assert!(manifest.contains("\"xtask\"") && !without.contains("\"xtask\""));
        assert!(without.contains("[profile.release]"));
    }
}
