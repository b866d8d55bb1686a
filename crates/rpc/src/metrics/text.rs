//! The text exposition format.
use std::fmt::Write as _;

use super::families;
use super::histogram::HistogramSnapshot;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
    /// Observations by rank.
    Summary,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// One metric with its samples.
#[derive(Debug)]
struct Family {
    name: String,
    kind: MetricKind,
    help: String,
    samples: String,
    /// The sum of what several sources add to one sample without labels.
    total: Option<u64>,
    /// Whether it is shown only as long as nobody else shows it.
    is_standing: bool,
}

/// Builds the text of a scrape.
///
/// **Shape**: metrics sorted by name, those without samples left out; for each a `# HELP` and a `# TYPE` line, then one
/// line a sample: name, labels in braces, value as Go prints a floating point number.
#[derive(Debug, Default)]
pub struct Text {
    families: Vec<Family>,
}

impl Text {
    /// Starts a metric, or goes on with it when another source has begun it; the samples that follow are its.
    pub fn metric(&mut self, name: &str, kind: MetricKind, help: &str) -> &mut Self {
        self.families.push(Family {
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            samples: String::new(),
            total: None,
            is_standing: false,
        });
        self
    }

    /// Starts a metric that etcd has too, with etcd's type and text.
    ///
    /// # Panics
    ///
    /// When etcd has no such metric.
    pub fn known(&mut self, name: &str) -> &mut Self {
        let (kind, help) = families::find(name).unwrap_or_else(|| panic!("etcd has {name}"));
        self.metric(name, kind, help)
    }

    /// Starts a metric of etcd that is shown only as long as no other source shows it.
    ///
    /// # Panics
    ///
    /// When etcd has no such metric.
    pub(super) fn standing(&mut self, name: &str) -> &mut Self {
        self.known(name);
        self.last().is_standing = true;
        self
    }

    /// Adds to the one sample of a metric of etcd's; what several sources add is summed.
    ///
    /// # Panics
    ///
    /// When etcd has no such metric.
    pub fn add(&mut self, name: &str, count: u64) {
        self.known(name);
        self.last().total = Some(count);
    }

    /// Adds a sample with whole numbers.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.float_sample(labels, wide(value))
    }

    /// Adds a sample that may be negative.
    pub fn signed_sample(&mut self, labels: &[(&str, &str)], value: i64) -> &mut Self {
        let magnitude = wide(value.unsigned_abs());
        self.float_sample(labels, if value < 0 { -magnitude } else { magnitude })
    }

    /// Adds a sample.
    pub fn float_sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.line("", labels, value)
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
            self.line("_bucket", &labels, wide(below));
        }
        let labels_inf: Vec<_> = labels.iter().copied().chain([("le", "+Inf")]).collect();
        self.line("_bucket", &labels_inf, wide(histogram.count));
        self.line("_sum", labels, histogram.sum);
        self.line("_count", labels, wide(histogram.count))
    }

    /// Adds sum and count of a summary.
    pub(super) fn summary_end(&mut self, sum: f64, count: u64) {
        self.line("_sum", &[], sum);
        self.line("_count", &[], wide(count));
    }

    /// Adds a metric with one sample without labels.
    pub fn simple(&mut self, name: &str, kind: MetricKind, help: &str, value: u64) -> &mut Self {
        self.metric(name, kind, help).sample(&[], value)
    }

    /// Returns the text.
    pub fn finish(mut self) -> String {
        self.families.sort_by(|a, b| a.name.cmp(&b.name));
        let mut out = String::new();
        for group in self.families.chunk_by(|a, b| a.name == b.name) {
            let is_shown = |family: &&Family| {
                !family.is_standing || group.iter().all(|other| other.is_standing)
            };
            let shown: Vec<&Family> = group.iter().filter(is_shown).collect();
            let totals: Vec<u64> = shown.iter().filter_map(|f| f.total).collect();
            if totals.is_empty() && shown.iter().all(|f| f.samples.is_empty()) {
                continue;
            }
            let Family {
                name, kind, help, ..
            } = shown[0];
            let kind = kind.name();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {}", escape_help(help));
            let _ = writeln!(out, "# TYPE {name} {kind}");
            if !totals.is_empty() {
                let _ = writeln!(out, "{name} {}", number(wide(totals.iter().sum())));
            }
            out.extend(shown.iter().map(|f| &*f.samples));
        }
        out
    }

    fn last(&mut self) -> &mut Family {
        self.families
            .last_mut()
            .expect("a metric is started before its samples")
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let family = self.last();
        let out = &mut family.samples;
        // Writing to a string cannot fail.
        let _ = write!(out, "{}{suffix}", family.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(out, "{open}{name}=\"{}\"", escape(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(out, "{close} {}", number(value));
        self
    }
}

/// Makes a number as wide as the format has them; above 2^53 the last digits are rounded, as everywhere in Prometheus.
pub(super) fn wide(value: u64) -> f64 {
    value as f64
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn escape_help(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

/// Prints a number as Go does with format `g` and as few digits as tell it apart: bounds of buckets are labels, which must
/// be equal letter by letter.
fn number(value: f64) -> String {
    const PLAIN: std::ops::Range<i32> = -4..6;
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if PLAIN.contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut text = Text::default();
        text.metric("g", MetricKind::Gauge, "G.")
            .signed_sample(&[], -3);
        text.metric("a_total", MetricKind::Counter, "Counts \\ a.")
            .sample(&[("x", "1"), ("y", "q\"\\\n")], 5)
            .sample(&[], 6);
        text.metric("nothing", MetricKind::Gauge, "Has no samples.");
        assert_eq!(
            text.finish(),
            "# HELP a_total Counts \\\\ a.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 5\na_total 6\n\
             # HELP g G.\n# TYPE g gauge\ng -3\n"
        );
    }

    #[test]
    fn several_sources_show_one_metric_together_and_a_standing_one_gives_way() {
        let mut text = Text::default();
        text.add("etcd_mvcc_put_total", 2);
        text.standing("etcd_disk_defrag_inflight").sample(&[], 0);
        text.standing("etcd_snap_db_fsync_duration_seconds")
            .sample(&[], 0);
        text.add("etcd_mvcc_put_total", 3);
        text.known("etcd_disk_defrag_inflight").sample(&[], 1);
        let text = text.finish();
        let samples: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        let expected = [
            "etcd_disk_defrag_inflight 1",
            "etcd_mvcc_put_total 5",
            "etcd_snap_db_fsync_duration_seconds 0",
        ];
        assert_eq!(samples, expected);
        assert_eq!(text.matches("# TYPE").count(), 3);
    }

    #[test]
    fn numbers_print_as_in_go() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (20_480.0, "20480"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (9_223_372_036_854_775_807.0, "9.223372036854776e+18"),
            (0.0001, "0.0001"),
            (0.00008, "8e-05"),
            (0.042999595, "0.042999595"),
            (1e-7, "1e-07"),
            (52.4288, "52.4288"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number(value), expected);
        }
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
