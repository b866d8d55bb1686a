//! The two shapes of a line.
//!
//! **Shape** of JSON: one object a line with `level`, `ts`, `logger` when it is another crate's, `caller`, `msg`, then
//! the fields in the order given, without blanks. Of the console: `ts`, `level`, `logger`, `caller`, `msg` and the
//! fields as an object with blanks, between tabs. Source: go.uber.org/zap zapcore json_encoder.go, console_encoder.go.

use std::fmt::{self, Write};

use super::caller::Caller;
use super::options::Format;
use super::{Level, timestamp};

/// Largest part of one text that is written, in bytes; what is longer is cut.
pub(crate) const TEXT_BYTES_MAX: usize = 256 * 1024;

/// What stands before the fields.
pub(crate) struct Head<'a> {
    pub(crate) level: Level,
    pub(crate) unix_micros: u64,
    /// The crate that logs, when it is not ours.
    pub(crate) logger: Option<&'a str>,
    pub(crate) caller: Caller<'a>,
    pub(crate) message: &'a str,
}

/// The fields of a line as they will stand in it.
pub(crate) struct Fields {
    text: String,
    blanks: bool,
}

impl Fields {
    pub(crate) fn new(format: Format) -> Fields {
        Fields {
            text: String::new(),
            blanks: format == Format::Console,
        }
    }

    #[cfg(test)]
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn key(&mut self, key: &str) {
        if !self.text.is_empty() {
            self.text.push_str(if self.blanks { ", " } else { "," });
        }
        write_text(&mut self.text, key);
        self.text.push_str(if self.blanks { ": " } else { ":" });
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        write_text(&mut self.text, value);
    }

    /// Writes anything that prints, as a text.
    pub(crate) fn display(&mut self, key: &str, value: fmt::Arguments<'_>) {
        match value.as_str() {
            Some(text) => self.text(key, text),
            None => self.text(key, &value.to_string()),
        }
    }

    /// Writes a number or a boolean, which print as JSON has them.
    pub(crate) fn plain(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        write!(self.text, "{value}").expect("a string takes all");
    }

    pub(crate) fn float(&mut self, key: &str, value: f64) {
        if value.is_finite() {
            self.plain(key, value);
        } else {
            self.text(
                key,
                if value.is_nan() {
                    "NaN"
                } else if value > 0.0 {
                    "+Inf"
                } else {
                    "-Inf"
                },
            );
        }
    }

    pub(crate) fn list(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.text.push('[');
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                self.text.push_str(if self.blanks { ", " } else { "," });
            }
            write_text(&mut self.text, value);
        }
        self.text.push(']');
    }
}

/// Builds a line, with its line feed.
pub(crate) fn line(format: Format, head: &Head<'_>, fields: &Fields) -> String {
    let mut out = String::with_capacity(96 + head.message.len() + fields.text.len());
    match format {
        Format::Json => write_json(&mut out, head, fields),
        Format::Console => write_console(&mut out, head, fields),
    }
    out.push('\n');
    out
}

fn write_json(out: &mut String, head: &Head<'_>, fields: &Fields) {
    out.push_str("{\"level\":\"");
    out.push_str(head.level.as_str());
    out.push_str("\",\"ts\":\"");
    timestamp::write(out, head.unix_micros);
    out.push_str("\",");
    if let Some(logger) = head.logger {
        out.push_str("\"logger\":");
        write_text(out, logger);
        out.push(',');
    }
    out.push_str("\"caller\":\"");
    head.caller.write(out);
    out.push_str("\",\"msg\":");
    write_text(out, head.message);
    if !fields.text.is_empty() {
        out.push(',');
        out.push_str(&fields.text);
    }
    out.push('}');
}

fn write_console(out: &mut String, head: &Head<'_>, fields: &Fields) {
    timestamp::write(out, head.unix_micros);
    out.push('\t');
    out.push_str(head.level.as_str());
    out.push('\t');
    if let Some(logger) = head.logger {
        out.push_str(logger);
        out.push('\t');
    }
    head.caller.write(out);
    out.push('\t');
    // A message must not start a line of its own, which would look like another record.
    out.push_str(&cut(head.message).replace('\n', "\\n"));
    if !fields.text.is_empty() {
        out.push_str("\t{");
        out.push_str(&fields.text);
        out.push('}');
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Appends a text as a JSON string.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let text = cut(text);
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        plain_from = at + 1;
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("a string takes all");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(format: Format) -> String {
        let mut fields = Fields::new(format);
        fields.text("error", "a \"quoted\"\nline\u{1}");
        fields.plain("snapshot-catchup-entries", 1000);
        fields.plain("pre-vote", true);
        fields.float("share", 0.5);
        fields.float("bad", f64::NAN);
        fields.list("urls", &["a".to_owned(), "b".to_owned()]);
        fields.list("none", &[]);
        let caller = Caller::new("crates/server/src/main.rs", 12);
        let head = Head {
            level: Level::Warn,
            unix_micros: 1_767_366_245_123_456,
            logger: None,
            caller,
            message: "hé\\",
        };
        line(format, &head, &fields)
    }

    #[test]
    fn json_lines_have_zaps_shape() {
        let expected = concat!(
            r#"{"level":"warn","ts":"2026-01-02T15:04:05.123456Z","caller":"server/main.rs:12","msg":"hé\\","#,
            r#""error":"a \"quoted\"\nline\u0001","snapshot-catchup-entries":1000,"pre-vote":true,"share":0.5,"#,
            r#""bad":"NaN","urls":["a","b"],"none":[]}"#,
            "\n"
        );
        assert_eq!(sample(Format::Json), expected);
        let parsed: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(parsed["error"], "a \"quoted\"\nline\u{1}");
    }

    #[test]
    fn console_lines_have_zaps_shape() {
        let expected = concat!(
            "2026-01-02T15:04:05.123456Z\twarn\tserver/main.rs:12\thé\\\t",
            r#"{"error": "a \"quoted\"\nline\u0001", "snapshot-catchup-entries": 1000, "pre-vote": true, "#,
            r#""share": 0.5, "bad": "NaN", "urls": ["a", "b"], "none": []}"#,
            "\n"
        );
        assert_eq!(sample(Format::Console), expected);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = "é".repeat(TEXT_BYTES_MAX);
        let mut fields = Fields::new(Format::Json);
        fields.text("k", &text);
        assert!(fields.text.len() <= TEXT_BYTES_MAX + 10 && fields.text.ends_with("é\""));
    }
}
