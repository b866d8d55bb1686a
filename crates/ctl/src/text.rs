//! Words of a line, as the interactive commands split it.

use crate::failure::{Failure, Outcome};
use crate::go::quote;

/// Splits a line into words: blanks separate, `'...'` keeps all as it is, `"..."` takes Go's escapes.
///
/// Source: etcd v3.7.1 `etcdctl/ctlv3/command/util.go` `Argify`.
///
/// # Errors
/// A double-quoted word has a bad escape.
pub(crate) fn words(line: &[u8]) -> Outcome<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let len = match first {
            b'"' => quoted_len(rest),
            b'\'' => rest[1..].iter().position(|b| *b == b'\'').map(|at| at + 2),
            _ if is_blank(first) => None,
            _ => Some(rest.iter().take_while(|b| !is_blank(**b)).count()),
        };
        let Some(len) = len else {
            rest = &rest[1..];
            continue;
        };
        let (word, after) = rest.split_at(len);
        words.push(match first {
            b'\'' => word[1..len - 1].to_vec(),
            b'"' => quote::scan(word).map_err(Failure::invalid_input)?.0,
            _ => word.to_vec(),
        });
        rest = after;
    }
    Ok(words)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// The length of the double-quoted word at the start, `None` when it does not end.
fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if *text.get(at + 1)? != b'\n' => at += 2,
            b'\\' => return None,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        let words = words(line.as_bytes()).unwrap();
        words
            .into_iter()
            .map(|w| String::from_utf8(w).unwrap())
            .collect()
    }

    #[test]
    fn words_split_at_blanks_and_quotes() {
        assert_eq!(split("put key1 value"), ["put", "key1", "value"]);
        assert_eq!(
            split(r#"  put "a b"	'c "d" '  --x=1"#),
            ["put", "a b", "c \"d\" ", "--x=1"]
        );
        assert_eq!(split(r#"put "a\tb\"\x41""#), ["put", "a\tb\"A"]);
        assert_eq!(split("\"\" ''"), ["", ""]);
        assert_eq!(split("a\"b c"), ["a\"b", "c"]);
        assert_eq!(split("\"open word"), ["open", "word"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn a_bad_escape_is_refused() {
        assert_eq!(
            words(br#""\q""#),
            Err(Failure::invalid_input("invalid syntax"))
        );
    }
}
