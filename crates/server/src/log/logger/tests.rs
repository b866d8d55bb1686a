use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use super::*;

/// Keeps what is written, and can be held up.
#[derive(Clone, Default)]
struct Memory {
    written: Arc<Mutex<Vec<u8>>>,
}

impl Memory {
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.written.lock().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn logger(&self, level: Level) -> Logger {
        Logger::with_sinks(level, Format::Json, vec![Box::new(self.clone())]).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells that it was called and then waits to be let through.
struct Gate {
    entered: Sender<()>,
    open: Receiver<()>,
    memory: Memory,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        let _ = self.open.recv();
        self.memory.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_below_the_level_are_not_written() {
    let memory = Memory::default();
    let logger = memory.logger(Level::Warn);
    logger.write(&Record::new(Level::Info, "no"));
    logger.write(
        &Record::new(Level::Warn, "yes")
            .uint("n", 7)
            .switch("b", false)
            .int("i", -1),
    );
    assert!(logger.flush());
    let lines = memory.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["msg"], &lines[0]["n"], &lines[0]["i"]),
        (&"yes".into(), &7.into(), &(-1).into())
    );
    assert!(
        lines[0]["caller"]
            .as_str()
            .unwrap()
            .starts_with("logger/tests.rs:")
    );
}

#[test]
fn a_blocked_output_blocks_nobody_and_losses_are_counted() {
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (opener, open) = std::sync::mpsc::channel();
    let memory = Memory::default();
    let gate = Gate {
        entered,
        open,
        memory: memory.clone(),
    };
    let logger = Logger::with_sinks(Level::Debug, Format::Json, vec![Box::new(gate)]).unwrap();
    let line = |i: usize| Record::new(Level::Info, format!("message {i}"));
    logger.write(&line(0));
    has_entered.recv().unwrap();
    const LOST: usize = 100;
    for i in 1..=QUEUE_LINES_MAX + LOST {
        logger.write(&line(i));
    }
    drop(opener);
    assert!(logger.flush());
    let lines = memory.lines();
    assert_eq!(lines.len(), 1 + QUEUE_LINES_MAX + 1);
    let report = lines
        .iter()
        .find(|line| line["lines"] == LOST)
        .expect("the loss is reported");
    assert_eq!(report["level"], "warn");
    assert_eq!(logger.shared.backlog.bytes.load(Relaxed), 0);
}

#[test]
fn lines_that_wait_are_bounded_in_bytes() {
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (opener, open) = std::sync::mpsc::channel();
    let memory = Memory::default();
    let gate = Gate {
        entered,
        open,
        memory: memory.clone(),
    };
    let logger = Logger::with_sinks(Level::Debug, Format::Json, vec![Box::new(gate)]).unwrap();
    logger.write(&Record::new(Level::Info, "first"));
    has_entered.recv().unwrap();
    let long = "x".repeat(QUEUE_BYTES_MAX / 40);
    for i in 0..50 {
        logger.write(&Record::new(Level::Info, format!("message {i}")).text("long", long.as_str()));
    }
    drop(opener);
    assert!(logger.flush());
    let reported: u64 = memory
        .lines()
        .iter()
        .filter_map(|line| line["lines"].as_u64())
        .sum();
    assert!((11..=12).contains(&reported), "{reported}");
}

#[test]
fn equal_messages_are_sampled() {
    let memory = Memory::default();
    let logger = memory.logger(Level::Info);
    for _ in 0..100 {
        logger.write(&Record::new(Level::Info, "again"));
    }
    let before = unix_micros();
    for _ in 0..1000 {
        logger.write(&Record::new(Level::Info, "again"));
    }
    assert!(logger.flush());
    let within_a_second = unix_micros() - before < 900_000;
    let count = memory.lines().len();
    assert!(count < 400 || !within_a_second, "{count}");
}

#[test]
fn events_of_tracing_become_lines() {
    let memory = Memory::default();
    let logger = memory.logger(Level::Info);
    let subscriber = Subscriber::new(logger.clone());
    tracing::subscriber::with_default(subscriber, || {
        let error = io::Error::other("broken");
        tracing::warn!(
            "snapshot-count" = 5u64,
            took = %crate::config::GoDuration::from_nanos(1_500_000),
            error = &error as &dyn std::error::Error,
            ok = true,
            list = ?["a"],
            "applied {}",
            7
        );
        tracing::debug!("not this one");
        tracing::info!(target: "h2::frame", "nor this one");
        tracing::warn!(target: "h2::frame", "but this one");
        tracing::info_span!("span", a = 1).in_scope(|| tracing::info!(a.b = 1.5, "inside"));
    });
    assert!(logger.flush());
    let lines = memory.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["msg"], "applied 7");
    assert_eq!(lines[0]["level"], "warn");
    assert_eq!(lines[0]["snapshot-count"], 5);
    assert_eq!(lines[0]["took"], "1.5ms");
    assert_eq!(lines[0]["error"], "broken");
    assert_eq!(lines[0]["ok"], true);
    assert_eq!(lines[0]["list"], "[\"a\"]");
    assert!(lines[0].get("logger").is_none());
    assert_eq!(lines[1]["logger"], "h2");
    assert_eq!(lines[2]["a.b"], 1.5);
}
