//! Limits of a member, drawn small so that every edge is common.
use quorate_core::Bounds;
use quorate_mvcc::WatchOptions;
use quorate_server::recovery;

use crate::Random;

/// Settings of a member and of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds a tick. The same on all members.
    pub tick_ms: u64,
    /// Ticks of an election timeout. The same on all members.
    pub election_ticks: u64,
    /// Whether elections are probed first.
    pub pre_vote: bool,
    /// Whether the first election may be brought forward.
    pub advance: bool,
    /// Largest request, in bytes. The same on all members.
    pub max_request_bytes: usize,
    /// Entries between snapshots of the log.
    pub snapshot_count: u64,
    /// Entries kept behind the applied index.
    pub catchup_entries: u64,
    /// Snapshot files kept.
    pub snapshots_kept: usize,
    /// Milliseconds between flushes.
    pub flush_ms: u64,
    /// Unflushed bytes that start a flush.
    pub flush_bytes: u64,
    /// Bytes of entries in a batch.
    pub batch_bytes: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of the database's page cache.
    pub page_cache_bytes: usize,
    /// Bytes of the cache of values.
    pub value_cache_bytes: u64,
    /// Rows of a step of a compaction.
    pub compaction_rows: usize,
    /// Rows of a read of the database.
    pub scan_rows: usize,
    /// Bytes of recent events kept for watchers.
    pub event_log_bytes: usize,
    /// Bytes queued for a watcher.
    pub outbox_bytes: usize,
    /// Revisions in an answer to a watcher that is behind.
    pub watch_revisions: usize,
    /// Bytes of a response at which it comes in fragments.
    pub fragment_bytes: usize,
    /// Bytes of a response with news.
    pub live_bytes: usize,
    /// Bytes of a stretch of history that watchers share.
    pub stretch_bytes: usize,
    /// Bytes of a response to a watcher that is behind.
    pub history_bytes: usize,
    /// Milliseconds between two rounds of progress.
    pub progress_ms: u64,
    /// Bytes of a read of the database.
    pub scan_bytes: usize,
    /// Milliseconds between two looks at a downgrade.
    pub downgrade_check_ms: u64,
    /// Whether an older version takes a member's place once the cluster is to be downgraded. The same on all members.
    pub downgrades: bool,
    /// Backend quota; 0 is the default, and a negative one none.
    pub quota_bytes: i64,
    /// Whether members have a quota, each now and then.
    pub has_quota: bool,
    /// Whether remaining times of leases are replicated, and how often, in milliseconds. The same on all members.
    pub checkpoint_ms: Option<u64>,
    /// Milliseconds that a sync of the disk takes at most.
    pub sync_ms: u64,
    /// Whether changes that endanger the quorum are refused. The same on all members.
    pub strict: bool,
    /// Learners that the cluster may have. The same on all members.
    pub max_learners: usize,
    /// Cost of hashing passwords.
    pub bcrypt_cost: u32,
    /// Bounds of the member's queues and batches.
    pub bounds: Bounds,
    /// Leases from which on a promotion spreads their ends. The same on all members.
    pub revokes_per_second: u64,
}

/// Quotas of the database: little more than an empty one takes, which is five or six pages.
const QUOTAS_BYTES: [u64; 3] = [28 << 10, 40 << 10, 100 << 10];

/// Time to live of tokens, in milliseconds.
const TOKEN_TTL_MS: u64 = 300_000;

impl Default for Limits {
    fn default() -> Self {
        let watch = WatchOptions::default();
        Self {
            tick_ms: 10,
            election_ticks: 10,
            pre_vote: true,
            advance: true,
            max_request_bytes: 1 << 20,
            snapshot_count: 30,
            catchup_entries: 10,
            snapshots_kept: 3,
            flush_ms: 30,
            flush_bytes: 1 << 20,
            batch_bytes: 1 << 12,
            segment_bytes: 1 << 15,
            page_cache_bytes: 1 << 20,
            value_cache_bytes: 1 << 16,
            compaction_rows: 1_000,
            scan_rows: 4_096,
            event_log_bytes: 1 << 20,
            outbox_bytes: 48 << 10,
            watch_revisions: 1_000,
            fragment_bytes: watch.fragment_bytes,
            live_bytes: watch.live_batch_bytes,
            stretch_bytes: watch.stretch_bytes,
            history_bytes: watch.batch_bytes,
            progress_ms: 2_000,
            scan_bytes: quorate_mvcc::Options::default().scan_batch_bytes,
            downgrade_check_ms: 5_000,
            downgrades: false,
            quota_bytes: 0,
            has_quota: false,
            checkpoint_ms: None,
            sync_ms: 2,
            strict: false,
            max_learners: 1,
            bcrypt_cost: 4,
            bounds: Bounds::default(),
            revokes_per_second: quorate_lease::Options::default().revokes_per_second,
        }
    }
}

fn size(random: &mut Random, among: &[u64]) -> usize {
    usize::try_from(random.choose(among)).unwrap_or(usize::MAX)
}

/// Draws bounds, each as usual or small: where there is room for nothing, nobody could be served.
fn draw_bounds(random: &mut Random) -> Bounds {
    let usual = Bounds::default();
    let mut or = |usual: u64, small: &[u64]| match random.one_in(4) {
        true => random.choose(small),
        false => usual,
    };
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Bounds {
        waiters: count(or(usual.waiters as u64, &[2, 5, 20])),
        reads: count(or(usual.reads as u64, &[1, 3, 10])),
        parked: count(or(usual.parked as u64, &[0, 1, 3])),
        early_reads: count(or(usual.early_reads as u64, &[0, 1, 3])),
        apply_gap: or(usual.apply_gap, &[2, 10, 50]),
        unflushed_flushes: or(usual.unflushed_flushes, &[1, 2, 4]),
        uncommitted_bytes: or(usual.uncommitted_bytes, &[1, 1_000, 20_000]),
        proposed_bytes: count(or(usual.proposed_bytes as u64, &[1, 100, 2_000])),
        inflight_messages: count(or(usual.inflight_messages as u64, &[1, 2, 8])),
        revokes: count(or(usual.revokes as u64, &[1, 2])),
        checkpoints: count(or(usual.checkpoints as u64, &[1, 2])),
        backlog_bytes: count(or(usual.backlog_bytes as u64, &[1, 1_000, 20_000])),
        backlog_entries: count(or(usual.backlog_entries as u64, &[1, 3])),
        held_bytes: count(or(usual.held_bytes as u64, &[1_000, 20_000])),
        trim_entries: or(usual.trim_entries, &[1, 10]),
        catchup_bytes: count(or(usual.catchup_bytes as u64, &[1_000, 20_000])),
        alone_bytes: count(or(usual.alone_bytes as u64, &[1_000, 20_000])),
        snapshot_log_bytes: or(usual.snapshot_log_bytes, &[2_000, 50_000]),
    }
}

impl Limits {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut limits = Self {
            tick_ms: random.choose(&[20, 50, 100, 100]),
            election_ticks: random.choose(&[5, 10, 10]),
            pre_vote: !random.one_in(5),
            advance: !random.one_in(4),
            checkpoint_ms: random.one_in(3).then(|| random.choose(&[500, 2_000])),
            strict: random.one_in(2),
            max_learners: size(random, &[1, 1, 2]),
            max_request_bytes: size(random, &[4 << 10, 64 << 10, 1 << 20]),
            ..Self::default()
        };
        let (pre_vote, advance) = (limits.pre_vote, limits.advance);
        limits.draw_own(random);
        (limits.pre_vote, limits.advance) = (pre_vote, advance);
        limits
    }

    /// Draws a quota of the database, which few runs have: what there is no room for is refused until an alarm is cleared.
    pub(crate) fn draw_quota(&mut self, random: &mut Random) {
        if random.one_in(10) {
            self.quota_bytes = i64::try_from(random.choose(&QUOTAS_BYTES)).unwrap_or(0);
            self.has_quota = true;
        }
    }

    /// Draws what may differ between members and between two starts of one.
    pub(crate) fn draw_own(&mut self, random: &mut Random) {
        self.snapshot_count = random.choose(&[5, 20, 60, 300]);
        self.catchup_entries = random.choose(&[1, 5, 20, 200]);
        self.snapshots_kept = size(random, &[1, 3]);
        self.flush_ms = random.choose(&[10, 50, 200, 1_000]);
        self.flush_bytes = random.choose(&[2 << 10, 16 << 10, 1 << 20]);
        self.batch_bytes = random.choose(&[256, 2 << 10, 1 << 16]);
        self.segment_bytes = random.choose(&[8 << 10, 32 << 10, 128 << 10]);
        self.page_cache_bytes = size(random, &[64 << 10, 256 << 10, 1 << 20]);
        self.value_cache_bytes = random.choose(&[0, 4 << 10, 64 << 10]);
        self.compaction_rows = size(random, &[1, 5, 50, 1_000]);
        self.scan_rows = size(random, &[2, 16, 256]);
        self.event_log_bytes = size(random, &[512, 8 << 10, 256 << 10]);
        self.outbox_bytes = size(random, &[256, 4 << 10, 48 << 10]);
        self.watch_revisions = size(random, &[2, 20, 1_000]);
        self.sync_ms = random.choose(&[1, 3, 10, 40]);
        // What came later draws from numbers of its own, so that the draws of older seeds stay.
        let seed = random.clone().number();
        if self.has_quota {
            self.quota_bytes = i64::try_from(random.choose(&QUOTAS_BYTES)).unwrap_or(0);
        }
        self.draw_later(&mut Random::of(seed, "later"));
    }

    /// Draws what came later of the same.
    fn draw_later(&mut self, random: &mut Random) {
        let usual = Self::default();
        let or = |usual: usize, small: &[u64], random: &mut Random| match random.one_in(2) {
            true => usual,
            false => size(random, small),
        };
        self.fragment_bytes = or(usual.fragment_bytes, &[64, 400, 1_500], random);
        self.live_bytes = or(usual.live_bytes, &[64, 600, 3_000], random);
        self.stretch_bytes = or(usual.stretch_bytes, &[64, 600, 3_000], random);
        self.history_bytes = or(usual.history_bytes, &[64, 600, 3_000], random);
        self.scan_bytes = or(usual.scan_bytes, &[64, 600, 3_000], random);
        self.progress_ms = random.choose(&[100, 600, usual.progress_ms, usual.progress_ms]);
        let check_ms = usual.downgrade_check_ms;
        self.downgrade_check_ms = random.choose(&[200, 1_000, check_ms, check_ms]);
        self.pre_vote = !random.one_in(4);
        self.advance = !random.one_in(4);
        if self.has_quota {
            self.quota_bytes = match random.below(6) {
                0 => 0,
                1 => -1,
                _ => self.quota_bytes,
            };
        }
        self.bounds = draw_bounds(random);
        // Raft asks for that.
        let uncommitted_bytes = &mut self.bounds.uncommitted_bytes;
        *uncommitted_bytes = self.batch_bytes.max(*uncommitted_bytes);
    }

    /// Draws from how many leases on a promotion spreads their ends: one run in four has few, no more, since then it is harder to say when one
    /// ends.
    pub(crate) fn draw_spread(&mut self, random: &mut Random) {
        if random.one_in(4) {
            self.revokes_per_second = random.choose(&[4, 10, 20]);
        }
    }

    /// Returns how many leases a promotion lets end in a second, if that is few: three quarters of what is revoked in one, as in etcd.
    pub(crate) fn ends_per_s(&self) -> Option<u64> {
        let is_few = self.revokes_per_second < Self::default().revokes_per_second;
        is_few.then_some((3 * self.revokes_per_second / 4).max(1))
    }

    /// Returns the election timeout, in milliseconds.
    pub fn election_ms(&self) -> u64 {
        self.tick_ms * self.election_ticks
    }

    pub(crate) fn wal(&self) -> quorate_wal::Options {
        quorate_wal::Options {
            segment_bytes: self.segment_bytes,
            ..quorate_wal::Options::default()
        }
    }

    pub(crate) fn backend(&self) -> quorate_backend::Options {
        quorate_backend::Options {
            page_cache_bytes: self.page_cache_bytes,
            value_cache_bytes: self.value_cache_bytes,
            ..quorate_backend::Options::default()
        }
    }

    pub(crate) fn recovery(&self) -> recovery::Options {
        recovery::Options {
            kv: quorate_mvcc::Options {
                compaction_batch_rows: self.compaction_rows,
                scan_batch_rows: self.scan_rows,
                scan_batch_bytes: self.scan_bytes,
                event_log_bytes_max: self.event_log_bytes,
                index_chunk_keys: 1 + self.scan_rows / 4,
                ..quorate_mvcc::Options::default()
            },
            lease: quorate_lease::Options {
                min_ttl_s: i64::try_from((3 * self.election_ms() / 2).div_ceil(1_000)).unwrap_or(1),
                revoke_retry_ms: quorate_core::request_timeout_ms(self.election_ms()),
                checkpoint_interval_ms: self.checkpoint_ms,
                revokes_per_second: self.revokes_per_second,
            },
            auth: quorate_auth::Options {
                bcrypt_cost: self.bcrypt_cost,
                token_provider: quorate_auth::TokenProvider::Simple {
                    ttl_ms: TOKEN_TTL_MS,
                    tokens_max: 64,
                },
            },
            max_learners: self.max_learners,
        }
    }

    pub(crate) fn watch(&self, seed: u64) -> WatchOptions {
        WatchOptions {
            seed,
            fragment_bytes: self.fragment_bytes,
            progress_interval_ms: self.progress_ms,
            outbox_bytes_per_watcher: self.outbox_bytes,
            outbox_bytes_max: 4 * self.outbox_bytes,
            batch_revisions_max: self.watch_revisions,
            batch_bytes: self.history_bytes,
            live_batch_bytes: self.live_bytes,
            stretch_rows: self.scan_rows,
            stretch_bytes: self.stretch_bytes,
            watchers_per_step: 4,
            live_revisions_per_step: 1 + self.watch_revisions / 4,
            ..WatchOptions::default()
        }
    }
}
