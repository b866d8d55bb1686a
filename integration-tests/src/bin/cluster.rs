//! Runs a cluster of three members on this machine until it is told to end: see the usage below.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use quorate_integration_tests::{Binary, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

const USAGE: &str = "usage: cluster [--dir DIR] [--binaries PATH,PATH,..] [--fresh true]

  --dir       where data and logs lie, target/cluster unless said; a cluster that is there goes on
  --binaries  programs of the members, in turn: Quorate's unless said
  --fresh     removes what is there first";

/// Names and ports for clients and for members, as in etcd's Procfile.
const MEMBERS: [(&str, u16, u16); 3] = [
    ("infra1", 2379, 12380),
    ("infra2", 22379, 22380),
    ("infra3", 32379, 32380),
];
/// The log line with which a member says that it serves.
const READY: &str = "ready to serve client requests";
/// How long members may take to end before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two looks.
const LOOK: Duration = Duration::from_millis(100);

struct Running {
    name: &'static str,
    log: PathBuf,
    /// How it was started.
    command: String,
    child: Child,
    is_told: bool,
    has_ended: bool,
}

fn main() -> ExitCode {
    match arguments().and_then(|(dir, binaries)| run(&dir, &binaries)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // Nobody is left to tell when standard output is gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn arguments() -> Outcome<(PathBuf, Vec<Binary>)> {
    let (mut dir, mut binaries, mut is_fresh) =
        (PathBuf::from("target/cluster"), Vec::new(), false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| Failure::new(USAGE))?;
        match arg.as_str() {
            "--dir" => dir = PathBuf::from(value),
            "--fresh" => is_fresh = value == "true",
            "--binaries" => {
                let paths = value.split(',').map(|path| Binary::at(Path::new(path)));
                binaries = paths.collect::<Outcome<_>>()?;
            }
            _ => return Err(Failure::new(USAGE)),
        }
    }
    if binaries.is_empty() {
        binaries.push(Binary::quorate()?);
    }
    if is_fresh && dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok((dir.canonicalize()?, binaries))
}

fn run(dir: &Path, binaries: &[Binary]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before the members, so that none outlives this.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut members = Vec::new();
        for (place, _) in MEMBERS.iter().enumerate() {
            match start(dir, place, &binaries[place % binaries.len()]) {
                Ok(member) => members.push(member),
                Err(failure) => {
                    stop(&mut members).await;
                    return Err(failure);
                }
            }
        }
        let outcome = tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            failure = watch(&mut members) => Err(failure),
        };
        stop(&mut members).await;
        outcome
    })
}

fn start(dir: &Path, place: usize, binary: &Binary) -> Outcome<Running> {
    let (name, client, peer) = MEMBERS[place];
    let log = dir.join(format!("{name}.log"));
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let initial = MEMBERS.map(|(name, _, peer)| format!("{name}={}", url(peer)));
    let file = File::create(&log)?;
    let mut command = Command::new(binary.path());
    command
        .arg(format!("--name={name}"))
        .arg(format!(
            "--data-dir={}",
            dir.join(format!("{name}.etcd")).display()
        ))
        .arg(format!("--listen-client-urls={}", url(client)))
        .arg(format!("--advertise-client-urls={}", url(client)))
        .arg(format!("--listen-peer-urls={}", url(peer)))
        .arg(format!("--initial-advertise-peer-urls={}", url(peer)))
        .arg("--initial-cluster-token=etcd-cluster-1")
        .arg(format!("--initial-cluster={}", initial.join(",")))
        .arg("--initial-cluster-state=new");
    let text = shown(&command);
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        // A Ctrl-C is for this process, which tells the members.
        .process_group(0)
        .spawn()?;
    say(&format!(
        "{name}: clients at {}, log in {}",
        url(client),
        log.display()
    ));
    Ok(Running {
        name,
        log,
        command: text,
        child,
        is_told: false,
        has_ended: false,
    })
}

/// Returns a command as it is typed.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Tells when members serve, and when one has ended and how to start it again; ends when one does not start, or when all
/// have ended.
async fn watch(members: &mut [Running]) -> Failure {
    let endpoints = MEMBERS
        .map(|(_, client, _)| format!("127.0.0.1:{client}"))
        .join(",");
    let mut is_whole = false;
    loop {
        for member in members.iter_mut() {
            if member.has_ended {
                continue;
            }
            match member.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) if member.is_told => {
                    member.has_ended = true;
                    let (name, command) = (member.name, &member.command);
                    say(&format!(
                        "{name} ended, {status}; the others go on. To start it again:\n  {command}"
                    ));
                }
                ended => {
                    member.has_ended = true;
                    let (name, log) = (member.name, member.log.display());
                    return Failure::new(format!("{name} ended, {ended:?}; its log is {log}"));
                }
            }
            let has_ready = || fs::read_to_string(&member.log).is_ok_and(|log| log.contains(READY));
            if !member.is_told && has_ready() {
                member.is_told = true;
                say(&format!("{} serves", member.name));
            }
        }
        if members.iter().all(|member| member.has_ended) {
            return Failure::new("all members have ended");
        }
        if !is_whole && members.iter().all(|member| member.is_told) {
            is_whole = true;
            say(&format!(
                "the cluster serves at {endpoints}; Ctrl-C ends it"
            ));
        }
        sleep(LOOK).await;
    }
}

/// Tells every member to end, and sees that they do.
async fn stop(members: &mut [Running]) {
    for member in members.iter().filter(|member| !member.has_ended) {
        // One that has ended meanwhile needs no signal.
        let _ = kill_process(Pid::from_child(&member.child), Signal::TERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    for member in members.iter_mut().filter(|member| !member.has_ended) {
        while matches!(member.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                say(&format!("{} does not end and is killed", member.name));
                let _ = member.child.kill();
            }
            sleep(LOOK / 10).await;
        }
        say(&format!("{} ended", member.name));
    }
}
