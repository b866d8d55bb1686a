//! Disks that fill up or stall.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::failure::{Failure, Outcome};

/// A program that holds up the syncs of another; it is built where it is needed.
const SLOW_DISK_SOURCE: &str = include_str!("slow_disk.c");
/// The bytes of a write of the ballast.
const BALLAST_CHUNK: usize = 256 * 1_024;

/// A file system of its own, small enough to be filled. It is in memory, and goes with the process that mounted it last.
#[derive(Debug)]
pub(super) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Whether this process may mount one.
    pub(super) fn is_possible() -> bool {
        static POSSIBLE: OnceLock<bool> = OnceLock::new();
        *POSSIBLE.get_or_init(|| {
            let Ok(dir) = tempfile::tempdir() else {
                return false;
            };
            SmallDisk::mount(dir.path(), 1).is_ok()
        })
    }

    /// Mounts one of so many MiB on a directory.
    pub(super) fn mount(dir: &Path, mib: u64) -> Outcome<SmallDisk> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mib}m"));
        mount.arg("quorate-it").arg(dir);
        run(&mut mount)?;
        Ok(SmallDisk {
            dir: dir.to_path_buf(),
        })
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Takes all the space there is.
    pub(super) fn fill(&self) -> Outcome {
        let mut ballast = File::create(self.ballast())?;
        // The last bytes go in single blocks.
        for len in [BALLAST_CHUNK, 4_096] {
            while ballast.write_all(&vec![1; len]).is_ok() {}
        }
        Ok(())
    }

    /// Gives the space back.
    pub(super) fn free(&self) -> Outcome {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since a killed process may not be gone yet.
        let _ = run(Command::new("umount").arg("-l").arg(&self.dir));
    }
}

/// The file through which the syncs of a process are held up.
#[derive(Debug)]
pub(super) struct SlowDisk {
    control: PathBuf,
}

/// What holds up syncs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// None ends while this is set.
    pub hold: bool,
    /// Each takes so many milliseconds longer.
    pub delay_ms: u32,
    /// Each ends with this error instead, 0 for none.
    pub error: u32,
}

impl SlowDisk {
    /// Whether the program that does it can be built and works here.
    pub(super) fn is_possible() -> bool {
        let Ok(dir) = tempfile::tempdir() else {
            return false;
        };
        let Ok(disk) = SlowDisk::new(&dir.path().join("control")) else {
            return false;
        };
        disk.command(Path::new("true"))
            .is_ok_and(|mut command| run(&mut command).is_ok())
    }

    /// A disk that is not slow yet.
    pub(super) fn new(control: &Path) -> Outcome<SlowDisk> {
        File::create(control)?.write_all(&[0; 12])?;
        Ok(SlowDisk {
            control: control.to_path_buf(),
        })
    }

    /// The command to run a program on it.
    pub(super) fn command(&self, program: &Path) -> Outcome<Command> {
        let mut command = Command::new(helper()?);
        let program = match program.components().count() {
            1 => PathBuf::from("/bin").join(program),
            _ => program.to_path_buf(),
        };
        command.arg(&self.control).arg(program);
        Ok(command)
    }

    /// Changes how slow it is, at once.
    #[expect(
        clippy::host_endian_bytes,
        reason = "the helper is a program of this machine, which maps the file"
    )]
    pub(super) fn set(&self, stall: Stall) -> Outcome {
        let mut control = OpenOptions::new().write(true).open(&self.control)?;
        // The last number first: whoever is let go must see the error.
        for (place, number) in [
            (8, stall.error),
            (4, stall.delay_ms),
            (0, u32::from(stall.hold)),
        ] {
            control.seek(SeekFrom::Start(place))?;
            control.write_all(&number.to_ne_bytes())?;
        }
        Ok(())
    }
}

/// The helper program, built once by this process and left beside it.
fn helper() -> Outcome<PathBuf> {
    static HELPER: OnceLock<Outcome<PathBuf>> = OnceLock::new();
    let built = HELPER.get_or_init(|| {
        let own = std::env::current_exe()?;
        let beside = own.parent().ok_or_else(|| Failure::new("no directory"))?;
        let dir = tempfile::tempdir_in(beside)?;
        let (source, program) = (dir.path().join("slow_disk.c"), dir.path().join("slow_disk"));
        fs::write(&source, SLOW_DISK_SOURCE)?;
        run(Command::new("cc")
            .arg("-O1")
            .arg("-o")
            .arg(&program)
            .arg(&source))?;
        // Another process may do the same at this moment.
        let place = beside.join("slow_disk");
        fs::rename(&program, &place)?;
        Ok(place)
    });
    built.clone()
}

fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new(format!(
        "{command:?} ended with {}: {text}",
        output.status
    )))
}
