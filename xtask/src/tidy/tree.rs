//! The files of the repository, in memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Ends of the names of files that are read; others are known by name alone.
const TEXT_ENDINGS: &[&str] = &[
    "rs", "md", "toml", "proto", "yml", "yaml", "sh", "py", "txt", "json", "run", "LICENSE",
];
/// Largest file whose text is looked at; larger ones are data.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The files of a repository by their paths from its top, with slashes.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads a repository, without what is built or kept by tools.
    pub(crate) fn read(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        tree.read_dir(root, "")?;
        Ok(tree)
    }

    fn read_dir(&mut self, dir: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !is_left_out(&name) {
                    self.read_dir(&entry.path(), &format!("{path}/"))?;
                }
            } else if kind.is_file() {
                let is_text = TEXT_ENDINGS
                    .iter()
                    .any(|ending| name == *ending || ending_of(&name) == Some(ending));
                let text = if is_text && entry.metadata()?.len() <= TEXT_BYTES_MAX {
                    String::from_utf8_lossy(&fs::read(entry.path())?).into_owned()
                } else {
                    String::new()
                };
                self.files.insert(path, text);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    /// Returns all files with their texts, in path order.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Returns the text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Returns sources that people write: those that are generated are left out.
    pub(crate) fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter(|(path, _)| path.ends_with(".rs") && !path.contains("/generated/"))
    }

    /// Returns the folders that hold a package, in path order.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &str> {
        self.files
            .keys()
            .filter_map(|path| path.strip_suffix("/Cargo.toml"))
    }
}

fn ending_of(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, ending)| ending)
}

fn is_left_out(name: &str) -> bool {
    name == ".git" || name == "target" || name.ends_with(".etcd")
}
