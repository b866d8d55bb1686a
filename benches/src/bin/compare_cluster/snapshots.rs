//! How long a follower needs to catch up by snapshot, and what snapshots do to puts.
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_integration_tests::Binary;
use quorate_integration_tests::cluster::{Cluster, DiskKind, Place};

use super::{
    Outcome, Settings, Table, begin_tool, endpoints, figure, finish_tool, run_tool, start,
};

/// What a follower misses.
const MISSED: &str = "--clients 500 --conns 100 put --key-size 32 --val-size 256 --key-space-size 1000000 --sequential-keys --total {n}";
const MISSED_KEYS: u64 = 1_000_000;
/// As many are more than servers keep in their logs for a follower.
const MISSED_AGAIN: u64 = 100_000;
const CATCH_UP: &str = "a follower catches up by snapshot";
/// How long it may take.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(600);
const PUTS: &str = "--clients 10 --conns 10 put --rate 1000 --key-size 32 --val-size 256 --key-space-size 100000 --total {n}";
const PUTS_COUNT: u64 = 5_000;

/// Measures the seconds of catching up, and p50 and p99 of puts at a steady rate alone, while clients take one snapshot after the
/// other, and while a follower catches up.
pub(super) fn measure(settings: &Settings) -> Outcome<(Table<1>, Table<2>)> {
    let (mut times, mut latencies) = (Table::new(), Table::new());
    if !settings.wants(CATCH_UP) {
        return Ok((times, latencies));
    }
    for round in 0..settings.rounds {
        for (name, binary) in &settings.servers {
            let (seconds, puts) = measure_one(settings, binary)?;
            eprintln!("{CATCH_UP}, round {round}, {name}: {seconds:.2} s, puts {puts:?}");
            let keys = settings.scaled(MISSED_KEYS);
            let what = format!("{CATCH_UP}, {keys} keys behind");
            times.entry((what, *name)).or_default().push([seconds]);
            for (what, figures) in puts {
                let row = (what.to_owned(), *name);
                latencies.entry(row).or_default().push(figures);
            }
        }
    }
    Ok((times, latencies))
}

/// What else was going on, p50 and p99 in milliseconds.
type Puts = [(&'static str, [f64; 2]); 3];

fn measure_one(settings: &Settings, binary: &Binary) -> Outcome<(f64, Puts)> {
    let mut cluster = start(binary, DiskKind::Plain)?;
    miss(settings, &mut cluster, MISSED_KEYS)?;
    let (follower, goal) = behind(&cluster)?;
    let begun = Instant::now();
    cluster.begin_start(follower)?;
    wait_for(&cluster, follower, goal)?;
    let seconds = begun.elapsed().as_secs_f64();

    run_puts(settings, &cluster, |_| Ok(()))?;
    let alone = run_puts(settings, &cluster, |_| Ok(()))?;
    let leader = cluster.wait_leader()?;
    let beside = run_puts(settings, &cluster, |cluster| {
        let backup = cluster.begin_backup(leader)?;
        backup.join().map_err(|_| "the backup panicked")?;
        Ok(())
    })?;

    miss(settings, &mut cluster, MISSED_AGAIN)?;
    let (follower, goal) = behind(&cluster)?;
    cluster.begin_start(follower)?;
    let catching_up = run_puts(settings, &cluster, |_| Ok(()))?;
    wait_for(&cluster, follower, goal)?;
    Ok((
        seconds,
        [
            ("alone", alone),
            ("while clients take snapshots", beside),
            ("while a follower catches up by snapshot", catching_up),
        ],
    ))
}

/// Writes many keys while a follower is down.
fn miss(settings: &Settings, cluster: &mut Cluster, keys: u64) -> Outcome<()> {
    let leader = cluster.wait_leader()?;
    let places = cluster.places();
    let follower = places.into_iter().find(|place| *place != leader);
    cluster.kill(follower.ok_or("there is no follower")?)?;
    let others = endpoints(cluster, &cluster.running());
    run_tool(settings, &others, MISSED, settings.scaled(keys))?;
    Ok(())
}

/// The member that is down, and the revision of the others.
fn behind(cluster: &Cluster) -> Outcome<(Place, i64)> {
    let running = cluster.running();
    let places = cluster.places();
    let follower = places.into_iter().find(|place| !running.contains(place));
    let status = cluster.status(cluster.wait_leader()?)?;
    let revision = status.header.unwrap_or_default().revision;
    Ok((follower.ok_or("no member is down")?, revision))
}

fn wait_for(cluster: &Cluster, follower: Place, revision: i64) -> Outcome<()> {
    let begun = Instant::now();
    while begun.elapsed() < CATCH_UP_TIMEOUT {
        let status = cluster.status(follower);
        if status.is_ok_and(|s| s.header.is_some_and(|h| h.revision >= revision)) {
            return Ok(());
        }
        sleep(Duration::from_millis(5));
    }
    Err("the follower does not catch up".into())
}

/// Puts at a steady rate and does something else over and over meanwhile; returns p50 and p99 in milliseconds.
fn run_puts(
    settings: &Settings,
    cluster: &Cluster,
    meanwhile: impl Fn(&Cluster) -> Outcome<()>,
) -> Outcome<[f64; 2]> {
    let leader = endpoints(cluster, &[cluster.wait_leader()?]);
    let mut tool = begin_tool(settings, &leader, PUTS, PUTS_COUNT)?;
    while tool.try_wait()?.is_none() {
        meanwhile(cluster)?;
        sleep(Duration::from_millis(5));
    }
    let output = finish_tool(tool)?;
    Ok([
        figure(&output, "50% in") * 1e3,
        figure(&output, "99% in") * 1e3,
    ])
}
