//! One member's process and what stays of it over its restarts.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::disk::{SlowDisk, SmallDisk, Stall};
use crate::binary::Binary;
use crate::failure::{Failure, Outcome};

/// The log line with which a server says that it serves.
const READY: &[u8] = b"ready to serve client requests";
/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between two looks at a process.
const POLL: Duration = Duration::from_millis(5);
/// The bytes of log shown when something is wrong.
const TAIL_BYTES: u64 = 3_000;
/// MiB of a disk that is to be filled: room for a few segments of the log, which are prepared ahead.
const SMALL_DISK_MIB: u64 = 320;

/// What the data lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskKind {
    /// Whatever the scratch directory lies on.
    #[default]
    Plain,
    /// A file system that can be filled; needs the right to mount one.
    Small,
    /// A disk whose syncs can be held up; needs a C compiler.
    Slow,
}

impl DiskKind {
    /// Why this cannot be had here, when it cannot.
    #[must_use]
    pub fn obstacle(self) -> Option<&'static str> {
        match self {
            DiskKind::Plain => None,
            DiskKind::Small if SmallDisk::is_possible() => None,
            DiskKind::Small => Some("it needs the right to mount a file system"),
            DiskKind::Slow if SlowDisk::is_possible() => None,
            DiskKind::Slow => Some("it needs a C compiler and a system that shows system calls"),
        }
    }
}

/// A member of a cluster under test.
#[derive(Debug)]
pub struct Member {
    /// Its name in the cluster, never used again.
    pub(super) name: String,
    /// The program it runs.
    pub(super) binary: Binary,
    /// Where clients reach it.
    pub(super) client_port: u16,
    /// Where it listens for the others.
    pub(super) peer_port: u16,
    /// Where the others reach it.
    pub(super) door_port: u16,
    /// Arguments after the usual ones.
    pub(super) args: Vec<String>,
    /// The members when it joined.
    pub(super) initial_cluster: String,
    /// Whether it joined a cluster that was there.
    pub(super) is_joining: bool,
    dir: PathBuf,
    small: Option<SmallDisk>,
    slow: Option<SlowDisk>,
    child: Option<Child>,
    log_start: u64,
    is_paused: bool,
}

impl Member {
    /// A member that was never started.
    pub(super) fn new(
        name: String,
        binary: Binary,
        ports: [u16; 3],
        dir: PathBuf,
        disk: DiskKind,
    ) -> Outcome<Member> {
        let data = dir.join("data");
        fs::create_dir_all(&data)?;
        let small = (disk == DiskKind::Small).then(|| SmallDisk::mount(&data, SMALL_DISK_MIB));
        let slow = (disk == DiskKind::Slow).then(|| SlowDisk::new(&dir.join("control")));
        let [client_port, peer_port, door_port] = ports;
        Ok(Member {
            name,
            binary,
            client_port,
            peer_port,
            door_port,
            args: Vec::new(),
            initial_cluster: String::new(),
            is_joining: false,
            small: small.transpose()?,
            slow: slow.transpose()?,
            dir,
            child: None,
            log_start: 0,
            is_paused: false,
        })
    }

    /// Host and port of the clients' side.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// The URL by which the others know it.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.door_port)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file with everything it printed.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where its data lies.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        // A file system cannot be removed, a directory on it can.
        self.dir.join("data").join("member-data")
    }

    /// Whether it was started and has not been seen to end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it is stopped by a signal.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The process, 0 when there is none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn command(&self) -> Outcome<Command> {
        let client = format!("http://{}", self.endpoint());
        let state = if self.is_joining { "existing" } else { "new" };
        let mut command = match &self.slow {
            Some(slow) => slow.command(self.binary.path())?,
            None => Command::new(self.binary.path()),
        };
        command
            .current_dir(&self.dir)
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!(
                "--listen-peer-urls=http://127.0.0.1:{}",
                self.peer_port
            ))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url()))
            .arg("--initial-cluster-token=chaos")
            .arg(format!("--initial-cluster={}", self.initial_cluster))
            .arg(format!("--initial-cluster-state={state}"))
            .args(&self.args)
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    /// Starts it without waiting for it to serve.
    ///
    /// # Panics
    /// It is running.
    pub(super) fn spawn(&mut self) -> Outcome {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        self.log_start = log.metadata()?.len();
        let mut command = self.command()?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .map_err(|e| Failure::from(e).during("starting a member"))?;
        self.child = Some(child);
        self.is_paused = false;
        Ok(())
    }

    /// Whether this start has said that it serves.
    pub(super) fn is_ready(&self) -> bool {
        let log = read_from(&self.log_path(), self.log_start).unwrap_or_default();
        log.windows(READY.len()).any(|window| window == READY)
    }

    /// Waits until it serves.
    pub(super) fn wait_ready(&mut self) -> Outcome {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_ready() {
            if let Some(status) = self.poll()? {
                return Err(self.failure(&format!("ended with {status} while it started")));
            }
            if Instant::now() > deadline {
                return Err(self.failure("did not get ready"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it has ended, and how. Afterwards it is not running.
    pub(super) fn poll(&mut self) -> Outcome<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// Kills it.
    pub(super) fn kill(&mut self) -> Outcome {
        if let Some(status) = self.poll()? {
            return Err(self.failure(&format!("had ended by itself with {status}")));
        }
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        self.is_paused = false;
        Ok(())
    }

    /// Sends it a signal.
    pub(super) fn signal(&mut self, signal: Signal) -> Outcome {
        let Some(child) = &self.child else {
            return Err(Failure::new(format!("{} is not running", self.name)));
        };
        kill_process(Pid::from_child(child), signal).map_err(|e| Failure::new(e.to_string()))?;
        match signal {
            Signal::STOP => self.is_paused = true,
            Signal::CONT => self.is_paused = false,
            _ => {}
        }
        Ok(())
    }

    /// Waits until it has ended.
    pub(super) fn wait_end(&mut self) -> Outcome<ExitStatus> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if self.child.is_none() {
                return Err(Failure::new(format!("{} was not running", self.name)));
            }
            if Instant::now() > deadline {
                return Err(self.failure("does not end"));
            }
            thread::sleep(POLL);
        }
    }

    /// Removes its data.
    pub(super) fn wipe(&mut self) -> Outcome {
        assert!(self.child.is_none(), "{} is running", self.name);
        match fs::remove_dir_all(self.data_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes all the space on its disk, or gives it back.
    pub(super) fn fill_disk(&self, is_full: bool) -> Outcome {
        let Some(small) = &self.small else {
            return Err(Failure::new(format!("{} is on no small disk", self.name)));
        };
        if is_full { small.fill() } else { small.free() }
    }

    /// Holds up its syncs.
    pub(super) fn stall_disk(&self, stall: Stall) -> Outcome {
        let Some(slow) = &self.slow else {
            return Err(Failure::new(format!("{} is on no slow disk", self.name)));
        };
        slow.set(stall)
    }

    /// User and system time of the process so far.
    pub(super) fn cpu(&self) -> Outcome<Duration> {
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let odd = || Failure::new("odd stat line");
        let fields = stat.rsplit_once(')').ok_or_else(odd)?.1;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: Vec<u32> = ticks.filter_map(|field| field.parse().ok()).collect();
        match ticks[..] {
            [user, system] => Ok(TICK * (user + system)),
            _ => Err(odd()),
        }
    }

    /// A failure with the end of the log.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let log = self.log_path();
        let len = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let tail = read_from(&log, len.saturating_sub(TAIL_BYTES)).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail);
        Failure::new(format!("{} {what}:\n{tail}", self.name))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended in between; then there is nothing left to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_from(path: &Path, start: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
