//! What is worth a line in the log, handed to whoever writes the log.
use std::time::Duration;

/// Something slow that a front door saw.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// A unary call took longer than it should, or all calls are asked for.
    SlowCall {
        /// From the header of the request to its answer.
        took: Duration,
        /// The path of the method.
        method: &'static str,
        /// What the request was about: -1 where that is not known, as the other three.
        request_count: i64,
        /// Bytes of the request.
        request_bytes: i64,
        /// How many keys the answer is about.
        response_count: i64,
        /// Bytes of the answer.
        response_bytes: i64,
        /// The request, without values.
        request: String,
        /// Whether it is here because all calls are asked for.
        is_routine: bool,
    },
    /// Reading from the store took longer than it should.
    SlowRead {
        /// From the start of the call.
        took: Duration,
        /// What it should have taken at most.
        expected: Duration,
        /// Which kind of read, as it stands before the request.
        prefix: &'static str,
        /// The request, without values.
        request: String,
        /// What the answer holds.
        response: String,
        /// Why it failed, if it did.
        error: Option<String>,
    },
}

/// Takes reports; called on the threads of the front door, so it must not wait.
pub type Reporter = Box<dyn Fn(Report) + Send + Sync>;

/// What is measured, and what is reported.
pub struct Measuring {
    /// Whether the time of every call is kept (`--metrics=extensive`).
    pub times_calls: bool,
    /// Whether every unary call is reported (`--log-level=debug`).
    pub reports_calls: bool,
    /// Unary calls that take longer are reported (`warning-unary-request-duration`).
    pub slow_call: Duration,
    /// Reads that take longer are reported (`warning-apply-duration`).
    pub slow_read: Duration,
    /// Who takes the reports.
    pub reporter: Reporter,
}

impl Default for Measuring {
    /// etcd's limits, and nobody who takes reports.
    fn default() -> Self {
        Self {
            times_calls: false,
            reports_calls: false,
            slow_call: Duration::from_millis(300),
            slow_read: Duration::from_millis(100),
            reporter: Box::new(|_| {}),
        }
    }
}

impl std::fmt::Debug for Measuring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measuring")
            .field("times_calls", &self.times_calls)
            .field("reports_calls", &self.reports_calls)
            .field("slow_call", &self.slow_call)
            .field("slow_read", &self.slow_read)
            .finish_non_exhaustive()
    }
}
