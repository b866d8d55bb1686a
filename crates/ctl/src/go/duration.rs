//! Go's `time.Duration` as text.

use std::time::Duration;

use super::quote::quote;

/// Parses a signed sequence of decimal numbers with units (`1m30s`, `300ms`, `1.5h`).
///
/// # Errors
/// Go's text for an invalid duration, a missing or an unknown unit.
///
/// **Differs from Go:** a negative duration is refused, no flag here has a use for one.
pub(crate) fn parse(text: &[u8]) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let mut rest = text.strip_prefix(b"+").unwrap_or(text);
    if rest == b"0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_len = rest
            .iter()
            .take_while(|b| b.is_ascii_digit() || **b == b'.')
            .count();
        let (number, after) = rest.split_at(number_len);
        let unit_len = after
            .iter()
            .take_while(|b| !b.is_ascii_digit() && **b != b'.')
            .count();
        let (unit, after) = after.split_at(unit_len);
        rest = after;
        let number = std::str::from_utf8(number)
            .ok()
            .filter(|n| n.bytes().any(|b| b != b'.'));
        let number: f64 = number.and_then(|n| n.parse().ok()).ok_or_else(invalid)?;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let seconds = seconds_per(unit).ok_or_else(|| {
            format!(
                "time: unknown unit {} in duration {}",
                quote(unit),
                quote(text)
            )
        })?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| invalid())?;
        total = total.checked_add(part).ok_or_else(invalid)?;
    }
    Ok(total)
}

fn seconds_per(unit: &[u8]) -> Option<f64> {
    Some(match unit {
        b"ns" => 1e-9,
        b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1e-6,
        b"ms" => 1e-3,
        b"s" => 1.0,
        b"m" => 60.0,
        b"h" => 3600.0,
        _ => return None,
    })
}

/// Prints a duration as Go's `Duration.String` does.
pub(crate) fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `nanos / unit` in decimal, without zeros at the end.
fn fraction(nanos: u128, unit: u128) -> String {
    let width = unit.to_string().len() - 1;
    let text = format!("{}.{:0width$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, want) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5\u{b5}s"),
            (1_977_658, "1.977658ms"),
            (2_000_000, "2ms"),
            (5_000_000_000, "5s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), want);
        }
    }

    #[test]
    fn durations_parse_as_go_parses_them() {
        assert_eq!(parse(b"300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse(b"1m30.5s"), Ok(Duration::from_millis(90_500)));
        assert_eq!(parse(b"0"), Ok(Duration::ZERO));
        assert_eq!(parse(b"x"), Err("time: invalid duration \"x\"".into()));
        assert_eq!(
            parse(b"5"),
            Err("time: missing unit in duration \"5\"".into())
        );
        assert_eq!(
            parse(b"5y"),
            Err("time: unknown unit \"y\" in duration \"5y\"".into())
        );
        assert!(parse(b"").is_err() && parse(b".s").is_err() && parse(b"1e9s").is_err());
    }
}
