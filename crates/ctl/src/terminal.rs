//! Standard input and output as the commands use them.

use std::io::{self, BufRead as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::failure::{Failure, Outcome};

/// Prints on standard output; that it is gone is found out by whoever closed it.
pub(crate) fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Prints a line on standard error.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The next line of standard input with its end; an incomplete last one is not a line.
///
/// # Errors
/// The input ended or could not be read.
pub(crate) fn read_line() -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    io::stdin()
        .lock()
        .read_until(b'\n', &mut line)
        .map_err(|e| e.to_string())?;
    if line.last() == Some(&b'\n') {
        Ok(line)
    } else {
        Err("EOF".to_owned())
    }
}

/// All of standard input, `None` when it is empty or cannot be read.
pub(crate) fn read_all() -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

/// The first word of the next line of standard input.
pub(crate) fn read_word() -> String {
    let mut line = Vec::new();
    // What cannot be read is an empty word, which the server refuses.
    let _ = io::stdin().lock().read_until(b'\n', &mut line);
    let text = String::from_utf8_lossy(&line);
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Prompts for a line that is not shown as it is typed.
pub(crate) fn ask_secret(prompt: &str) -> Outcome<String> {
    print(prompt.as_bytes());
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).ok();
    if let Some(mode) = &shown {
        let mut hidden = mode.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let hide = tcsetattr(&stdin, OptionalActions::Flush, &hidden);
        hide.map_err(|e| Failure::error(e.to_string()))?;
    }
    let mut line = Vec::new();
    let read = stdin.lock().read_until(b'\n', &mut line);
    if let Some(mode) = &shown {
        // The line was read; a terminal that stays silent is the lesser harm.
        let _ = tcsetattr(&stdin, OptionalActions::Now, mode);
    }
    print(b"\n");
    read.map_err(|e| Failure::error(e.to_string()))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(String::from_utf8_lossy(line).into_owned())
}
