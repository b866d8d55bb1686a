//! Where the repository is, and how its cargo is called.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// Returns the top of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("this package is a folder of the repository")
        .to_path_buf()
}

/// Returns a call of the cargo that runs this, at the top of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a call with its output shown; a failure names the call.
pub(crate) fn check(command: &mut Command) -> Outcome {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    let args: Vec<_> = command
        .get_args()
        .map(|arg| arg.to_string_lossy())
        .collect();
    Err(format!("cargo {} ended with {status}", args.join(" ")).into())
}
