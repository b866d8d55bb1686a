//! Building the mutants and setting the simulator on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use super::hunt::Hunt;
use super::patch::Patch;
use super::results::{Results, Verdict};
use super::workspace::prepare;
use super::{apply_all, read_patches};
use crate::Outcome;
use crate::workspace::{cargo, check, root};

/// Seeds within which each mutant must be found.
const SEEDS_MAX: u64 = 20_000;
/// Mutants that are looked for at the same time.
const JOBS: usize = 2;

/// What is asked for.
struct Options {
    /// The mutants wanted; all when empty.
    names: Vec<String>,
    seeds_max: u64,
    jobs: usize,
    /// Whether what was found out before about the same build is forgotten.
    again: bool,
}

/// Runs `sim mutants [--name X]... [--max-seeds N] [--jobs N] [--again]`.
pub(crate) fn run(args: &[String]) -> Outcome {
    let options = parse(args)?;
    let root = root();
    let patches = read_patches(&root)?;
    let wanted = choose(&patches, &options.names)?;
    let simulator = build(&root, &patches)?;
    let folder = root.join("target/mutants");
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;
    let results = Results::open(&folder.join("results.txt"), &simulator, options.again)?;
    let next = Mutex::new(wanted.iter());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(patch) = next.lock().expect("no thread panics with it").next() else {
                        return;
                    };
                    let log = logs.join(format!("{}.txt", patch.name));
                    let hunt = Hunt {
                        simulator: &simulator,
                        log: &log,
                        mutant: &patch.name,
                        seeds_max: options.seeds_max,
                    };
                    let verdict = match results.of(&patch.name) {
                        Some(found @ Verdict::Found(..)) => found,
                        Some(Verdict::Missed(seeds)) => hunt.run(seeds),
                        _ => hunt.run(0),
                    };
                    println!("{:<28} {}", patch.name, verdict);
                    if let Err(why) = results.keep(&patch.name, &verdict) {
                        println!("{:<28} cannot be kept: {why}", patch.name);
                    }
                }
            });
        }
    });
    conclude(&wanted, &results)
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        names: Vec::new(),
        seeds_max: SEEDS_MAX,
        jobs: JOBS,
        again: false,
    };
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        if flag == "--again" {
            options.again = true;
            continue;
        }
        let value = rest.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || {
            let bad = |_| format!("{flag} {value} is no number");
            value.parse::<u64>().map_err(bad)
        };
        match flag.as_str() {
            "--name" => options.names.push(value.clone()),
            "--max-seeds" => options.seeds_max = number()?,
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

/// Builds the simulator with all mutants in it. What does not change between two builds is kept.
fn build(root: &Path, patches: &[Patch]) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let texts = apply_all(root, patches)?;
    let copy = prepare(root, &texts)?;
    let target = root.join("target/mutants/build");
    let mut command = cargo();
    command.current_dir(&copy).env("CARGO_TARGET_DIR", &target);
    command.env("CARGO_INCREMENTAL", "1");
    command.args(["build", "--quiet", "--profile", "sim"]);
    command.args(["--package", "quorate-simulator", "--bin", "simulator"]);
    // What patches leave behind is not for lints.
    check(&mut command)?;
    Ok(target.join("sim/simulator"))
}

/// Prints what is known of all that were wanted, as rows for the table of the mutants' own page.
fn conclude(wanted: &[&Patch], results: &Results) -> Outcome {
    let (mut seeds, mut missed): (Vec<u64>, Vec<&str>) = (Vec::new(), Vec::new());
    println!("| mutant | row | seeds | found by |\n|---|---|---|---|");
    for patch in wanted {
        let verdict = results.of(&patch.name);
        let row = match patch.number {
            number @ 101..=199 => (number - 100).to_string(),
            _ => String::new(),
        };
        match verdict {
            Some(Verdict::Found(count, check)) => {
                println!("| `{}` | {row} | {count} | {check} |", patch.name);
                seeds.push(count);
            }
            _ => missed.push(&patch.name),
        }
    }
    seeds.sort_unstable();
    let of = |part: usize| seeds.get(seeds.len().saturating_sub(1) * part / 2);
    println!(
        "mutants: {} of {} found, half of them within {} seeds, all of those within {}",
        seeds.len(),
        wanted.len(),
        of(1).unwrap_or(&0),
        of(2).unwrap_or(&0),
    );
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("not found: {}", missed.join(", ")).into())
    }
}
