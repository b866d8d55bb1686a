//! Comparing the running digests of members of our own kind, always: a member whose state went another way is found within
//! seconds, and stops.
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_core::{Comparison, Outcome, Submission, Suspicion, Verdict};
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
    queue.push(Event::Fatal(quorate_core::DIVERGED.to_owned()));
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

    /// Compares this member with the others, as [`Comparison`] says.
    async fn compare_now(&self) -> Verdict {
        let others: Vec<_> = self.others().into_iter().map(|(id, _)| id).collect();
        let mut comparison = Comparison::new(self.view.member_id(), others.len() + 1);
        // Who does not answer, or does not know, is compared another time.
        for (_, theirs) in self.digests_of(&others, 0).await {
            if let Some(own) = point(&self.calls, theirs.index).await {
                comparison.meet(theirs.index, own.digest, theirs.digest);
            }
        }
        let Some(place) = comparison.place() else {
            return Verdict::Agreed;
        };
        // It may have been forgotten meanwhile, with a snapshot that came.
        let Some(here) = point(&self.calls, place).await else {
            return Verdict::Agreed;
        };
        let theirs = self.digests_of(&others, place).await;
        let theirs = theirs
            .into_iter()
            .filter(|(_, theirs)| theirs.index == place)
            .map(|(id, theirs)| (id, theirs.digest));
        comparison.verdict(here.digest, theirs)
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
