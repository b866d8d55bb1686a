//! Headers by which members know each other.
use http::header::{HeaderMap, HeaderName, HeaderValue};
use quorate_proto::{ClusterId, MemberId};

use crate::version::{UNSAID, Version};
use crate::{Config, Error};

pub(crate) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(crate) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(crate) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(crate) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");
/// Ours alone: asks for streams with checksums and says that they are (`crc32`), or carries a body's checksum in
/// hexadecimal. Members of etcd neither send nor heed it.
pub(crate) const CHECKSUM: HeaderName = HeaderName::from_static("x-quorate-checksum");
/// Ours alone: stands beside every [`CHECKSUM`] of streams, posts and snapshots, so that a bit that changes on the way can take one of
/// them away and not both: without it a reader would take what comes for a member of etcd's, which has no checksums.
pub(crate) const SEALED: HeaderName = HeaderName::from_static("x-quorate-sealed");
pub(crate) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");

/// Who this member is, ready to be sent and to be compared with.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/http.go and util.go.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) member_id: MemberId,
    pub(crate) cluster_id: ClusterId,
    pub(crate) server_version: HeaderValue,
    pub(crate) cluster: HeaderValue,
    headers: HeaderMap,
    version: Version,
    min_version: Version,
}

impl Identity {
    /// # Errors
    ///
    /// [`Error::Malformed`] if a version or URL of the configuration cannot be said in a header.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let value = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| Error::Malformed("setting fits no header"))
        };
        let version =
            |text: &str| Version::parse(text).ok_or(Error::Malformed("setting is no version"));
        let server_version = value(config.server_version.clone())?;
        let cluster = value(config.cluster_id.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(SERVER_FROM, value(config.member_id.to_string())?);
        headers.insert(SERVER_VERSION, server_version.clone());
        headers.insert(
            MIN_CLUSTER_VERSION,
            value(config.min_cluster_version.clone())?,
        );
        headers.insert(CLUSTER_ID, cluster.clone());
        if !config.peer_urls.is_empty() {
            headers.insert(PEER_URLS, value(config.peer_urls.join(","))?);
        }
        Ok(Self {
            member_id: config.member_id,
            cluster_id: config.cluster_id,
            version: version(&config.server_version)?,
            min_version: version(&config.min_cluster_version)?,
            server_version,
            cluster,
            headers,
        })
    }

    /// Returns what goes with every request to a peer.
    pub(crate) fn request_headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// Checks that the sender of a request speaks a version we understand, understands ours, and is of our cluster.
    ///
    /// # Errors
    ///
    /// [`Error::IncompatibleVersion`], also for a version that is none; [`Error::ClusterMismatch`].
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let read = |name| version_in(headers, name).ok_or(Error::IncompatibleVersion);
        let (server, min_cluster) = (read(SERVER_VERSION)?, read(MIN_CLUSTER_VERSION)?);
        if server < self.min_version || min_cluster > self.version {
            return Err(Error::IncompatibleVersion);
        }
        if headers.get(CLUSTER_ID) != Some(&self.cluster) {
            return Err(Error::ClusterMismatch);
        }
        Ok(())
    }
}

/// Returns the version in a header, [`UNSAID`] if it is missing, and `None` if it is none.
pub(crate) fn version_in(headers: &HeaderMap, name: HeaderName) -> Option<Version> {
    match headers.get(name) {
        None => Some(UNSAID),
        Some(value) if value.is_empty() => Some(UNSAID),
        Some(value) => Version::parse(value.to_str().ok()?),
    }
}

/// Value of [`SEALED`].
const YES: HeaderValue = HeaderValue::from_static("yes");

/// Notes a checksum, or that there will be one.
pub(crate) fn seal(headers: &mut HeaderMap, checksum: HeaderValue) {
    headers.insert(CHECKSUM, checksum);
    headers.insert(SEALED, YES);
}

/// Returns what headers say of a checksum, `None` when the sender has none.
///
/// # Errors
/// [`Error::Malformed`] when they contradict each other.
pub(crate) fn checksum_in(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Error> {
    let checksum = headers.get(CHECKSUM);
    if checksum.is_some() == headers.contains_key(SEALED) {
        Ok(checksum)
    } else {
        Err(Error::Malformed("headers of a message with a checksum"))
    }
}

/// Value of [`CHECKSUM`] on streams.
pub(crate) const CRC32: HeaderValue = HeaderValue::from_static("crc32");

/// Value of [`CHECKSUM`] of a snapshot: four bytes behind the image, big-endian, are the crc32 of all before.
pub(crate) const TRAILING: HeaderValue = HeaderValue::from_static("trailing");

/// Returns the value of [`CHECKSUM`] for a body.
pub(crate) fn checksum_of(body: &[u8]) -> HeaderValue {
    checksum_value(crc32fast::hash(body))
}

/// Returns the value of [`CHECKSUM`] for a body that is about a topic: a topic that changes on the way is noticed, too.
pub(crate) fn checksum_of_request(topic: &str, body: &[u8]) -> HeaderValue {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(topic.as_bytes());
    checksum_value(hasher.finalize())
}

fn checksum_value(checksum: u32) -> HeaderValue {
    HeaderValue::from_str(&format!("{checksum:08x}")).unwrap_or(CRC32)
}

/// Returns the member id in a header.
pub(crate) fn id_in(headers: &HeaderMap, name: HeaderName) -> Option<MemberId> {
    parse_id(headers.get(name)?.to_str().ok()?)
}

/// Parses an id in hexadecimal.
pub(crate) fn parse_id(text: &str) -> Option<MemberId> {
    let is_plain = !text.starts_with('+');
    is_plain.then(|| u64::from_str_radix(text, 16).ok().map(MemberId))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::new(&Config::new(MemberId(1), ClusterId(0xabc))).unwrap()
    }

    fn says(server: &str, min: &str, cluster: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pairs = [
            (SERVER_VERSION, server),
            (MIN_CLUSTER_VERSION, min),
            (CLUSTER_ID, cluster),
        ];
        for (name, value) in pairs.into_iter().filter(|(_, value)| *value != "-") {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn no_single_changed_bit_takes_a_checksum_away() {
        let mut headers = HeaderMap::new();
        seal(&mut headers, CRC32);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat()
        };
        let text: Vec<u8> = headers.iter().flat_map(line).collect();
        let read = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            for line in text.split(|byte| *byte == b'\n') {
                let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                    continue;
                };
                let name = HeaderName::from_bytes(&line[..colon]).ok()?;
                let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
                headers.insert(name, value);
            }
            Some(headers)
        };
        assert_eq!(checksum_in(&read(&text).unwrap()).unwrap(), Some(&CRC32));
        for bit in 0..text.len() * 8 {
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // What is no header at all is refused before.
            if let Some(headers) = read(&changed) {
                assert!(!matches!(checksum_in(&headers), Ok(None)), "bit {bit}");
            }
        }
        assert!(matches!(checksum_in(&HeaderMap::new()), Ok(None)));
    }

    #[test]
    fn version_window_and_cluster_decide() {
        let us = identity();
        assert!(us.check(&us.request_headers()).is_ok());
        assert!(us.check(&says("3.0.0", "3.7.9", "abc")).is_ok());
        assert!(us.check(&says("4.1.0", "3.0.0", "abc")).is_ok());
        for (server, min) in [
            ("2.9.9", "2.0.0"),
            ("3.8.0", "3.8.0"),
            ("-", "3.0.0"),
            ("x", "3.0.0"),
            ("3.7.1", "x"),
        ] {
            let refusal = us.check(&says(server, min, "abc"));
            assert!(
                matches!(refusal, Err(Error::IncompatibleVersion)),
                "{server} {min}"
            );
        }
        for cluster in ["-", "0abc", "ABC", "abd"] {
            let refusal = us.check(&says("3.7.1", "3.0.0", cluster));
            assert!(matches!(refusal, Err(Error::ClusterMismatch)), "{cluster}");
        }
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(parse_id("00ff"), Some(MemberId(255)));
        for bad in ["", "+1", "-1", "0x1", "g", "10000000000000000"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }
}
