//! The values of all flags, and where they came from.

use std::collections::BTreeMap;

use super::error::Error;
use super::feature_gates::FeatureGates;
use super::flag::{Flag, Kind, Value};
use super::table;
use super::url::Url;
use crate::log::{Level, Record};

/// A value with whether someone gave it.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    value: Value,
    given: bool,
}

/// The values of all flags of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FlagSet {
    settings: BTreeMap<&'static str, Setting>,
}

/// What a command line came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// All of it was flags.
    Flags,
    /// It asked for help.
    Help,
}

impl FlagSet {
    /// Makes a set of defaults.
    pub(crate) fn new() -> FlagSet {
        let setting = |flag: &'static Flag| {
            let value = flag
                .kind
                .parse(flag.default, None)
                .expect("a test parses every default");
            (
                flag.name,
                Setting {
                    value,
                    given: false,
                },
            )
        };
        FlagSet {
            settings: table::all().map(setting).collect(),
        }
    }

    /// Reads a command line without the program's name. Source: Go `flag.FlagSet.Parse`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for what is not of the grammar, [`Error::Invalid`] for words left over.
    pub(crate) fn parse_args(&mut self, args: &[String]) -> Result<Parsed, Error> {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(name) = flag_name(arg)? else {
                let left = if arg == "--" { args.next() } else { Some(arg) };
                return match left {
                    None => Ok(Parsed::Flags),
                    Some(left) => Err(Error::Invalid(format!("{left:?} is not a valid flag"))),
                };
            };
            let (name, mut value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            let Some(flag) = table::find(name) else {
                if matches!(name, "help" | "h") {
                    return Ok(Parsed::Help);
                }
                return Err(Error::Usage(format!(
                    "flag provided but not defined: -{name}"
                )));
            };
            if value.is_none() && flag.kind.may_stand_alone() {
                value = Some("true");
            }
            let value = match value {
                Some(value) => value,
                None => args
                    .next()
                    .ok_or_else(|| Error::Usage(format!("flag needs an argument: -{name}")))?,
            };
            self.set(flag, value).map_err(|error| {
                Error::Usage(match flag.kind {
                    Kind::Bool => format!("invalid boolean value {value:?} for -{name}: {error}"),
                    _ => format!("invalid value {value:?} for flag -{name}: {error}"),
                })
            })?;
        }
        Ok(Parsed::Flags)
    }

    /// Reads the environment for flags that were not given. Source: etcd v3.7.1 pkg/flags/flag.go.
    ///
    /// # Errors
    ///
    /// A variable that contradicts a flag given, or whose value is not of the flag's kind.
    pub(crate) fn read_environment(
        &mut self,
        variables: &[(String, String)],
        notices: &mut Vec<Record>,
    ) -> Result<(), Error> {
        let mut used = Vec::new();
        let mut failure = Ok(());
        let unset: Vec<&'static str> = self.names_where(|setting| !setting.given);
        let given: Vec<String> = self
            .names_where(|setting| setting.given)
            .into_iter()
            .map(variable_name)
            .collect();
        for name in unset {
            let key = variable_name(name);
            let Some((_, text)) = variables
                .iter()
                .find(|(k, text)| *k == key && !text.is_empty())
            else {
                continue;
            };
            let flag = table::find(name).expect("names come from the table");
            match self.set(flag, text) {
                Ok(()) => notices.push(
                    Record::new(Level::Info, "recognized and used environment variable")
                        .text("variable-name", key.as_str())
                        .text("variable-value", text.as_str()),
                ),
                Err(error) => {
                    failure = Err(Error::Invalid(format!(
                        "invalid value {text:?} for {key}: {error}"
                    )))
                }
            }
            used.push(key);
        }
        for (key, text) in variables.iter().filter(|(key, _)| !used.contains(key)) {
            if given.contains(key) {
                return Err(Error::Invalid(format!(
                    "conflicting environment variable is shadowed by corresponding command-line flag \
                     (either unset environment variable or disable flag): {key}"
                )));
            }
            if key.starts_with("ETCD_") {
                notices.push(
                    Record::new(Level::Warn, "unrecognized environment variable")
                        .text("environment-variable", format!("{key}={text}")),
                );
            }
        }
        failure
    }

    fn names_where(&self, wanted: impl Fn(&Setting) -> bool) -> Vec<&'static str> {
        self.settings
            .iter()
            .filter(|(_, setting)| wanted(setting))
            .map(|(name, _)| *name)
            .collect()
    }

    fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        let value = flag.kind.parse(text, Some(self.value(flag.name)))?;
        self.put(flag.name, value);
        Ok(())
    }

    /// Puts a value of the flag's kind, as given.
    pub(crate) fn put(&mut self, name: &'static str, value: Value) {
        self.settings.insert(name, Setting { value, given: true });
    }

    /// Returns whether someone gave the flag.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.setting(name).given
    }

    /// Returns whether the flag has its default, given or not.
    pub(crate) fn is_default(&self, name: &str) -> bool {
        let flag = table::find(name).expect("the name is in the table");
        flag.kind.parse(flag.default, None).as_ref() == Ok(self.value(name))
    }

    /// Returns a flag's value.
    pub(crate) fn value(&self, name: &str) -> &Value {
        &self.setting(name).value
    }

    fn setting(&self, name: &str) -> &Setting {
        self.settings
            .get(name)
            .unwrap_or_else(|| panic!("flag {name} is not in the table"))
    }

    /// Returns a text. The accessors below panic when the table gives the flag another kind: a test calls them all.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("flag {name} is {other:?}, not a text"),
        }
    }

    /// Returns a boolean.
    pub(crate) fn switch(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(state) => *state,
            other => panic!("flag {name} is {other:?}, not a boolean"),
        }
    }

    /// Returns a signed integer.
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Int(number) => *number,
            other => panic!("flag {name} is {other:?}, not a signed integer"),
        }
    }

    /// Returns an unsigned integer.
    pub(crate) fn uint(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Uint(number) => *number,
            other => panic!("flag {name} is {other:?}, not an unsigned integer"),
        }
    }

    /// Returns a duration in nanoseconds.
    pub(crate) fn nanos(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Duration(nanos) => *nanos,
            other => panic!("flag {name} is {other:?}, not a duration"),
        }
    }

    /// Returns URLs.
    pub(crate) fn urls(&self, name: &str) -> &[Url] {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => panic!("flag {name} is {other:?}, not a list of URLs"),
        }
    }

    /// Returns a list.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(list) => list,
            other => panic!("flag {name} is {other:?}, not a list"),
        }
    }

    /// Returns the feature gates.
    pub(crate) fn gates(&self) -> &FeatureGates {
        match self.value("feature-gates") {
            Value::Gates(gates) => gates,
            other => panic!("feature-gates is {other:?}"),
        }
    }
}

/// Returns the environment variable of a flag.
pub(crate) fn variable_name(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Returns an argument without its dashes; `None` when it ends the flags.
fn flag_name(arg: &str) -> Result<Option<&str>, Error> {
    let Some(after_one) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Ok(None);
    };
    let name = after_one.strip_prefix('-').unwrap_or(after_one);
    if arg == "--" {
        return Ok(None);
    }
    if name.is_empty() || name.starts_with(['-', '=']) {
        return Err(Error::Usage(format!("bad flag syntax: {arg}")));
    }
    Ok(Some(name))
}
