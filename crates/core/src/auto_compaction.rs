//! Compaction without being asked: by age or by number of revisions. Only a leader acts on it.
use std::collections::VecDeque;

/// How history is thinned out by itself. Source: etcd v3.7.1 server/etcdserver/api/v3compactor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Not at all.
    #[default]
    Off,
    /// Keeps this many milliseconds of history.
    Periodic {
        /// Age kept.
        period_ms: u64,
    },
    /// Keeps this many revisions.
    Revision {
        /// Revisions kept.
        retention: i64,
    },
}

const HOUR_MS: u64 = 60 * 60 * 1_000;
const REVISION_INTERVAL_MS: u64 = 5 * 60 * 1_000;
const SAMPLES_PER_INTERVAL: u64 = 10;

/// Samples the revision and says when to compact where.
#[derive(Debug)]
pub(crate) struct AutoCompactor {
    setting: AutoCompaction,
    next_ms: u64,
    samples: VecDeque<i64>,
    last_success_ms: u64,
    last_revision: i64,
    /// Whether a first full period is over.
    settled: bool,
}

impl AutoCompactor {
    pub(crate) fn new(setting: AutoCompaction, now_ms: u64) -> Self {
        let mut compactor = Self {
            setting,
            next_ms: now_ms,
            samples: VecDeque::new(),
            last_success_ms: now_ms,
            last_revision: 0,
            settled: false,
        };
        if let AutoCompaction::Revision { .. } = setting {
            compactor.next_ms += REVISION_INTERVAL_MS;
        }
        compactor
    }

    /// Takes the time and the current revision; returns where to compact now, on the leader.
    pub(crate) fn tick(&mut self, now_ms: u64, current: i64, is_leader: bool) -> Option<i64> {
        if now_ms < self.next_ms {
            return None;
        }
        match self.setting {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic { period_ms } => {
                self.sample(now_ms, current, is_leader, period_ms.max(1))
            }
            AutoCompaction::Revision { retention } => {
                self.next_ms = now_ms + REVISION_INTERVAL_MS;
                let revision = current - retention;
                (is_leader && revision > 0 && revision != self.last_revision).then_some(revision)
            }
        }
    }

    /// Takes the success of a compaction that [`Self::tick`] asked for; "already compacted" is one too.
    pub(crate) fn succeeded(&mut self, now_ms: u64, revision: i64) {
        self.last_revision = revision;
        self.last_success_ms = now_ms;
        self.settled = true;
    }

    fn sample(
        &mut self,
        now_ms: u64,
        current: i64,
        is_leader: bool,
        period_ms: u64,
    ) -> Option<i64> {
        let interval_ms = period_ms.min(HOUR_MS);
        let step_ms = (interval_ms / SAMPLES_PER_INTERVAL).max(1);
        let oldest = self.samples.front().copied();
        self.samples.push_back(current);
        let kept = usize::try_from(period_ms / step_ms)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        while self.samples.len() > kept {
            self.samples.pop_front();
        }
        self.next_ms = now_ms + step_ms;
        let wait_ms = if self.settled { interval_ms } else { period_ms };
        let revision = oldest?;
        let due = now_ms.saturating_sub(self.last_success_ms) >= wait_ms;
        (is_leader && due && revision != self.last_revision).then_some(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periodic_waits_a_full_period_then_compacts_at_the_revision_of_a_period_ago() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic { period_ms: 1_000 }, 0);
        let mut asked = Vec::new();
        for now in (0..=3_000).step_by(50) {
            if let Some(revision) = compactor.tick(now, i64::try_from(now).unwrap() + 1, true) {
                asked.push((now, revision));
                compactor.succeeded(now, revision);
            }
        }
        assert_eq!(asked, [(1_000, 1), (2_000, 901), (3_000, 1_901)]);
    }

    #[test]
    fn a_follower_samples_but_does_not_act() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic { period_ms: 1_000 }, 0);
        for now in (0..5_000).step_by(100) {
            assert_eq!(
                compactor.tick(now, i64::try_from(now).unwrap(), false),
                None
            );
        }
        let revision = compactor.tick(5_000, 5_000, true);
        assert_eq!(revision, Some(3_900));
    }

    #[test]
    fn by_revision_keeps_the_newest_and_does_not_ask_twice() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Revision { retention: 100 }, 0);
        assert_eq!(compactor.tick(1, 500, true), None);
        assert_eq!(compactor.tick(REVISION_INTERVAL_MS, 500, true), Some(400));
        compactor.succeeded(REVISION_INTERVAL_MS, 400);
        assert_eq!(compactor.tick(2 * REVISION_INTERVAL_MS, 500, true), None);
        assert_eq!(compactor.tick(3 * REVISION_INTERVAL_MS, 50, true), None);
    }
}
