//! A look at the data directory before anything in it is touched, and what an operator is told of it.
//!
//! Source: etcd v3.7.1 server/etcdmain/etcd.go `identifyDataDirOrDie`, client/pkg/fileutil/fileutil.go
//! `CheckDirPermission`.
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::log::{Level, Logger, Record};

/// What nobody but the owner may do anything with.
const PRIVATE_MODE: u32 = 0o700;
const PERMISSION_BITS: u32 = 0o777;
/// Most names that are told of.
const NAMES_MAX: usize = 20;

/// Says what the directory holds.
///
/// # Errors
///
/// When it holds what no server of this kind can start with, or cannot be listed.
pub(crate) fn inspect(dir: &Path, logger: &Logger) -> Result<(), String> {
    let shown = || dir.to_string_lossy().into_owned();
    let names: Vec<String> = match fs::read_dir(dir) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(format!("failed to list data directory {}: {e}", shown())),
    };
    let has = |name: &str| names.iter().any(|known| known == name);
    let others = names
        .iter()
        .filter(|name| !matches!(name.as_str(), "member" | "proxy"));
    for name in others.take(NAMES_MAX) {
        logger.write(
            &Record::new(Level::Warn, "found invalid file under data directory")
                .text("filename", name.as_str())
                .text("data-dir", shown()),
        );
    }
    if has("proxy") {
        return Err(if has("member") {
            "invalid datadir; both member and proxy directories exist".to_owned()
        } else {
            "v2 http proxy has already been deprecated in 3.6".to_owned()
        });
    }
    let (message, kind) = if has("member") {
        ("server has already been initialized", "member")
    } else {
        ("Initialize and start etcd server", "empty")
    };
    logger.write(
        &Record::new(Level::Info, message)
            .text("data-dir", shown())
            .text("dir-type", kind),
    );
    for path in [dir.to_owned(), dir.join("member")] {
        if let Some(warning) = loose_permission(&path) {
            logger.write(&Record::new(Level::Warn, "check file permission").text("error", warning));
        }
    }
    Ok(())
}

/// Returns a warning when others than the owner may use a directory.
fn loose_permission(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & PERMISSION_BITS;
    (mode != PRIVATE_MODE).then(|| {
        format!(
            "directory {:?} exist, but the permission is {:?}. The recommended permission is {:?} to prevent possible \
             unprivileged access to the data",
            path.to_string_lossy(),
            mode_text('d', mode),
            mode_text('-', PRIVATE_MODE),
        )
    })
}

/// Prints permissions as `ls` does.
fn mode_text(kind: char, mode: u32) -> String {
    let bit = |at: u32, letter: char| if mode & (1 << at) == 0 { '-' } else { letter };
    let bits = (0..9)
        .rev()
        .zip("rwxrwxrwx".chars())
        .map(|(at, letter)| bit(at, letter));
    std::iter::once(kind).chain(bits).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};

    use super::*;
    use crate::log::Format;

    fn logger() -> Logger {
        Logger::with_sinks(Level::Info, Format::Json, Vec::new()).unwrap()
    }

    #[test]
    fn a_proxys_directory_is_refused_and_a_new_or_known_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert_eq!(inspect(&missing, &logger()), Ok(()));
        assert!(!missing.exists());
        assert_eq!(inspect(dir.path(), &logger()), Ok(()));
        create_dir(dir.path().join("member")).unwrap();
        create_dir(dir.path().join("lost+found")).unwrap();
        assert_eq!(inspect(dir.path(), &logger()), Ok(()));
        create_dir(dir.path().join("proxy")).unwrap();
        assert!(inspect(dir.path(), &logger()).unwrap_err().contains("both"));
        fs::remove_dir(dir.path().join("member")).unwrap();
        assert!(inspect(dir.path(), &logger()).is_err());
        let file = dir.path().join("file");
        fs::File::create(&file).unwrap();
        assert!(inspect(&file, &logger()).is_err());
    }

    #[test]
    fn permissions_for_others_are_warned_about_in_etcds_words() {
        let dir = tempfile::tempdir().unwrap();
        set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let warning = loose_permission(dir.path()).unwrap();
        let expected = format!(
            "directory {:?} exist, but the permission is \"drwxr-xr-x\". The recommended permission is \"-rwx------\" to \
             prevent possible unprivileged access to the data",
            dir.path().to_str().unwrap()
        );
        assert_eq!(warning, expected);
        set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(loose_permission(dir.path()), None);
    }
}
