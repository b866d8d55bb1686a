//! What a member asks the others from time to time: their versions, and whether they hold the same.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_auth::{AuthReader, Identity};
use quorate_core::{LiveStores, Outcome, Proposal, Request, Submission, View};
use quorate_mvcc::CompactionHash;
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_transport::{HashKv, Transport};
use tokio::runtime::Handle;

use crate::calls::Calls;
use crate::config::GoDuration;
use crate::queue::{Event, Queue};

/// How long a member may take to tell its version. Source: etcd v3.7.1 monitorVersionInterval, less a second.
const VERSIONS_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks and tells the engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Monitor {
    pub(crate) transport: Transport,
    pub(crate) runtime: Handle,
    pub(crate) view: Arc<View>,
    pub(crate) live: LiveStores,
    pub(crate) auth: AuthReader,
    pub(crate) calls: Calls,
    pub(crate) queue: Queue,
    /// How long a hash may take.
    pub(crate) timeout: Duration,
}

/// A peer and its hash, if it told one.
type PeerHash = (MemberId, Option<HashKv>);

/// Who is to be reported as corrupt; id 0 when nobody knows who is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    corrupt: Vec<MemberId>,
    /// Whether all members agree, and none was left out.
    all_agree: bool,
}

impl Monitor {
    pub(super) fn others(&self) -> Vec<(MemberId, Vec<String>)> {
        let own = self.view.member_id().0;
        let members = self.view.members();
        let others = members.iter().filter(|m| m.id != own);
        others
            .map(|m| (MemberId(m.id), m.peer_ur_ls.clone()))
            .collect()
    }

    /// Asks all other members for their versions and tells the engine.
    pub(crate) fn ask_versions(&self) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let asked: Vec<_> = this
                .others()
                .into_iter()
                .map(|(id, urls)| {
                    let transport = this.transport.clone();
                    let ask = async move { transport.versions_of(urls, VERSIONS_TIMEOUT).await };
                    (id, tokio::spawn(ask))
                })
                .collect();
            let mut versions = Vec::new();
            for (id, answer) in asked {
                let version = match answer.await {
                    Ok(Ok(versions)) => Some(versions.server),
                    Ok(Err(error)) => {
                        tracing::warn!("remote-member-id" = %id, error = %error, "failed to get version");
                        None
                    }
                    Err(_) => None,
                };
                versions.push((id, version));
            }
            this.queue.push(Event::MemberVersions(versions));
        });
    }

    /// Returns since when links to other members are active, on the clock whose zero was `zero`.
    pub(crate) fn links(&self, zero: Instant) -> BTreeMap<MemberId, u64> {
        let since = |id: MemberId| {
            let active = self.transport.active_since(id)?;
            let ms = active.saturating_duration_since(zero).as_millis();
            Some((id, u64::try_from(ms).unwrap_or(u64::MAX)))
        };
        self.others()
            .into_iter()
            .filter_map(|(id, _)| since(id))
            .collect()
    }

    pub(super) fn leads(&self) -> bool {
        self.view.leader() == self.view.member_id()
    }

    async fn hashes_of_others(&self, revision: i64) -> Vec<PeerHash> {
        let mut hashes = Vec::new();
        for (id, urls) in self.others() {
            let asked = self.transport.hash_kv_of(urls, revision, self.timeout);
            match asked.await {
                Ok(hash) => hashes.push((id, Some(hash))),
                Err(error) => {
                    tracing::warn!("remote-peer-id" = %id, "requested-revision" = revision, error = %error, "failed hash kv request");
                    hashes.push((id, None));
                }
            }
        }
        hashes
    }

    async fn own_hash(&self) -> Option<quorate_mvcc::HashKv> {
        let reader = self.live.reader();
        tokio::task::spawn_blocking(move || reader.hash_kv(0))
            .await
            .ok()?
            .ok()
    }

    /// Compares everything every so often, on the leader. Source: etcd v3.7.1 server/etcdserver/corrupt.go PeriodicCheck.
    pub(crate) fn check_periodically(&self, every: Duration) {
        let this = self.clone();
        let interval = GoDuration::from(every);
        tracing::info!("local-member-id" = %self.view.member_id(), %interval, "enabled corruption checking");
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                if this.leads() {
                    this.check_now().await;
                }
            }
        });
    }

    async fn check_now(&self) {
        let Some(before) = self.own_hash().await else {
            return;
        };
        let others = self.hashes_of_others(before.hash_revision).await;
        let read = self
            .calls
            .ask(|token| Submission::ReadIndex { token })
            .await;
        if !matches!(read, Outcome::ReadReady) {
            return;
        }
        let Some(after) = self.own_hash().await else {
            return;
        };
        if let Some(id) = differing(self.view.member_id(), &before, &after, &others) {
            tracing::warn!("corrupt-peer-id" = %id, revision = before.hash_revision, "hashes of members must match");
            self.raise(id).await;
        }
        tracing::info!(
            "number-of-peers-checked" = others.iter().filter(|(_, h)| h.is_some()).count(),
            "finished peer corruption check"
        );
    }

    /// Compares the hashes that compactions left, on the leader. Source: etcd v3.7.1 server/etcdserver/corrupt.go
    /// CompactHashCheck.
    pub(crate) fn check_compactions(&self, every: Duration) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let mut checked = 0;
            loop {
                tokio::time::sleep(every).await;
                if this.leads() {
                    this.check_compactions_now(&mut checked).await;
                }
            }
        });
    }

    async fn check_compactions_now(&self, checked: &mut i64) {
        let own = self.view.member_id();
        let timeout = GoDuration::from(self.timeout);
        tracing::info!("local-member-id" = %own, %timeout, "starting compact hash check");
        let hashes = self.live.reader().compaction_hashes();
        let known = *checked;
        let mut count = 0;
        for hash in hashes.iter().rev().take_while(|h| h.revision > known) {
            let others = self.hashes_of_others(hash.revision).await;
            if others.is_empty() {
                continue;
            }
            count += 1;
            let verdict = judge(own, hash, &others);
            for id in &verdict.corrupt {
                tracing::error!(
                    "leader-id" = %own, "leader-revision" = hash.revision, "leader-hash" = hash.hash, "corrupt-peer-id" = %id,
                    "Detected compaction hash mismatch"
                );
                self.raise(*id).await;
            }
            if verdict.all_agree {
                *checked = hash.revision;
                tracing::info!(
                    "number-of-peers-checked" = others.len(),
                    revision = hash.revision,
                    "successfully checked hash on whole cluster"
                );
            }
            if verdict.all_agree || !verdict.corrupt.is_empty() {
                break;
            }
        }
        tracing::info!(
            "number-of-hashes-checked" = count,
            "finished compaction hash check"
        );
    }

    /// Raises the alarm that a member's data is corrupt.
    pub(super) async fn raise(&self, id: MemberId) {
        let request = Request::Alarm(pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            member_id: id.0,
            alarm: pb::AlarmType::Corrupt.into(),
        });
        let identity = if self.auth.is_enabled() {
            Identity {
                username: "root".to_owned(),
                revision: self.auth.revision(),
            }
        } else {
            Identity::NONE
        };
        let propose = |token| {
            Submission::Propose(Proposal {
                token,
                request,
                raw: None,
                identity,
            })
        };
        if let Outcome::Failed(error) = self.calls.ask(propose).await {
            tracing::error!(error = %error, "cannot raise the alarm of corrupt data");
        }
    }
}

/// Finds the first member whose hash contradicts that of the leader, itself included.
fn differing(
    own: MemberId,
    before: &quorate_mvcc::HashKv,
    after: &quorate_mvcc::HashKv,
    others: &[PeerHash],
) -> Option<MemberId> {
    let is_same_state = before.hash_revision == after.hash_revision
        && before.compact_revision == after.compact_revision;
    if is_same_state && before.hash != after.hash {
        return Some(own);
    }
    others.iter().find_map(|(id, hash)| {
        let hash = hash.as_ref()?;
        let is_wrong = hash.revision > after.revision
            || hash.compact_revision > after.compact_revision
            || hash.compact_revision == before.compact_revision && hash.hash != before.hash;
        is_wrong.then_some(*id)
    })
}

/// Judges a compaction's hash by those of the others: a majority is right, and without one nobody knows.
fn judge(own: MemberId, hash: &CompactionHash, others: &[PeerHash]) -> Verdict {
    let mut by_hash: BTreeMap<u32, Vec<MemberId>> = BTreeMap::from([(hash.hash, vec![own])]);
    let mut asked = 0;
    for (id, other) in others {
        if let Some(other) = other
            && other.compact_revision == hash.compact_revision
        {
            asked += 1;
            by_hash.entry(other.hash).or_default().push(*id);
        }
    }
    if by_hash.len() == 1 {
        return Verdict {
            corrupt: Vec::new(),
            all_agree: asked == others.len(),
        };
    }
    let quorum = others.len().div_ceil(2) + 1;
    let right = by_hash.values().position(|ids| ids.len() >= quorum);
    let corrupt = match right {
        None => vec![MemberId(0)],
        Some(right) => {
            let wrong = by_hash
                .into_values()
                .enumerate()
                .filter(|(n, _)| *n != right);
            wrong.flat_map(|(_, ids)| ids).collect()
        }
    };
    Verdict {
        corrupt,
        all_agree: false,
    }
}

/// Checks, before a member begins to serve, that what it holds is what the others hold.
///
/// # Errors
/// When one of them holds something else at the same revision.
/// Source: etcd v3.7.1 server/etcdserver/corrupt.go InitialCheck.
pub(crate) async fn check_at_start(monitor: &Monitor) -> Result<(), String> {
    let own = monitor.view.member_id();
    let timeout = GoDuration::from(monitor.timeout);
    tracing::info!("local-member-id" = %own, %timeout, "starting initial corruption check");
    let Some(hash) = monitor.own_hash().await else {
        return Err(format!("{own} failed to fetch hash"));
    };
    let others = monitor.hashes_of_others(hash.hash_revision).await;
    let differs = |(_, other): &PeerHash| {
        other
            .as_ref()
            .is_some_and(|o| o.compact_revision == hash.compact_revision && o.hash != hash.hash)
    };
    let differing = |other: &PeerHash| differs(other).then_some(other.0);
    if let Some(id) = others.iter().find_map(differing) {
        tracing::warn!(
            "local-member-id" = %own, "local-member-revision" = hash.hash_revision, "local-member-hash" = hash.hash,
            "remote-peer-id" = %id, "found different hash values from remote peer"
        );
        let why = format!("{own} found data inconsistency with peers");
        tracing::error!(error = %why, "checkInitialHashKV failed");
        return Err(why);
    }
    tracing::info!("local-member-id" = %own, "initial corruption checking passed; no corruption");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(hash: u32) -> CompactionHash {
        CompactionHash {
            hash,
            compact_revision: 5,
            revision: 9,
        }
    }

    fn peer(id: u64, hash: u32, compact_revision: i64) -> PeerHash {
        let hash = HashKv {
            revision: 20,
            hash,
            compact_revision,
            hash_revision: 9,
        };
        (MemberId(id), Some(hash))
    }

    #[test]
    fn faults_compaction_hashes_are_judged_by_the_majority_of_all_members() {
        let own = MemberId(1);
        let judge = |others: &[PeerHash]| judge(own, &stored(7), others);
        let good = judge(&[peer(2, 7, 5), peer(3, 7, 5)]);
        assert!(good.all_agree && good.corrupt.is_empty());
        // One without an answer keeps the revision to be checked again.
        assert!(!judge(&[peer(2, 7, 5), (MemberId(3), None)]).all_agree);
        assert!(!judge(&[peer(2, 7, 5), peer(3, 8, 4)]).all_agree);
        assert_eq!(
            judge(&[peer(2, 7, 5), peer(3, 8, 5)]).corrupt,
            [MemberId(3)]
        );
        assert_eq!(judge(&[peer(2, 8, 5), peer(3, 8, 5)]).corrupt, [own]);
        assert_eq!(
            judge(&[peer(2, 8, 5), peer(3, 9, 5)]).corrupt,
            [MemberId(0)]
        );
        assert_eq!(judge(&[peer(2, 8, 5)]).corrupt, [MemberId(0)]);
    }

    #[test]
    fn a_periodic_check_names_who_contradicts_the_leader() {
        let hash = |hash| quorate_mvcc::HashKv {
            hash,
            compact_revision: 5,
            hash_revision: 20,
            revision: 20,
        };
        let check = |after, others: &[PeerHash]| differing(MemberId(1), &hash(7), &after, others);
        assert_eq!(check(hash(7), &[peer(2, 7, 5), peer(3, 9, 4)]), None);
        assert_eq!(check(hash(8), &[]), Some(MemberId(1)));
        assert_eq!(check(hash(7), &[peer(2, 8, 5)]), Some(MemberId(2)));
        assert_eq!(check(hash(7), &[peer(2, 7, 6)]), Some(MemberId(2)));
    }
}
