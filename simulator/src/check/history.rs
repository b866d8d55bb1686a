//! Reads against the order of everything that was told before.
//!
//! Every answer rests on a place in the log: a write on its entry, a read on the entries that were applied where it was
//! made. So a history is linearizable when each answer is the one of its place, and no read rests on a place before one
//! that somebody was told of when it began. That writes are in order follows from the log: an entry comes behind all that
//! were committed when it was asked for.
use std::collections::BTreeMap;

use super::Violation;

/// The newest place that anybody was told of, and what each member showed in its present life.
#[derive(Debug, Default)]
pub struct History {
    told: u64,
    /// By machine: its life, the newest place and revision that a read of it showed.
    shown: BTreeMap<u64, (u64, u64, i64)>,
}

impl History {
    /// Returns the newest place that anybody was told of: what a read that begins now must not be behind.
    pub fn newest(&self) -> u64 {
        self.told
    }

    /// Notes that somebody is told of something that rests on a place.
    pub fn tell(&mut self, place: u64) {
        self.told = self.told.max(place);
    }

    /// Takes a linearizable read that rests on `place` and began when `since` was the newest that was told.
    ///
    /// # Errors
    /// It is stale.
    pub fn linearizable(&mut self, machine: u64, since: u64, place: u64) -> Result<(), Violation> {
        if place < since {
            let text =
                format!("m{machine} reads what entry {place} left after entry {since} was told of");
            return Err(Violation::new("linearizable reads", text));
        }
        self.tell(place);
        Ok(())
    }

    /// Takes any read of a member's present life.
    ///
    /// # Errors
    /// It shows less than one before.
    pub fn local(
        &mut self,
        machine: u64,
        life: u64,
        place: u64,
        revision: i64,
    ) -> Result<(), Violation> {
        let shown = self.shown.entry(machine).or_insert((life, 0, 0));
        if shown.0 != life {
            *shown = (life, 0, 0);
        }
        if place < shown.1 || revision < shown.2 {
            let text = format!(
                "m{machine} showed entry {} at revision {}, and now entry {place} at {revision}",
                shown.1, shown.2
            );
            return Err(Violation::new("reads of a member never go back", text));
        }
        *shown = (life, place, revision);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_behind_what_was_told_is_refused() {
        let mut history = History::default();
        history.tell(5);
        let since = history.newest();
        history.tell(9);
        assert_eq!(history.linearizable(1, since, 5), Ok(()));
        assert_eq!(history.linearizable(1, history.newest(), 9), Ok(()));
        let stale = history.linearizable(1, history.newest(), 8).unwrap_err();
        assert_eq!(stale.check, "linearizable reads");
    }

    #[test]
    fn a_read_counts_for_those_that_come_after_it() {
        let mut history = History::default();
        history.linearizable(1, 0, 7).unwrap();
        assert!(history.linearizable(2, history.newest(), 6).is_err());
    }

    #[test]
    fn a_member_goes_back_only_when_it_starts_again() {
        let mut history = History::default();
        history.local(1, 1, 5, 3).unwrap();
        history.local(2, 1, 4, 2).unwrap();
        assert!(history.local(1, 1, 4, 3).is_err());
        assert!(history.local(1, 1, 6, 2).is_err());
        assert_eq!(history.local(1, 2, 4, 2), Ok(()));
    }
}
