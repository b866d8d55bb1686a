//! The queue of lines and the thread that writes them.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::caller::Caller;
use super::encode::{self, Fields, Head};
use super::options::{Format, Options, Output};
use super::rotation::RotatingFile;
use super::sampler::Sampler;
use super::subscriber::Subscriber;
use super::{Level, Record, panics};

/// Most lines that wait for the writer.
pub const QUEUE_LINES_MAX: usize = 8192;
/// Most bytes that wait for the writer.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes that the writer gathers for one call.
const BATCH_BYTES: usize = 64 * 1024;
/// Longest wait for the writer to take up what was logged before a flush, and again to write it.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// Name of the writer's thread.
pub(crate) const WRITER_THREAD: &str = "log";

type Sink = Box<dyn Write + Send>;

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

struct Shared {
    level: Level,
    format: Format,
    sampler: Sampler,
    queue: SyncSender<Message>,
    backlog: Arc<Backlog>,
}

/// What waits and what was lost.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// A handle of the log; clones write to the same one.
#[derive(Clone)]
pub struct Logger {
    shared: Arc<Shared>,
}

impl Logger {
    /// Opens the outputs and starts the writer.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened or a thread that cannot be started.
    pub fn start(options: &Options) -> io::Result<Logger> {
        let sinks = options
            .outputs
            .iter()
            .map(|output| open(output).map_err(|error| sink_error(output, &error)))
            .collect::<io::Result<Vec<Sink>>>()?;
        Logger::with_sinks(options.level, options.format, sinks)
    }

    /// Starts a writer to sinks of any kind.
    ///
    /// # Errors
    ///
    /// A thread that cannot be started.
    pub fn with_sinks(
        level: Level,
        format: Format,
        sinks: Vec<Box<dyn Write + Send>>,
    ) -> io::Result<Logger> {
        let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
        let backlog = Arc::new(Backlog::default());
        let writer = Writer {
            lines,
            sinks,
            format,
            backlog: Arc::clone(&backlog),
        };
        thread::Builder::new()
            .name(WRITER_THREAD.to_owned())
            .spawn(move || writer.run())?;
        let sampler = Sampler::new();
        Ok(Logger {
            shared: Arc::new(Shared {
                level,
                format,
                sampler,
                queue,
                backlog,
            }),
        })
    }

    /// Makes this the log of `tracing` and of panics in the whole process. Only the first call does.
    pub fn install(&self) {
        if tracing::subscriber::set_global_default(Subscriber::new(self.clone())).is_ok() {
            panics::install(self.clone());
        }
    }

    /// Writes a line. Never waits.
    pub fn write(&self, record: &Record) {
        if !self.is_enabled(record.level) {
            return;
        }
        let mut fields = self.fields();
        record.write_fields(&mut fields);
        self.write_fields(
            record.level,
            record.logger,
            record.caller,
            &record.message,
            &fields,
        );
    }

    /// Waits until what was logged before is written, at most two seconds; returns whether it is.
    pub fn flush(&self) -> bool {
        let (done, wait) = sync_channel(1);
        let deadline = Instant::now() + FLUSH_WAIT;
        let mut message = Message::Flush(done);
        loop {
            match self.shared.queue.try_send(message) {
                Ok(()) => return wait.recv_timeout(FLUSH_WAIT).is_ok(),
                Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
                Err(_) => return false,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn is_enabled(&self, level: Level) -> bool {
        level >= self.shared.level
    }

    pub(crate) fn level(&self) -> Level {
        self.shared.level
    }

    pub(crate) fn fields(&self) -> Fields {
        Fields::new(self.shared.format)
    }

    pub(crate) fn write_fields(
        &self,
        level: Level,
        logger: Option<&str>,
        caller: Caller<'_>,
        message: &str,
        fields: &Fields,
    ) {
        let unix_micros = unix_micros();
        if self.shared.sampler.admit(level, message, unix_micros) {
            let head = Head {
                level,
                unix_micros,
                logger,
                caller,
                message,
            };
            self.enqueue(encode::line(self.shared.format, &head, fields));
        }
    }

    fn enqueue(&self, line: String) {
        let (backlog, len) = (&self.shared.backlog, line.len());
        if backlog.bytes.fetch_add(len, Relaxed) + len > QUEUE_BYTES_MAX
            || self.shared.queue.try_send(Message::Line(line)).is_err()
        {
            backlog.bytes.fetch_sub(len, Relaxed);
            backlog.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn open(output: &Output) -> io::Result<Sink> {
    Ok(match output {
        Output::Stderr => Box::new(io::stderr()),
        Output::Stdout => Box::new(io::stdout()),
        Output::Rotating(path, rotation) => Box::new(RotatingFile::open(path, rotation)?),
        Output::File(path) => Box::new(OpenOptions::new().append(true).create(true).open(path)?),
    })
}

/// Says which output cannot be opened, in zap's words.
fn sink_error(output: &Output, error: &io::Error) -> io::Error {
    match output {
        Output::File(path) | Output::Rotating(path, _) => {
            let path = path.display();
            io::Error::new(
                error.kind(),
                format!("open sink \"{path}\": open {path}: {error}"),
            )
        }
        Output::Stderr | Output::Stdout => io::Error::new(error.kind(), error.to_string()),
    }
}

fn unix_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

struct Writer {
    lines: Receiver<Message>,
    sinks: Vec<Sink>,
    format: Format,
    backlog: Arc<Backlog>,
}

impl Writer {
    /// Writes until no logger is left.
    fn run(mut self) {
        let mut batch = String::new();
        let mut flushes = Vec::new();
        while let Ok(first) = self.lines.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Line(line) => batch.push_str(&line),
                    Message::Flush(done) => flushes.push(done),
                }
                next = if batch.len() < BATCH_BYTES {
                    self.lines.try_recv().ok()
                } else {
                    None
                };
            }
            self.backlog.bytes.fetch_sub(batch.len(), Relaxed);
            self.report_dropped(&mut batch);
            for sink in &mut self.sinks {
                // There is nowhere to report to that a failed output failed.
                let _ = sink.write_all(batch.as_bytes()).and_then(|()| sink.flush());
            }
            batch.clear();
            for done in flushes.drain(..) {
                let _ = done.try_send(());
            }
        }
    }

    fn report_dropped(&self, batch: &mut String) {
        let dropped = self.backlog.dropped.swap(0, Relaxed);
        if dropped == 0 {
            return;
        }
        let mut fields = Fields::new(self.format);
        fields.plain("lines", dropped);
        let head = Head {
            level: Level::Warn,
            unix_micros: unix_micros(),
            logger: None,
            caller: Caller::new(file!(), line!()),
            message: "dropped log lines because the output is too slow",
        };
        batch.push_str(&encode::line(self.format, &head, &fields));
    }
}

#[cfg(test)]
mod tests;
