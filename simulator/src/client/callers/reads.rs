//! What is read on a member, at once or after the leader was asked.
use quorate_auth::{Identity, Operation};
use quorate_core::{Error, Submission};
use quorate_mvcc::{RangeResult, RangeStreamOptions, Reader};
use quorate_proto::etcdserverpb as pb;

use super::{Callers, Checked, Waiting};
use crate::check::{Differs, Violation, range_answer, refusal, txn_answer};
use crate::model::{Peer, Refusal};
use crate::{Lie, World};

/// Something to read.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Range(pb::RangeRequest),
    /// A range, piece by piece.
    Stream(pb::RangeRequest),
    Txn(pb::TxnRequest),
    /// Members and alarms.
    Members,
    /// The hash of the history up to a revision.
    Hash(i64),
    /// What a login must match.
    Password {
        name: String,
        password: String,
    },
}

/// Why a member could not answer.
enum Failed {
    Refused(Refusal),
    /// Its disk does not give what it holds.
    Unreadable(String),
}

/// Bytes that pieces of a streamed range are steered to.
const PIECE_BYTES: usize = 100;

impl Callers {
    pub(super) fn read(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        read: Read,
        is_serializable: bool,
    ) -> Checked {
        let is_local = is_serializable || matches!(read, Read::Hash(_));
        if is_local {
            return self.read_now(world, machine, client, read, None);
        }
        let since = self.history.newest();
        if world
            .view(machine)
            .is_some_and(|v| v.reads_are_linearizable())
        {
            world.hit("only voter read at once");
            return self.read_now(world, machine, client, read, Some(since));
        }
        let token = world.submit(machine, |token| Submission::ReadIndex { token });
        let waiting = Waiting::ReadIndex {
            read,
            client,
            since,
        };
        self.wait(world, machine, token, waiting);
        Ok(())
    }

    /// Reads from a member as it is now; `since` is what a linearizable read must not be behind.
    pub(super) fn read_now(
        &mut self,
        world: &mut World,
        machine: u64,
        client: u64,
        read: Read,
        since: Option<u64>,
    ) -> Checked {
        if let Read::Password { name, password } = read {
            return self.check_password(world, machine, client, name, &password);
        }
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        if !self.may_read(world, machine, &identity, &read)? {
            return Ok(());
        }
        let (Some(reader), Some(place)) = (world.reader(machine), Self::place(world, machine))
        else {
            return Ok(());
        };
        world.say(|| format!("m{machine} is read at entry {place}: {read:?}"));
        match self.compare(world, machine, place, &reader, &read) {
            Ok(()) if world.may_fail(machine) => world.hit("damaged member was read rightly"),
            Ok(()) => {}
            Err(differs) if differs.is_forgiven(world.may_fail(machine)) => {
                world.hit("damaged member could not read");
                world.say(|| differs.to_string());
                return Ok(());
            }
            Err(differs) => {
                let text = format!("m{machine} at entry {place}, asked for {read:?}, {differs}");
                return Err(Violation::new("reads are the model's", text));
            }
        }
        let (life, revision) = (world.life(machine), reader.current_revision());
        world.witness(&(machine, place, revision));
        self.history.local(machine, life, place, revision)?;
        if let Some(since) = since {
            world.hit("linearizable read");
            return self.history.linearizable(machine, since, place);
        }
        world.hit("serializable read");
        self.history.tell(place);
        Ok(())
    }

    fn may_read(
        &self,
        world: &mut World,
        machine: u64,
        identity: &Identity,
        read: &Read,
    ) -> Checked<bool> {
        let operation = match read {
            Read::Range(r) | Read::Stream(r) => Operation::Range(r),
            Read::Txn(r) => Operation::ReadOnlyTxn(r),
            Read::Members | Read::Password { .. } => Operation::MemberList,
            Read::Hash(_) => Operation::Maintenance,
        };
        self.door(world, machine, identity, &operation, &[])
    }

    /// Reads, and says how that differs from what must be read.
    fn compare(
        &self,
        world: &World,
        machine: u64,
        place: u64,
        reader: &Reader,
        read: &Read,
    ) -> Result<(), Differs> {
        match read {
            Read::Range(r) => {
                let mut got = reader.range(r).map_err(failed);
                if let (Some(Lie::Read), Ok(got)) = (world.lie, &mut got) {
                    got.count += 1;
                }
                same(got, |got| range_answer(&got), self.model.range(place, r))
            }
            Read::Stream(r) => {
                let got = stream(reader, r);
                let mut expected = self.model.range(place, r);
                if let Ok(answer) = &mut expected
                    && r.count_only
                {
                    answer.kvs.clear();
                }
                same(got, |got| range_answer(&got), expected)
            }
            Read::Txn(r) => {
                let got = reader.txn_read_only(r).map_err(failed);
                same(got, |got| txn_answer(&got), self.model.read_txn(place, r))
            }
            Read::Members => Ok(self.compare_members(world, machine, place)?),
            Read::Hash(revision) => self.compare_hash(place, reader, *revision),
            Read::Password { .. } => Ok(()),
        }
    }

    fn compare_members(&self, world: &World, machine: u64, place: u64) -> Result<(), String> {
        let Some(view) = world.view(machine) else {
            return Ok(());
        };
        let members: Vec<Peer> = view.members().iter().map(Peer::from).collect();
        let expected = self.model.cluster_at(place);
        if members != expected.members() {
            return Err(format!("lists {members:?}, not {:?}", expected.members()));
        }
        if *view.cluster_version() != *expected.version() {
            return Err(format!(
                "says version {}, not {}",
                view.cluster_version(),
                expected.version()
            ));
        }
        let alarms = view.alarms();
        let alarms: Vec<_> = alarms.iter().map(|a| (a.member_id, a.alarm)).collect();
        let expected = self.model.alarms_at(place);
        if !alarms.iter().eq(expected.iter()) {
            return Err(format!("lists the alarms {alarms:?}, not {expected:?}"));
        }
        Ok(())
    }

    fn compare_hash(&self, place: u64, reader: &Reader, revision: i64) -> Result<(), Differs> {
        let (current, compact) = (self.model.revision_at(place), self.model.compact_at(place));
        let at = if revision == 0 { current } else { revision };
        let expected = match at {
            negative if negative < 0 => return Ok(()),
            ahead if ahead > current => Err(Refusal::FutureRevision),
            gone if gone > 0 && gone < compact => Err(Refusal::Compacted),
            _ => Ok(()),
        };
        match reader.hash_kv(revision) {
            Err(error) => match failed(error) {
                Failed::Refused(refused) if Err(refused) == expected => Ok(()),
                Failed::Refused(refused) => Err(format!("refuses it: {refused:?}").into()),
                Failed::Unreadable(why) => Err(Differs::Unreadable(format!("cannot hash: {why}"))),
            },
            Ok(got) => {
                // Of a revision that was compacted at, the hash may be that of the compaction.
                let is_known = got.compact_revision == compact
                    || at == compact && self.model.was_compacted_at(got.compact_revision)
                    || got.compact_revision == -1;
                let hash = self.model.hash(at, got.compact_revision);
                let is_right = hash.is_none_or(|hash| hash == got.hash);
                // A compaction's own hash stays known when its revision can be read no more.
                let is_stored = self.model.was_compacted_at(at);
                let may_be = expected.is_ok() || expected == Err(Refusal::Compacted) && is_stored;
                if may_be && (is_known || is_stored) && is_right {
                    Ok(())
                } else {
                    Err(format!("hashes to {got:?}, not {hash:?} or {expected:?}").into())
                }
            }
        }
    }
}

fn failed(error: quorate_mvcc::Error) -> Failed {
    let error = Error::Mvcc(error);
    match refusal(&error) {
        Some(refused) => Failed::Refused(refused),
        None => Failed::Unreadable(error.to_string()),
    }
}

fn same<G, A: PartialEq + std::fmt::Debug>(
    got: Result<G, Failed>,
    convert: impl FnOnce(G) -> Result<A, String>,
    expected: Result<A, Refusal>,
) -> Result<(), Differs> {
    let got = match got {
        Ok(got) => Ok(convert(got)?),
        Err(Failed::Refused(refused)) => Err(refused),
        Err(Failed::Unreadable(why)) => {
            return Err(Differs::Unreadable(format!("cannot read: {why}")));
        }
    };
    if got == expected {
        Ok(())
    } else {
        Err(format!("gives {got:?}, not {expected:?}").into())
    }
}

/// Reads a range piece by piece and puts the pieces together.
fn stream(reader: &Reader, request: &pb::RangeRequest) -> Result<RangeResult, Failed> {
    let options = RangeStreamOptions {
        chunk_bytes: PIECE_BYTES,
    };
    let mut stream = reader.range_stream(request, options).map_err(failed)?;
    let mut whole = RangeResult::default();
    while let Some(piece) = stream.next_chunk().map_err(failed)? {
        whole.kvs.extend(piece.kvs);
        if let Some(end) = piece.end {
            whole.revision = end.revision;
            whole.more = end.more;
            whole.count = end.count;
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_answer_is_wrong_and_none_is_unreadable() {
        let compare = |got, expected| same(got, Ok::<i32, String>, expected);
        assert_eq!(compare(Ok(1), Ok(1)), Ok(()));
        let is_wrong = |got, expected| matches!(compare(got, expected), Err(Differs::Wrong(_)));
        assert!(is_wrong(Ok(1), Ok(2)));
        assert!(is_wrong(Ok(1), Err(Refusal::Compacted)));
        assert!(is_wrong(Err(Failed::Refused(Refusal::Compacted)), Ok(2)));
        let unreadable = compare(Err(Failed::Unreadable("a page".to_owned())), Ok(2));
        assert!(matches!(unreadable, Err(Differs::Unreadable(_))));
    }
}
