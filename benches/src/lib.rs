//! Benchmarks, and what the tools that compare with etcd have in common.
use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

use quorate_integration_tests::Binary;

/// What comes of a step, or why nothing does.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a comparison is told: `--quorate PATH --etcd PATH [--tool PATH] [--rounds 3] [--only NAME] [--scale 1.0]`, and paths of its own.
#[derive(Debug)]
pub struct Settings {
    /// The servers, by name.
    pub servers: [(&'static str, Binary); 2],
    /// etcd's `benchmark`, if it was given.
    pub tool: Option<PathBuf>,
    /// How often everything is measured.
    pub rounds: usize,
    /// Part of the names of the cases to measure.
    only: Option<String>,
    /// What numbers of operations are multiplied by.
    scale: f64,
    /// Other programs, by flag.
    programs: BTreeMap<&'static str, PathBuf>,
}

impl Settings {
    /// Reads the arguments of the process, with the flags that this comparison takes for paths of its own.
    ///
    /// # Errors
    /// A flag that is missing or unknown, or a value that is none.
    pub fn parse(programs: &[&'static str]) -> Outcome<Self> {
        let mut args = env::args().skip(1);
        let mut given = BTreeMap::new();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            given.insert(flag, value);
        }
        let mut server = |flag: &str| -> Outcome<Binary> {
            let path = given.remove(flag);
            let path = path.ok_or_else(|| format!("missing {flag} PATH"))?;
            Ok(Binary::at(&Path::new(&path).canonicalize()?)?)
        };
        let settings = Self {
            servers: [
                ("quorate", server("--quorate")?),
                ("etcd", server("--etcd")?),
            ],
            tool: given.remove("--tool").map(PathBuf::from),
            rounds: given.remove("--rounds").map_or(Ok(3), |v| v.parse())?,
            only: given.remove("--only"),
            scale: given.remove("--scale").map_or(Ok(1.0), |v| v.parse())?,
            programs: programs
                .iter()
                .filter_map(|flag| Some((*flag, given.remove(*flag)?.into())))
                .collect(),
        };
        match given.keys().next() {
            Some(unknown) => Err(format!("unknown flag {unknown}").into()),
            None => Ok(settings),
        }
    }

    /// Returns another program.
    ///
    /// # Errors
    /// When it was not given.
    pub fn path(&self, flag: &str) -> Outcome<&Path> {
        let path = self.programs.get(flag).map(PathBuf::as_path);
        Ok(path.ok_or_else(|| format!("missing {flag} PATH"))?)
    }

    /// Returns etcd's `benchmark`.
    ///
    /// # Errors
    /// When it was not given.
    pub fn tool(&self) -> Outcome<&Path> {
        Ok(self.tool.as_deref().ok_or("missing --tool PATH")?)
    }

    /// Says whether a case is to be measured.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| name.contains(only.as_str()))
    }

    /// Returns how many operations are to be made of so many.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small counts"
    )]
    pub fn scaled(&self, operations: u64) -> u64 {
        ((operations as f64 * self.scale) as u64).max(1)
    }
}
