//! Flags of checks, compaction and limits, and the unsafe ones.

use super::{Effect, Flag, Kind, Yaml, flag};

#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    flag("corrupt-check-time", Kind::Duration, "0s", Effect::Built,
        "Time between comparisons of the members' data (0: never)."),
    flag("compact-hash-check-time", Kind::Duration, "1m0s", Effect::Built,
        "Time between comparisons of the members' hashes of compactions."),
    flag("compaction-batch-limit", Kind::Int, "0", Effect::Built,
        "Revisions removed in one step of a compaction (0: 1000)."),
    flag("compaction-sleep-interval", Kind::Duration, "0s", Effect::Built,
        "Pause between steps of a compaction (0: 10ms)."),
    flag("watch-progress-notify-interval", Kind::Duration, "0s", Effect::Built,
        "Time between progress notifications to idle watchers that want them (0: 10m; 100ms at least)."),
    flag("warning-apply-duration", Kind::Duration, "100ms", Effect::Built,
        "Time above which applying or reading is logged as slow."),
    flag("bootstrap-defrag-threshold-megabytes", Kind::Uint, "0", Effect::Built,
        "Defragments at the start when that frees at least this much (0: never)."),
    flag("max-learners", Kind::Int, "1", Effect::Built,
        "Most learners among the members."),
    flag("downgrade-check-time", Kind::Duration, "5s", Effect::Built,
        "Time between looks at whether a downgrade is complete (0: never)."),
];

#[rustfmt::skip]
pub(super) const UNSAFE: &[Flag] = &[
    flag("force-new-cluster", Kind::Bool, "false", Effect::Built,
        "Makes this member the only one of its cluster."),
    flag("unsafe-no-fsync", Kind::Bool, "false", Effect::Built,
        "Does not wait for the disk; a power loss costs acknowledged writes.").yaml(Yaml::Same),
];
