use std::ops::Bound;

use bytes::Bytes;
use hashbrown::HashMap;
use quorate_backend::{ApplyTxn, Backend, Table};
use quorate_proto::LeaseId;

use crate::attachments::Attachments;
use crate::slab::Slab;
use crate::wheel::Wheel;
use crate::{Error, record, spread};

/// Owns the leases of a member: which there are, which keys hang on them, and, on the leader, when they end.
///
/// What is replicated ([`grant`](Self::grant), [`revoke`](Self::revoke), [`checkpoint`](Self::checkpoint),
/// [`attach`](Self::attach), [`detach`](Self::detach)) comes from the log and is the same on every member. The time at
/// which a lease ends is known only to the primary, the leader, and is never stored: a lease that nobody watches does
/// not age. Time is an argument, in milliseconds of one monotonic clock; a lessor knows no other.
///
/// | event | end of a lease |
/// | --- | --- |
/// | grant, renew on the primary | now + granted TTL |
/// | promote | now + extension + checkpointed remaining time, or else the granted TTL, + a delay when many end together |
/// | demote, restart | none |
///
/// Source: etcd v3.7.1 `server/lease/lessor.go`.
#[derive(Debug)]
pub struct Lessor {
    options: Options,
    leases: Slab<Lease>,
    /// Slots by id; never iterated.
    by_id: HashMap<LeaseId, u32>,
    attachments: Attachments,
    primary: bool,
    /// The latest time told.
    clock_ms: u64,
    /// Counts decisions about when leases end.
    turn: u64,
    /// Set for every lease while primary, at or before its end; after it has been handed out, at the next try.
    ends: Wheel,
    /// Set for long leases while primary, when the remaining time is to be replicated next.
    checkpoints: Wheel,
}

/// How a [`Lessor`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Shorter TTLs are raised to this many seconds, when granted and when restored.
    pub min_ttl_s: i64,
    /// How long an expired lease that was handed out is waited for before it is handed out again.
    pub revoke_retry_ms: u64,
    /// Replicate the remaining time of leases that have more than this left, and as often; `None` does not.
    pub checkpoint_interval_ms: Option<u64>,
    /// With this many leases or more, a promotion spreads their ends, three quarters of this number to the second.
    pub revokes_per_second: u64,
}

/// The largest TTL, in seconds.
///
/// Source: etcd v3.7.1 `server/lease/lessor.go` `MaxLeaseTTL`.
pub const TTL_MAX_S: i64 = 9_000_000_000;
/// Default of [`Options::revoke_retry_ms`].
pub const REVOKE_RETRY_MS_DEFAULT: u64 = 3_000;
/// What [`Options::checkpoint_interval_ms`] is where checkpoints are on.
pub const CHECKPOINT_INTERVAL_MS: u64 = 300_000;
/// Default of [`Options::revokes_per_second`].
pub const REVOKES_PER_SECOND_DEFAULT: u64 = 1_000;
/// Most timers that one call of [`Lessor::expired`] or [`Lessor::checkpoints_due`] touches: a few milliseconds of work.
pub const TIMER_STEPS_MAX: usize = 65_536;
/// The remaining seconds shown for a lease of a lessor that is not primary.
///
/// Source: etcd v3.7.1 `server/lease/lease.go` `Lease.Remaining`, the largest `time.Duration`.
pub const REMAINING_FOREVER_S: i64 = i64::MAX / 1_000_000_000;

/// Leases read at once while restoring.
const RESTORE_ROWS_MAX: usize = 10_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            min_ttl_s: 2,
            revoke_retry_ms: REVOKE_RETRY_MS_DEFAULT,
            checkpoint_interval_ms: None,
            revokes_per_second: REVOKES_PER_SECOND_DEFAULT,
        }
    }
}

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The lease.
    pub id: LeaseId,
    /// Its TTL in seconds, which may be more than was asked for.
    pub ttl_s: i64,
}

/// How long a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Its TTL in seconds.
    pub granted_s: i64,
    /// Seconds left, truncated towards zero; 0 or negative when it is expired and not yet revoked;
    /// [`REMAINING_FOREVER_S`] when the lessor is not primary.
    pub remaining_s: i64,
}

#[derive(Debug)]
struct Lease {
    id: LeaseId,
    ttl_s: i64,
    /// Checkpointed seconds left; 0 when there is no checkpoint.
    remaining_s: i64,
    /// When it ends; only means something while primary.
    end_ms: u64,
    /// Orders leases that end in the same millisecond by when that was decided.
    turn: u64,
}

impl Lease {
    /// How long it lives when nobody has renewed it under the present leader, in milliseconds.
    fn span_ms(&self) -> u64 {
        seconds_to_ms(if self.remaining_s > 0 {
            self.remaining_s
        } else {
            self.ttl_s
        })
    }
}

impl Lessor {
    /// Restores the leases that the backend holds; none has an end until the lessor is promoted.
    ///
    /// Keys are attached afterwards, by [`attach_restored`](Self::attach_restored), when the store has found them.
    ///
    /// # Errors
    /// When the backend cannot be read or a row is damaged.
    ///
    /// # Panics
    /// When [`Options::revokes_per_second`] is below 2.
    pub fn restore(backend: &Backend, options: Options) -> Result<Lessor, Error> {
        assert!(
            options.revokes_per_second > 1,
            "leases must end at some rate"
        );
        let mut lessor = Lessor {
            options,
            leases: Slab::new(),
            by_id: HashMap::new(),
            attachments: Attachments::new(),
            primary: false,
            clock_ms: 0,
            turn: 0,
            ends: Wheel::new(),
            checkpoints: Wheel::new(),
        };
        let txn = backend.read()?;
        let mut after: Option<Bytes> = None;
        loop {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = txn.scan(Table::Lease, from, RESTORE_ROWS_MAX)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, value) in &rows {
                let row = record::decode(key, value)?;
                let lease = Lease {
                    id: LeaseId(row.id),
                    ttl_s: row.ttl.max(options.min_ttl_s),
                    remaining_s: row.remaining_ttl,
                    end_ms: 0,
                    turn: 0,
                };
                lessor.insert(lease);
            }
        }
        Ok(lessor)
    }

    /// Attaches the keys that the restored store found with a lease, and returns how many of those leases do not exist:
    /// their keys stay ordinary keys.
    pub fn attach_restored(&mut self, keys: Vec<(Bytes, LeaseId)>) -> usize {
        let mut unknown = 0;
        for (key, id) in keys {
            unknown += usize::from(!self.attach(key, id));
        }
        unknown
    }

    /// Creates a lease. The caller has replaced id 0, "pick one", before the request went into the log.
    ///
    /// # Errors
    /// [`Error::NotFound`] for id 0, [`Error::TtlTooLarge`], [`Error::Exists`]; nothing has changed then.
    pub fn grant(
        &mut self,
        txn: &mut ApplyTxn,
        id: LeaseId,
        ttl_s: i64,
        now_ms: u64,
    ) -> Result<Granted, Error> {
        self.observe(now_ms);
        if id == NO_LEASE {
            return Err(Error::NotFound);
        }
        if ttl_s > TTL_MAX_S {
            return Err(Error::TtlTooLarge);
        }
        if self.exists(id) {
            return Err(Error::Exists);
        }
        let ttl_s = ttl_s.max(self.options.min_ttl_s);
        txn.put(Table::Lease, &record::key(id), record::encode(id, ttl_s, 0));
        let turn = self.next_turn();
        let slot = self.insert(Lease {
            id,
            ttl_s,
            remaining_s: 0,
            end_ms: now_ms.saturating_add(seconds_to_ms(ttl_s)),
            turn,
        });
        if self.primary {
            self.ends.set(slot, self.leases.get(slot).end_ms);
            self.schedule_checkpoint(slot, now_ms);
        }
        Ok(Granted { id, ttl_s })
    }

    /// Ends a lease and takes its keys off it. The caller deletes the keys, which [`keys`](Self::keys) names, from the
    /// store in the same transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`]; nothing has changed then.
    pub fn revoke(&mut self, txn: &mut ApplyTxn, id: LeaseId) -> Result<(), Error> {
        let slot = self.by_id.remove(&id).ok_or(Error::NotFound)?;
        txn.delete(Table::Lease, &record::key(id));
        self.ends.cancel(slot);
        self.checkpoints.cancel(slot);
        self.attachments.detach_all(slot);
        self.leases.remove(slot);
        Ok(())
    }

    /// Returns the keys attached to a lease in byte order, or `None` when there is no such lease.
    pub fn keys(&self, id: LeaseId) -> Option<Vec<Bytes>> {
        self.slot(id).map(|slot| self.attachments.keys(slot))
    }

    /// Returns the keys attached to a lease in the order in which they were attached, or `None` when there is no such
    /// lease.
    pub fn keys_as_attached(&self, id: LeaseId) -> Option<Vec<Bytes>> {
        self.slot(id)
            .map(|slot| self.attachments.keys_as_attached(slot))
    }

    /// Says whether there is such a lease.
    pub fn exists(&self, id: LeaseId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Returns how many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// Returns how many keys are attached to leases.
    pub fn key_count(&self) -> usize {
        self.attachments.len()
    }

    /// Hangs a key on a lease, taking it off any other; id 0 only takes it off. Answers whether there is such a lease:
    /// when there is not, the key hangs on none, which happens to keys that outlived their lease.
    pub fn attach(&mut self, key: Bytes, id: LeaseId) -> bool {
        if let Some(slot) = self.slot(id) {
            self.attachments.attach(&key, slot);
            return true;
        }
        self.attachments.detach(&key);
        id == NO_LEASE
    }

    /// Takes a key off its lease, as when it is deleted.
    pub fn detach(&mut self, key: &[u8]) {
        self.attachments.detach(key);
    }

    /// Returns the lease that a key hangs on, or 0.
    pub fn lease_of(&self, key: &[u8]) -> LeaseId {
        self.attachments
            .lease_of(key)
            .map_or(NO_LEASE, |slot| self.leases.get(slot).id)
    }

    /// Makes this lessor the primary: from now on leases end and can be renewed.
    ///
    /// Every lease gets its checkpointed remaining time, or else its TTL, and `extend_ms` on top, for renewals that the
    /// leader before may have answered; so nothing ends early. With [`Options::revokes_per_second`] leases or more, those
    /// that would end in the same second are spread over later ones.
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        self.observe(now_ms);
        self.primary = true;
        self.ends.clear();
        self.checkpoints.clear();
        let turn = self.next_turn();
        let slots: Vec<u32> = self.leases.iter().map(|(slot, _)| slot).collect();
        for &slot in &slots {
            let lease = self.leases.get_mut(slot);
            lease.turn = turn;
            lease.end_ms = now_ms
                .saturating_add(extend_ms)
                .saturating_add(lease.span_ms());
        }
        if self.leases.len() as u64 >= self.options.revokes_per_second {
            self.spread_ends(now_ms, slots.clone());
        }
        for slot in slots {
            self.ends.set(slot, self.leases.get(slot).end_ms);
            self.schedule_checkpoint(slot, now_ms);
        }
    }

    /// Makes this lessor not primary: no lease ends here any more.
    pub fn demote(&mut self) {
        self.primary = false;
        self.ends.clear();
        self.checkpoints.clear();
    }

    /// Says whether this lessor is the primary.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// Renews a lease and returns its TTL in seconds. Nothing is replicated.
    ///
    /// # Errors
    /// - [`Error::NotPrimary`]: the leader must be asked.
    /// - [`Error::NotFound`]: it is gone, or never was.
    /// - [`Error::Expired`]: it is past its end; the caller waits for the revocation to be applied, and answers as for a
    ///   lease not found, or for the demotion, and asks the new leader.
    /// - [`Error::CheckpointStored`]: the caller first replicates a checkpoint of 0. Otherwise the next leader would give
    ///   the renewed lease only the checkpointed rest, and it would end early.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Result<i64, Error> {
        self.observe(now_ms);
        if !self.primary {
            return Err(Error::NotPrimary);
        }
        let slot = self.slot(id).ok_or(Error::NotFound)?;
        let turn = self.next_turn();
        let lease = self.leases.get_mut(slot);
        if lease.end_ms <= now_ms {
            return Err(Error::Expired);
        }
        if lease.remaining_s > 0 {
            return Err(Error::CheckpointStored);
        }
        lease.turn = turn;
        lease.end_ms = now_ms.saturating_add(seconds_to_ms(lease.ttl_s));
        // A timer that fires before the end is set again then, which is cheaper than moving it with each renewal; but a
        // lease that was extended by a promotion may now end sooner than its timer.
        if self
            .ends
            .time_of(slot)
            .is_none_or(|timer_ms| timer_ms > lease.end_ms)
        {
            self.ends.set(slot, lease.end_ms);
        }
        Ok(lease.ttl_s)
    }

    /// Returns up to `limit` leases that are past their end, to be revoked through the log, roughly in the order in which
    /// they ended.
    ///
    /// A lease is not returned again before [`Options::revoke_retry_ms`] have passed. A call touches no more than
    /// [`TIMER_STEPS_MAX`] timers, so after a very large step of time it may take several calls until all are returned.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        self.observe(now_ms);
        let mut expired = Vec::new();
        if !self.primary {
            return expired;
        }
        let mut steps = TIMER_STEPS_MAX;
        while expired.len() < limit {
            let Some(slot) = self.ends.pop_due(now_ms, &mut steps) else {
                break;
            };
            let lease = self.leases.get(slot);
            if lease.end_ms > now_ms {
                self.ends.set(slot, lease.end_ms);
                continue;
            }
            self.ends.set(
                slot,
                now_ms.saturating_add(self.options.revoke_retry_ms.max(1)),
            );
            expired.push(lease.id);
        }
        expired
    }

    /// Returns up to `limit` leases whose remaining time, in seconds and rounded up, is to be replicated now.
    ///
    /// Differs from etcd: a lease that was just renewed when its checkpoint came due is looked at again after another
    /// interval; there it would have no more checkpoints until the next change of leader.
    pub fn checkpoints_due(&mut self, now_ms: u64, limit: usize) -> Vec<(LeaseId, i64)> {
        self.observe(now_ms);
        let mut due = Vec::new();
        let Some(interval_ms) = self.options.checkpoint_interval_ms.filter(|_| self.primary) else {
            return due;
        };
        let mut steps = TIMER_STEPS_MAX;
        while due.len() < limit {
            let Some(slot) = self.checkpoints.pop_due(now_ms, &mut steps) else {
                break;
            };
            let lease = self.leases.get(slot);
            let left_ms = lease.end_ms.saturating_sub(now_ms);
            if left_ms == 0 {
                continue;
            }
            let remaining_s = i64::try_from(left_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
            if remaining_s < lease.ttl_s {
                due.push((lease.id, remaining_s));
            }
            if left_ms > interval_ms {
                self.checkpoints
                    .set(slot, now_ms.saturating_add(interval_ms.max(1)));
            }
        }
        due
    }

    /// Takes over a replicated remaining time, 0 to forget it; a lease that is gone is passed over.
    ///
    /// It does not change when the lease ends under this leader, only how long it lives under the next. `persist` says
    /// whether it is also stored, so that it survives a restart.
    pub fn checkpoint(&mut self, txn: &mut ApplyTxn, id: LeaseId, remaining_s: i64, persist: bool) {
        let Some(slot) = self.slot(id) else { return };
        let lease = self.leases.get_mut(slot);
        lease.remaining_s = remaining_s;
        if persist {
            txn.put(
                Table::Lease,
                &record::key(id),
                record::encode(id, lease.ttl_s, remaining_s),
            );
        }
        if self.primary {
            self.schedule_checkpoint(slot, self.clock_ms);
        }
    }

    /// Returns how long a lease has left, or `None` when there is no such lease.
    pub fn time_to_live(&self, id: LeaseId, now_ms: u64) -> Option<TimeToLive> {
        let lease = self.leases.get(self.slot(id)?);
        let remaining_s = if !self.primary {
            REMAINING_FOREVER_S
        } else if lease.end_ms >= now_ms {
            ms_to_seconds(lease.end_ms - now_ms)
        } else {
            -ms_to_seconds(now_ms - lease.end_ms)
        };
        Some(TimeToLive {
            granted_s: lease.ttl_s,
            remaining_s,
        })
    }

    /// Returns all leases, those that end first first; of those that end together, the one whose end was decided first,
    /// and then in table order. On a lessor that is not primary in table order.
    pub fn leases(&self) -> Vec<LeaseId> {
        let rank = |lease: &Lease| {
            if self.primary {
                (lease.end_ms, lease.turn)
            } else {
                (0, 0)
            }
        };
        let all = self
            .leases
            .iter()
            .map(|(_, l)| (rank(l), record::key(l.id)));
        let mut all: Vec<((u64, u64), [u8; 8])> = all.collect();
        all.sort_unstable();
        all.into_iter()
            .map(|(_, key)| LeaseId(i64::from_be_bytes(key)))
            .collect()
    }

    fn slot(&self, id: LeaseId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    fn observe(&mut self, now_ms: u64) {
        self.clock_ms = self.clock_ms.max(now_ms);
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn insert(&mut self, lease: Lease) -> u32 {
        let id = lease.id;
        let slot = self.leases.insert(lease);
        let before = self.by_id.insert(id, slot);
        assert!(before.is_none(), "lease {id} is there twice");
        slot
    }

    /// Sets when the remaining time of a lease is looked at next; a short one is not.
    fn schedule_checkpoint(&mut self, slot: u32, now_ms: u64) {
        let Some(interval_ms) = self.options.checkpoint_interval_ms else {
            return;
        };
        if self.leases.get(slot).span_ms() > interval_ms {
            self.checkpoints
                .set(slot, now_ms.saturating_add(interval_ms.max(1)));
        }
    }

    fn spread_ends(&mut self, now_ms: u64, mut slots: Vec<u32>) {
        slots.sort_unstable_by_key(|&slot| {
            let lease = self.leases.get(slot);
            (lease.end_ms, record::key(lease.id))
        });
        let remaining_ms: Vec<u64> = slots
            .iter()
            .map(|&slot| self.leases.get(slot).end_ms - now_ms)
            .collect();
        // Fewer than can be revoked, so that a pile does not take the whole rate.
        let per_second = self.options.revokes_per_second * 3 / 4;
        for (slot, delay_ms) in slots
            .into_iter()
            .zip(spread::delays_ms(&remaining_ms, per_second))
        {
            let lease = self.leases.get_mut(slot);
            lease.end_ms = lease.end_ms.saturating_add(delay_ms);
        }
    }
}

/// Means no lease, in requests and records.
const NO_LEASE: LeaseId = LeaseId(0);

fn seconds_to_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

fn ms_to_seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}
