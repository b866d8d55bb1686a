//! How ids are made: request ids, member ids, cluster ids.
use quorate_proto::{ClusterId, MemberId};
use sha1::{Digest as _, Sha1};

/// Makes request ids that differ between members and between starts of one member.
///
/// Shape: 16 bits of the member id, 40 bits of the start time in milliseconds, 8 bits of counter that carry into the
/// time. Source: etcd v3.7.1 pkg/idutil/id.go Generator.
#[derive(Debug)]
pub(crate) struct RequestIds {
    prefix: u64,
    suffix: u64,
}

const SUFFIX_BITS: u32 = 48;
const TIME_BITS: u32 = 40;
const COUNTER_BITS: u32 = 8;

impl RequestIds {
    pub(crate) fn new(member: MemberId, start_unix_ms: u64) -> Self {
        let time = start_unix_ms & ((1 << TIME_BITS) - 1);
        Self {
            prefix: (member.0 & 0xffff) << SUFFIX_BITS,
            suffix: time << COUNTER_BITS,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.suffix = self.suffix.wrapping_add(1) & ((1 << SUFFIX_BITS) - 1);
        self.prefix | self.suffix
    }
}

/// Computes a member's id from its peer URLs, the cluster's token and, for members added later, the time.
///
/// Source: etcd v3.7.1 server/etcdserver/api/membership/member.go computeMemberID.
pub fn member_id(peer_urls: &[String], token: &str, unix_s: Option<u64>) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut hash = Sha1::new();
    for url in &urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(unix_s) = unix_s {
        hash.update(unix_s.to_string());
    }
    MemberId(first_u64(&hash.finalize()))
}

/// Computes a cluster's id from the ids of its first members.
///
/// Source: etcd v3.7.1 server/etcdserver/api/membership/cluster.go genID.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut ids: Vec<u64> = members.iter().map(|m| m.0).collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    ClusterId(first_u64(&hash.finalize()))
}

fn first_u64(digest: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_etcd_for_its_default_single_member() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn order_of_urls_does_not_matter_but_time_does() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(
            member_id(&[a.clone(), b.clone()], "t", None),
            member_id(&[b.clone(), a.clone()], "t", None)
        );
        assert_ne!(
            member_id(std::slice::from_ref(&a), "", Some(1)),
            member_id(&[a], "", Some(2))
        );
    }

    #[test]
    fn request_ids_carry_from_the_counter_into_the_time() {
        let mut ids = RequestIds::new(MemberId(0x1_2345), 7);
        let first = ids.next();
        assert_eq!(first, 0x2345 << 48 | 7 << 8 | 1);
        for _ in 0..255 {
            ids.next();
        }
        assert_eq!(ids.next(), 0x2345 << 48 | 8 << 8 | 1);
    }
}
