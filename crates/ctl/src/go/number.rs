//! `strconv`'s integers and their error texts.

use super::quote::quote;

/// `strconv.ParseInt(text, base, 64)`; base 0 takes the base from a `0x`, `0o`, `0b` or `0` prefix.
pub(crate) fn parse_int(text: &[u8], base: u32) -> Result<i64, String> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let magnitude = magnitude(digits, base)
        .map_err(|why| error("ParseInt", text, why))?
        .and_then(|m| i128::try_from(m).ok());
    magnitude
        .map(|m| if negative { -m } else { m })
        .and_then(|m| i64::try_from(m).ok())
        .ok_or_else(|| error("ParseInt", text, OUT_OF_RANGE))
}

/// `strconv.ParseUint(text, base, 64)`.
pub(crate) fn parse_uint(text: &[u8], base: u32) -> Result<u64, String> {
    magnitude(text, base)
        .map_err(|why| error("ParseUint", text, why))?
        .and_then(|m| u64::try_from(m).ok())
        .ok_or_else(|| error("ParseUint", text, OUT_OF_RANGE))
}

/// `strconv.ParseBool(text)`.
pub(crate) fn parse_bool(text: &[u8]) -> Result<bool, String> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(false),
        _ => Err(error("ParseBool", text, INVALID)),
    }
}

const INVALID: &str = "invalid syntax";
const OUT_OF_RANGE: &str = "value out of range";

fn error(function: &str, text: &[u8], why: &str) -> String {
    format!("strconv.{function}: parsing {}: {why}", quote(text))
}

/// The number that `digits` mean, `None` when it has more than 64 bits.
fn magnitude(digits: &[u8], base: u32) -> Result<Option<u128>, &'static str> {
    let (base, digits) = match (base, digits) {
        (0, [b'0', b'x' | b'X', rest @ ..]) => (16, rest),
        (0, [b'0', b'b' | b'B', rest @ ..]) => (2, rest),
        (0, [b'0', b'o' | b'O', rest @ ..]) => (8, rest),
        (0, [b'0', rest @ ..]) if !rest.is_empty() => (8, rest),
        (0, _) => (10, digits),
        _ => (base, digits),
    };
    if digits.is_empty() {
        return Err(INVALID);
    }
    let mut value = Some(0_u128);
    for &byte in digits {
        let digit = char::from(byte).to_digit(base).ok_or(INVALID)?;
        value = value
            .map(|v| v * u128::from(base) + u128::from(digit))
            .filter(|v| *v <= u128::from(u64::MAX));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_parse_as_go_parses_them() {
        assert_eq!(parse_int(b"-12", 10), Ok(-12));
        assert_eq!(parse_int(b"7fffffffffffffff", 16), Ok(i64::MAX));
        assert_eq!(parse_int(b"-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_int(b"0x10", 0), Ok(16));
        assert_eq!(parse_int(b"010", 0), Ok(8));
        assert_eq!(
            parse_int(b"xyz", 16),
            Err("strconv.ParseInt: parsing \"xyz\": invalid syntax".into())
        );
        assert_eq!(
            parse_int(b"99999999999999999999", 0),
            Err("strconv.ParseInt: parsing \"99999999999999999999\": value out of range".into())
        );
        assert_eq!(
            parse_int(b"", 10),
            Err("strconv.ParseInt: parsing \"\": invalid syntax".into())
        );
        assert_eq!(parse_uint(b"ffffffffffffffff", 16), Ok(u64::MAX));
        assert!(parse_uint(b"-1", 16).is_err());
    }

    #[test]
    fn booleans_parse_as_go_parses_them() {
        assert_eq!(parse_bool(b"T"), Ok(true));
        assert_eq!(parse_bool(b"0"), Ok(false));
        assert_eq!(
            parse_bool(b"maybe"),
            Err("strconv.ParseBool: parsing \"maybe\": invalid syntax".into())
        );
    }
}
