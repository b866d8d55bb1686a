//! Comparing the running digests of members of our own kind, always: a member whose state went another way is found within
//! seconds, and stops.
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_core::{Outcome, Submission};
use quorate_proto::MemberId;
use tokio::task::JoinSet;

use super::Monitor;
use crate::calls::Calls;
use crate::queue::{Event, Queue};

/// Topic of the question for a digest: at the index in the body, 8 bytes, big endian, or the newest when there is none.
pub(super) const DIGEST: &str = "digest";
/// Topic of the word that the one who is told it holds another state than a majority.
pub(super) const DIVERGED: &str = "diverged";

/// Time between two comparisons.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Comparisons in a row that must find the same, so that nothing rests on one answer.
const CONFIRMATIONS: u32 = 2;

/// A place in the log and the digest there.
///
/// **Shape** on the wire: index and digest, 8 bytes each, big endian; empty when the digest is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    index: u64,
    digest: u64,
}

impl Point {
    fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(16);
        bytes.put_u64(self.index);
        bytes.put_u64(self.digest);
        bytes.freeze()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (index, digest) = bytes.split_at_checked(8)?;
        Some(Self {
            index: u64::from_be_bytes(index.try_into().ok()?),
            digest: u64::from_be_bytes(digest.try_into().ok()?),
        })
    }
}

/// Returns this member's digest at an index, 0 for the newest.
async fn point(calls: &Calls, index: u64) -> Option<Point> {
    match calls.ask(|token| Submission::Digest { token, index }).await {
        Outcome::Digest { index, digest } => digest.map(|digest| Point { index, digest }),
        _ => None,
    }
}

/// Answers a member that compares.
pub(super) async fn answer(calls: &Calls, question: &[u8]) -> Bytes {
    let index = question.try_into().map_or(0, u64::from_be_bytes);
    let point = point(calls, index).await;
    point.map_or_else(Bytes::new, Point::encode)
}

/// Ends this member, which holds another state than a majority.
pub(super) fn stop_diverged(queue: &Queue) {
    queue.push(Event::Fatal(
        "this member holds another state than a majority of the cluster at the same place in the log: \
         remove it, delete its data, and add it anew"
            .to_owned(),
    ));
}

/// Who went another way than the others.
#[derive(Debug, Default, PartialEq, Eq)]
enum Verdict {
    /// Nobody, as far as could be compared.
    #[default]
    Agreed,
    /// These members.
    Others(Vec<MemberId>),
    /// This one.
    Own,
    /// Nobody can say who.
    Unknown(Vec<MemberId>),
}

/// Judges by what members, this one among them, hold at one place in the log, in a cluster with so many: a majority that holds the
/// same is right, and without one nobody knows who is.
fn judge(own: MemberId, digests: &[(MemberId, u64)], members: usize) -> Verdict {
    let mut by_digest: BTreeMap<u64, Vec<MemberId>> = BTreeMap::new();
    for (id, digest) in digests {
        by_digest.entry(*digest).or_default().push(*id);
    }
    if by_digest.len() <= 1 {
        return Verdict::Agreed;
    }
    let quorum = members / 2 + 1;
    let right = by_digest.values().find(|ids| ids.len() >= quorum);
    let right_or_own = right.or_else(|| by_digest.values().find(|ids| ids.contains(&own)));
    let all = digests.iter().map(|(id, _)| *id);
    let different = all
        .filter(|id| right_or_own.is_none_or(|ids| !ids.contains(id)))
        .collect();
    match right {
        None => Verdict::Unknown(different),
        // Whoever leads after this one finds the rest.
        Some(right) if !right.contains(&own) => Verdict::Own,
        Some(_) => Verdict::Others(different),
    }
}

/// What the last comparisons found.
#[derive(Debug, Default)]
struct Suspicion {
    verdict: Verdict,
    /// How often in a row.
    found: u32,
}

impl Suspicion {
    /// Takes what a comparison found, and gives it back when it is time to act upon it: it was the same as often as it must be.
    fn confirm(&mut self, verdict: Verdict) -> Option<Verdict> {
        if verdict == self.verdict {
            self.found += 1;
        } else {
            *self = Self { verdict, found: 1 };
        }
        if self.verdict == Verdict::Agreed || self.found < CONFIRMATIONS {
            return None;
        }
        Some(std::mem::take(self).verdict)
    }
}

impl Monitor {
    /// Compares digests for as long as the member lives, on the leader.
    pub(super) fn compare_digests(&self) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let mut suspicion = Suspicion::default();
            loop {
                tokio::time::sleep(EVERY).await;
                let verdict = if this.leads() {
                    this.compare_now().await
                } else {
                    Verdict::Agreed
                };
                if let Some(verdict) = suspicion.confirm(verdict) {
                    this.act(&verdict).await;
                }
            }
        });
    }

    /// Compares this member with each of the others where that one is. Only when one differs, all are compared with each other,
    /// at the first place where one is known to.
    async fn compare_now(&self) -> Verdict {
        let (mut place, mut known) = (u64::MAX, 0);
        let others: Vec<_> = self.others().into_iter().map(|(id, _)| id).collect();
        // Who does not answer, or does not know, is compared another time.
        for (_, theirs) in self.digests_of(&others, 0).await {
            if let Some(own) = point(&self.calls, theirs.index).await {
                known += 1;
                if own.digest != theirs.digest {
                    place = place.min(theirs.index);
                }
            }
        }
        if place == u64::MAX {
            return Verdict::Agreed;
        }
        let own = self.view.member_id();
        // It may have been forgotten meanwhile, with a snapshot that came.
        let Some(here) = point(&self.calls, place).await else {
            return Verdict::Agreed;
        };
        let mut digests = vec![(own, here.digest)];
        let theirs = self.digests_of(&others, place).await;
        let theirs = theirs
            .into_iter()
            .filter(|(_, theirs)| theirs.index == place);
        digests.extend(theirs.map(|(id, theirs)| (id, theirs.digest)));
        match judge(own, &digests, others.len() + 1) {
            // Who is not there yet will say who is right.
            Verdict::Unknown(_) if digests.len() <= known => Verdict::Agreed,
            verdict => verdict,
        }
    }

    /// Asks members all at once for their digests at an index, 0 for the newest; who does not answer is left out.
    async fn digests_of(&self, ids: &[MemberId], index: u64) -> Vec<(MemberId, Point)> {
        let mut asked = JoinSet::new();
        for id in ids.iter().copied() {
            let this = self.clone();
            asked.spawn_on(
                async move { Some((id, this.digest_of(id, index).await?)) },
                &self.runtime,
            );
        }
        let mut known: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        known.sort_by_key(|(id, _)| *id);
        known
    }

    /// Asks a member of our own kind for its digest at an index, 0 for the newest.
    async fn digest_of(&self, id: MemberId, index: u64) -> Option<Point> {
        if !self.transport.is_kindred(id) {
            return None;
        }
        let question = if index == 0 {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(&index.to_be_bytes())
        };
        let asked = self.transport.exchange(id, DIGEST, question, TIMEOUT);
        Point::decode(&asked.await.ok()?)
    }

    async fn act(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Agreed => {}
            Verdict::Own => {
                tracing::error!("this member's state differs from that of a majority");
                stop_diverged(&self.queue);
            }
            Verdict::Others(ids) => {
                for id in ids {
                    tracing::error!("member-id" = %id, "a member's state differs from that of a majority; it is told to stop");
                    let told = self
                        .transport
                        .exchange(*id, DIVERGED, Bytes::new(), TIMEOUT);
                    if let Err(e) = told.await {
                        tracing::error!("member-id" = %id, error = %e, "cannot tell it");
                    }
                }
            }
            Verdict::Unknown(ids) => {
                tracing::error!(
                    ?ids,
                    "members hold different states, and no majority says which is right"
                );
                self.raise(MemberId(0)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges as member 1 by digests of members 1, 2 and so on; 0 stands for no answer.
    fn judged(digests: &[u64]) -> Verdict {
        let ids = (1..).map(MemberId);
        let known: Vec<_> = ids.zip(digests.iter().copied()).collect();
        let known: Vec<_> = known.into_iter().filter(|(_, d)| *d != 0).collect();
        judge(MemberId(1), &known, digests.len())
    }

    #[test]
    fn a_minority_that_differs_is_named_and_without_a_majority_nobody_is() {
        let ids = |ids: &[u64]| ids.iter().map(|id| MemberId(*id)).collect::<Vec<_>>();
        assert_eq!(judged(&[7, 7, 7]), Verdict::Agreed);
        assert_eq!(judged(&[7, 0, 0]), Verdict::Agreed);
        assert_eq!(judged(&[7, 8, 7]), Verdict::Others(ids(&[2])));
        assert_eq!(judged(&[7, 8, 8]), Verdict::Own);
        assert_eq!(judged(&[7, 7, 7, 8, 9]), Verdict::Others(ids(&[4, 5])));
        assert_eq!(judged(&[9, 7, 7, 7, 8]), Verdict::Own);
        // One of three differs, and the third is of another kind or down: nobody knows.
        assert_eq!(judged(&[7, 8, 0]), Verdict::Unknown(ids(&[2])));
        assert_eq!(judged(&[7, 8]), Verdict::Unknown(ids(&[2])));
    }

    #[test]
    fn nobody_stops_when_all_differ_from_each_other() {
        let unknown = |ids: &[u64]| Verdict::Unknown(ids.iter().map(|id| MemberId(*id)).collect());
        assert_eq!(judged(&[7, 8, 9]), unknown(&[2, 3]));
        assert_eq!(judged(&[7, 8, 9, 10, 11]), unknown(&[2, 3, 4, 5]));
        // Two against two, and the fifth silent or of its own mind.
        assert_eq!(judged(&[7, 8, 8, 7, 9]), unknown(&[2, 3, 5]));
        assert_eq!(judged(&[7, 8, 8, 7, 0]), unknown(&[2, 3]));
    }

    #[test]
    fn only_the_same_finding_twice_in_a_row_is_acted_upon() {
        let others = |id| Verdict::Others(vec![MemberId(id)]);
        let mut suspicion = Suspicion::default();
        assert_eq!(suspicion.confirm(Verdict::Agreed), None);
        assert_eq!(suspicion.confirm(others(2)), None);
        assert_eq!(suspicion.confirm(others(3)), None);
        assert_eq!(suspicion.confirm(Verdict::Own), None);
        assert_eq!(suspicion.confirm(Verdict::Agreed), None);
        assert_eq!(suspicion.confirm(Verdict::Agreed), None);
        assert_eq!(suspicion.confirm(others(2)), None);
        assert_eq!(suspicion.confirm(others(2)), Some(others(2)));
        // What goes on being found is told again, not every time.
        assert_eq!(suspicion.confirm(others(2)), None);
        assert_eq!(suspicion.confirm(others(2)), Some(others(2)));
    }

    #[test]
    fn a_point_survives_the_wire_and_garbage_is_none() {
        let point = Point {
            index: 7,
            digest: u64::MAX - 1,
        };
        assert_eq!(Point::decode(&point.encode()), Some(point));
        for garbage in [&b""[..], b"1234567", b"12345678", b"12345678123456789"] {
            assert_eq!(Point::decode(garbage), None);
        }
    }
}
