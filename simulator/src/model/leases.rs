//! Leases: which lived when.
use std::collections::BTreeMap;

use super::Refusal;

/// The largest time to live, in seconds.
const TTL_MAX_S: i64 = 9_000_000_000;

/// The life of one lease, from its grant to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Granted seconds.
    pub ttl_s: i64,
    /// Entry that granted it.
    pub granted: u64,
    /// Entry that ended it.
    pub ended: Option<u64>,
    /// The last checkpoint: its entry, and the seconds that were left; 0 of one that was taken back.
    pub checkpoint: Option<(u64, i64)>,
}

impl Life {
    /// Says whether the lease is there once an entry is applied.
    pub fn is_at(&self, index: u64) -> bool {
        self.granted <= index && self.ended.is_none_or(|ended| ended > index)
    }
}

/// All leases there ever were.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    lives: BTreeMap<i64, Vec<Life>>,
}

impl Leases {
    /// Returns the life that a lease has once an entry is applied.
    pub fn at(&self, id: i64, index: u64) -> Option<&Life> {
        self.lives.get(&id)?.iter().find(|life| life.is_at(index))
    }

    /// Returns the ids of all leases there are once an entry is applied, sorted.
    pub fn all_at(&self, index: u64) -> Vec<i64> {
        self.lives
            .iter()
            .filter(|(_, lives)| lives.iter().any(|life| life.is_at(index)))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Says whether a lease is there.
    pub fn is_now(&self, id: i64) -> bool {
        self.now(id).is_some()
    }

    /// Returns a lease that is there.
    pub fn now(&self, id: i64) -> Option<&Life> {
        self.lives
            .get(&id)?
            .last()
            .filter(|life| life.ended.is_none())
    }

    /// Returns the leases that are there.
    pub fn living(&self) -> impl Iterator<Item = (i64, &Life)> {
        self.lives
            .keys()
            .filter_map(|id| self.now(*id).map(|life| (*id, life)))
    }

    /// Grants a lease; returns its seconds.
    pub(super) fn grant(
        &mut self,
        id: i64,
        ttl_s: i64,
        ttl_s_min: i64,
        index: u64,
    ) -> Result<i64, Refusal> {
        if ttl_s > TTL_MAX_S {
            return Err(Refusal::TtlTooLarge);
        }
        if self.is_now(id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl_s = ttl_s.max(ttl_s_min);
        self.lives.entry(id).or_default().push(Life {
            ttl_s,
            granted: index,
            ended: None,
            checkpoint: None,
        });
        Ok(ttl_s)
    }

    pub(super) fn end(&mut self, id: i64, index: u64) {
        if let Some(life) = self.last_mut(id) {
            life.ended = Some(index);
        }
    }

    pub(super) fn checkpoint(&mut self, id: i64, remaining_s: i64, index: u64) {
        if let Some(life) = self.last_mut(id) {
            life.checkpoint = Some((index, remaining_s));
        }
    }

    fn last_mut(&mut self, id: i64) -> Option<&mut Life> {
        let last = self.lives.get_mut(&id)?.last_mut();
        last.filter(|life| life.ended.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_follow_the_reference() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(7, 0, 2, 1), Ok(2));
        assert_eq!(leases.grant(7, 9, 2, 2), Err(Refusal::LeaseExists));
        assert_eq!(leases.grant(-8, TTL_MAX_S, 2, 3), Ok(TTL_MAX_S));
        assert_eq!(
            leases.grant(9, TTL_MAX_S + 1, 2, 4),
            Err(Refusal::TtlTooLarge)
        );
        assert_eq!(leases.all_at(4), [-8, 7]);
    }

    #[test]
    fn an_id_may_live_again() {
        let mut leases = Leases::default();
        leases.grant(7, 5, 2, 1).unwrap();
        leases.end(7, 3);
        assert!(leases.at(7, 2).is_some() && leases.at(7, 3).is_none());
        leases.grant(7, 6, 2, 5).unwrap();
        assert_eq!(leases.at(7, 5).unwrap().ttl_s, 6);
        assert!(leases.at(7, 4).is_none() && leases.is_now(7));
    }
}
