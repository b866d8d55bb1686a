//! A server process on a scratch directory.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binary::Binary;
use crate::failure::{Failure, Outcome};
use crate::ports::free_port;

/// The log line with which a server says that it serves.
const READY: &str = "ready to serve client requests";
/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between two looks at a process.
const POLL: Duration = Duration::from_millis(10);
/// The bytes of log shown when something is wrong.
const TAIL_BYTES: usize = 4_000;

/// What stays of a server over its restarts: directory, ports and arguments. Removed at the end.
#[derive(Debug)]
pub struct Site {
    binary: Binary,
    dir: TempDir,
    client_port: u16,
    peer_port: u16,
    extra: Vec<String>,
    data_dir: PathBuf,
    file_limit: Option<u64>,
}

impl Site {
    /// A new place for a server, nothing started yet.
    ///
    /// # Errors
    /// The scratch directory cannot be made.
    pub fn new(binary: &Binary) -> Outcome<Site> {
        let dir = tempfile::Builder::new().prefix("quorate-it-").tempdir()?;
        Ok(Site {
            binary: binary.clone(),
            data_dir: dir.path().join("data"),
            file_limit: None,
            dir,
            client_port: free_port(),
            peer_port: free_port(),
            extra: Vec::new(),
        })
    }

    /// A second place on the same data, with ports of its own.
    ///
    /// # Errors
    /// The scratch directory cannot be made.
    pub fn twin(&self) -> Outcome<Site> {
        let mut twin = Site::new(&self.binary)?;
        twin.data_dir = self.data_dir();
        Ok(twin)
    }

    /// Uses another data directory.
    #[must_use]
    pub fn with_data_dir(mut self, dir: &Path) -> Site {
        self.data_dir = dir.to_path_buf();
        self
    }

    /// No file may grow beyond so many bytes; a write that would makes an error, as on a full disk.
    #[must_use]
    pub fn with_file_limit(mut self, bytes: Option<u64>) -> Site {
        self.file_limit = bytes;
        self
    }

    /// Adds arguments to every start.
    #[must_use]
    pub fn with_args(mut self, args: &[&str]) -> Site {
        self.extra.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Host and port of the clients' side.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// Everything the server ever printed.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The server's program, through a shell where files are to be limited: with the signal that comes with the limit ignored, what
    /// is left is an error of the write.
    fn program(&self) -> Command {
        let Some(bytes) = self.file_limit else {
            return Command::new(self.binary.path());
        };
        let mut shell = Command::new("sh");
        let blocks = bytes / 512;
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(self.binary.path());
        shell
    }

    /// The command that starts the server.
    fn command(&self) -> Command {
        let client = format!("http://{}", self.endpoint());
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = self.program();
        // As in the directory of its data, so that nothing lands in the working directory of the tests.
        command
            .current_dir(self.dir.path())
            .arg("--name=default")
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .args(&self.extra)
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts the server without waiting for it to serve.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn spawn(&self) -> Outcome<Server> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let log_start = log.metadata()?.len();
        let mut command = self.command();
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .map_err(|e| Failure::from(e).during("starting the server"))?;
        Ok(Server {
            child,
            log_path: self.log_path(),
            log_start,
            ended: None,
        })
    }

    /// Starts the server and waits until it serves.
    ///
    /// # Errors
    /// It ended or did not serve in time; the text has the end of its log.
    pub fn start(&self) -> Outcome<Server> {
        let mut server = self.spawn()?;
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts the server where it must refuse to run; gives its exit status and what it printed.
    ///
    /// # Errors
    /// It serves, or does not end in time.
    pub fn start_refused(&self) -> Outcome<(ExitStatus, String)> {
        let mut server = self.spawn()?;
        match server.wait_ready() {
            Ok(()) => Err(Failure::new(format!(
                "the server runs where it must not:\n{}",
                server.log_tail()
            ))),
            Err(failure) => match server.ended {
                Some(status) => Ok((status, server.log_since_start())),
                None => Err(failure),
            },
        }
    }
}

/// A running server, killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log_path: PathBuf,
    /// Where this start's output begins in the log.
    log_start: u64,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Waits for the line that says that it serves.
    ///
    /// # Errors
    /// It ended, or the time is up.
    pub fn wait_ready(&mut self) -> Outcome {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if self.log_since_start().contains(READY) {
                return Ok(());
            }
            if let Some(status) = self.poll()? {
                return Err(Failure::new(format!(
                    "the server ended with {status}:\n{}",
                    self.log_tail()
                )));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the server did not get ready:\n{}",
                    self.log_tail()
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Kills it as a power cut would, as far as a process can tell.
    ///
    /// # Errors
    /// It had ended before by itself.
    pub fn kill(&mut self) -> Outcome {
        if let Some(status) = self.poll()? {
            return Err(Failure::new(format!(
                "the server had ended by itself with {status}:\n{}",
                self.log_tail()
            )));
        }
        self.child.kill()?;
        self.ended = Some(self.child.wait()?);
        Ok(())
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// It had ended before, or does not end in time.
    pub fn terminate(&mut self) -> Outcome<ExitStatus> {
        if let Some(status) = self.poll()? {
            return Err(Failure::new(format!(
                "the server had ended by itself with {status}:\n{}",
                self.log_tail()
            )));
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).map_err(|e| Failure::new(e.to_string()))?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the server does not end:\n{}",
                    self.log_tail()
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// The system does not say.
    pub fn poll(&mut self) -> Outcome<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// The memory it occupies, in bytes.
    ///
    /// # Errors
    /// The system does not say.
    pub fn resident_bytes(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1_024)
            .ok_or_else(|| Failure::new("no resident set size"))
    }

    /// What this start of the server printed.
    #[must_use]
    pub fn log_since_start(&self) -> String {
        let bytes = read_from(&self.log_path, self.log_start).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log_since_start();
        let mut from = log.len().saturating_sub(TAIL_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended in between; then there is nothing left to do.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_from(path: &Path, start: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Seek as _;
    let mut file = File::open(path)?;
    file.seek(std::io::SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
