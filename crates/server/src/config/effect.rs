//! Which values of which flags have an effect in this build.

use super::error::Error;
use super::feature_gates::FeatureGates;
use super::flag::{Effect, Value};
use super::flag_set::FlagSet;
use super::table;
use super::url::Scheme;
use crate::log::{Level, Record};

/// Refuses values whose effect is not built, and logs those that are taken without one.
///
/// # Errors
///
/// The first such flag in the order of the help text.
pub(crate) fn check(flags: &FlagSet, notices: &mut Vec<Record>) -> Result<(), Error> {
    for flag in table::SECTIONS.iter().flat_map(|section| section.flags) {
        let value = flags.value(flag.name);
        if flags.is_default(flag.name) {
            continue;
        }
        let refused = |built| Error::NotBuilt {
            flag: format!("--{}", flag.name),
            value: value.to_string(),
            built,
        };
        match flag.effect {
            Effect::Built => {}
            Effect::BuiltFor(holds, _) if holds(value) => {}
            Effect::BuiltFor(_, built) => return Err(refused(built)),
            Effect::NotBuilt => return Err(refused("")),
            Effect::Accepted(reason) => notices.push(
                Record::new(Level::Warn, format!("--{} has no effect", flag.name))
                    .text("value", value.to_string())
                    .text("reason", reason),
            ),
        }
    }
    Ok(())
}

pub(super) fn urls_are_http(value: &Value) -> bool {
    matches!(value, Value::Urls(urls) if urls.iter().all(|url| url.scheme() == Scheme::Http))
}

pub(super) fn gates_are_built(value: &Value) -> bool {
    matches!(value, Value::Gates(gates) if FeatureGates::not_built(gates).is_empty())
}

pub(super) fn allows_all(value: &Value) -> bool {
    matches!(value, Value::List(list) if list.iter().any(|origin| origin == "*"))
}

pub(super) fn token_is_not_jwt(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text.split(',').next() != Some("jwt"))
}

pub(super) fn outputs_are_files(value: &Value) -> bool {
    matches!(value, Value::List(list) if list.iter().all(|output| output != "systemd/journal"))
}
