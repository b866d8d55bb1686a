//! The texts of `--help` and of wrong usage.

use std::fmt::Write;

use super::feature_gates::FeatureGates;
use super::flag::Effect;
use super::table;

/// Printed on the standard error for help and for wrong usage.
pub(crate) const USAGE: &str = "\
Usage:

  quorate [flags]
    Start a member.

  quorate --version
    Show the version.

  quorate -h | --help
    Show all flags.

  quorate --config-file PATH
    Start a member from a YAML file; other flags and the environment are then ignored.
    Durations in the file are integers of nanoseconds.

Every flag can be set by an environment variable too: --data-dir by ETCD_DATA_DIR.
";

/// Returns the list of all flags.
pub(crate) fn flags() -> String {
    let mut out = String::new();
    for section in table::SECTIONS {
        write!(out, "\n{}:\n", section.title).expect("a string takes all");
        for flag in section.flags {
            let note = match flag.effect {
                Effect::Built => String::new(),
                Effect::BuiltFor(_, built) => format!(" (Built so far: {built}.)"),
                Effect::Accepted(reason) => format!(" (No effect here: {reason}.)"),
                Effect::NotBuilt => " (Not built yet.)".to_owned(),
            };
            write!(
                out,
                "  --{} '{}'\n    {}{note}\n",
                flag.name, flag.default, flag.help
            )
            .expect("a string takes all");
            if flag.name == "feature-gates" {
                for line in FeatureGates::help_lines() {
                    writeln!(out, "    {line}").expect("a string takes all");
                }
            }
        }
    }
    out
}
