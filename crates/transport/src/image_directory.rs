//! A directory in which received images are kept.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{ImageFile, ImageStore};

/// End of the name of an image that is being received.
const UNFINISHED: &str = ".snap.db.tmp";

/// Keeps images in a directory, as `INDEX.snap.db` with 16 hexadecimal digits.
///
/// | found | cause | action |
/// |---|---|---|
/// | `N.snap.db.tmp` | a crash while an image was received | removed when the directory is opened |
/// | `INDEX.snap.db` | a whole image, durable | kept; another image of the same index is dropped |
///
/// Source: etcd v3.7.1 server/etcdserver/api/snap/db.go.
#[derive(Debug)]
pub struct ImageDirectory {
    directory: PathBuf,
    next: AtomicU64,
}

impl ImageDirectory {
    /// Opens a directory that exists, and removes what was not finished.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or what is in it not be removed.
    pub fn open(directory: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            next: AtomicU64::new(0),
        })
    }
}

impl ImageStore for ImageDirectory {
    fn create(&self) -> io::Result<Box<dyn ImageFile>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{number}{UNFINISHED}"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Box::new(Unfinished {
            file,
            path,
            directory: self.directory.clone(),
        }))
    }
}

/// An image on its way to the disk; its file goes when it is dropped.
struct Unfinished {
    file: File,
    path: PathBuf,
    directory: PathBuf,
}

impl ImageFile for Unfinished {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn keep(self: Box<Self>, index: u64) -> io::Result<PathBuf> {
        self.file.sync_all()?;
        let kept = self.directory.join(format!("{index:016x}.snap.db"));
        if kept.try_exists()? {
            return Ok(kept);
        }
        fs::rename(&self.path, &kept)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(kept)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone already if the image was kept; a leftover is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn image_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageDirectory::open(directory.path()).unwrap();
        let mut dropped = store.create().unwrap();
        dropped.append(b"half").unwrap();
        drop(dropped);
        assert_eq!(names(directory.path()), Vec::<String>::new());

        let mut image = store.create().unwrap();
        image.append(b"who").unwrap();
        image.append(b"le").unwrap();
        let path = image.keep(0x1f).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        let mut again = store.create().unwrap();
        again.append(b"other").unwrap();
        assert_eq!(again.keep(0x1f).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(directory.path()), ["000000000000001f.snap.db"]);
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageDirectory::open(directory.path()).unwrap();
        std::mem::forget(store.create().unwrap());
        File::create(directory.path().join("other")).unwrap();
        assert_eq!(names(directory.path()).len(), 2);
        ImageDirectory::open(directory.path()).unwrap();
        assert_eq!(names(directory.path()), ["other"]);
    }
}
