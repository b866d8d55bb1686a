//! Versions of members, and which may talk to which.

/// Major and minor version; the rest never decides anything between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u64,
    minor: u64,
}

/// What a member that says no version counts as.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/util.go `serverVersion`.
pub(crate) const UNSAID: Version = Version { major: 2, minor: 0 };

/// First version with the streams spoken here.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/stream.go `supportedStream`.
pub(crate) const WITH_STREAMS: Version = Version { major: 2, minor: 1 };

impl Version {
    /// Parses `major.minor.patch`, with whatever a semantic version may have behind it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.');
        let mut number = || {
            let part = parts.next()?;
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse::<u64>().ok())?
        };
        let (major, minor, _patch) = (number()?, number()?, number()?);
        parts.next().is_none().then_some(Self { major, minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_major_and_minor() {
        let v = |text| Version::parse(text).unwrap();
        assert_eq!(v("3.7.1"), v("3.7.0-alpha.0+git"));
        assert!(v("3.10.0") > v("3.9.9"));
        assert!(v("4.0.0") > v("3.9.9"));
        for bad in [
            "", "3", "3.7", "3.7.1.0", "3.x.1", "3.7.", "+3.7.1", "3.7.-1",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
