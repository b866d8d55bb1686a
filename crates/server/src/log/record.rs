//! A line in the making.

use std::borrow::Cow;
use std::panic::Location;

use super::caller::Caller;
use super::encode::Fields;
use super::{Level, timestamp};

/// A line in the making: fields stand in the order in which they are added.
#[derive(Clone, Debug)]
pub struct Record {
    pub(crate) level: Level,
    pub(crate) caller: Caller<'static>,
    pub(crate) message: Cow<'static, str>,
    /// The part of the program that logs, when it has a name of its own.
    pub(crate) logger: Option<&'static str>,
    fields: Vec<(&'static str, Field)>,
}

#[derive(Clone, Debug)]
enum Field {
    Text(String),
    Switch(bool),
    Int(i64),
    Uint(u64),
    List(Vec<String>),
    /// Microseconds since 1970.
    Time(u64),
}

impl Record {
    /// Starts a line; the caller is where this is called.
    #[track_caller]
    pub fn new(level: Level, message: impl Into<Cow<'static, str>>) -> Record {
        let location = Location::caller();
        let caller = Caller::new(location.file(), location.line());
        Record {
            level,
            caller,
            message: message.into(),
            logger: None,
            fields: Vec::new(),
        }
    }

    /// Says which part of the program logs.
    pub fn named(mut self, logger: &'static str) -> Record {
        self.logger = Some(logger);
        self
    }

    /// Adds a text.
    pub fn text(self, key: &'static str, value: impl Into<String>) -> Record {
        self.field(key, Field::Text(value.into()))
    }

    /// Adds a boolean.
    pub fn switch(self, key: &'static str, value: bool) -> Record {
        self.field(key, Field::Switch(value))
    }

    /// Adds a signed number.
    pub fn int(self, key: &'static str, value: i64) -> Record {
        self.field(key, Field::Int(value))
    }

    /// Adds an unsigned number.
    pub fn uint(self, key: &'static str, value: u64) -> Record {
        self.field(key, Field::Uint(value))
    }

    /// Adds a moment, given in microseconds since 1970.
    pub fn time(self, key: &'static str, unix_micros: u64) -> Record {
        self.field(key, Field::Time(unix_micros))
    }

    /// Adds a list of texts.
    pub fn list(
        self,
        key: &'static str,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Record {
        self.field(
            key,
            Field::List(values.into_iter().map(Into::into).collect()),
        )
    }

    /// Adds the text of an error under the key that tools look at.
    pub fn error(self, error: &dyn std::error::Error) -> Record {
        self.text("error", error.to_string())
    }

    /// Returns the message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the level.
    pub fn level(&self) -> Level {
        self.level
    }

    fn field(mut self, key: &'static str, value: Field) -> Record {
        self.fields.push((key, value));
        self
    }

    pub(crate) fn write_fields(&self, out: &mut Fields) {
        for (key, field) in &self.fields {
            match field {
                Field::Text(text) => out.text(key, text),
                Field::Switch(state) => out.plain(key, state),
                Field::Int(number) => out.plain(key, number),
                Field::Uint(number) => out.plain(key, number),
                Field::List(values) => out.list(key, values),
                Field::Time(unix_micros) => {
                    let mut text = String::new();
                    timestamp::write(&mut text, *unix_micros);
                    out.text(key, &text);
                }
            }
        }
    }
}
