//! What stands behind the links: the member that gets messages, answers requests and holds images.
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;

use quorate_proto::etcdserverpb::Member;
use quorate_proto::raftpb::Message;
use quorate_proto::{LeaseId, MemberId};

use crate::Refusal;

/// An answer that comes later.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Takes what comes from other members. Called from the links' thread, on which all else waits meanwhile: it must
/// not wait for a sync, a socket or another thread.
pub trait Receiver: Send + Sync + 'static {
    /// Takes messages in the order in which they came from one link, and returns how many of them it had no room for.
    /// Never a `MsgSnap` with an image; those come by [`Receiver::snapshot`].
    fn messages(&self, messages: Vec<Message>) -> usize;

    /// Takes a `MsgSnap` whose image is stored at `image`, durably. Called from the thread that stored it, for each that was
    /// kept, even when its sender is gone meanwhile.
    fn snapshot(&self, message: Message, image: PathBuf);

    /// A message to the peer was lost, or is likely to be.
    fn unreachable(&self, id: MemberId);

    /// The snapshot for the peer arrived (`ok`), or never will.
    fn snapshot_sent(&self, id: MemberId, ok: bool);

    /// A member says that this one is none any more: it must end itself.
    fn removed(&self);
}

/// Answers what other members ask over HTTP.
pub trait Service: Send + Sync + 'static {
    /// Lists the members this one knows, from its own state.
    fn members(&self) -> Vec<Member>;

    /// Tells whether the id belonged to a member that was removed.
    fn is_removed(&self, id: MemberId) -> bool;

    /// Tells the cluster's and the storage's version.
    fn versions(&self) -> Versions;

    /// Promotes a learner, with the client's token; returns the members after it.
    fn promote(&self, id: MemberId, token: Option<String>) -> Answer<Result<Vec<Member>, Refusal>>;

    /// Hashes the keys at a revision, 0 for the newest.
    fn hash_kv(&self, revision: i64) -> Answer<Result<HashKv, Refusal>>;

    /// Renews a lease as the leader, once all that is committed is applied; returns its time to live in seconds.
    fn renew_lease(&self, id: LeaseId) -> Answer<Result<i64, Refusal>>;

    /// Describes a lease as the leader, once all that is committed is applied.
    fn time_to_live(&self, id: LeaseId, keys: bool) -> Answer<Result<TimeToLive, Refusal>>;

    /// Tells what is left of a lease, without its keys, as the leader, once all that is committed is applied. Who does not lead
    /// says so, whatever it knows of the lease.
    fn seconds_left(&self, id: LeaseId) -> Answer<Result<TimeToLive, Refusal>> {
        self.time_to_live(id, false)
    }

    /// Tells, linearizably, whether a downgrade is under way.
    fn downgrade_enabled(&self) -> Answer<Result<bool, Refusal>>;

    /// Answers what only members of our own kind ask each other, by topic; see [`Transport::exchange`].
    ///
    /// [`Transport::exchange`]: crate::Transport::exchange
    fn exchange(
        &self,
        topic: String,
        _body: bytes::Bytes,
    ) -> Answer<Result<bytes::Bytes, Refusal>> {
        Box::pin(async move { Err(Refusal::Other(format!("unknown topic {topic:?}"))) })
    }
}

/// The versions that `/version` shows beside the server's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The member's own version; filled in by the transport when it answers.
    pub server: String,
    /// The cluster's, as `3.7.0`, if decided.
    pub cluster: Option<String>,
    /// The storage's, as `3.7.0`, if known.
    pub storage: Option<String>,
}

/// A hash of the keys at a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// The member's current revision.
    pub revision: i64,
    /// The hash.
    pub hash: u32,
    /// Revision of the last compaction.
    pub compact_revision: i64,
    /// Revision that was hashed.
    pub hash_revision: i64,
}

/// A lease as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeToLive {
    /// Seconds left.
    pub ttl_s: i64,
    /// Seconds granted.
    pub granted_ttl_s: i64,
    /// Attached keys, if asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// Where the images of snapshots to be sent come from.
pub trait ImageSource: Send + Sync + 'static {
    /// Opens the database's image at the index or after it. Called on a thread of its own, which reads the image too.
    ///
    /// A receiver of our own kind may get something else in its place that its [`ImageStore`] understands; what it gets is
    /// covered by a checksum. After a snapshot that did not arrive the next one to that receiver is asked for as for any other.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being read; the snapshot is reported as failed.
    fn open(&self, index: u64, to_kindred: bool) -> io::Result<OpenedImage>;
}

/// In what form the state behind a snapshot's message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotForm {
    /// etcd's database image.
    Image,
    /// Something else, that only members of our own kind send each other.
    Rows,
}

impl fmt::Display for SnapshotForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Rows => "rows",
        })
    }
}

/// An image to be read.
pub struct OpenedImage {
    /// What it is; a word in the log.
    pub form: SnapshotForm,
    /// Its total bytes, when they are known before it is read; another number is an error then.
    pub bytes: Option<u64>,
    /// Its bytes.
    pub body: Box<dyn Read + Send>,
}

/// Where the images of received snapshots go.
pub trait ImageStore: Send + Sync + 'static {
    /// Begins an image. Called from a thread that may block.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being created; the snapshot is refused.
    fn create(&self) -> io::Result<Box<dyn ImageFile>>;
}

/// An image being received. Dropped before [`ImageFile::keep`], it leaves nothing behind.
pub trait ImageFile: Send {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// Whatever keeps them from being written; the snapshot is refused.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Tells what the bytes so far are; a word in the log.
    fn form(&self) -> SnapshotForm {
        SnapshotForm::Image
    }

    /// Makes the image durable under the index's name and returns where it is. An image that is there already stays.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from becoming durable; nothing is left then.
    fn keep(self: Box<Self>, index: u64) -> io::Result<PathBuf>;
}
