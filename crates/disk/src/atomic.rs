//! Replacing a whole file in one step.

use crate::{Disk, OpenMode};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Appended to the name of the file that is being written.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Replaces the whole content of a file, or makes the file, in one step.
///
/// The bytes go to `<path>.tmp` beside it, which is synced, renamed over the file, and its directory synced. A `.tmp` left by a
/// crash is overwritten.
///
/// # Errors
/// What the system says. The old content is then whole; the new one may be, if only the last sync failed.
///
/// # Durability
/// The new content and its name are durable when it returns.
pub fn replace_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = parent_of(path)?;
    let temporary = temporary_of(path)?;
    let file = disk.open(&temporary, OpenMode::CreateOrOpen)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    // The name may only ever lead to complete content, so the content is durable before the rename.
    file.sync_all()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(parent)
}

fn parent_of(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "path has no parent directory",
        )),
    }
}

fn temporary_of(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no file name"))?;
    let mut name = OsString::from(name);
    name.push(TEMPORARY_SUFFIX);
    Ok(path.with_file_name(name))
}
