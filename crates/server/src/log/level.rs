//! How grave a line is.

/// How grave a line is, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault in the program.
    Debug,
    /// What happens in a normal run.
    Info,
    /// Somebody should look at this some day.
    Warn,
    /// Something that was to happen did not.
    Error,
    /// A thread ends for a broken promise.
    Panic,
    /// The process ends for it.
    Fatal,
}

impl Level {
    /// Every level, least first.
    pub(crate) const ALL: [Level; 6] = [
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
        Level::Panic,
        Level::Fatal,
    ];

    /// Reads a level as zap does: lower or upper case, and the empty text is `info`.
    pub fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "debug" | "DEBUG" => Level::Debug,
            "info" | "INFO" | "" => Level::Info,
            "warn" | "WARN" => Level::Warn,
            "error" | "ERROR" => Level::Error,
            "dpanic" | "DPANIC" | "panic" | "PANIC" => Level::Panic,
            "fatal" | "FATAL" => Level::Fatal,
            _ => return None,
        })
    }

    /// Returns the name as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Level {
        match level {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            _ => Level::Debug,
        }
    }
}
