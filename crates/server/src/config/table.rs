//! The table of all flags of etcd 3.7.1.
//!
//! Source: etcd v3.7.1 server/embed/config.go `AddFlags`, server/etcdmain/config.go `newConfig`.

mod clustering;
mod features;
mod member;
mod observing;
mod security;

use super::flag::{Effect, Flag, Kind, Yaml, flag};

/// A group of flags under one heading of the help text.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag],
}

/// All flags that have a meaning, in the order of the help text.
pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Member",
        flags: member::FLAGS,
    },
    Section {
        title: "Clustering",
        flags: clustering::FLAGS,
    },
    Section {
        title: "Security",
        flags: security::FLAGS,
    },
    Section {
        title: "Auth",
        flags: security::AUTH,
    },
    Section {
        title: "Profiling and Monitoring",
        flags: observing::MONITORING,
    },
    Section {
        title: "Logging",
        flags: observing::LOGGING,
    },
    Section {
        title: "Distributed tracing",
        flags: observing::TRACING,
    },
    Section {
        title: "Features",
        flags: features::FLAGS,
    },
    Section {
        title: "Unsafe feature",
        flags: features::UNSAFE,
    },
    Section {
        title: "This program",
        flags: PROGRAM,
    },
];

/// Flags about the start itself.
#[rustfmt::skip]
const PROGRAM: &[Flag] = &[
    flag("config-file", Kind::Text, "", Effect::Built,
        "Path to a YAML file with the configuration; flags and environment are then ignored. Durations in it are integers of nanoseconds.")
        .yaml(Yaml::Absent),
    flag("version", Kind::Bool, "false", Effect::Built,
        "Prints the version and exits.")
        .yaml(Yaml::Absent),
];

const fn legacy(name: &'static str) -> Flag {
    flag(name, Kind::Legacy, "", Effect::Built, "").yaml(Yaml::Absent)
}

/// Flags of former times that are read and have no meaning, not even for etcd.
pub(crate) const LEGACY: &[Flag] = &[
    legacy("cluster-active-size"),
    legacy("cluster-remove-delay"),
    legacy("cluster-sync-interval"),
    legacy("config"),
    legacy("force"),
    legacy("max-result-buffer"),
    legacy("max-retry-attempts"),
    legacy("peer-heartbeat-interval"),
    legacy("peer-election-timeout"),
    legacy("retry-interval"),
    legacy("snapshot"),
    legacy("v"),
    legacy("vv"),
    legacy("test.coverprofile"),
    legacy("test.outputdir"),
];

/// Flags that etcd warns about, with its words.
pub(crate) const DEPRECATED: &[(&str, &str)] = &[
    (
        "max-snapshots",
        "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
    ),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
    ),
];

/// Returns all flags, those without a meaning last.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS
        .iter()
        .flat_map(|section| section.flags)
        .chain(LEGACY)
}

/// Returns the flag of a name.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}
