//! The command line `quoratectl`: etcdctl's commands, flags, exit codes and output.
//!
//! [`cli`] reads the arguments into a command and its flags, [`run`] does what it says through [`client`], and [`print`](mod@print) turns
//! answers into the text that etcdctl would print; [`go`] holds what Go's standard library does with such text. Started under the
//! name `etcdctl` the program calls itself so.

mod cli;
mod client;
mod failure;
mod go;
mod log;
mod print;
mod range;
mod run;
mod status;
mod terminal;
mod text;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<Vec<u8>> = std::env::args_os().map(OsString::into_vec).collect();
    let program = if args.is_empty() {
        Vec::new()
    } else {
        args.remove(0)
    };
    let program = program_name(&program);
    match run::main(program, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message {
                // Nobody is left to tell when standard error is gone.
                let _ = writeln!(std::io::stderr(), "Error: {message}");
            }
            ExitCode::from(failure.status)
        }
    }
}

/// What the program calls itself: scripts that run it as `etcdctl` read that in its texts.
fn program_name(path: &[u8]) -> &'static str {
    match path.rsplit(|byte| *byte == b'/').next() {
        Some(b"etcdctl") => "etcdctl",
        _ => "quoratectl",
    }
}
