//! Panics as lines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::thread;

use super::caller::Caller;
use super::logger::WRITER_THREAD;
use super::{Level, Logger};

/// Writes every panic of the process as a line, and waits for it to be written: what follows may be an abort.
pub(crate) fn install(logger: Logger) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some(WRITER_THREAD) {
            // The writer cannot write that it is gone.
            before(info);
            return;
        }
        write(&logger, info);
        if !logger.flush() {
            before(info);
        }
    }));
}

fn write(logger: &Logger, info: &PanicHookInfo<'_>) {
    let mut fields = logger.fields();
    fields.text("thread", thread::current().name().unwrap_or("unnamed"));
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        fields.display("stacktrace", format_args!("{trace}"));
    }
    let caller = info
        .location()
        .map_or(Caller::new("", 0), |at| Caller::new(at.file(), at.line()));
    let message = info
        .payload_as_str()
        .unwrap_or("panic with a payload that is not a text");
    logger.write_fields(Level::Panic, None, caller, message, &fields);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::Options;
    use super::*;

    const CHILD: &str = "QUORATE_TEST_PANIC";

    /// Runs itself in a process of its own, since hooks are for the whole process.
    #[test]
    fn panics_become_lines() {
        if std::env::var_os(CHILD).is_some() {
            install(Logger::start(&Options::default()).unwrap());
            let thread = thread::Builder::new().name("engine".to_owned());
            assert!(
                thread
                    .spawn(|| panic!("broken {}", "promise"))
                    .unwrap()
                    .join()
                    .is_err()
            );
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "log::panics::tests::panics_become_lines",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let line: serde_json::Value = serde_json::from_str(
            text.lines()
                .find(|line| line.starts_with('{'))
                .expect("a line"),
        )
        .unwrap();
        assert_eq!(
            (&line["level"], &line["msg"]),
            (&"panic".into(), &"broken promise".into())
        );
        assert_eq!(line["thread"], "engine");
        assert!(
            line["caller"]
                .as_str()
                .unwrap()
                .starts_with("log/panics.rs:"),
            "{line}"
        );
    }
}
