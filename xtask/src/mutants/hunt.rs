//! Running seeds with one mutant switched on, until the simulator finds something.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::results::Verdict;

/// Seeds that the simulator is given at once, and how long it may take for them before one of them counts as endless.
const CHUNK_SEEDS: u64 = 20;
const CHUNK_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// Where seeds of the two kinds of clients begin; chunks of them take turns, the quicker ones first.
const KINDS: [u64; 2] = [1_000_001, 1];
/// Time between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Where the patched build is told which mutant is on.
const VARIABLE: &str = "QUORATE_MUTANT";

/// The search for one mutant.
pub(super) struct Hunt<'a> {
    pub(super) simulator: &'a Path,
    /// Where the simulator's words go.
    pub(super) log: &'a Path,
    pub(super) mutant: &'a str,
    pub(super) seeds_max: u64,
}

/// How the simulator ended.
enum Ended {
    Clean,
    /// This seed failed, by this check.
    Failed(u64, String),
    /// It did not, and was stopped.
    Endless,
}

impl Hunt<'_> {
    /// Goes on behind seeds that were run before.
    pub(super) fn run(&self, before: u64) -> Verdict {
        let mut done = before;
        while done < self.seeds_max {
            let (first, seeds) = chunk(done);
            match self.look(self.mutant, first, seeds) {
                Ok(Ended::Clean) => done += seeds,
                Ok(Ended::Endless) => {
                    return Verdict::Found(done + seeds, "a seed has no end".to_owned());
                }
                Ok(Ended::Failed(seed, what)) => {
                    done += seed.saturating_sub(first) + 1;
                    // What fails without the mutant too says nothing about it.
                    match self.look("none", seed, 1) {
                        Ok(Ended::Failed(_, without)) if without == what => {}
                        Ok(_) => return Verdict::Found(done, what),
                        Err(why) => return Verdict::Broken(why),
                    }
                }
                Err(why) => return Verdict::Broken(why),
            }
        }
        Verdict::Missed(done)
    }

    fn look(&self, mutant: &str, first: u64, seeds: u64) -> Result<Ended, String> {
        let io = |e: std::io::Error| format!("{}: {e}", self.simulator.display());
        let out = File::create(self.log).map_err(io)?;
        let mut child = Command::new(self.simulator)
            .env(VARIABLE, mutant)
            .args(["--quiet", "--jobs", "1"])
            .args(["--seeds", &seeds.to_string()])
            .args(["--first", &first.to_string()])
            .stdin(Stdio::null())
            .stderr(out.try_clone().map_err(io)?)
            .stdout(out)
            .spawn()
            .map_err(io)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io)? {
                break status;
            }
            if begun.elapsed() > CHUNK_TIME_MAX {
                child.kill().map_err(io)?;
                child.wait().map_err(io)?;
                return Ok(Ended::Endless);
            }
            thread::sleep(LOOK);
        };
        if status.success() {
            return Ok(Ended::Clean);
        }
        let text = fs::read_to_string(self.log).unwrap_or_default();
        let failed = found(&text).map(|(seed, check)| Ended::Failed(seed, check));
        failed.ok_or_else(|| format!("no violation is named in {}: {status}", self.log.display()))
    }
}

/// Returns the first seed to run after so many, and how many at once.
fn chunk(done: u64) -> (u64, u64) {
    let (turn, within) = (done / CHUNK_SEEDS, done % CHUNK_SEEDS);
    let kinds = KINDS.len() as u64;
    let kind = KINDS[usize::from(turn % kinds == 1)];
    (
        kind + turn / kinds * CHUNK_SEEDS + within,
        CHUNK_SEEDS - within,
    )
}

/// Finds the seed and the check in what the simulator wrote.
fn found(text: &str) -> Option<(u64, String)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("seed "));
    let (seed, what) = lines.find_map(|line| line.split_once(" FAILED: "))?;
    let check = what.split(": ").next().unwrap_or(what);
    Some((seed.parse().ok()?, check.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_and_check_are_read_from_what_the_simulator_says() {
        let text = "500 seeds\nseed 17 FAILED: one leader each term: m2 and m3 lead term 5\nsee it again\n";
        assert_eq!(found(text), Some((17, "one leader each term".to_owned())));
        assert_eq!(found("all well\n"), None);
    }

    #[test]
    fn seeds_of_both_kinds_take_turns_and_none_is_run_twice() {
        assert_eq!(chunk(0), (1_000_001, 20));
        assert_eq!(chunk(7), (1_000_008, 13));
        assert_eq!(chunk(20), (1, 20));
        assert_eq!(chunk(39), (20, 1));
        assert_eq!(chunk(40), (1_000_021, 20));
        assert_eq!(chunk(60), (21, 20));
    }
}
