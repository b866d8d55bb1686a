//! Numbers, booleans and durations in the grammar of Go's `strconv` and `time`.

use std::fmt;

/// Says why a text is not a value of the wanted type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarError {
    /// Not of the grammar.
    Syntax,
    /// Of the grammar, but too large for the type.
    Range,
}

impl fmt::Display for ScalarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScalarError::Syntax => "parse error",
            ScalarError::Range => "value out of range",
        })
    }
}

/// Parses a boolean. Source: Go `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, ScalarError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ScalarError::Syntax),
    }
}

/// Parses an unsigned integer with an optional base prefix. Source: Go `strconv.ParseUint(s, 0, 64)`.
pub(crate) fn parse_uint(text: &str) -> Result<u64, ScalarError> {
    if !underscores_are_placed_well(text) {
        return Err(ScalarError::Syntax);
    }
    let (base, digits) = split_base(text);
    if digits.is_empty() && text != "0" {
        return Err(ScalarError::Syntax);
    }
    let mut value: u64 = 0;
    let mut overflow = false;
    for digit in digits.chars().filter(|&c| c != '_') {
        let digit = digit.to_digit(base).ok_or(ScalarError::Syntax)?;
        match value
            .checked_mul(u64::from(base))
            .and_then(|v| v.checked_add(u64::from(digit)))
        {
            Some(next) => value = next,
            None => overflow = true,
        }
    }
    if overflow {
        Err(ScalarError::Range)
    } else {
        Ok(value)
    }
}

/// Parses a signed integer with an optional base prefix. Source: Go `strconv.ParseInt(s, 0, 64)`.
pub(crate) fn parse_int(text: &str) -> Result<i64, ScalarError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value).map_err(|_| ScalarError::Range)
}

fn split_base(text: &str) -> (u32, &str) {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'0') {
        return (10, text);
    }
    let prefix = if bytes.len() >= 3 {
        bytes[1].to_ascii_lowercase()
    } else {
        0
    };
    match prefix {
        b'b' => (2, &text[2..]),
        b'o' => (8, &text[2..]),
        b'x' => (16, &text[2..]),
        _ => (8, &text[1..]),
    }
}

/// Returns whether every underscore stands between digits, or between a base prefix and a digit.
fn underscores_are_placed_well(text: &str) -> bool {
    let bytes = text.as_bytes();
    let prefixed = bytes.len() >= 2
        && bytes[0] == b'0'
        && matches!(bytes[1].to_ascii_lowercase(), b'b' | b'o' | b'x');
    let mut after_digit = prefixed;
    let mut after_underscore = false;
    for byte in &bytes[if prefixed { 2 } else { 0 }..] {
        if *byte == b'_' {
            if !after_digit {
                return false;
            }
            (after_digit, after_underscore) = (false, true);
        } else {
            (after_digit, after_underscore) = (byte.is_ascii_hexdigit(), false);
        }
    }
    !after_underscore
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Parses a duration into nanoseconds. Source: Go `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Result<i64, ScalarError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(ScalarError::Syntax);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanos, left) = parse_duration_part(rest)?;
        total += nanos;
        if total > 1 << 63 {
            return Err(ScalarError::Syntax);
        }
        rest = left;
    }
    let total = i128::try_from(total).map_err(|_| ScalarError::Syntax)?;
    i64::try_from(if negative { -total } else { total }).map_err(|_| ScalarError::Syntax)
}

/// Reads one number with its unit and returns it in nanoseconds with what follows.
fn parse_duration_part(text: &str) -> Result<(u128, &str), ScalarError> {
    const DIGITS_MAX: usize = 19;
    let whole_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut rest) = text.split_at(whole_len);
    let mut fraction = "";
    if let Some(after_dot) = rest.strip_prefix('.') {
        let len = after_dot.bytes().take_while(u8::is_ascii_digit).count();
        (fraction, rest) = after_dot.split_at(len);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(ScalarError::Syntax);
    }
    let unit_len = rest
        .bytes()
        .take_while(|b| *b != b'.' && !b.is_ascii_digit())
        .count();
    let (unit, rest) = rest.split_at(unit_len);
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => u128::from(NANOS_PER_SECOND),
        "m" => 60 * u128::from(NANOS_PER_SECOND),
        "h" => 3_600 * u128::from(NANOS_PER_SECOND),
        _ => return Err(ScalarError::Syntax),
    };
    let whole = whole.trim_start_matches('0');
    if whole.len() > DIGITS_MAX {
        return Err(ScalarError::Syntax);
    }
    let mut nanos = whole
        .bytes()
        .fold(0u128, |value, digit| value * 10 + u128::from(digit - b'0'))
        * unit;
    let mut scale = 1u128;
    for digit in fraction.bytes().take(DIGITS_MAX) {
        scale *= 10;
        nanos += u128::from(digit - b'0') * unit / scale;
    }
    Ok((nanos, rest))
}

/// A span of time that prints as Go's `time.Duration` does: `1h0m0s`, `1.5s`, `100ms`, `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration {
    /// Units: nanoseconds.
    nanos: i64,
}

impl GoDuration {
    /// Takes a number of nanoseconds.
    pub fn from_nanos(nanos: i64) -> GoDuration {
        GoDuration { nanos }
    }
}

impl From<std::time::Duration> for GoDuration {
    /// Saturates at the 292 years that Go can hold.
    fn from(duration: std::time::Duration) -> GoDuration {
        GoDuration {
            nanos: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.nanos.unsigned_abs();
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..=999 => write!(f, "{nanos}ns"),
            1_000..=999_999 => write_decimal(f, nanos, 1_000, "\u{b5}s"),
            1_000_000..=999_999_999 => write_decimal(f, nanos, 1_000_000, "ms"),
            _ => {
                let seconds = nanos / NANOS_PER_SECOND;
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if seconds >= 60 {
                    write!(f, "{minutes}m")?;
                }
                write_decimal(f, nanos % (60 * NANOS_PER_SECOND), NANOS_PER_SECOND, "s")
            }
        }
    }
}

/// Writes `value / unit` without trailing zeroes.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let mut fraction = value % unit;
    if fraction > 0 {
        let mut width = unit.ilog10() as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")?;
    }
    f.write_str(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_follow_the_grammar_of_go() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("007", Ok(7)),
            ("0x10", Ok(16)),
            ("0X1f", Ok(31)),
            ("0o17", Ok(15)),
            ("0b101", Ok(5)),
            ("1_000", Ok(1000)),
            ("0x_10", Ok(16)),
            ("0_7", Ok(7)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(ScalarError::Range)),
            ("99999999999999999999x", Err(ScalarError::Syntax)),
            ("", Err(ScalarError::Syntax)),
            ("08", Err(ScalarError::Syntax)),
            ("0x", Err(ScalarError::Syntax)),
            ("_1", Err(ScalarError::Syntax)),
            ("1_", Err(ScalarError::Syntax)),
            ("1__0", Err(ScalarError::Syntax)),
            ("+1", Err(ScalarError::Syntax)),
            ("-1", Err(ScalarError::Syntax)),
            ("1 ", Err(ScalarError::Syntax)),
            ("1e3", Err(ScalarError::Syntax)),
        ] {
            assert_eq!(parse_uint(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("-1", Ok(-1)),
            ("+7", Ok(7)),
            ("-0x10", Ok(-16)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(ScalarError::Range)),
            ("--1", Err(ScalarError::Syntax)),
        ] {
            assert_eq!(parse_int(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_follow_the_grammar_of_go() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5ms", Some(500_000)),
            ("1.s", Some(1_000_000_000)),
            ("-1m0s", Some(-60_000_000_000)),
            ("3\u{b5}s", Some(3_000)),
            ("3\u{3bc}s", Some(3_000)),
            ("2562047h47m16.854775807s", Some(i64::MAX)),
            ("-2562047h47m16.854775808s", Some(i64::MIN)),
            ("2562047h47m16.854775808s", None),
            ("99999999999999999999h", None),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("5 s", None),
            ("5d", None),
            ("1s-1s", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "0s"),
            (7, "7ns"),
            (1_100, "1.1\u{b5}s"),
            (2_876_409, "2.876409ms"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (7_265_010_000_000, "2h1m5.01s"),
            (-5_000_000_000, "-5s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration::from_nanos(nanos).to_string(), expected);
            assert_eq!(parse_duration(expected), Ok(nanos), "and back");
        }
    }
}
