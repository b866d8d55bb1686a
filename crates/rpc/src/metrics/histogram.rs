//! Histograms whose buckets never move.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::counters::Counter;
use super::text::wide;

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

impl HistogramSnapshot {
    /// Makes one without observations, whose bounds grow by a factor.
    pub fn empty(start: f64, factor: f64, count: usize) -> Self {
        let bounds: Vec<f64> = exponential(start, factor, count).collect();
        Self {
            counts: vec![0; bounds.len()],
            bounds,
            count: 0,
            sum: 0.0,
        }
    }

    /// Adds the observations of another one with the same bounds.
    fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.count += other.count;
        self.sum += other.sum;
    }
}

fn exponential(start: f64, factor: f64, count: usize) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(start), move |b| Some(b * factor)).take(count)
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

impl Histogram {
    /// Makes a histogram whose bounds grow by a factor, as etcd's do.
    pub fn exponential(start: f64, factor: f64, count: usize) -> Self {
        let bounds: Vec<f64> = exponential(start, factor, count).collect();
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

/// Makes bounds that double, in nanoseconds.
pub(super) const fn doubling<const N: usize>(first_ns: u64) -> [u64; N] {
    let mut bounds = [first_ns; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
}

/// Upper bounds that the client library of Prometheus has when nobody names any, in nanoseconds.
pub(super) static DEFAULT_BOUNDS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// Bounds from 1 ms, doubling. Source: etcd v3.7.1 server/etcdserver/metrics.go, v3rpc/metrics.go.
pub(super) static MILLISECOND_BOUNDS: [u64; 14] = doubling(1_000_000);
/// Bounds from 0.1 ms, doubling. Source: etcd v3.7.1 server/etcdserver/txn/metrics.go.
pub(super) static FINE_BOUNDS: [u64; 20] = doubling(100_000);

/// Counts times; one thread observes, others read.
#[derive(Debug)]
pub(super) struct Times<const N: usize> {
    bounds_ns: &'static [u64; N],
    counts: [Counter; N],
    count: Counter,
    sum_ns: Counter,
}

impl<const N: usize> Times<N> {
    pub(super) fn new(bounds_ns: &'static [u64; N]) -> Self {
        Self {
            bounds_ns,
            counts: std::array::from_fn(|_| Counter::default()),
            count: Counter::default(),
            sum_ns: Counter::default(),
        }
    }

    pub(super) fn observe(&self, time: Duration) {
        self.observe_each(time, 1);
    }

    /// Counts several observations that share a time.
    pub(super) fn observe_each(&self, time: Duration, count: u64) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let each_ns = ns / count.max(1);
        let bucket = self.bounds_ns.partition_point(|bound| *bound < each_ns);
        if let Some(bucket) = self.counts.get(bucket) {
            bucket.add(count);
        }
        self.count.add(count);
        self.sum_ns.add(ns);
    }

    /// Returns the sum of histograms with the same bounds, which all have; in seconds.
    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> HistogramSnapshot {
        let mut sum: Option<HistogramSnapshot> = None;
        for times in all {
            let one = times.snapshot();
            match &mut sum {
                Some(sum) => sum.merge(&one),
                None => sum = Some(one),
            }
        }
        sum.unwrap_or_else(|| HistogramSnapshot::empty(1.0, 1.0, 0))
    }

    fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self.counts.iter().map(Counter::get).collect();
        HistogramSnapshot {
            bounds: self.bounds_ns.iter().map(|ns| seconds(*ns)).collect(),
            count: self.count.get().max(counts.iter().sum()),
            counts,
            sum: seconds(self.sum_ns.get()),
        }
    }
}

/// Turns nanoseconds into seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    wide(ns) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_threads_are_summed() {
        let times = [Times::new(&FINE_BOUNDS), Times::new(&FINE_BOUNDS)];
        times[0].observe(Duration::from_micros(100));
        times[1].observe(Duration::from_micros(101));
        times[1].observe_each(Duration::from_micros(300), 3);
        times[1].observe(Duration::from_secs(1_000));
        let sum = Times::sum(&times);
        assert_eq!((sum.bounds[0], sum.bounds[19]), (0.0001, 52.4288));
        assert_eq!((sum.counts[0], sum.counts[1]), (4, 1));
        assert_eq!((sum.count, sum.counts.iter().sum::<u64>()), (6, 5));
        assert!((sum.sum - 1_000.000_501).abs() < 1e-9);
        let none: [&Times<20>; 0] = [];
        assert_eq!(Times::sum(none).count, 0);
    }

    #[test]
    fn bounds_are_those_of_the_float_arithmetic_of_go() {
        let go: Vec<f64> = exponential(0.0001, 2.0, 20).collect();
        let ours: Vec<f64> = FINE_BOUNDS.iter().map(|ns| seconds(*ns)).collect();
        assert_eq!(ours, go);
        let go: Vec<f64> = exponential(0.001, 2.0, 14).collect();
        let ours: Vec<f64> = MILLISECOND_BOUNDS.iter().map(|ns| seconds(*ns)).collect();
        assert_eq!(ours, go);
    }
}
