//! Compaction of history by itself.

use std::time::Duration;

use super::error::Error;
use super::go;

/// How much history compaction by itself keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing is compacted by itself.
    Off,
    /// History of this time is kept. **Invariant:** more than zero.
    Periodic(Duration),
    /// This many revisions are kept. **Invariant:** more than zero.
    Revision(i64),
}

impl AutoCompaction {
    /// Reads the flags. Source: etcd v3.7.1 server/embed/etcd.go `parseCompactionRetention`.
    ///
    /// # Errors
    ///
    /// A retention that is neither a number nor a duration, and a negative one.
    pub(crate) fn parse(mode: &str, retention: &str) -> Result<AutoCompaction, Error> {
        const NANOS_PER_HOUR: i64 = 3_600_000_000_000;
        let refused = |why: &str| {
            Error::Invalid(format!(
                "error parsing CompactionRetention: {why} {retention:?}"
            ))
        };
        let retention = if retention.is_empty() { "0" } else { retention };
        let periodic = mode == "periodic";
        let amount = match retention.parse::<i64>() {
            Ok(count) if count >= 0 && periodic => count
                .checked_mul(NANOS_PER_HOUR)
                .ok_or_else(|| refused("time: invalid duration"))?,
            Ok(count) if count >= 0 => count,
            _ => go::parse_duration(retention).map_err(|_| refused("time: invalid duration"))?,
        };
        match u64::try_from(amount) {
            Err(_) => Err(refused("negative retention")),
            Ok(0) => Ok(AutoCompaction::Off),
            Ok(nanos) if periodic => Ok(AutoCompaction::Periodic(Duration::from_nanos(nanos))),
            Ok(_) => Ok(AutoCompaction::Revision(amount)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_by_the_mode() {
        let hours = |count: u64| Ok(AutoCompaction::Periodic(Duration::from_secs(count * 3600)));
        for (mode, text, expected) in [
            ("periodic", "0", Ok(AutoCompaction::Off)),
            ("periodic", "", Ok(AutoCompaction::Off)),
            ("revision", "0", Ok(AutoCompaction::Off)),
            ("periodic", "5", hours(5)),
            (
                "periodic",
                "30m",
                Ok(AutoCompaction::Periodic(Duration::from_secs(1800))),
            ),
            ("revision", "1000", Ok(AutoCompaction::Revision(1000))),
        ] {
            assert_eq!(AutoCompaction::parse(mode, text), expected, "{mode} {text}");
        }
        for text in ["x", "-5", "-5m", "5d", "99999999999999"] {
            assert!(AutoCompaction::parse("periodic", text).is_err(), "{text}");
        }
    }
}
