//! One flag: its name, type, default and status.

use std::fmt;

use super::feature_gates::FeatureGates;
use super::go::{self, GoDuration};
use super::url::{self, Url};

/// A row of the table of flags, from which the command line, the environment, the file and the help are driven.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) name: &'static str,
    /// How its text is read.
    pub(crate) kind: Kind,
    /// The text of its default.
    pub(crate) default: &'static str,
    /// What setting it does in this build.
    pub(crate) effect: Effect,
    /// Where the file holds it.
    pub(crate) yaml: Yaml,
    /// One sentence for the help text.
    pub(crate) help: &'static str,
}

/// Makes a row whose file key is the flag's name.
pub(crate) const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    effect: Effect,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        effect,
        yaml: Yaml::Same,
        help,
    }
}

impl Flag {
    /// Puts the flag elsewhere in the file.
    pub(crate) const fn yaml(mut self, yaml: Yaml) -> Flag {
        self.yaml = yaml;
        self
    }
}

/// What setting a flag to something other than its default does in this build.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    /// What etcd does.
    Built,
    /// What etcd does for the values that pass the test; the others are refused.
    BuiltFor(fn(&Value) -> bool, &'static str),
    /// Nothing, for the reason given, which is logged when the flag is set.
    Accepted(&'static str),
    /// It is refused.
    NotBuilt,
}

/// Where the configuration file holds a flag.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Yaml {
    /// At the top, under the flag's name, as the kind says.
    Same,
    /// At the top, under the flag's name, as one string with commas.
    CommaString,
    /// In a section: keys joined by dots.
    At(&'static str),
    /// Nowhere.
    Absent,
}

/// How a flag's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A boolean; alone on the command line it means true.
    Bool,
    /// A signed 64-bit integer.
    Int,
    /// An unsigned 64-bit integer.
    Uint,
    /// An unsigned 32-bit integer.
    Uint32,
    /// A duration with its unit.
    Duration,
    /// A list of URLs, kept sorted. The empty text changes nothing.
    Urls,
    /// `*` or a list of URLs.
    Origins,
    /// A list of texts in the order given.
    List,
    /// A list of texts, kept sorted without duplicates.
    Set,
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// A list of some words.
    ManyOf(&'static [&'static str]),
    /// Feature gates; repeated flags add up.
    Gates,
    /// A flag of former times: any value or none, without a meaning.
    Legacy,
}

/// A flag's value, of the variant that its kind says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// Units: nanoseconds.
    Duration(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    Gates(FeatureGates),
}

impl Kind {
    /// Returns whether the flag may stand without a value.
    pub(crate) fn may_stand_alone(self) -> bool {
        matches!(self, Kind::Bool | Kind::Legacy)
    }

    /// Reads a text. `before` is the flag's value so far, for the kinds that add to it.
    pub(crate) fn parse(self, text: &str, before: Option<&Value>) -> Result<Value, String> {
        let scalar = |error: go::ScalarError| error.to_string();
        Ok(match self {
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Legacy => Value::Text(String::new()),
            Kind::Bool => Value::Bool(go::parse_bool(text).map_err(scalar)?),
            Kind::Int => Value::Int(go::parse_int(text).map_err(scalar)?),
            Kind::Uint => Value::Uint(go::parse_uint(text).map_err(scalar)?),
            Kind::Uint32 => Value::Uint(parse_uint32(text)?),
            Kind::Duration => Value::Duration(go::parse_duration(text).map_err(scalar)?),
            Kind::Urls if text.is_empty() => match before {
                Some(before) => before.clone(),
                None => Value::Urls(Vec::new()),
            },
            Kind::Urls => Value::Urls(Url::parse_list(text)?),
            Kind::Origins if text == "*" => Value::List(vec![text.to_owned()]),
            Kind::Origins => {
                let urls = Url::parse_list(text)?;
                Value::List(urls.iter().map(Url::to_string).collect())
            }
            Kind::List if text.is_empty() && before.is_none() => Value::List(Vec::new()),
            Kind::List => Value::List(text.split(',').map(str::to_owned).collect()),
            Kind::Set if text.is_empty() && before.is_none() => Value::List(Vec::new()),
            Kind::Set => Value::List(sorted(text.split(',').map(str::to_owned).collect())),
            Kind::OneOf(words) if words.contains(&text) => Value::Text(text.to_owned()),
            Kind::OneOf(_) => return Err("invalid value".to_owned()),
            Kind::ManyOf(words) => match text.split(',').find(|word| !words.contains(word)) {
                Some(bad) => return Err(format!("invalid value {bad:?}")),
                None => Value::Text(text.to_owned()),
            },
            Kind::Gates => {
                let mut gates = match before {
                    Some(Value::Gates(gates)) => gates.clone(),
                    _ => FeatureGates::default(),
                };
                gates.apply(text)?;
                Value::Gates(gates)
            }
        })
    }
}

/// Sorts and removes duplicates.
pub(crate) fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list.dedup();
    list
}

fn parse_uint32(text: &str) -> Result<u64, String> {
    let value = go::parse_uint(text).and_then(|value| {
        if u32::try_from(value).is_ok() {
            Ok(value)
        } else {
            Err(go::ScalarError::Range)
        }
    });
    value.map_err(|error| {
        let why = match error {
            go::ScalarError::Syntax => "invalid syntax",
            go::ScalarError::Range => "value out of range",
        };
        format!("strconv.ParseUint: parsing {text:?}: {why}")
    })
}

impl fmt::Display for Value {
    /// Prints a text that the flag's kind reads back to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Bool(state) => state.fmt(f),
            Value::Int(number) => number.fmt(f),
            Value::Uint(number) => number.fmt(f),
            Value::Duration(nanos) => GoDuration::from_nanos(*nanos).fmt(f),
            Value::Urls(urls) => f.write_str(&url::join(urls)),
            Value::List(list) => f.write_str(&list.join(",")),
            Value::Gates(gates) => gates.fmt(f),
        }
    }
}
