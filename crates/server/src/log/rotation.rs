//! A file that is put aside when it has grown, and begun anew.
//!
//! Source: the behaviour of lumberjack v2, which etcd v3.7.1 uses for `--enable-log-rotation`. The file that is put aside
//! gets the time into its name: `etcd.log` becomes `etcd-2026-01-02T15-04-05.123.log`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_disk::{Disk, RealDisk};

use super::timestamp;

const MICROS_PER_DAY: u64 = 86_400_000_000;
/// Length of the time in a name: `2026-01-02T15-04-05.123`.
const TIME_BYTES: usize = 23;

/// When a file is put aside, and which of those put aside are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rotation {
    /// Size that a file may reach.
    pub max_bytes: u64,
    /// Files put aside that are kept; 0: all.
    pub max_backups: usize,
    /// Days for which they are kept; 0: for ever.
    pub max_age_days: u64,
}

/// The file that lines go to now.
pub(crate) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    len: u64,
    now_micros: fn() -> u64,
}

impl RotatingFile {
    /// Opens the file at its end.
    pub(crate) fn open(path: &Path, rotation: &Rotation) -> io::Result<Self> {
        Self::with_clock(path, rotation, unix_micros)
    }

    fn with_clock(path: &Path, rotation: &Rotation, now_micros: fn() -> u64) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self {
            path: path.to_owned(),
            rotation: rotation.clone(),
            len: file.metadata()?.len(),
            file,
            now_micros,
        })
    }

    /// Puts the file aside and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = self.name_of(&time_text((self.now_micros)()));
        RealDisk.rename(&self.path, &self.directory().join(aside))?;
        self.file = append_to(&self.path)?;
        self.len = 0;
        // Files that stay although they should go are no reason to lose lines.
        let _ = self.prune();
        Ok(())
    }

    fn prune(&self) -> io::Result<()> {
        let mut aside: Vec<(String, OsString)> = RealDisk
            .read_dir(&self.directory())?
            .into_iter()
            .filter_map(|name| Some((self.time_of(name.to_str()?)?, name)))
            .collect();
        // Newest first.
        aside.sort_unstable_by(|a, b| b.cmp(a));
        let kept = match self.rotation.max_backups {
            0 => usize::MAX,
            kept => kept,
        };
        let max_age = self.rotation.max_age_days.saturating_mul(MICROS_PER_DAY);
        let oldest = match max_age {
            0 => String::new(),
            age => time_text((self.now_micros)().saturating_sub(age)),
        };
        for (at, (time, name)) in aside.iter().enumerate() {
            if at >= kept || *time < oldest {
                RealDisk.remove_file(&self.directory().join(name))?;
            }
        }
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        let parent = self.path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            parent.to_owned()
        }
    }

    /// Returns what stands before and after the time in names of files put aside.
    fn around_time(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.unwrap_or_default().to_string_lossy().into_owned()
        };
        let extension = match text(self.path.extension()) {
            extension if extension.is_empty() => extension,
            extension => format!(".{extension}"),
        };
        (format!("{}-", text(self.path.file_stem())), extension)
    }

    fn name_of(&self, time: &str) -> String {
        let (before, after) = self.around_time();
        format!("{before}{time}{after}")
    }

    /// Returns the time in the name of a file put aside; `None` for any other file.
    fn time_of(&self, name: &str) -> Option<String> {
        let (before, after) = self.around_time();
        let time = name.strip_prefix(&before)?.strip_suffix(&after)?;
        let is_time = time.len() == TIME_BYTES
            && time
                .bytes()
                .zip(*b"0000-00-00T00-00-00.000")
                .all(|(byte, form)| byte == form || (form == b'0' && byte.is_ascii_digit()));
        is_time.then(|| time.to_owned())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len > 0 && self.len + bytes.len() as u64 > self.rotation.max_bytes {
            self.rotate()?;
        }
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn unix_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Returns a time as it stands in names, which sort by it.
fn time_text(unix_micros: u64) -> String {
    let mut text = String::new();
    timestamp::write(&mut text, unix_micros);
    text.truncate(TIME_BYTES);
    text.replace(':', "-")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Moves on by a day each time it is read.
    fn days() -> u64 {
        static DAY: AtomicU64 = AtomicU64::new(20_000);
        DAY.fetch_add(1, Ordering::Relaxed) * MICROS_PER_DAY
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_has_grown_is_put_aside_and_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        File::create(dir.path().join("etcd-other.log")).unwrap();
        append_to(&path).unwrap().write_all(b"old line\n").unwrap();
        let rotation = Rotation {
            max_bytes: 20,
            max_backups: 2,
            max_age_days: 0,
        };
        let mut file = RotatingFile::with_clock(&path, &rotation, days).unwrap();
        file.write_all(b"line 1\n").unwrap();
        assert_eq!(names(dir.path()).len(), 2, "there is room");
        for line in 2..6 {
            file.write_all(format!("a longer line {line}\n").as_bytes())
                .unwrap();
        }
        file.flush().unwrap();
        let names = names(dir.path());
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"etcd-other.log".to_owned()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a longer line 5\n");
        let newest = names
            .iter()
            .filter(|n| n.starts_with("etcd-2"))
            .max()
            .unwrap();
        let text = fs::read_to_string(dir.path().join(newest)).unwrap();
        assert_eq!(text, "a longer line 4\n");
    }

    #[test]
    fn old_files_go_and_a_line_larger_than_a_file_is_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rotation = Rotation {
            max_bytes: 4,
            max_backups: 0,
            max_age_days: 3,
        };
        let mut file = RotatingFile::with_clock(&path, &rotation, days).unwrap();
        for _ in 0..10 {
            file.write_all(b"a long line\n").unwrap();
        }
        let names = names(dir.path());
        assert!((2..6).contains(&names.len()), "{names:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a long line\n");
    }

    #[test]
    fn names_carry_the_time() {
        assert_eq!(time_text(1_767_366_245_123_456), "2026-01-02T15-04-05.123");
    }
}
