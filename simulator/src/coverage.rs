//! What should happen sometimes: a counter for each, so that a run that never does it is noticed.
use std::collections::BTreeMap;

/// Every name that is counted, in the order of the report. A name that is not here cannot be counted.
#[rustfmt::skip]
pub const NAMES: &[&str] = &[
    // Members.
    "member became leader", "two members led at once", "election without a winner", "first election brought forward",
    "leader deposed with writes in flight", "leader changed with writes in flight", "leader handed over for a slow disk", "heartbeats sent late",
    "member applied its own removal", "member was told that it is removed", "member joined", "member joined at the address of another", "learner was promoted",
    "member's addresses were updated",
    "member lost all its data", "only voter wrote its log itself",
    // Starts and ends.
    "process killed", "process killed inside a disk operation", "power lost", "power lost everywhere at once",
    "power lost inside a disk operation",
    "power lost while starting", "power lost while installing a snapshot", "power lost while flushing",
    "power lost while compacting", "power lost while defragmenting", "power lost while saving a snapshot", "power lost while preparing a segment",
    "power lost with a log write under way", "stopped in order", "stopped in order while leading",
    "restarted with other limits", "torn tail repaired", "log was longer than the state at a start",
    "start failed and was tried again", "member went on alone", "backup became a new cluster",
    "backup became a new cluster at a higher revision",
    // The log and snapshots.
    "log segment was released", "log segment was prepared ahead", "snapshot saved", "snapshot saved before its time",
    "snapshot sent", "snapshot was lost on its way", "snapshot received", "snapshot installed",
    "snapshot installed while compacting", "snapshot installed while flushing",
    "state sent", "state filled a database", "state was cut short", "state gave way to another", "state damaged and refused",
    "state refused for the disk's sake", "state was there already", "received database installed", "start removed a database in the making",
    "crash left a received database without a mark", "start finished the install of a received database",
    "power lost while a state arrived",
    "snapshot installed while defragmenting", "database defragmented", "defragmented while compacting",
    "defragmented while flushing", "snapshot not wanted when it came",
    "compaction ended", "compaction in several steps", "entry overwritten in a log",
    // Messages.
    "message lost", "message lost to a cut link", "message came twice", "message overtook another", "message damaged and refused", "image damaged and refused",
    "message for another member dropped", "link cut one way", "member cut off", "leader cut off",
    "cluster cut in two", "two reach each other only through a third",
    // Disks.
    "sync failed", "write failed", "read failed", "read was damaged", "write was lost", "write went astray",
    "write was done with a wrong bit", "reads came short", "operation of a start failed", "damaged while it was down",
    "bit rotted in another file", "majority damaged at once", "all members damaged at once",
    "sector became unreadable", "unreadable sector was read", "rot in the log found", "rot in the database found", "rot in a snapshot found",
    "bit rotted in the log", "bit rotted in the database", "bit rotted in a snapshot", "disk full",
    "disk stalled for an election timeout", "member refused to start on a damaged disk",
    "member stopped at a failed disk", "member stopped at the state of a snapshot", "member stopped on a damaged disk", "cluster stopped beyond the atlas",
    "sound majority served beyond the atlas", "damaged majority went on beyond the atlas",
    // States that go another way.
    "leader found that its state differs", "member whose state differs was told to stop", "member whose state differs stopped",
    "member whose state differs was taken away",
    "nobody could say whose state differs",
    // Time.
    "clock ran fast", "clock ran slow", "clock jumped", "wall clock jumped", "member paused", "leader paused",
    "late ticks were made up for",
    // Clients.
    "request timed out", "request timed out near the loss of a leader", "request timed out while cut off",
    "read failed as the leader changed", "proposal dropped", "request failed as its member stopped",
    "request refused for corrupt data", "request refused for lack of space", "quota used up",
    "change of members refused when applied",
    "put acknowledged", "put failed", "put refused for lack of space", "put lost with its member", "read answered",
    "watch stream crossed an installation", "log entry committed by another leader",
    // Clients that are held against the model.
    "token waits for the log", "token refused", "refused at the door", "lease not found", "lease renewed",
    "lease renewed in the last moment",
    "lease renewed at a leader that stood still", "leadership asked to move after a renewal",
    "lease compared with its checkpoint", "end of a lease compared with what was meant",
    "time to live told", "question about a lease forwarded", "leases listed", "client found nobody",
    "linearizable read failed", "client gave up waiting", "request lost with its member",
    "whole state compared with the model", "logged in", "leadership asked to move", "leadership moved",
    "change of members asked for by a client", "downgrade asked for", "downgrade found possible", "downgrade began", "downgrade canceled", "downgrade complete", "member of an older version started", "older version gave way to the newer one",
    "members changed, as the model says", "change of members refused, as the model says",
    "only voter read at once", "damaged member could not read", "damaged member was read rightly", "linearizable read", "serializable read",
    "login refused", "refused before hashing", "watcher asked for", "watch stream broken off", "watch stream stalled",
    "watcher resumed elsewhere", "watcher created", "watcher told of events", "watcher told of progress", "watch response in fragments",
    "watcher canceled", "watcher overtaken by a compaction", "watch stream complete at the end",
    "stream told of progress", "request refused for good", "outcome of a request unknown", "request applied",
    "request refused by the log",
    "request refused before the log", "request refused: too many requests",
    "read refused: too many requests", "question about a lease refused: too many requests",
    "request lost on its way to a member", "request came late to a member", "answer lost on its way to a client",
    "client tried again", "client tried again what had been done", "connection broken with requests under way",
    "connection broken with a lease asked about", "watch stream left open by a client that is gone",
    "backup taken", "backup taken while compacting", "backup taken while defragmenting",
    "backup taken while a snapshot was installed", "backup given up", "damaged member could not give a backup",
];

/// Counters of one run or of many.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    hits: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Counts a name.
    ///
    /// # Panics
    /// In debug builds, when the name is not one of [`NAMES`].
    pub fn hit(&mut self, name: &'static str) {
        debug_assert!(NAMES.contains(&name), "{name:?} is not in the table");
        *self.hits.entry(name).or_insert(0) += 1;
    }

    /// Returns how often a name was counted.
    pub fn count(&self, name: &str) -> u64 {
        self.hits.get(name).copied().unwrap_or(0)
    }

    /// Adds the counters of another.
    pub fn add(&mut self, other: &Coverage) {
        for (name, count) in &other.hits {
            *self.hits.entry(name).or_insert(0) += count;
        }
    }

    /// Lists the names that were never counted.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = NAMES.iter().filter(|name| self.count(name) == 0);
        missing.copied().collect()
    }

    /// Lists all that was counted, most often first.
    pub fn sorted(&self) -> Vec<(&'static str, u64)> {
        let mut all: Vec<_> = self
            .hits
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect();
        all.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_the_table_once() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }
}
