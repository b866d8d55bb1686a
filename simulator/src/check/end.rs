//! What must hold when nothing goes wrong any more and all members have caught up.
use std::collections::BTreeMap;

use quorate_proto::LeaseId;

use super::Violation;
use crate::World;
use crate::node::{Machine, Running};

/// Rows of history looked at when revisions are counted.
const HISTORY_ROWS_MAX: usize = 1 << 20;
const HISTORY_BYTES_MAX: usize = 1 << 30;
/// Files of the log that are no segments: one made ahead, one released, one that came too late.
const SPARE_FILES_MAX: usize = 3;

/// Snapshot files: as many as any limits keep, and one that was just saved.
const SNAPSHOT_FILES_MAX: usize = 4;

/// What a member holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Current revision.
    pub revision: i64,
    /// Compact revision.
    pub compact_revision: i64,
    /// Hash of all revisions; none where a member may answer with that of a compaction, which others have forgotten.
    pub hash: Option<u32>,
}

impl State {
    /// Says whether two members that hold this and that hold the same.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let hashes = self.hash.zip(other.hash);
        (self.revision, self.compact_revision) == (other.revision, other.compact_revision)
            && hashes.is_none_or(|(a, b)| a == b)
    }
}

/// Returns what a member holds at a revision, 0 for the newest.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn state_of(machine: &Machine, revision: i64) -> Result<State, String> {
    let running = machine.running.as_ref().ok_or("it does not run")?;
    let reader = running.live.reader();
    // A question for revision 0 may be answered with the hash of a compaction at revision 0, as in etcd.
    let at = if revision == 0 {
        reader.current_revision()
    } else {
        revision
    };
    let hash = reader.hash_kv(at).map_err(|e| e.to_string())?;
    let compact_revision = reader.compact_revision();
    Ok(State {
        revision: reader.current_revision(),
        compact_revision,
        hash: (hash.compact_revision == compact_revision).then_some(hash.hash),
    })
}

/// Says whether what members hold can be read, where no disk was damaged.
pub(crate) fn can_be_read(world: &World) -> bool {
    let mut running = world.machines().filter(|m| m.running.is_some());
    running.all(|m| m.damage.is_some() || state_of(m, 0).is_ok())
}

/// Checks that all members that run hold the same, without a gap.
pub(crate) fn check_agreement(world: &World) -> Result<BTreeMap<u64, State>, Violation> {
    let mut states: BTreeMap<u64, State> = BTreeMap::new();
    let mut leases = None;
    for machine in world.machines().filter(|m| m.running.is_some()) {
        let number = machine.number;
        let state = match state_of(machine, 0) {
            Ok(state) => state,
            Err(_) if machine.damage.is_some() => continue,
            Err(why) => {
                let text = format!("m{number} cannot read what it holds: {why}");
                return Err(Violation::new("state can be read", text));
            }
        };
        check_density(machine, &state)?;
        check_digest(machine)?;
        check_leases(machine, &mut leases)?;
        let mut others = states.iter();
        if let Some((first, expected)) = others.find(|(_, other)| !other.agrees(&state)) {
            let text = format!("m{first} holds {expected:?}, m{number} holds {state:?}");
            return Err(Violation::new("members agree", text));
        }
        states.insert(number, state);
    }
    Ok(states)
}

/// All have the same leases, and count as many as they list.
fn check_leases(machine: &Machine, first: &mut Option<Vec<i64>>) -> Result<(), Violation> {
    let Some(member) = machine.member() else {
        return Ok(());
    };
    let (number, lessor) = (machine.number, &member.stores().lessor);
    let mut ids: Vec<i64> = lessor.leases().iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let keys = |id: &i64| lessor.keys(LeaseId(*id)).map_or(0, |keys| keys.len());
    let counted = (lessor.lease_count(), lessor.key_count());
    if counted != (ids.len(), ids.iter().map(keys).sum()) {
        let text =
            format!("m{number} counts {counted:?} leases and keys on them, and lists {ids:?}");
        return Err(Violation::new("resources return to their floor", text));
    }
    let others = first.get_or_insert_with(|| ids.clone());
    if *others != ids {
        let text = format!("m{number} has the leases {ids:?}, another member {others:?}");
        return Err(Violation::new("members agree", text));
    }
    Ok(())
}

/// Says what is wrong with the length of a log, at rest: snapshots come in time, and what lies before the last one of this life is
/// gone.
fn log_is_too_long(machine: &Machine, running: &Running, names: &[String]) -> Option<String> {
    let durable = running.member.stores().backend.durable().index;
    let (unsaved, count) = (
        durable.saturating_sub(running.saved.max(running.found)),
        machine.limits.snapshot_count,
    );
    if unsaved > count {
        return Some(format!(
            "holds {unsaved} entries durably behind its last snapshot, and is to save one after {count}"
        ));
    }
    if running.released < running.saved {
        return Some(format!(
            "has saved snapshot {}, and released its log up to {} only",
            running.saved, running.released
        ));
    }
    if running.released < machine.overwritten {
        // Entries that others took the place of may lie in its segments.
        return None;
    }
    let first = |name: &String| {
        let (_, first) = name.strip_suffix(".wal")?.split_once('-')?;
        u64::from_str_radix(first, 16).ok()
    };
    let mut firsts: Vec<u64> = names.iter().filter_map(first).collect();
    firsts.sort_unstable();
    // A segment ends where the next begins.
    let nexts = || firsts.iter().skip(1);
    let needless = nexts().filter(|next| **next <= running.released + 1);
    let needless = needless.count();
    // The one that was written to when the log was released, and that the very next entry did not fit into, stays until the next time.
    let was_written_to = nexts().any(|next| *next == running.released + 1);
    (needless > usize::from(was_written_to)).then(|| {
        format!(
            "has released its log up to {}, and keeps {needless} segments of before in {firsts:?}",
            running.released
        )
    })
}

/// A member that does not know its digest cannot be compared with others.
fn check_digest(machine: &Machine) -> Result<(), Violation> {
    let unknown = machine.member().and_then(|member| {
        let applied = member.view().applied();
        member.digest_at(applied).is_none().then_some(applied)
    });
    let Some(applied) = unknown else {
        return Ok(());
    };
    let text = format!(
        "m{} does not know its digest after entry {applied}",
        machine.number
    );
    Err(Violation::new("every member knows its digest", text))
}

fn check_density(machine: &Machine, state: &State) -> Result<(), Violation> {
    let Some(running) = machine.running.as_ref() else {
        return Ok(());
    };
    let reader = running.live.reader();
    let first = reader.compact_revision().max(1) + 1;
    let history = reader.history(
        first,
        state.revision + 1,
        HISTORY_ROWS_MAX,
        HISTORY_BYTES_MAX,
    );
    let seen: Vec<i64> = match history {
        Ok(history) => history.iter().map(|r| r.main).collect(),
        Err(_) if machine.damage.is_some() => return Ok(()),
        Err(e) => {
            let text = format!("m{} cannot read its history: {e}", machine.number);
            return Err(Violation::new("state can be read", text));
        }
    };
    let is_dense = seen.iter().copied().eq(first..=state.revision);
    if is_dense {
        return Ok(());
    }
    let gap = (first..=state.revision).zip(&seen).find(|(a, b)| a != *b);
    let text = format!(
        "m{} holds {} revisions from {first} to {}; the first gap is at {gap:?}",
        machine.number,
        seen.len(),
        state.revision
    );
    Err(Violation::new("revisions are dense", text))
}

/// Checks that nothing is left over: nobody waits, nothing watches, no files lie about.
pub(crate) fn check_floor(world: &World) -> Result<(), Violation> {
    for machine in world.machines() {
        let Some(running) = machine.running.as_ref() else {
            continue;
        };
        let number = machine.number;
        let leak = |text: String| Err(Violation::new("resources return to their floor", text));
        let waiting = running.member.waiting();
        if let Some((what, count)) = waiting.iter().find(|(_, count)| *count > 0) {
            return leak(format!("{count} {what} still wait on m{number}"));
        }
        if !running.inbox.is_empty() {
            let count = running.inbox.len();
            return leak(format!("m{number} has not taken {count} submissions"));
        }
        let stats = running.hub.stats();
        if stats.streams > 0 || stats.watchers > 0 || stats.pending_bytes > 0 {
            return leak(format!("m{number} still holds {stats:?}"));
        }
        let (snap, wal) = machine.files();
        let is_left = |name: &&String| {
            let is_snapshot = name.ends_with(".snap") && !name.contains(".tmp");
            !is_snapshot && *name != "quorate.db"
        };
        if let Some(name) = snap.iter().find(is_left) {
            return leak(format!("{name} is left over on m{number}"));
        }
        let is_snapshot = |name: &&String| name.ends_with(".snap");
        let snapshots: Vec<_> = snap.iter().filter(is_snapshot).collect();
        // Each crash beside a removal leaves one more until the next.
        if running.has_released && snapshots.len() > SNAPSHOT_FILES_MAX {
            return leak(format!("{snapshots:?} are left on m{number}"));
        }
        let spares = wal.iter().filter(|name| !name.ends_with(".wal")).count();
        if spares > SPARE_FILES_MAX {
            return leak(format!("{wal:?} are left in the log of m{number}"));
        }
        if let Some(text) = log_is_too_long(machine, running, &wal) {
            return leak(format!("m{number} {text}"));
        }
    }
    Ok(())
}
