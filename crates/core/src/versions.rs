//! Versions of members and of the cluster, and how the cluster's is decided.
use std::fmt;

use quorate_proto::MemberId;

/// A version of three numbers; only the first two matter between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// What a cluster agrees on before it is known what all its members can do. Source: etcd v3.7.1 MinClusterVersion.
pub(crate) const MIN_CLUSTER_VERSION: Version = Version { major: 3, minor: 0 };

impl Version {
    /// Parses `X.Y.Z`, with what may follow the numbers in a semantic version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut numbers = core.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        });
        let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(Self { major, minor })
    }

    /// Parses `X.Y.Z` or `X.Y`. Source: etcd v3.7.1 cluster_util.go convertToClusterVersion.
    pub(crate) fn parse_target(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Self::parse(&format!("{text}.0")))
    }

    /// Returns the only version that a cluster of this one may be downgraded to.
    pub(crate) fn one_down(self) -> Option<Self> {
        let minor = self.minor.checked_sub(1)?;
        Some(Self { minor, ..self })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// Decides what the cluster version is to become; `None` when it stays.
///
/// `members` has the version of every member, `None` of one that did not answer or says what is no version; `downgrade`
/// is the target of the downgrade under way. Source: etcd v3.7.1 server/etcdserver/version/monitor.go
/// decideClusterVersion.
pub(crate) fn decide(
    cluster: Option<Version>,
    downgrade: Option<Version>,
    members: &[(MemberId, Option<Version>)],
) -> Option<Version> {
    let lowest = lowest(members);
    let Some(cluster) = cluster else {
        return Some(lowest.unwrap_or(MIN_CLUSTER_VERSION));
    };
    let lowest = lowest?;
    if let Some(target) = downgrade {
        let is_reachable = cluster.one_down() == Some(target) && lowest.one_down() == Some(target);
        return (target != cluster && is_reachable).then_some(target);
    }
    (cluster.major == lowest.major && cluster < lowest).then_some(lowest)
}

/// Says whether every member runs the version. Source: as [`decide`], versionsMatchTarget.
pub(crate) fn all_run(target: Version, members: &[(MemberId, Option<Version>)]) -> bool {
    members.iter().all(|(_, version)| *version == Some(target))
}

fn lowest(members: &[(MemberId, Option<Version>)]) -> Option<Version> {
    let mut lowest = None;
    for (_, version) in members {
        let version = (*version)?;
        lowest = Some(lowest.map_or(version, |l: Version| l.min(version)));
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        Version::parse_target(text).unwrap()
    }

    fn members(versions: &[&str]) -> Vec<(MemberId, Option<Version>)> {
        (1..)
            .zip(versions)
            .map(|(id, text)| (MemberId(id), Version::parse(text)))
            .collect()
    }

    #[test]
    fn only_versions_are_parsed() {
        assert_eq!(Version::parse("3.7.1"), Some(v("3.7")));
        assert_eq!(Version::parse("3.7.0-rc.1+x"), Some(v("3.7")));
        for text in [
            "", "3", "3.7", "3.7.", "3.7.x", "3.7.1.2", "+3.7.1", "-3.7.1", " 3.7.1",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert_eq!(v("3.6").to_string(), "3.6.0");
        assert!(Version::parse_target("3").is_none());
    }

    #[test]
    fn the_first_version_is_the_lowest_of_all_or_the_least_possible() {
        assert_eq!(
            decide(None, None, &members(&["3.7.1", "3.6.9"])),
            Some(v("3.6"))
        );
        assert_eq!(
            decide(None, None, &members(&["3.7.1", "?"])),
            Some(v("3.0"))
        );
    }

    #[test]
    fn later_it_only_rises_when_all_have_answered_and_only_a_downgrade_lowers_it() {
        let all = members(&["3.7.1", "3.7.0", "3.7.1"]);
        assert_eq!(decide(Some(v("3.0")), None, &all), Some(v("3.7")));
        assert_eq!(decide(Some(v("3.7")), None, &all), None);
        assert_eq!(decide(Some(v("3.0")), None, &members(&["3.7.1", ""])), None);
        assert_eq!(decide(Some(v("3.7")), None, &members(&["3.6.1"])), None);
        assert_eq!(decide(Some(v("3.7")), Some(v("3.6")), &all), Some(v("3.6")));
        assert_eq!(decide(Some(v("3.6")), Some(v("3.6")), &all), None);
        assert_eq!(decide(Some(v("3.7")), Some(v("3.5")), &all), None);
        assert!(all_run(v("3.7"), &all) && !all_run(v("3.6"), &all));
    }
}
