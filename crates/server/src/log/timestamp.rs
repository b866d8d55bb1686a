//! Time as it stands in a line.

use std::fmt::Write;

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Appends a time as `2026-01-02T15:04:05.123456Z`.
pub(crate) fn write(out: &mut String, unix_micros: u64) {
    let seconds = unix_micros / MICROS_PER_SECOND;
    let (year, month, day) = civil_date(seconds / SECONDS_PER_DAY);
    let second_of_day = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (
        second_of_day / 3_600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    let micros = unix_micros % MICROS_PER_SECOND;
    write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
    )
    .expect("a string takes all");
}

/// Turns days since 1970 into year, month and day.
///
/// Source: the algorithm `civil_from_days` of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms". Years are
/// counted from March, so that the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    const YEARS_PER_ERA: u64 = 400;
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH_OFFSET: u64 = 719_468;
    let days = days + EPOCH_OFFSET;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * YEARS_PER_ERA + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_dates() {
        for (unix_micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_767_366_245_123_456, "2026-01-02T15:04:05.123456Z"),
            (4_107_542_400_000_001, "2100-03-01T00:00:00.000001Z"),
            (1_735_689_599_000_000, "2024-12-31T23:59:59.000000Z"),
        ] {
            let mut out = String::new();
            write(&mut out, unix_micros);
            assert_eq!(out, expected);
        }
    }
}
