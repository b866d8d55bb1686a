//! Comparing the running digests of members of our own kind, always: a member whose state went another way is found within
//! seconds, and stops.
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_core::{Outcome, Submission};
use quorate_proto::MemberId;

use super::Monitor;
use crate::calls::Calls;
use crate::queue::{Event, Queue};

/// Topic of the question for the newest digest.
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
pub(super) async fn answer(calls: &Calls) -> Bytes {
    point(calls, 0).await.map_or_else(Bytes::new, Point::encode)
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
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody, as far as could be compared.
    Agreed,
    /// These members.
    Others(Vec<MemberId>),
    /// This one.
    Own,
    /// Nobody can say who.
    Unknown(Vec<MemberId>),
}

/// Judges by the members whose digests were equal to this one's and different from it, of a cluster with so many.
fn judge(equal: usize, different: Vec<MemberId>, members: usize) -> Verdict {
    let quorum = members / 2 + 1;
    if different.is_empty() {
        Verdict::Agreed
    } else if equal + 1 >= quorum {
        Verdict::Others(different)
    } else if different.len() >= quorum {
        Verdict::Own
    } else {
        Verdict::Unknown(different)
    }
}

impl Monitor {
    /// Compares digests for as long as the member lives, on the leader.
    pub(super) fn compare_digests(&self) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let mut found = 0;
            loop {
                tokio::time::sleep(EVERY).await;
                let verdict = if this.leads() {
                    this.compare_now().await
                } else {
                    Verdict::Agreed
                };
                found = if verdict == Verdict::Agreed {
                    0
                } else {
                    found + 1
                };
                if found >= CONFIRMATIONS {
                    this.act(&verdict).await;
                    found = 0;
                }
            }
        });
    }

    async fn compare_now(&self) -> Verdict {
        let (mut equal, mut different) = (0, Vec::new());
        let others = self.others();
        let members = others.len() + 1;
        for (id, _) in others {
            if !self.transport.is_kindred(id) {
                continue;
            }
            let asked = self
                .transport
                .exchange(id, DIGEST, Bytes::new(), TIMEOUT)
                .await;
            // Who does not answer, or does not know, is compared another time.
            let Some(theirs) = asked.ok().and_then(|bytes| Point::decode(&bytes)) else {
                continue;
            };
            let Some(own) = point(&self.calls, theirs.index).await else {
                continue;
            };
            if own.digest == theirs.digest {
                equal += 1;
            } else {
                different.push(id);
            }
        }
        judge(equal, different, members)
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
    fn a_minority_that_differs_is_named_and_without_a_majority_nobody_is() {
        let ids = |ids: &[u64]| ids.iter().map(|id| MemberId(*id)).collect::<Vec<_>>();
        assert_eq!(judge(0, Vec::new(), 3), Verdict::Agreed);
        assert_eq!(judge(1, ids(&[2]), 3), Verdict::Others(ids(&[2])));
        assert_eq!(judge(0, ids(&[2, 3]), 3), Verdict::Own);
        // One of three differs, and the third is of another kind or down: nobody knows.
        assert_eq!(judge(0, ids(&[2]), 3), Verdict::Unknown(ids(&[2])));
        assert_eq!(judge(0, ids(&[2]), 2), Verdict::Unknown(ids(&[2])));
        assert_eq!(judge(2, ids(&[4, 5]), 5), Verdict::Others(ids(&[4, 5])));
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
