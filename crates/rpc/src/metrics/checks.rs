//! The health checks, and how often each was run.
use std::sync::atomic::{AtomicU64, Ordering};

use super::Text;

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Check {
    LiveSerializableRead,
    DataCorruption,
    ReadySerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVE: [Check; 1] = [Check::LiveSerializableRead];
const READY: [Check; 4] = [
    Check::DataCorruption,
    Check::ReadySerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];
const COUNT: usize = LIVE.len() + READY.len();

impl Check {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LiveSerializableRead | Self::ReadySerializableRead => "serializable_read",
            Self::DataCorruption => "data_corruption",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    fn page(self) -> &'static str {
        if self == Self::LiveSerializableRead {
            "livez"
        } else {
            "readyz"
        }
    }

    fn all() -> impl Iterator<Item = Check> {
        LIVE.into_iter().chain(READY)
    }

    /// Finds the checks of a page: all of them, or the one named.
    pub(crate) fn find(is_live: bool, name: &str) -> Option<&'static [Check]> {
        let page: &'static [Check] = if is_live { &LIVE } else { &READY };
        if name.is_empty() {
            return Some(page);
        }
        let at = page.iter().position(|check| check.name() == name)?;
        page.get(at..=at)
    }
}

/// Counts of health checks; any thread may count.
#[derive(Debug, Default)]
pub(super) struct HealthCounters {
    health: [AtomicU64; 2],
    /// Runs that failed and that succeeded.
    runs: [[AtomicU64; 2]; COUNT],
    last: [AtomicU64; COUNT],
}

impl HealthCounters {
    pub(super) fn health(&self, is_ok: bool) {
        self.health[usize::from(is_ok)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn check(&self, check: Check, is_ok: bool) {
        let at = usize::from(check as u8);
        self.runs[at][usize::from(is_ok)].fetch_add(1, Ordering::Relaxed);
        self.last[at].store(u64::from(is_ok), Ordering::Relaxed);
    }

    pub(super) fn write(&self, text: &mut Text) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [failures, successes] = &self.health;
        text.known("etcd_server_health_failures")
            .sample(&[], get(failures));
        text.known("etcd_server_health_success")
            .sample(&[], get(successes));
        text.known("etcd_server_healthcheck");
        let was_run = |at: usize| self.runs[at].iter().any(|c| get(c) > 0);
        for check in Check::all() {
            let at = usize::from(check as u8);
            if was_run(at) {
                text.sample(
                    &[("name", check.name()), ("type", check.page())],
                    get(&self.last[at]),
                );
            }
        }
        text.known("etcd_server_healthchecks_total");
        for check in Check::all() {
            let at = usize::from(check as u8);
            for (status, count) in ["error", "success"].iter().zip(&self.runs[at]) {
                if get(count) > 0 {
                    let labels = [
                        ("name", check.name()),
                        ("status", *status),
                        ("type", check.page()),
                    ];
                    text.sample(&labels, get(count));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_found_by_page_and_name() {
        assert_eq!(Check::find(true, "").unwrap().len(), 1);
        assert_eq!(Check::find(false, "").unwrap().len(), 4);
        assert_eq!(
            Check::find(false, "non_learner"),
            Some(&[Check::NonLearner][..])
        );
        assert_eq!(Check::find(true, "non_learner"), None);
        let numbers: Vec<_> = Check::all().map(|c| usize::from(c as u8)).collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
    }
}
