//! Compares `quoratectl snapshot save|status|restore` with etcdctl's and etcdutl's: time, processor time and peak memory of the
//! commands, each beside its own server with the same keys.
//!
//! ```text
//! compare_backups --quorate PATH --etcd PATH --tool PATH --quoratectl PATH --etcdctl PATH --etcdutl PATH [--rounds 3] [--scale 1.0]
//! ```
//!
//! Time and memory of a command are looked at while it runs, every few milliseconds: what it does in its last ones is missed.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for a terminal"
)]
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_benches::{Outcome, Settings};
use quorate_integration_tests::Binary;
use quorate_integration_tests::cluster::{Cluster, DiskKind, Setup};

/// Keys of each server, at scale 1.
const KEYS: u64 = 1_000_000;
const FILL: &str = "--clients 500 --conns 100 put --key-size 32 --val-size 256 --key-space-size 1000000 --sequential-keys --total {n}";
/// The time between two looks at a command.
const LOOK: Duration = Duration::from_millis(2);
/// Seconds of a clock tick of the system.
const TICK_S: f64 = 0.01;

/// What a command took.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    seconds: f64,
    cpu_s: f64,
    peak_mb: f64,
}

fn main() -> Outcome<()> {
    let settings = Settings::parse(&["--quoratectl", "--etcdctl", "--etcdutl"])?;
    settings.tool()?;
    let mut table: BTreeMap<(usize, &str), Vec<Figures>> = BTreeMap::new();
    for (name, binary) in &settings.servers {
        let is_ours = *name == "quorate";
        let (client, utility) = if is_ours {
            ("--quoratectl", "--quoratectl")
        } else {
            ("--etcdctl", "--etcdutl")
        };
        let cluster = start(binary)?;
        fill(&settings, &cluster)?;
        let file = cluster.dir().join("backup.db");
        let restored = cluster.dir().join("restored");
        let endpoint = format!("--endpoints={}", cluster.member(0).endpoint());
        let into = format!("--data-dir={}", restored.display());
        let backup = file.display().to_string();
        for round in 0..settings.rounds {
            let commands: [(&Path, &[&str]); 3] = [
                (
                    settings.path(client)?,
                    &[&endpoint, "snapshot", "save", &backup],
                ),
                (settings.path(utility)?, &["snapshot", "status", &backup]),
                (
                    settings.path(utility)?,
                    &["snapshot", "restore", &backup, &into],
                ),
            ];
            for (number, (program, args)) in commands.into_iter().enumerate() {
                let figures = measure(program, args)?;
                eprintln!("{} of {name}, round {round}: {figures:?}", WHAT[number]);
                table.entry((number, name)).or_default().push(figures);
            }
            fs::remove_dir_all(&restored)?;
        }
        println!("{name}'s backup has {} bytes", fs::metadata(&file)?.len());
    }
    print_table(&table);
    Ok(())
}

const WHAT: [&str; 3] = ["snapshot save", "snapshot status", "snapshot restore"];

fn start(binary: &Binary) -> Outcome<Cluster> {
    Ok(Cluster::start(&Setup {
        binaries: vec![binary.clone()],
        members: 1,
        disk: DiskKind::Plain,
        args: vec!["--quota-backend-bytes=8000000000".to_owned()],
        seed: 1,
        is_direct: true,
    })?)
}

fn fill(settings: &Settings, cluster: &Cluster) -> Outcome<()> {
    let keys = settings.scaled(KEYS).to_string();
    let words = FILL.split(' ').map(|word| word.replace("{n}", &keys));
    let status = Command::new(settings.tool()?)
        .args(["--endpoints", &cluster.member(0).endpoint()])
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the tool ended with {status}").into())
    }
}

/// Runs a command to its end.
fn measure(program: &Path, args: &[&str]) -> Outcome<Figures> {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let mut figures = Figures::default();
    let status = loop {
        // Nothing can be read of one that has just ended; what was seen before stands.
        if let Some(seen) = look(child.id()) {
            figures = seen;
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        sleep(LOOK);
    };
    figures.seconds = begun.elapsed().as_secs_f64();
    if status.success() {
        return Ok(figures);
    }
    // A few lines, which wait in the pipe.
    let said = child.wait_with_output()?.stderr;
    let said = String::from_utf8_lossy(&said);
    Err(format!("{} {args:?} ended with {status}: {said}", program.display()).into())
}

/// Reads processor time and peak memory of a process.
fn look(pid: u32) -> Option<Figures> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().ok());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kb: f64 = peak.split_whitespace().next()?.parse().ok()?;
    Some(Figures {
        seconds: 0.0,
        cpu_s: ticks.sum::<Option<f64>>()? * TICK_S,
        peak_mb: peak_kb / 1024.0,
    })
}

fn print_table(table: &BTreeMap<(usize, &str), Vec<Figures>>) {
    println!("\n| command | program | s | CPU s | peak memory MB |");
    println!("|---|---|---|---|---|");
    for ((number, name), rounds) in table {
        let median = |of: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "| {} | {name} | {:.2} | {:.2} | {:.0} |",
            WHAT[*number],
            median(|f| f.seconds),
            median(|f| f.cpu_s),
            median(|f| f.peak_mb),
        );
    }
}
