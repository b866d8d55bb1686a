//! What was found out about mutants so far, kept in a file so that a run can go on where another ended.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Write as _};
use std::fs;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// After how many seeds, and by which check.
    Found(u64, String),
    /// Not within so many seeds.
    Missed(u64),
    /// The simulator itself failed.
    Broken(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Found(seeds, check) => write!(f, "{seeds:>6} seeds  {check}"),
            Verdict::Missed(seeds) => write!(f, "{seeds:>6} seeds  NOT FOUND"),
            Verdict::Broken(why) => write!(f, "{:>6}        BROKEN  {why}", ""),
        }
    }
}

impl Verdict {
    /// Reads what [`fmt::Display`] writes; one that is broken is not kept.
    fn parse(text: &str) -> Option<Self> {
        let (seeds, what) = text.trim_start().split_once(" seeds  ")?;
        let seeds = seeds.parse().ok()?;
        Some(match what {
            "NOT FOUND" => Verdict::Missed(seeds),
            check => Verdict::Found(seeds, check.to_owned()),
        })
    }
}

/// Verdicts by mutant, of one build.
pub(super) struct Results {
    path: PathBuf,
    build: u64,
    verdicts: Mutex<BTreeMap<String, Verdict>>,
}

impl Results {
    /// Reads what there is about this build; of another build nothing counts, and nothing when it is to be forgotten.
    ///
    /// # Errors
    /// What the system says about the build.
    pub(super) fn open(path: &Path, simulator: &Path, forget: bool) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        hasher.write(&fs::read(simulator)?);
        let build = hasher.finish();
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let is_same = lines.next() == Some(&head(build)) && !forget;
        let known = lines.filter(|_| is_same).filter_map(|line| {
            let (name, verdict) = line.split_once(' ')?;
            Some((name.to_owned(), Verdict::parse(verdict)?))
        });
        Ok(Self {
            path: path.to_owned(),
            build,
            verdicts: Mutex::new(known.collect()),
        })
    }

    /// Returns what is known of a mutant.
    pub(super) fn of(&self, name: &str) -> Option<Verdict> {
        self.verdicts().get(name).cloned()
    }

    /// Keeps what was found out.
    ///
    /// # Errors
    /// What the system says about the file.
    pub(super) fn keep(&self, name: &str, verdict: &Verdict) -> io::Result<()> {
        let mut all = self.verdicts();
        all.insert(name.to_owned(), verdict.clone());
        let mut text = head(self.build);
        for (name, verdict) in all.iter() {
            // Writing to a string never fails.
            let _ = write!(text, "\n{name} {verdict}");
        }
        fs::write(&self.path, text)
    }

    fn verdicts(&self) -> MutexGuard<'_, BTreeMap<String, Verdict>> {
        let verdicts = self.verdicts.lock();
        verdicts.unwrap_or_else(PoisonError::into_inner)
    }
}

fn head(build: u64) -> String {
    format!("build {build:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_another_of_the_same_build_ended() {
        let folder = std::env::temp_dir().join(format!("quorate-results-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, simulator) = (folder.join("results.txt"), folder.join("simulator"));
        fs::write(&simulator, "one build").unwrap();
        let found = Verdict::Found(17, "durability".to_owned());
        let results = Results::open(&path, &simulator, false).unwrap();
        results.keep("a", &found).unwrap();
        results.keep("b", &Verdict::Missed(500)).unwrap();
        let broken = Verdict::Broken("no such file".to_owned());
        results.keep("c", &broken).unwrap();
        let again = Results::open(&path, &simulator, false).unwrap();
        assert_eq!(again.of("a"), Some(found));
        assert_eq!(again.of("b"), Some(Verdict::Missed(500)));
        assert_eq!(again.of("c"), None);
        let forgotten = Results::open(&path, &simulator, true).unwrap();
        assert_eq!(forgotten.of("a"), None);
        fs::write(&simulator, "another build").unwrap();
        let other = Results::open(&path, &simulator, false).unwrap();
        assert_eq!(other.of("a"), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
