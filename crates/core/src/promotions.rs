//! How often learners were promoted by this member, and why not.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{Error, Outcome};

/// Most reasons that are told apart; there are far fewer that are known.
const REASONS_MAX: usize = 64;

/// Counts what came of promotions that were asked of this member as the leader; whoever asks it counts, on any thread.
///
/// Source: etcd v3.7.1 server/etcdserver/server.go PromoteMember.
#[derive(Debug, Default)]
pub struct Promotions {
    succeeded: AtomicU64,
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Promotions {
    /// Counts what the member said to a promotion. That another one leads is no failure: that one is asked, and counts.
    pub fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Members { .. } => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Failed(error) => self.refused(error),
            _ => {}
        }
    }

    /// Counts a promotion that was refused before the member was asked, or by it.
    pub fn refused(&self, error: &Error) {
        if matches!(error, Error::NotLeader { .. }) {
            return;
        }
        let mut failed = self.failed.lock();
        let reason = reason(error);
        if failed.len() < REASONS_MAX || failed.contains_key(&reason) {
            *failed.entry(reason).or_default() += 1;
        }
    }

    /// Returns how many succeeded.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Returns how many failed, by reason in etcd's words.
    pub fn failed(&self) -> BTreeMap<String, u64> {
        self.failed.lock().clone()
    }
}

/// Says what etcd's error says, which has its package's name in front.
fn reason(error: &Error) -> String {
    match error {
        Error::Membership(_) | Error::Auth(_) => error.to_string(),
        _ => format!("etcdserver: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::MemberId;

    use super::*;
    use crate::ChangeError;

    #[test]
    fn promotions_are_counted_by_reason_where_the_leader_is() {
        let promotions = Promotions::default();
        promotions.count(&Outcome::Members {
            id: MemberId(1),
            members: Vec::new(),
        });
        for error in [
            Error::LearnerNotReady,
            Error::Membership(ChangeError::IdNotFound),
            Error::NotLeader {
                leader: MemberId(2),
            },
            Error::LearnerNotReady,
        ] {
            promotions.count(&Outcome::Failed(error));
        }
        promotions.refused(&Error::Auth(quorate_auth::Error::PermissionDenied));
        assert_eq!(promotions.succeeded(), 1);
        let failed: Vec<(String, u64)> = promotions.failed().into_iter().collect();
        let expected = [
            ("auth: permission denied", 1),
            (
                "etcdserver: can only promote a learner member which is in sync with leader",
                2,
            ),
            ("membership: ID not found", 1),
        ];
        assert_eq!(failed, expected.map(|(why, n)| (why.to_owned(), n)));
    }
}
