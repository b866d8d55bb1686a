//! Flags from the environment.
//!
//! Source: etcd v3.7.1 `pkg/flags/flag.go`: `ETCDCTL_` and the flag's name in upper case with `_` for `-`; only flags that come
//! from above a command have one. A variable beside the flag it stands for is fatal, an unknown one only warned about.

use super::flags::{Flag, Flags};
use crate::failure::{Failure, Outcome};
use crate::log;

/// What every variable of this program begins with.
const PREFIX: &[u8] = b"ETCDCTL_";

/// Variables that `watch` reads by itself.
const WATCH_VARIABLES: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// The variable that stands for a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// Sets the flags in `inherited` from `environment` where they are not given; returns the warnings to log.
///
/// # Errors
/// A variable is shadowed by its flag.
pub(crate) fn apply(
    flags: &mut Flags,
    inherited: &[&'static Flag],
    environment: &[(Vec<u8>, Vec<u8>)],
    is_watch: bool,
) -> Outcome<Vec<String>> {
    let mut used = Vec::new();
    let mut shadowed = Vec::new();
    for flag in inherited {
        let name = variable(flag.name).into_bytes();
        if flags.is_given(flag.name) {
            shadowed.push(name);
        } else if let Some((_, value)) = environment
            .iter()
            .find(|(n, v)| *n == name && !v.is_empty())
        {
            flags.set(flag.name, value);
            used.push(name);
        }
    }
    let mut warnings = Vec::new();
    for (name, value) in environment
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
    {
        let text = String::from_utf8_lossy(name);
        if shadowed.contains(name) {
            let what = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
            log::write("fatal", what, &[("environment-variable", &text)]);
            return Err(Failure::silent(crate::failure::status::ERROR));
        }
        let watched = is_watch && !value.is_empty() && WATCH_VARIABLES.contains(&&*text);
        if !used.contains(name) && !watched {
            warnings.push(format!("{text}={}", String::from_utf8_lossy(value)));
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::super::commands::GLOBAL;
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs
            .iter()
            .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .collect()
    }

    fn global() -> (Flags, Vec<&'static Flag>) {
        static ALL: [Flag; 21] = GLOBAL;
        (Flags::new(ALL.iter().collect()), ALL.iter().collect())
    }

    #[test]
    fn variables_stand_for_flags_and_unknown_ones_are_warned_about() {
        let (mut flags, all) = global();
        let environment = pairs(&[
            ("ETCDCTL_WRITE_OUT", "json"),
            ("ETCDCTL_HEX", "maybe"),
            ("ETCDCTL_API", "3"),
            ("ETCDCTL_USER", ""),
            ("ETCD_NAME", "x"),
        ]);
        let warnings = apply(&mut flags, &all, &environment, false).unwrap();
        assert_eq!(flags.string("write-out"), "json");
        assert!(!flags.bool("hex"));
        assert_eq!(warnings, ["ETCDCTL_API=3", "ETCDCTL_USER="]);
    }

    #[test]
    fn a_variable_beside_its_flag_is_fatal() {
        let (mut flags, all) = global();
        flags.parse(&[b"--endpoints=a".to_vec()]).unwrap();
        let failure = apply(
            &mut flags,
            &all,
            &pairs(&[("ETCDCTL_ENDPOINTS", "b")]),
            false,
        );
        assert_eq!(failure, Err(Failure::silent(1)));
    }

    #[test]
    fn watch_s_own_variables_are_known_to_watch_only() {
        let environment = pairs(&[("ETCDCTL_WATCH_KEY", "k")]);
        let (mut flags, all) = global();
        assert_eq!(apply(&mut flags, &all, &environment, true), Ok(vec![]));
        assert_eq!(
            apply(&mut flags, &all, &environment, false).unwrap().len(),
            1
        );
    }
}
