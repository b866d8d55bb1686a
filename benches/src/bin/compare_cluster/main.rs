//! Compares clusters of three members with etcd's: how long they take no writes when something happens to a member, and what they
//! cost under etcd's own `benchmark` tool.
//!
//! ```text
//! compare_cluster --quorate target/release/quorate --etcd PATH [--tool PATH] [--rounds 3] [--only NAME] [--scale 1.0]
//! ```
//!
//! Everything runs on one machine, in turn, with equal flags. A gap is the longest time between two acknowledged writes of a steady
//! stream to all members, one every 2 ms, from the fault on. CPU is user and system time of all members. Without `--tool` only the
//! gaps are measured; those of stalled disks need a C compiler.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for a terminal"
)]
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_benches::{Outcome, Settings};
use quorate_integration_tests::Binary;
use quorate_integration_tests::cluster::{Cluster, DiskKind, Place, Probe, Setup, Stall};

mod snapshots;

/// How long the stream is watched after a fault.
const AFTER: Duration = Duration::from_secs(5);
/// How long a cluster is left alone before a fault: long enough for members to know that their links are sound.
const BEFORE: Duration = Duration::from_secs(6);
/// How long a disk stands still.
const STALL: Duration = Duration::from_secs(1);
/// What happens to a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    None,
    KillLeader,
    StopLeader,
    StallLeader,
    StallFollower,
}

const FAULTS: [(Fault, &str); 5] = [
    (Fault::None, "nothing happens"),
    (Fault::KillLeader, "SIGKILL of the leader"),
    (Fault::StopLeader, "SIGTERM of the leader"),
    (Fault::StallLeader, "one-second disk stall on the leader"),
    (Fault::StallFollower, "one-second disk stall on a follower"),
];

/// Which members the tool talks to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Leader,
    All,
}

struct Load {
    name: &'static str,
    to: To,
    /// Arguments of the tool; `{n}` is the number of operations.
    load: &'static str,
    before: &'static str,
    operations: u64,
}

const LOADS: [Load; 4] = [
    Load {
        name: "put, 1000 clients on 100 connections, 256 B, all members",
        to: To::All,
        load: "--clients 1000 --conns 100 put --key-size 32 --val-size 256 --key-space-size 100000 --total {n}",
        before: "",
        operations: 100_000,
    },
    Load {
        name: "put, 1 client, 256 B, leader",
        to: To::Leader,
        load: "--clients 1 --conns 1 put --key-size 32 --val-size 256 --key-space-size 100000 --total {n}",
        before: "",
        operations: 4_000,
    },
    Load {
        name: "range one key, linearizable, 1000/100, all members",
        to: To::All,
        load: "--clients 1000 --conns 100 range {key} --consistency l --total {n}",
        before: ONE_KEY,
        operations: 150_000,
    },
    Load {
        name: "range one key, linearizable, 1 client, leader",
        to: To::Leader,
        load: "--clients 1 --conns 1 range {key} --consistency l --total {n}",
        before: ONE_KEY,
        operations: 10_000,
    },
];

const ONE_KEY: &str = "--clients 1 --conns 1 put --key-size 1 --key-space-size 2 --sequential-keys --val-size 256 --total 2";

/// The figures of all rounds by case and server; which figures depends on the case.
type Table<const N: usize> = BTreeMap<(String, &'static str), Vec<[f64; N]>>;

fn main() -> Outcome<()> {
    let settings = Settings::parse(&[])?;
    let gaps = measure_gaps(&settings)?;
    print_table(
        "longest time without a write, ms",
        ["median", "worst"],
        &gaps,
        |rounds| {
            let worst = rounds.iter().map(|[gap]| *gap).fold(0.0, f64::max);
            vec![median(rounds, 0), worst]
        },
    );
    if settings.tool.is_some() {
        let loads = measure_loads(&settings)?;
        print_table(
            "load",
            ["rate /s", "p50 ms", "p99 ms", "CPU of all members µs/op"],
            &loads,
            |rounds| (0..4).map(|figure| median(rounds, figure)).collect(),
        );
        let (times, puts) = snapshots::measure(&settings)?;
        print_table("catching up", ["s"], &times, |rounds| {
            vec![median(rounds, 0)]
        });
        print_table(
            "1,000 puts/s on the leader, ms",
            ["p50", "p99"],
            &puts,
            |rounds| vec![median(rounds, 0), median(rounds, 1)],
        );
    }
    Ok(())
}

fn start(binary: &Binary, disk: DiskKind) -> Outcome<Cluster> {
    let args = ["--quota-backend-bytes=8000000000"];
    Ok(Cluster::start(&Setup {
        binaries: vec![binary.clone()],
        members: 3,
        disk,
        args: args.map(str::to_owned).to_vec(),
        seed: 1,
        is_direct: true,
    })?)
}

fn measure_gaps(settings: &Settings) -> Outcome<Table<1>> {
    let mut table = Table::new();
    for round in 0..settings.rounds {
        for (name, binary) in &settings.servers {
            for (fault, what) in FAULTS {
                let is_stall = matches!(fault, Fault::StallLeader | Fault::StallFollower);
                let disk = if is_stall {
                    DiskKind::Slow
                } else {
                    DiskKind::Plain
                };
                if !settings.wants(what) {
                    continue;
                }
                if let Some(obstacle) = disk.obstacle() {
                    eprintln!("{what} is left out: {obstacle}");
                    continue;
                }
                let gap = gap(&mut start(binary, disk)?, fault)?;
                eprintln!("{what}, round {round}, {name}: {gap:.0} ms");
                table
                    .entry((what.to_owned(), *name))
                    .or_default()
                    .push([gap]);
            }
        }
    }
    Ok(table)
}

/// The longest time without a write from the fault on, in milliseconds.
fn gap(cluster: &mut Cluster, fault: Fault) -> Outcome<f64> {
    let leader = cluster.wait_leader()?;
    let follower = cluster
        .places()
        .into_iter()
        .find(|place| *place != leader)
        .unwrap_or(leader);
    let probe = Probe::start(&cluster.sites())?;
    sleep(BEFORE);
    let begun = Instant::now();
    match fault {
        Fault::None => {}
        Fault::KillLeader => cluster.kill(leader)?,
        Fault::StopLeader => cluster.begin_stop(leader)?,
        Fault::StallLeader => stall(cluster, leader)?,
        Fault::StallFollower => stall(cluster, follower)?,
    }
    sleep(AFTER);
    let times = probe.finish()?;
    let end = begun + AFTER;
    // The last write before the fault begins the first gap.
    let mut last = times
        .iter()
        .rfind(|time| **time < begun)
        .copied()
        .unwrap_or(begun);
    let mut longest = Duration::ZERO;
    let within = times
        .into_iter()
        .filter(|time| *time >= begun && *time < end);
    for time in within.chain([end]) {
        longest = longest.max(time - last);
        last = time;
    }
    Ok(longest.as_secs_f64() * 1e3)
}

fn stall(cluster: &Cluster, place: Place) -> Outcome<()> {
    let held = Stall {
        hold: true,
        ..Stall::default()
    };
    cluster.stall_disk(place, held)?;
    sleep(STALL);
    Ok(cluster.stall_disk(place, Stall::default())?)
}

fn measure_loads(settings: &Settings) -> Outcome<Table<4>> {
    let mut table = Table::new();
    for load in LOADS.iter().filter(|load| settings.wants(load.name)) {
        for round in 0..settings.rounds {
            for (name, binary) in &settings.servers {
                let figures = measure_load(settings, load, &start(binary, DiskKind::Plain)?)?;
                eprintln!("{}, round {round}, {name}: {figures:?}", load.name);
                table
                    .entry((load.name.to_owned(), *name))
                    .or_default()
                    .push(figures);
            }
        }
    }
    Ok(table)
}

fn measure_load(settings: &Settings, load: &Load, cluster: &Cluster) -> Outcome<[f64; 4]> {
    let leader = cluster.wait_leader()?;
    let places = match load.to {
        To::Leader => vec![leader],
        To::All => cluster.places(),
    };
    let endpoints = endpoints(cluster, &places);
    if !load.before.is_empty() {
        run_tool(settings, &endpoints, load.before, 0)?;
    }
    let operations = settings.scaled(load.operations);
    let before = cluster.cpu()?;
    let output = run_tool(settings, &endpoints, load.load, operations)?;
    let cpu = cluster.cpu()? - before;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let per_operation = cpu.as_secs_f64() * 1e6 / operations as f64;
    Ok([
        figure(&output, "Requests/sec:"),
        figure(&output, "50% in") * 1e3,
        figure(&output, "99% in") * 1e3,
        per_operation,
    ])
}

fn endpoints(cluster: &Cluster, places: &[Place]) -> String {
    let of = |place: &Place| cluster.member(*place).endpoint();
    places.iter().map(of).collect::<Vec<_>>().join(",")
}

fn run_tool(settings: &Settings, endpoints: &str, load: &str, operations: u64) -> Outcome<String> {
    finish_tool(begin_tool(settings, endpoints, load, operations)?)
}

fn begin_tool(settings: &Settings, endpoints: &str, load: &str, operations: u64) -> Outcome<Child> {
    let mut command = Command::new(settings.tool()?);
    command.args(["--endpoints", endpoints, "--precise"]);
    for word in load.split(' ') {
        command.arg(match word {
            "{n}" => operations.to_string(),
            // The tool's second sequential key of one byte.
            "{key}" => "\u{2}".to_owned(),
            other => other.to_owned(),
        });
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

fn finish_tool(tool: Child) -> Outcome<String> {
    let output = tool.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("the tool ended with {}: {text}", output.status).into())
}

/// The number behind some words of the tool's output.
fn figure(output: &str, after: &str) -> f64 {
    let number = |line: &str| {
        let (_, rest) = line.split_once(after)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    output.lines().find_map(number).unwrap_or(f64::NAN)
}

fn median<const N: usize>(rounds: &[[f64; N]], figure: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|round| round[figure]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_table<const N: usize, const M: usize>(
    title: &str,
    columns: [&str; M],
    table: &Table<N>,
    figures: impl Fn(&[[f64; N]]) -> Vec<f64>,
) {
    println!("\n| {title} | server | {} |", columns.join(" | "));
    println!("|---|---|{}", "---|".repeat(M));
    for ((case, server), rounds) in table {
        let row: Vec<String> = figures(rounds)
            .iter()
            .map(|figure| format!("{figure:.2}"))
            .collect();
        println!("| {case} | {server} | {} |", row.join(" | "));
    }
    println!("\n| {title}, ours / etcd's | {} |", columns.join(" | "));
    println!("|---|{}", "---|".repeat(M));
    for ((case, server), ours) in table {
        let Some(theirs) = table
            .get(&(case.clone(), "etcd"))
            .filter(|_| *server == "quorate")
        else {
            continue;
        };
        let (ours, theirs) = (figures(ours), figures(theirs));
        let ratios = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| format!("{:.2}x", ours / theirs));
        println!("| {case} | {} |", ratios.collect::<Vec<_>>().join(" | "));
    }
}
