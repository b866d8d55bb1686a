//! Building the mutants and setting the simulator on them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::patch::Patch;
use super::workspace::prepare;
use super::{apply_all, read_patches};
use crate::Outcome;
use crate::workspace::{cargo, check, root};

/// Seeds within which each mutant must be found.
const SEEDS_MAX: u64 = 20_000;
/// Mutants that are looked for at the same time.
const JOBS: usize = 2;
/// Seeds that the simulator is given at once, and how long it may take for them before one of them counts as endless.
const CHUNK_SEEDS: u64 = 100;
const CHUNK_TIME_MAX: Duration = Duration::from_secs(20 * 60);
/// Time between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Where the patched build is told which mutant is on.
const VARIABLE: &str = "QUORATE_MUTANT";

/// What is asked for.
struct Options {
    /// The mutants wanted; all when empty.
    names: Vec<String>,
    seeds_max: u64,
    first_seed: u64,
    jobs: usize,
}

/// What became of a mutant.
enum Verdict {
    /// After how many seeds, and by which check.
    Found(u64, String),
    Missed,
    /// The simulator itself failed.
    Broken(String),
}

/// Runs `sim mutants [--name X]... [--max-seeds N] [--first-seed N] [--jobs N]`.
pub(crate) fn run(args: &[String]) -> Outcome {
    let options = parse(args)?;
    let root = root();
    let patches = read_patches(&root)?;
    let wanted = choose(&patches, &options.names)?;
    let simulator = build(&root, &patches)?;
    let logs = root.join("target/mutants/logs");
    fs::create_dir_all(&logs)?;
    let next = Mutex::new(wanted.iter());
    let verdicts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(patch) = next.lock().expect("no thread panics with it").next() else {
                        return;
                    };
                    let verdict = hunt(&simulator, &logs, &patch.name, &options);
                    println!("{}", line(patch, &verdict));
                    let mut all = verdicts.lock().expect("no thread panics with it");
                    all.push(verdict);
                }
            });
        }
    });
    conclude(verdicts.into_inner()?)
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        names: Vec::new(),
        seeds_max: SEEDS_MAX,
        first_seed: 1,
        jobs: JOBS,
    };
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || {
            let bad = |_| format!("{flag} {value} is no number");
            value.parse::<u64>().map_err(bad)
        };
        match flag.as_str() {
            "--name" => options.names.push(value.clone()),
            "--max-seeds" => options.seeds_max = number()?,
            "--first-seed" => options.first_seed = number()?,
            "--jobs" => options.jobs = usize::try_from(number()?).map_err(|e| e.to_string())?,
            _ => return Err(format!("{flag} is not known")),
        }
    }
    Ok(options)
}

fn choose<'a>(patches: &'a [Patch], names: &[String]) -> Result<Vec<&'a Patch>, String> {
    let mutants = &patches[1..];
    if let Some(name) = names.iter().find(|n| mutants.iter().all(|p| p.name != **n)) {
        return Err(format!("there is no mutant {name}"));
    }
    let is_wanted = |p: &&Patch| names.is_empty() || names.contains(&p.name);
    Ok(mutants.iter().filter(is_wanted).collect())
}

/// Builds the simulator with all mutants in it.
fn build(root: &Path, patches: &[Patch]) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let texts = apply_all(root, patches)?;
    let copy = prepare(root, &texts)?;
    let target = root.join("target/mutants/build");
    let mut command = cargo();
    command.current_dir(&copy).env("CARGO_TARGET_DIR", &target);
    command.args(["build", "--quiet", "--profile", "sim"]);
    command.args(["--package", "quorate-simulator", "--bin", "simulator"]);
    // What patches leave behind is not for lints.
    check(&mut command)?;
    Ok(target.join("sim/simulator"))
}

/// Runs seeds with a mutant switched on until the simulator finds something.
fn hunt(simulator: &Path, logs: &Path, name: &str, options: &Options) -> Verdict {
    let log = logs.join(format!("{name}.txt"));
    let mut done = 0;
    while done < options.seeds_max {
        let seeds = CHUNK_SEEDS.min(options.seeds_max - done);
        let first = options.first_seed + done;
        match simulate(simulator, &log, name, first, seeds) {
            Ok(Chunk::Clean) => done += seeds,
            Ok(Chunk::Endless) => return Verdict::Found(done + seeds, "a seed has no end".into()),
            Ok(Chunk::Failed) => {
                let text = fs::read_to_string(&log).unwrap_or_default();
                return found(&text, options.first_seed).unwrap_or_else(|| {
                    Verdict::Broken(format!("no violation is named in {}", log.display()))
                });
            }
            Err(error) => return Verdict::Broken(error.to_string()),
        }
    }
    Verdict::Missed
}

/// How the simulator ended.
enum Chunk {
    Clean,
    Failed,
    /// It did not, and was stopped.
    Endless,
}

fn simulate(
    simulator: &Path,
    log: &Path,
    name: &str,
    first: u64,
    seeds: u64,
) -> std::io::Result<Chunk> {
    let out = File::create(log)?;
    let mut child = Command::new(simulator)
        .env(VARIABLE, name)
        .args(["--quiet", "--jobs", "1"])
        .args(["--seeds", &seeds.to_string()])
        .args(["--first", &first.to_string()])
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() {
                Chunk::Clean
            } else {
                Chunk::Failed
            });
        }
        if begun.elapsed() > CHUNK_TIME_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(Chunk::Endless);
        }
        thread::sleep(LOOK);
    }
}

/// Finds the seed and the check in what the simulator wrote.
fn found(text: &str, first_seed: u64) -> Option<Verdict> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("seed "));
    let (seed, what) = lines.find_map(|line| line.split_once(" FAILED: "))?;
    let seed: u64 = seed.parse().ok()?;
    let check = what.split(": ").next().unwrap_or(what);
    let seeds = seed.saturating_sub(first_seed) + 1;
    Some(Verdict::Found(seeds, check.to_owned()))
}

fn line(patch: &Patch, verdict: &Verdict) -> String {
    let name = format!("{:03} {:<28}", patch.number, patch.name);
    match verdict {
        Verdict::Found(seeds, check) => format!("{name} {seeds:>6} seeds  {check}"),
        Verdict::Missed => format!("{name} NOT FOUND"),
        Verdict::Broken(why) => format!("{name} BROKEN  {why}"),
    }
}

fn conclude(verdicts: Vec<Verdict>) -> Outcome {
    let mut seeds: Vec<u64> = Vec::new();
    for verdict in &verdicts {
        if let Verdict::Found(count, _) = verdict {
            seeds.push(*count);
        }
    }
    seeds.sort_unstable();
    let of = |part: usize| seeds.get(seeds.len().saturating_sub(1) * part / 2);
    println!(
        "mutants: {} of {} found, half of them within {} seeds, all of those within {}",
        seeds.len(),
        verdicts.len(),
        of(1).unwrap_or(&0),
        of(2).unwrap_or(&0),
    );
    if seeds.len() == verdicts.len() {
        Ok(())
    } else {
        Err(format!("{} mutants were not found", verdicts.len() - seeds.len()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_and_check_are_read_from_what_the_simulator_says() {
        let text = "500 seeds\nseed 17 FAILED: one leader each term: m2 and m3 lead term 5\nsee it again\n";
        let Some(Verdict::Found(seeds, check)) = found(text, 11) else {
            panic!("nothing found");
        };
        assert_eq!((seeds, check.as_str()), (7, "one leader each term"));
        assert!(found("all well\n", 1).is_none());
    }

    #[test]
    fn a_mutant_that_was_missed_fails_the_run() {
        assert!(conclude(vec![Verdict::Found(3, String::new())]).is_ok());
        assert!(conclude(vec![Verdict::Found(3, String::new()), Verdict::Missed]).is_err());
        let broken = Verdict::Broken(String::new());
        assert!(conclude(vec![broken]).is_err());
    }
}
