//! Wall-clock times as text.

const NS_PER_S: i64 = 1_000_000_000;
const S_PER_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const DAYS_TO_1970: i64 = 719_468;
const DAYS_PER_ERA: i64 = 146_097;

/// Writes nanoseconds since 1970 as RFC 3339 in UTC, without zeros at the end.
pub(crate) fn format_rfc3339(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(NS_PER_S), ns.rem_euclid(NS_PER_S));
    let (days, of_day) = (seconds.div_euclid(S_PER_DAY), seconds.rem_euclid(S_PER_DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction != 0 {
        let digits = format!(".{fraction:09}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Reads RFC 3339 into nanoseconds since 1970; `None` for anything else, and for years that do not fit.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    let sign = |at: usize, signs: &[u8]| signs.contains(text.as_bytes().get(at)?).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, signs) in [
        (4, b"--"),
        (7, b"--"),
        (10, b"Tt"),
        (13, b"::"),
        (16, b"::"),
    ] {
        sign(at, signs)?;
    }
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !in_range {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if text.as_bytes().get(at) == Some(&b'.') {
        let digits = text[at + 1..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        let shown = digits.min(9);
        let scale = 10_i64.pow(u32::try_from(9 - shown).ok()?);
        fraction = number(at + 1, at + 1 + shown).filter(|_| shown > 0)? * scale;
        at += 1 + digits;
    }
    let offset_s = match text.get(at..)? {
        "Z" | "z" => 0,
        rest if rest.len() == 6 => {
            sign(at, b"+-")?;
            sign(at + 3, b":")?;
            let offset = number(at + 1, at + 3)? * 3600 + number(at + 4, at + 6)? * 60;
            if rest.starts_with('-') {
                -offset
            } else {
                offset
            }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * S_PER_DAY + hour * 3600 + minute * 60 + second;
    (seconds - offset_s)
        .checked_mul(NS_PER_S)?
        .checked_add(fraction)
}

/// Returns year, month and day of a day since 1970. Years are counted from March, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + DAYS_TO_1970;
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Returns the day since 1970 of a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * DAYS_PER_ERA + of_era - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way() {
        for ns in [
            0,
            1,
            -1,
            951_782_400 * NS_PER_S,
            1_709_164_800 * NS_PER_S + 500_000_000,
            4_102_444_799 * NS_PER_S,
        ] {
            assert_eq!(parse_rfc3339(&format_rfc3339(ns)), Some(ns), "{ns}");
        }
        assert_eq!(
            format_rfc3339(951_782_400 * NS_PER_S),
            "2000-02-29T00:00:00Z"
        );
        assert_eq!(
            parse_rfc3339("2026-11-21T14:00:00.5+01:30"),
            parse_rfc3339("2026-11-21T12:30:00.5Z")
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2026",
            "2026-11-21",
            "2026-11-21T12:00:00",
            "2026-13-21T12:00:00Z",
            "2026-11-21T12:00:00.Z",
            "2026-11-21T12:00:00+0100",
            "2026-11-21T12:00:00Zx",
            "2026-11-21T12:00:0éZ",
            "+026-11-21T12:00:00Z",
            "9999-11-21T12:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
