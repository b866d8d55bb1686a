//! Compares Quorate with etcd under etcd's own `benchmark` tool: the same cases on fresh directories, in turn.
//!
//! ```text
//! compare --quorate target/release/quorate --etcd PATH --tool PATH [--rounds 3] [--only NAME] [--scale 1.0]
//! ```
//!
//! Server CPU is user + system time of the server's process over the case divided by its operations; rates and
//! latencies are the tool's. Figures of two servers are comparable only within one run, because machines drift.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for a terminal"
)]
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_benches::{Outcome, Settings};

/// One load.
struct Case {
    name: &'static str,
    /// Arguments of the load; `{n}` is the number of operations.
    load: &'static str,
    /// Arguments of a load before it that is not measured, or nothing.
    before: &'static str,
    operations: u64,
    /// Which summary of the tool's output counts: the first, or the last.
    last_summary: bool,
    /// Operations counted for CPU per operation of the load.
    per: u64,
}

const CASES: &[Case] = &[
    Case {
        name: "put, 1 client, 256 B",
        load: "--clients 1 --conns 1 put --key-size 32 --val-size 256 --key-space-size 100000 --total {n}",
        before: "",
        operations: 4_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "put, 1000 clients on 100 connections, 256 B",
        load: "--clients 1000 --conns 100 put --key-size 32 --val-size 256 --key-space-size 100000 --total {n}",
        before: "",
        operations: 100_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "put, 64 clients, 1 KiB",
        load: "--clients 64 --conns 16 put --key-size 32 --val-size 1024 --key-space-size 100000 --total {n}",
        before: "",
        operations: 40_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "put, 64 clients, 10 KiB",
        load: "--clients 64 --conns 16 put --key-size 32 --val-size 10240 --key-space-size 100000 --total {n}",
        before: "",
        operations: 15_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "put, 16 clients, 100 KiB",
        load: "--clients 16 --conns 16 put --key-size 32 --val-size 102400 --key-space-size 1000 --total {n}",
        before: "",
        operations: 2_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "txn of 16 puts, 100 clients",
        load: "--clients 100 --conns 10 txn-put --key-size 32 --val-size 256 --key-space-size 100000 --txn-ops 16 --total {n}",
        before: "",
        operations: 10_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "range one key, serializable, 1000/100",
        load: "--clients 1000 --conns 100 range {key} --consistency s --total {n}",
        before: "--clients 1 --conns 1 put --key-size 1 --key-space-size 2 --sequential-keys --val-size 256 --total 2",
        operations: 150_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "range one key, linearizable, 1000/100",
        load: "--clients 1000 --conns 100 range {key} --consistency l --total {n}",
        before: "--clients 1 --conns 1 put --key-size 1 --key-space-size 2 --sequential-keys --val-size 256 --total 2",
        operations: 150_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "range one key, linearizable, 1 client",
        load: "--clients 1 --conns 1 range {key} --consistency l --total {n}",
        before: "--clients 1 --conns 1 put --key-size 1 --key-space-size 2 --sequential-keys --val-size 256 --total 2",
        operations: 10_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "list 10,000 keys of 1 KiB, 2 clients",
        load: "--clients 2 --conns 2 range {empty} --prefix --consistency s --total {n}",
        before: "--clients 64 --conns 16 put --key-size 32 --val-size 1024 --key-space-size 10000 --sequential-keys --total 10000",
        operations: 60,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "watch, 1000 watchers of one key, events",
        load: "--clients 16 --conns 16 watch --streams 10 --watch-per-stream 100 --watched-key-total 1 --put-total {n}",
        before: "",
        operations: 3_000,
        last_summary: true,
        per: 1_000,
    },
    Case {
        name: "watch latency, 500 puts/s",
        load: "--clients 1 --conns 1 watch-latency --put-rate 500 --put-total {n}",
        before: "",
        operations: 3_000,
        last_summary: true,
        per: 1,
    },
    Case {
        name: "lease keep-alive, 1000/100",
        load: "--clients 1000 --conns 100 lease-keepalive --total {n}",
        before: "",
        operations: 100_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "put, 2,000/s, compacted every 2 s",
        load: "--clients 20 --conns 20 put --key-size 32 --val-size 256 --key-space-size 20000 --rate 2000 --compact-interval 2s --compact-index-delta 1000 --total {n}",
        before: "--clients 100 --conns 20 put --key-size 32 --val-size 256 --key-space-size 20000 --total 300000",
        operations: 16_000,
        last_summary: false,
        per: 1,
    },
    Case {
        name: "1,000,000 puts, 500 clients, 256 B",
        load: "--clients 500 --conns 100 put --key-size 32 --val-size 256 --key-space-size 1000000 --sequential-keys --total {n}",
        before: "",
        operations: 1_000_000,
        last_summary: false,
        per: 1,
    },
];

/// What a case gave on one server in one round; `None` where the tool printed nothing of the kind.
#[derive(Clone, Debug, Default)]
struct Figures {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    rss_mb: f64,
    disk_mb: f64,
    /// Seconds from starting again on the same directory to healthy; only of the last case.
    restart_s: f64,
}

fn main() -> Outcome<()> {
    let settings = Settings::parse(&[])?;
    settings.tool()?;
    let mut table = BTreeMap::new();
    for (number, case) in CASES.iter().enumerate() {
        if !settings.wants(case.name) {
            continue;
        }
        for round in 0..settings.rounds {
            for (server, binary) in &settings.servers {
                let figures = measure(&settings, case, binary.path())?;
                eprintln!("{} round {round} {server}: {figures:?}", case.name);
                table
                    .entry((number, *server))
                    .or_insert_with(Vec::new)
                    .push(figures);
            }
        }
    }
    print_table(&table);
    Ok(())
}

/// A server under test; killed when dropped.
struct Server {
    child: Child,
    client: u16,
    binary: PathBuf,
    data: PathBuf,
}

impl Server {
    fn start(binary: &Path, data: &Path) -> Outcome<Self> {
        let (client, peer) = (free_port()?, free_port()?);
        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let child = Command::new(binary)
            .arg(format!("--data-dir={}", data.join("d").display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=default={peer_url}"))
            .arg("--quota-backend-bytes=8000000000")
            .arg("--log-level=error")
            .stdout(Stdio::null())
            .stderr(fs::File::create(data.join("log"))?)
            .spawn()?;
        let mut server = Self {
            child,
            client,
            binary: binary.to_owned(),
            data: data.to_owned(),
        };
        server.wait_healthy()?;
        Ok(server)
    }

    fn wait_healthy(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.data.join("log")).unwrap_or_default();
                return Err(format!("{} ended with {status}: {log}", self.binary.display()).into());
            }
            if self.is_healthy().unwrap_or(false) {
                return Ok(());
            }
            sleep(Duration::from_millis(5));
        }
        Err(format!("{} is not healthy after two minutes", self.binary.display()).into())
    }

    fn is_healthy(&self) -> Outcome<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.client))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains("\"health\":\"true\""))
    }

    /// User and system time so far, in microseconds.
    fn cpu_us(&self) -> Outcome<f64> {
        const TICK_US: f64 = 10_000.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').ok_or("odd stat line")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks * TICK_US)
    }

    fn peak_rss_mb(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|l| l.starts_with("VmHWM:"))
            .ok_or("no VmHWM")?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .ok_or("odd VmHWM")?
            .parse::<f64>()?
            / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn measure(settings: &Settings, case: &Case, binary: &Path) -> Outcome<Figures> {
    let data = env::temp_dir().join(format!("compare-{}", std::process::id()));
    let _ = fs::remove_dir_all(&data);
    fs::create_dir_all(&data)?;
    let server = Server::start(binary, &data)?;
    if !case.before.is_empty() {
        run_tool(settings, &server, case.before, 0)?;
    }
    let operations = settings.scaled(case.operations);
    let before = server.cpu_us()?;
    let output = run_tool(settings, &server, case.load, operations)?;
    let mut figures = read_output(&output, case.last_summary);
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let counted = (operations * case.per) as f64;
    figures.cpu_us = (server.cpu_us()? - before) / counted;
    figures.rss_mb = server.peak_rss_mb()?;
    figures.disk_mb = directory_mb(&data)?;
    drop(server);
    if case.operations >= 1_000_000 {
        let started = Instant::now();
        let again = Server::start(binary, &data)?;
        figures.restart_s = started.elapsed().as_secs_f64();
        drop(again);
    }
    fs::remove_dir_all(&data)?;
    Ok(figures)
}

fn run_tool(settings: &Settings, server: &Server, load: &str, operations: u64) -> Outcome<String> {
    let mut command = Command::new(settings.tool()?);
    command
        .arg("--endpoints")
        .arg(format!("127.0.0.1:{}", server.client))
        .arg("--precise");
    for word in load.split(' ') {
        command.arg(match word {
            "{n}" => operations.to_string(),
            // The tool's second sequential key of one byte.
            "{key}" => "\u{2}".to_owned(),
            "{empty}" => String::new(),
            other => other.to_owned(),
        });
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = String::new();
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        output.push_str(&line?);
        output.push('\n');
    }
    let status = child.wait()?;
    if status.success() {
        Ok(output)
    } else {
        Err(format!("the tool ended with {status}: {output}").into())
    }
}

fn read_output(output: &str, last: bool) -> Figures {
    let number = |line: &str, after: &str| -> Option<f64> {
        line.split_once(after)?
            .1
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let pick = |after: &str| {
        let mut found = output.lines().filter_map(|l| number(l, after));
        if last {
            found.next_back()
        } else {
            found.next()
        }
        .unwrap_or(f64::NAN)
    };
    Figures {
        rate: pick("Requests/sec:"),
        p50_ms: pick("50% in") * 1e3,
        p99_ms: pick("99% in") * 1e3,
        ..Figures::default()
    }
}

fn directory_mb(dir: &Path) -> Outcome<f64> {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                bytes += entry.metadata()?.len();
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "shown in megabytes")]
    Ok(bytes as f64 / 1e6)
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_table(table: &BTreeMap<(usize, &str), Vec<Figures>>) {
    println!(
        "| case | server | rate /s | p50 ms | p99 ms | server CPU µs/op | peak RSS MB | disk MB | restart s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for ((number, server), figures) in table {
        let of = |pick: fn(&Figures) -> f64| median(figures, pick);
        let (name, restart) = (CASES[*number].name, of(|f| f.restart_s));
        let restart = if restart > 0.0 {
            format!("{restart:.2}")
        } else {
            "–".to_owned()
        };
        println!(
            "| {name} | {server} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {restart} |",
            of(|f| f.rate),
            of(|f| f.p50_ms),
            of(|f| f.p99_ms),
            of(|f| f.cpu_us),
            of(|f| f.rss_mb),
            of(|f| f.disk_mb),
        );
    }
    println!("\n| case | rate | p50 | p99 | CPU per operation | RSS |");
    println!("|---|---|---|---|---|---|");
    for (number, case) in CASES.iter().enumerate() {
        let (Some(ours), Some(theirs)) = (
            table.get(&(number, "quorate")),
            table.get(&(number, "etcd")),
        ) else {
            continue;
        };
        let ratio = |pick: fn(&Figures) -> f64| median(ours, pick) / median(theirs, pick);
        println!(
            "| {} | {:.2}x | {:.2}x | {:.2}x | {:.2}x | {:.2}x |",
            case.name,
            ratio(|f| f.rate),
            ratio(|f| f.p50_ms),
            ratio(|f| f.p99_ms),
            ratio(|f| f.cpu_us),
            ratio(|f| f.rss_mb),
        );
    }
}
