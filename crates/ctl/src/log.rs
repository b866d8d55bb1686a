//! Log lines on standard error, in the shape of etcd's client logs.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::go::json::Object;

/// Writes one line with a time stamp, `message` and `fields`.
pub(crate) fn write(level: &str, message: &str, fields: &[(&str, &str)]) {
    let mut line = Vec::new();
    let mut object = Object::new(&mut line);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    object
        .field("level", level)
        .field(
            "ts",
            timestamp(since.as_secs(), since.subsec_micros()).as_str(),
        )
        .field("logger", "etcd-client")
        .field("msg", message);
    for (name, value) in fields {
        object.field(name, *value);
    }
    object.end();
    line.push(b'\n');
    // Nobody is left to tell when standard error is gone.
    let _ = std::io::stderr().write_all(&line);
}

/// A time since 1970 in UTC, to the microsecond.
fn timestamp(seconds: u64, micros: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counting from 1 March of year 0 puts the leap day last in its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_calendar_dates() {
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(951_782_400, 5), "2000-02-29T00:00:00.000005Z");
        assert_eq!(
            timestamp(1_795_252_833, 939_907),
            "2026-11-21T09:20:33.939907Z"
        );
    }
}
