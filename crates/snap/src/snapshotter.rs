//! The directory of snapshot files.

use crate::format::{BODY_BYTES_MAX, Decoded, FORMAT_VERSION, HEADER_BYTES, decode, encode};
use crate::{Damage, Error, Identity, Snapshot, SnapshotId};
use bytes::Bytes;
use quorate_disk::{Disk, OpenMode, read_exact_at, replace_atomic};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What files end with while they are saved; `replace_atomic` adds it.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// Added to the names of damaged files.
const BROKEN_SUFFIX: &str = ".broken";

/// Saves, loads and removes the snapshot files of one directory.
#[derive(Clone)]
pub struct Snapshotter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
}

/// What loading found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The newest whole snapshot.
    pub snapshot: Option<Snapshot>,
    /// Files that were damaged and have another name now, newest first.
    pub set_aside: Vec<SetAside>,
}

/// A damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The name it had.
    pub path: PathBuf,
    /// The name it has now.
    pub moved_to: PathBuf,
    /// How it is damaged.
    pub damage: Damage,
}

impl fmt::Debug for Snapshotter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshotter")
            .field("dir", &self.dir)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Snapshotter {
    /// Makes the directory if need be and removes what an interrupted save left.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Durability
    /// The directory is durable, given that the one above it is.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, identity: Identity) -> Result<Snapshotter, Error> {
        disk.create_dir_all(dir).map_err(at("create", dir))?;
        let above = match dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        disk.sync_dir(above).map_err(at("sync", above))?;
        for name in disk.read_dir(dir).map_err(at("list", dir))? {
            if is_temporary(&name) {
                let path = dir.join(name);
                disk.remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(Snapshotter {
            disk,
            dir: dir.to_owned(),
            identity,
        })
    }

    /// Saves a snapshot in one step; one with the same id is replaced.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Io`]: all snapshots saved before are as they were; this one may be there, whole.
    ///
    /// # Durability
    /// The snapshot and its name are durable when it returns.
    pub fn save(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let bytes = u64::try_from(snapshot.body.len()).unwrap_or(u64::MAX);
        if bytes > BODY_BYTES_MAX {
            return Err(Error::TooLarge {
                bytes,
                bytes_max: BODY_BYTES_MAX,
            });
        }
        let path = self.path(snapshot.id);
        let bytes = encode(self.identity, snapshot);
        replace_atomic(&*self.disk, &path, &bytes).map_err(at("save", &path))
    }

    /// Lists the snapshot files by name, newest first, whole or not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<SnapshotId>, Error> {
        let names = self.disk.read_dir(&self.dir);
        let names = names.map_err(at("list", &self.dir))?;
        let mut ids: Vec<SnapshotId> = names
            .iter()
            .filter_map(|name| SnapshotId::of_file_name(name))
            .collect();
        ids.sort_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Loads the newest whole snapshot and sets aside damaged ones that are newer.
    ///
    /// # Errors
    /// [`Error::NewerFormat`], [`Error::ForeignIdentity`], [`Error::NotASnapshot`]: that file was not touched. [`Error::Io`]: a file
    /// that cannot be read is not taken for damaged.
    pub fn load_newest(&self) -> Result<Loaded, Error> {
        self.load_newest_of(|_| true)
    }

    /// Loads the newest whole snapshot of those wanted, for example those that the log has a mark of.
    ///
    /// # Errors
    /// As [`Snapshotter::load_newest`].
    pub fn load_newest_of(&self, wanted: impl Fn(SnapshotId) -> bool) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        for id in self.list()?.into_iter().filter(|id| wanted(*id)) {
            let path = self.path(id);
            match self.read(id, &path)? {
                Ok(snapshot) => {
                    loaded.snapshot = Some(snapshot);
                    break;
                }
                Err(damage) => {
                    let moved_to = self.set_aside(&path)?;
                    loaded.set_aside.push(SetAside {
                        path,
                        moved_to,
                        damage,
                    });
                }
            }
        }
        if !loaded.set_aside.is_empty() {
            self.disk
                .sync_dir(&self.dir)
                .map_err(at("sync", &self.dir))?;
        }
        Ok(loaded)
    }

    /// Removes the oldest snapshot files so that the newest `keep`, at least one, stay; returns what was removed, oldest first.
    ///
    /// Files that were set aside stay, whatever their number.
    ///
    /// # Errors
    /// [`Error::Io`]: some may be left; calling again goes on.
    ///
    /// # Durability
    /// The removals are durable when it returns.
    pub fn release(&self, keep: usize) -> Result<Vec<SnapshotId>, Error> {
        let mut removed: Vec<SnapshotId> = self.list()?.into_iter().skip(keep.max(1)).collect();
        removed.reverse();
        for id in &removed {
            let path = self.path(*id);
            self.disk.remove_file(&path).map_err(at("remove", &path))?;
        }
        if !removed.is_empty() {
            self.disk
                .sync_dir(&self.dir)
                .map_err(at("sync", &self.dir))?;
        }
        Ok(removed)
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.dir.join(id.file_name())
    }

    fn read(&self, id: SnapshotId, path: &Path) -> Result<Result<Snapshot, Damage>, Error> {
        let (bytes, len) = self.read_file(path)?;
        if len > HEADER_BYTES + BODY_BYTES_MAX {
            return Ok(Err(Damage {
                what: "file is too long",
                offset: 0,
                expected: HEADER_BYTES + BODY_BYTES_MAX,
                found: len,
            }));
        }
        match decode(&bytes) {
            Decoded::Damaged(damage) => Ok(Err(damage)),
            Decoded::Etcd => Err(Error::NotASnapshot {
                path: path.to_owned(),
            }),
            Decoded::Newer(found) => Err(Error::NewerFormat {
                path: path.to_owned(),
                found,
                supported: FORMAT_VERSION,
            }),
            Decoded::Whole(found, _) if found != self.identity => Err(Error::ForeignIdentity {
                path: path.to_owned(),
                expected: self.identity,
                found,
            }),
            Decoded::Whole(_, snapshot) if snapshot.id != id => Ok(Err(Damage {
                what: "term or index is not that of the name",
                offset: 32,
                expected: id.index,
                found: snapshot.id.index,
            })),
            Decoded::Whole(_, snapshot) => Ok(Ok(snapshot)),
        }
    }

    /// Reads a file unless it is too long for a snapshot; returns its length too.
    fn read_file(&self, path: &Path) -> Result<(Bytes, u64), Error> {
        let opened = self.disk.open(path, OpenMode::Read);
        let file = opened.map_err(at("open", path))?;
        let len = file.len().map_err(at("read", path))?;
        if len > HEADER_BYTES + BODY_BYTES_MAX {
            return Ok((Bytes::new(), len));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        read_exact_at(&*file, &mut bytes, 0).map_err(at("read", path))?;
        Ok((bytes.into(), len))
    }

    /// Renames a damaged file to a name that nothing has.
    fn set_aside(&self, path: &Path) -> Result<PathBuf, Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(BROKEN_SUFFIX);
        let mut moved_to = PathBuf::from(&name);
        let mut number = 0_u64;
        while self
            .disk
            .exists(&moved_to)
            .map_err(at("look for", &moved_to))?
        {
            number += 1;
            let mut numbered = name.clone();
            numbered.push(format!(".{number}"));
            moved_to = PathBuf::from(numbered);
        }
        self.disk
            .rename(path, &moved_to)
            .map_err(at("set aside", path))?;
        Ok(moved_to)
    }
}

fn is_temporary(name: &OsStr) -> bool {
    let saved = name
        .to_str()
        .and_then(|name| name.strip_suffix(TEMPORARY_SUFFIX));
    saved.is_some_and(|saved| SnapshotId::of_file_name(OsStr::new(saved)).is_some())
}

fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
