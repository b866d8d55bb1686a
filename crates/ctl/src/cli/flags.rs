//! Flags and how they are read from the arguments.
//!
//! Source: the grammar of `github.com/spf13/pflag`: flags and other arguments mix, `--` ends the flags, `--name=value` and
//! `--name value`, short flags in one word, a boolean takes its value only after `=`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::go::{duration, number, quote::quote};

/// What kind of value a flag takes; its text is what help shows after the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Text,
    Duration,
    List,
}

/// One flag of a command.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<u8>,
    pub(crate) kind: Kind,
    /// The value when it is not given, in the flag's own syntax.
    pub(crate) default: &'static str,
    pub(crate) usage: &'static str,
}

impl Flag {
    pub(crate) const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        usage: &'static str,
    ) -> Flag {
        Flag {
            name,
            short: None,
            kind,
            default,
            usage,
        }
    }

    pub(crate) const fn boolean(name: &'static str, usage: &'static str) -> Flag {
        Flag::new(name, Kind::Bool, "false", usage)
    }

    pub(crate) const fn int(name: &'static str, usage: &'static str) -> Flag {
        Flag::new(name, Kind::Int, "0", usage)
    }

    pub(crate) const fn text(name: &'static str, usage: &'static str) -> Flag {
        Flag::new(name, Kind::Text, "", usage)
    }

    pub(crate) const fn short(self, letter: u8) -> Flag {
        Flag {
            name: self.name,
            short: Some(letter),
            kind: self.kind,
            default: self.default,
            usage: self.usage,
        }
    }

    /// The flag as error texts name it.
    fn label(&self) -> String {
        match self.short {
            Some(letter) => format!("-{}, --{}", char::from(letter), self.name),
            None => format!("--{}", self.name),
        }
    }

    fn parse(&self, text: &[u8]) -> Result<Value, String> {
        Ok(match self.kind {
            Kind::Bool => Value::Bool(number::parse_bool(text)?),
            Kind::Int => Value::Int(number::parse_int(text, 0)?),
            Kind::Text => Value::Text(text.to_vec()),
            Kind::Duration => Value::Duration(duration::parse(text)?),
            Kind::List => Value::List(list(text)),
        })
    }
}

fn list(text: &[u8]) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    String::from_utf8_lossy(text)
        .split(',')
        .map(str::to_owned)
        .collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Int(i64),
    Text(Vec<u8>),
    Duration(Duration),
    List(Vec<String>),
}

/// Why arguments could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// `-h` or `--help` was among them.
    Help,
    /// The text for the user.
    Bad(String),
}

/// The flags of one command with their values.
#[derive(Debug)]
pub(crate) struct Flags {
    known: Vec<&'static Flag>,
    given: BTreeMap<&'static str, Value>,
}

impl Flags {
    pub(crate) fn new(known: Vec<&'static Flag>) -> Flags {
        Flags {
            known,
            given: BTreeMap::new(),
        }
    }

    /// Reads the flags out of `args` and returns what is left, in order.
    pub(crate) fn parse(&mut self, args: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ParseError> {
        let mut left = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_slice() {
                b"--" => {
                    left.extend(args.cloned());
                    break;
                }
                [b'-', b'-', long @ ..] => self.parse_long(long, &mut args)?,
                [b'-', short @ ..] if !short.is_empty() => self.parse_short(short, &mut args)?,
                _ => left.push(arg.clone()),
            }
        }
        Ok(left)
    }

    fn parse_long(
        &mut self,
        text: &[u8],
        rest: &mut std::slice::Iter<'_, Vec<u8>>,
    ) -> Result<(), ParseError> {
        let shown = String::from_utf8_lossy(text);
        if matches!(text.first(), None | Some(b'-' | b'=')) {
            return Err(ParseError::Bad(format!("bad flag syntax: --{shown}")));
        }
        let (name, value) = match text.iter().position(|b| *b == b'=') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let Some(flag) = self.known.iter().find(|f| f.name.as_bytes() == name) else {
            return Err(if name == b"help" {
                ParseError::Help
            } else {
                ParseError::Bad(format!("unknown flag: --{}", String::from_utf8_lossy(name)))
            });
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Bool => b"true",
            None => rest
                .next()
                .ok_or_else(|| ParseError::Bad(format!("flag needs an argument: --{shown}")))?,
        };
        self.assign(flag, value)
    }

    fn parse_short(
        &mut self,
        mut word: &[u8],
        rest: &mut std::slice::Iter<'_, Vec<u8>>,
    ) -> Result<(), ParseError> {
        let whole = String::from_utf8_lossy(word).into_owned();
        while let Some((&letter, after)) = word.split_first() {
            let shown = char::from(letter);
            let Some(flag) = self.known.iter().find(|f| f.short == Some(letter)) else {
                return Err(if letter == b'h' {
                    ParseError::Help
                } else {
                    ParseError::Bad(format!("unknown shorthand flag: '{shown}' in -{whole}"))
                });
            };
            let value = match after {
                [b'=', value @ ..] if !value.is_empty() => value,
                _ if flag.kind == Kind::Bool => {
                    self.assign(flag, b"true")?;
                    word = after;
                    continue;
                }
                [] => rest.next().ok_or_else(|| {
                    ParseError::Bad(format!("flag needs an argument: '{shown}' in -{whole}"))
                })?,
                _ => after,
            };
            return self.assign(flag, value);
        }
        Ok(())
    }

    fn assign(&mut self, flag: &'static Flag, text: &[u8]) -> Result<(), ParseError> {
        let value = flag.parse(text).map_err(|why| {
            let shown = quote(text);
            ParseError::Bad(format!(
                "invalid argument {shown} for {:?} flag: {why}",
                flag.label()
            ))
        })?;
        match (self.given.get_mut(flag.name), value) {
            (Some(Value::List(items)), Value::List(more)) => items.extend(more),
            (_, value) => {
                self.given.insert(flag.name, value);
            }
        }
        Ok(())
    }

    /// Sets a flag from the environment; a bad value leaves the flag as it was.
    pub(crate) fn set(&mut self, name: &str, text: &[u8]) {
        let flag = self.known.iter().find(|f| f.name == name);
        if let Some((flag, value)) = flag.and_then(|f| Some((f, f.parse(text).ok()?))) {
            self.given.insert(flag.name, value);
        }
    }

    /// Whether the flag was given a value.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The kind of a flag, if the command has it.
    pub(crate) fn kind(&self, name: &str) -> Option<Kind> {
        self.known.iter().find(|f| f.name == name).map(|f| f.kind)
    }

    fn value(&self, name: &str) -> Option<Value> {
        let default = || {
            let flag = self.known.iter().find(|f| f.name == name)?;
            flag.parse(flag.default.as_bytes()).ok()
        };
        self.given.get(name).cloned().or_else(default)
    }

    /// The value of a boolean flag; false when the command has no such flag.
    pub(crate) fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    /// The value of a number; 0 when the command has no such flag.
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Int(value)) => value,
            _ => 0,
        }
    }

    /// The value of a text flag, as the bytes that were given.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        match self.value(name) {
            Some(Value::Text(value)) => value,
            _ => Vec::new(),
        }
    }

    /// The value of a text flag as UTF-8, with what is not replaced.
    pub(crate) fn string(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.bytes(name)).into_owned()
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Duration(value)) => value,
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(value)) => value,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: [Flag; 5] = [
        Flag::boolean("prefix", ""),
        Flag::int("limit", ""),
        Flag::text("write-out", "").short(b'w'),
        Flag::boolean("interactive", "").short(b'i'),
        Flag::new("endpoints", Kind::List, "127.0.0.1:2379", ""),
    ];

    fn parse(args: &[&str]) -> Result<(Flags, Vec<String>), ParseError> {
        let mut flags = Flags::new(FLAGS.iter().collect());
        let args: Vec<Vec<u8>> = args.iter().map(|a| a.as_bytes().to_vec()).collect();
        let left = flags.parse(&args)?;
        let left = left
            .into_iter()
            .map(|a| String::from_utf8(a).unwrap())
            .collect();
        Ok((flags, left))
    }

    fn complaint(args: &[&str]) -> String {
        match parse(args) {
            Err(ParseError::Bad(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_and_arguments_mix() {
        let (flags, left) = parse(&[
            "a", "--prefix", "b", "--limit", "3", "-wjson", "-", "--", "--prefix", "c",
        ])
        .unwrap();
        assert_eq!(left, ["a", "b", "-", "--prefix", "c"]);
        assert!(flags.bool("prefix") && !flags.bool("interactive"));
        assert_eq!(flags.int("limit"), 3);
        assert_eq!(flags.string("write-out"), "json");
        assert_eq!(flags.list("endpoints"), ["127.0.0.1:2379"]);
    }

    #[test]
    fn short_flags_share_a_word() {
        let (flags, left) = parse(&["-iw=fields", "x"]).unwrap();
        assert!(flags.bool("interactive"));
        assert_eq!(
            (flags.string("write-out").as_str(), left.len()),
            ("fields", 1)
        );
        let (flags, _) = parse(&["-w", "table", "--prefix=false"]).unwrap();
        assert_eq!(flags.string("write-out"), "table");
        assert!(!flags.bool("prefix"));
    }

    #[test]
    fn a_repeated_list_grows_and_replaces_the_default() {
        let (flags, _) = parse(&["--endpoints", "a,b", "--endpoints=c"]).unwrap();
        assert_eq!(flags.list("endpoints"), ["a", "b", "c"]);
        assert!(
            parse(&["--endpoints", ""])
                .unwrap()
                .0
                .list("endpoints")
                .is_empty()
        );
    }

    #[test]
    fn complaints_are_worded_as_users_know_them() {
        assert_eq!(complaint(&["--bogus"]), "unknown flag: --bogus");
        assert_eq!(complaint(&["-x"]), "unknown shorthand flag: 'x' in -x");
        assert_eq!(complaint(&["-w"]), "flag needs an argument: 'w' in -w");
        assert_eq!(complaint(&["--limit"]), "flag needs an argument: --limit");
        assert_eq!(complaint(&["---x"]), "bad flag syntax: ---x");
        assert_eq!(
            complaint(&["--limit", "x"]),
            "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            complaint(&["-i=no"]),
            "invalid argument \"no\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"no\": invalid syntax"
        );
        assert_eq!(parse(&["-h"]).err(), Some(ParseError::Help));
        assert_eq!(parse(&["--help"]).err(), Some(ParseError::Help));
    }
}
