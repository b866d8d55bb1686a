//! The command line against the server, as etcdctl 3.7.1 against etcd 3.7.1.
//!
//! `ctl_script.txt` holds command lines, after `----` what is printed (`! ` before lines of standard error) and the exit status. With
//! `QUORATE_REWRITE` set the expected part is written anew from whatever `QUORATECTL_BIN` and `QUORATE_BIN` name, which were the
//! real etcdctl and etcd. Ids, ports, leases and times are masked.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use quorate_integration_tests::{Binary, Site};

/// How long a command may run that does not end by itself.
const ENDLESS: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);

/// The command line under test, linked under etcdctl's name, by which it calls itself.
fn program(dir: &Path) -> PathBuf {
    let own = env::current_exe().unwrap();
    let beside = own.ancestors().nth(2).unwrap().join("quoratectl");
    let path = env::var_os("QUORATECTL_BIN").map_or(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --bin quoratectl` first, or set QUORATECTL_BIN",
        path.display()
    );
    let link = dir.join("etcdctl");
    std::os::unix::fs::symlink(path, &link).unwrap();
    link
}

struct Session {
    program: PathBuf,
    endpoint: String,
    /// Texts that differ from run to run, and what stands for them.
    masks: Vec<(String, &'static str)>,
    lease: String,
}

impl Session {
    fn new(program: PathBuf, endpoint: String) -> Session {
        let mut session = Session {
            program,
            masks: vec![(endpoint.clone(), "ENDPOINT")],
            endpoint,
            lease: String::new(),
        };
        session.learn_ids();
        session
    }

    /// Asks for the ids that are made of ports.
    fn learn_ids(&mut self) {
        let answer = self.run("member list -w json", "");
        let field = |name: &str| {
            let from = answer.find(name).unwrap() + name.len();
            let digits = answer[from..].chars().take_while(char::is_ascii_digit);
            digits.collect::<String>()
        };
        let peer = answer
            .split("\"peerURLs\":[\"http://")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned();
        self.masks.push((peer, "PEER"));
        for (name, mask) in [("\"cluster_id\":", "CLUSTER"), ("\"member_id\":", "MEMBER")] {
            let id = field(name);
            let hex = format!("{:x}", id.parse::<u64>().unwrap());
            self.masks.push((id, mask));
            self.masks.push((hex, mask));
        }
    }

    /// Runs one line; gives what it prints, masked, and how it ends.
    fn run(&mut self, line: &str, stdin: &str) -> String {
        let line = line.replace("$LEASE", &self.lease);
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .arg("--endpoints")
            .arg(&self.endpoint)
            .args(split(&line));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that wants no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let is_endless = line.starts_with("watch ") || line.starts_with("lease keep-alive");
        let ended = wait(&mut child, if is_endless { ENDLESS } else { LIMIT });
        let out = read(child.stdout.take().unwrap());
        let errors = read(child.stderr.take().unwrap());
        if let Some(lease) = out
            .strip_prefix("lease ")
            .filter(|_| line.starts_with("lease grant"))
        {
            self.lease = lease[..16].to_owned();
            self.masks.push((self.lease.clone(), "LEASE"));
            let number = i64::from_str_radix(&self.lease, 16).unwrap().to_string();
            self.masks.push((number, "LEASE"));
        }
        let own = |line: &&str| !line.starts_with("{\"level\"") && !line.starts_with("stty:");
        let errors: String = errors
            .lines()
            .filter(own)
            .map(|line| format!("! {line}\n"))
            .collect();
        self.mask(format!("{out}{errors}{ended}"))
    }

    fn mask(&self, mut text: String) -> String {
        for (from, to) in &self.masks {
            text = text.replace(from, to);
        }
        let lines = text.lines().map(|line| match line.split_once("took = ") {
            Some((before, _)) => format!("{before}took = TIME"),
            None => line.trim_end().to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn read(mut from: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a command ended, after it was killed if it had to be.
fn wait(child: &mut Child, limit: Duration) -> String {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return format!("exit {}", status.code().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    "does not end".to_owned()
}

/// The words of a line; `'...'` is one.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), line.trim());
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[test]
fn the_command_line_prints_what_etcdctl_prints() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ctl_script.txt");
    let text = fs::read_to_string(&script).unwrap();
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let _server = site.start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::new(program(dir.path()), site.endpoint());
    let (mut fresh, mut wrong) = (String::new(), Vec::new());
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (line, want) = block
            .split_once("\n----\n")
            .unwrap_or((block.trim_end(), ""));
        let (command, stdin) = line.split_once(" <<< ").unwrap_or((line, ""));
        let got = session.run(command, &stdin.replace("\\n", "\n"));
        // An empty line would end the block.
        let got = got.replace("\n\n", "\n~\n").replace("\n\n", "\n~\n");
        let got = if got.starts_with('\n') {
            format!("~{got}")
        } else {
            got
        };
        if got != want.trim_end() {
            wrong.push(format!("{line}\n  want {want:?}\n  got  {got:?}"));
        }
        fresh += &format!("{line}\n----\n{got}\n\n");
    }
    if env::var_os("QUORATE_REWRITE").is_some() {
        fs::write(script, fresh.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    assert!(
        wrong.is_empty(),
        "{} answers differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
