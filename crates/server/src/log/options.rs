//! Where and how to log.

use std::path::PathBuf;

use super::{Level, Rotation};

/// Where and how to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Least level logged.
    pub level: Level,
    /// Shape of the lines.
    pub format: Format,
    /// Where they go, without duplicates; none means nowhere.
    pub outputs: Vec<Output>,
}

impl Default for Options {
    /// JSON lines of `info` and above on the standard error.
    fn default() -> Options {
        Options {
            level: Level::Info,
            format: Format::Json,
            outputs: vec![Output::Stderr],
        }
    }
}

/// Shape of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Columns between tabs, for eyes.
    Console,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// The standard error.
    Stderr,
    /// The standard output.
    Stdout,
    /// The end of a file, which is made when it is not there.
    File(PathBuf),
    /// The end of a file that is put aside when it has grown.
    Rotating(PathBuf, Rotation),
}
