//! The text exposition format, and histograms whose buckets never move.
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The content type of the text.
pub(crate) const CONTENT_TYPE: &str =
    "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

/// Builds the text of a scrape.
///
/// **Shape**: for each metric a `# HELP` and a `# TYPE` line, then one line a sample: name, labels in braces, value.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    name: String,
}

impl Text {
    /// Starts a metric; the samples that follow are its.
    pub fn metric(&mut self, name: &str, kind: MetricKind, help: &str) -> &mut Self {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        name.clone_into(&mut self.name);
        self
    }

    /// Adds a sample with whole numbers.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.line("", labels, &value)
    }

    /// Adds a sample that may be negative.
    pub fn signed_sample(&mut self, labels: &[(&str, &str)], value: i64) -> &mut Self {
        self.line("", labels, &value)
    }

    /// Adds the samples of a histogram.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        histogram: &HistogramSnapshot,
    ) -> &mut Self {
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            let bound = number(*bound);
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.line("_bucket", &labels, &below);
        }
        let labels_inf: Vec<_> = labels.iter().copied().chain([("le", "+Inf")]).collect();
        self.line("_bucket", &labels_inf, &histogram.count);
        self.line("_sum", labels, &number(histogram.sum));
        self.line("_count", labels, &histogram.count)
    }

    /// Adds a metric with one sample without labels.
    pub fn simple(&mut self, name: &str, kind: MetricKind, help: &str, value: u64) -> &mut Self {
        self.metric(name, kind, help).sample(&[], value)
    }

    /// Returns the text so far, for a source that writes the format itself.
    pub fn raw(&mut self) -> &mut String {
        &mut self.out
    }

    /// Returns the text.
    pub fn finish(self) -> String {
        self.out
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        value: &dyn std::fmt::Display,
    ) -> &mut Self {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{}{suffix}", self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{open}{name}=\"{}\"", escape(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
        self
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn number(value: f64) -> String {
    format!("{value}")
}

/// Counts observations by size; any thread may observe.
#[derive(Debug)]
pub struct Histogram {
    bounds: Vec<f64>,
    counts: Vec<AtomicU64>,
    count: AtomicU64,
    /// The sum's bits as a floating point number.
    sum: AtomicU64,
}

/// A histogram as it stood at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bounds, rising.
    pub bounds: Vec<f64>,
    /// Observations in each bucket alone.
    pub counts: Vec<u64>,
    /// All observations, those above the last bound too.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// Makes a histogram whose bounds grow by a factor, as etcd's do.
    pub fn exponential(start: f64, factor: f64, count: usize) -> Self {
        let bounds: Vec<f64> = std::iter::successors(Some(start), |b| Some(b * factor))
            .take(count)
            .collect();
        let counts = bounds.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            bounds,
            counts,
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0f64.to_bits()),
        }
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let result = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        debug_assert!(result.is_ok(), "the update always gives a value");
    }

    /// Returns what was counted so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .map(|c| c.load(Ordering::Relaxed))
            .collect();
        HistogramSnapshot {
            bounds: self.bounds.clone(),
            // Never below the buckets' own sum, even while others observe.
            count: self.count.load(Ordering::Relaxed).max(counts.iter().sum()),
            counts,
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut text = Text::default();
        text.metric("a_total", MetricKind::Counter, "Counts a.")
            .sample(&[("x", "1"), ("y", "q\"\\\n")], 5)
            .sample(&[], 6);
        text.metric("g", MetricKind::Gauge, "G.")
            .signed_sample(&[], -3);
        assert_eq!(
            text.finish(),
            "# HELP a_total Counts a.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 5\na_total 6\n\
             # HELP g G.\n# TYPE g gauge\ng -3\n"
        );
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_inclusive() {
        let histogram = Histogram::exponential(0.001, 2.0, 3);
        for value in [0.0005, 0.001, 0.0015, 0.004, 9.0] {
            histogram.observe(value);
        }
        let mut text = Text::default();
        text.metric("h", MetricKind::Histogram, "H.")
            .histogram(&[("k", "v")], &histogram.snapshot());
        assert_eq!(
            text.finish(),
            "# HELP h H.\n# TYPE h histogram\n\
             h_bucket{k=\"v\",le=\"0.001\"} 2\nh_bucket{k=\"v\",le=\"0.002\"} 3\nh_bucket{k=\"v\",le=\"0.004\"} 4\n\
             h_bucket{k=\"v\",le=\"+Inf\"} 5\nh_sum{k=\"v\"} 9.007\nh_count{k=\"v\"} 5\n"
        );
    }
}
