//! Go's `%q`: quoting of byte strings, and reading what is quoted.

use std::fmt::Write as _;

/// Quotes `bytes` as Go's `strconv.Quote` does: printable text stays, the rest becomes an escape.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Quotes each of `words` and joins them as Go prints a slice with `%q`.
pub(crate) fn quote_list(words: &[Vec<u8>]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| quote(w)).collect();
    format!("[{}]", quoted.join(" "))
}

fn quote_char(out: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        _ => "",
    };
    let code = u32::from(c);
    let _ = match (short, code) {
        ("", 0..0x20 | 0x7f) => write!(out, "\\x{code:02x}"),
        ("", _) if is_printable(c) => write!(out, "{c}"),
        ("", 0..0x1_0000) => write!(out, "\\u{code:04x}"),
        ("", _) => write!(out, "\\U{code:08x}"),
        _ => write!(out, "{short}"),
    };
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the plain space.
fn is_printable(c: char) -> bool {
    // The letter before keeps combining marks, which std escapes only at the start of a text.
    let mut pair = String::from("a");
    pair.push(c);
    let mut escaped = pair.escape_debug().skip(1);
    escaped.next() == Some(c) && escaped.next().is_none() || matches!(c, '\'')
}

/// Reads one quoted string at the start of `text` as Go's `fmt.Sscanf("%q")` does; returns it and the rest.
///
/// # Errors
/// Says what is wrong with the text, in Go's words.
pub(crate) fn scan(text: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let text = text.trim_ascii_start();
    match text.first() {
        None => Err("unexpected EOF"),
        Some(b'`') => {
            let end = text[1..].iter().position(|b| *b == b'`');
            let end = end.ok_or("unexpected EOF")?;
            Ok((text[1..=end].to_vec(), &text[end + 2..]))
        }
        Some(b'"') => scan_double(&text[1..]),
        Some(_) => Err("expected quoted string"),
    }
}

fn scan_double(mut text: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let mut out = Vec::new();
    loop {
        match text {
            [] => return Err("unexpected EOF"),
            [b'"', rest @ ..] => return Ok((out, rest)),
            [b'\n', ..] => return Err("invalid syntax"),
            [b'\\', rest @ ..] => text = unescape(rest, &mut out)?,
            [byte, rest @ ..] => {
                out.push(*byte);
                text = rest;
            }
        }
    }
}

/// Reads the escape after a backslash into `out` and returns what follows it.
fn unescape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    let (&letter, rest) = text.split_first().ok_or("unexpected EOF")?;
    let plain = match letter {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' | b'"' => letter,
        b'x' | b'u' | b'U' => {
            let width = match letter {
                b'x' => 2,
                b'u' => 4,
                _ => 8,
            };
            let code = code(rest.get(..width), 16)?;
            if letter == b'x' {
                out.push(u8::try_from(code).map_err(|_| "invalid syntax")?);
            } else {
                let c = char::from_u32(code).ok_or("invalid syntax")?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            return Ok(&rest[width..]);
        }
        b'0'..=b'7' => {
            let code = code(text.get(..3), 8)?;
            out.push(u8::try_from(code).map_err(|_| "invalid syntax")?);
            return Ok(&text[3..]);
        }
        _ => return Err("invalid syntax"),
    };
    out.push(plain);
    Ok(rest)
}

fn code(digits: Option<&[u8]>, base: u32) -> Result<u32, &'static str> {
    digits
        .ok_or("invalid syntax")?
        .iter()
        .try_fold(0, |value, byte| {
            char::from(*byte)
                .to_digit(base)
                .map(|digit| value * base + digit)
        })
        .ok_or("invalid syntax")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_go_s() {
        for (bytes, want) in [
            (&b"plain"[..], r#""plain""#),
            (b"", r#""""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"it's", r#""it's""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\0\x1b\x7f", r#""\x00\x1b\x7f""#),
            (b"\xff\xfe", r#""\xff\xfe""#),
            (b"caf\xc3\xa9", "\"caf\u{e9}\""),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            ("\u{301}".as_bytes(), "\"\u{301}\""),
            (
                "\u{a0}\u{200b}\u{feff}".as_bytes(),
                r#""\u00a0\u200b\ufeff""#,
            ),
            ("\u{80}".as_bytes(), r#""\u0080""#),
            ("\u{1f600}\u{e0001}".as_bytes(), "\"\u{1f600}\\U000e0001\""),
            (b"\xe2\x82", r#""\xe2\x82""#),
        ] {
            assert_eq!(quote(bytes), want);
        }
    }

    #[test]
    fn lists_print_as_go_slices() {
        assert_eq!(
            quote_list(&[b"a".to_vec(), b"b c".to_vec()]),
            r#"["a" "b c"]"#
        );
        assert_eq!(quote_list(&[]), "[]");
    }

    #[test]
    fn what_is_quoted_scans_back() {
        for bytes in [
            &b"plain"[..],
            b"",
            b"\0\xff\"\\\n",
            "\u{1f600}\u{a0}".as_bytes(),
        ] {
            let text = format!("  {} rest", quote(bytes));
            assert_eq!(scan(text.as_bytes()), Ok((bytes.to_vec(), &b" rest"[..])));
        }
        assert_eq!(scan(b"`raw\\n` x"), Ok((b"raw\\n".to_vec(), &b" x"[..])));
        assert_eq!(
            scan(br#""\101\x41\u0041\U00000041""#),
            Ok((b"AAAA".to_vec(), &b""[..]))
        );
    }

    #[test]
    fn bad_quoting_is_refused() {
        for text in [
            &b""[..],
            b"abc",
            b"\"open",
            b"\"\\",
            b"`open",
            br#""\q""#,
            br#""\x4""#,
            br#""\400""#,
            br#""\ud800""#,
        ] {
            assert!(scan(text).is_err(), "{text:?}");
        }
    }
}
