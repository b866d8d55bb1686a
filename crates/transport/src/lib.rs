//! Links between cluster members, in the peer protocol of etcd 3.7.
//!
//! ```text
//! Transport::send -> peer: lane of a stream the peer opened | pipeline of posts | snapshot sender     (outbound)
//! peer's stream that we opened, its posts and snapshots -> decoder, checks -> Receiver                (inbound)
//! peer's questions over HTTP -> Service                                                               (inbound)
//! ```
//!
//! A message that finds its stream idle is written by the thread that sends it, past the HTTP library, which owns the
//! connection otherwise: waking the stream's task would take longer than the write.
//!
//! Nothing here decides anything about consensus: messages go in and come out in [`raftpb`](quorate_proto::raftpb)'s types.
//! Whoever dials a stream is the one who reads it, so every pair of members has two streams each way. What cannot be sent is
//! dropped, counted, and reported to the [`Receiver`]; nothing waits for a peer.
//!
//! | what a peer can make grow | limit |
//! |---|---|
//! | messages that wait for a stream | 4096 and 256 MiB |
//! | messages that wait to be posted | 64 |
//! | a message on a stream, by post, before an image | 512 MiB, 64 MiB, 64 MiB; memory grows with what came, not with what was announced |
//! | requests that have not come whole | 256 MiB together |
//! | connections | 1024; silent ones are closed after [`Config::read_timeout`] |
//! | snapshots received at once | 4, each with a few pieces in memory; its [`ImageStore`] may hold more: a row being taken in, for one |
//! | members that are not known from the log | 16 |
//!
//! etcd's streams have no checksums: a byte that changes or is lost inside a value becomes a value. Members that both know
//! better say so in a header that etcd does not heed, and then put each batch, post and image behind a crc32 (see
//! [`Config::checksums`]); towards etcd every byte is etcd's. The same header tells which peers understand
//! [`Transport::exchange`] and batches of questions about leases.
//!
//! Behind the message of a snapshot goes etcd's database image. A peer that has asked for checksums may get something else in its
//! place, as the [`ImageSource`] likes: an image cannot be taken in before all of it is there, and members of our own are to catch
//! up in half of etcd's time. A peer that did not take it is sent an image next, and after one that arrived the other form again.
//!
//! # Example
//!
//! Two members in one process:
//!
//! ```
//! use std::{io, path::PathBuf, sync::Arc, time::Duration};
//!
//! use quorate_proto::{ClusterId, LeaseId, MemberId, etcdserverpb::Member, raftpb::{Message, MessageType}};
//! use quorate_transport::{
//!     Answer, Config, HashKv, ImageFile, ImageSource, ImageStore, OpenedImage, Parts, Receiver, Refusal, Service, TimeToLive, Transport,
//!     Versions,
//! };
//! use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
//!
//! struct Inbox(UnboundedSender<Message>);
//!
//! impl Receiver for Inbox {
//!     fn messages(&self, messages: Vec<Message>) -> usize {
//!         messages.into_iter().filter_map(|message| self.0.send(message).err()).count()
//!     }
//!     fn snapshot(&self, _: Message, _: PathBuf) {}
//!     fn unreachable(&self, _: MemberId) {}
//!     fn snapshot_sent(&self, _: MemberId, _: bool) {}
//!     fn removed(&self) {}
//! }
//!
//! /// Knows nothing.
//! struct Nothing;
//!
//! impl Service for Nothing {
//!     fn members(&self) -> Vec<Member> { vec![] }
//!     fn is_removed(&self, _: MemberId) -> bool { false }
//!     fn versions(&self) -> Versions { Versions::default() }
//!     fn promote(&self, _: MemberId, _: Option<String>) -> Answer<Result<Vec<Member>, Refusal>> {
//!         Box::pin(async { Err(Refusal::MemberNotFound) })
//!     }
//!     fn hash_kv(&self, _: i64) -> Answer<Result<HashKv, Refusal>> { Box::pin(async { Ok(HashKv::default()) }) }
//!     fn renew_lease(&self, _: LeaseId) -> Answer<Result<i64, Refusal>> { Box::pin(async { Err(Refusal::LeaseNotFound) }) }
//!     fn time_to_live(&self, _: LeaseId, _: bool) -> Answer<Result<TimeToLive, Refusal>> {
//!         Box::pin(async { Err(Refusal::LeaseNotFound) })
//!     }
//!     fn downgrade_enabled(&self) -> Answer<Result<bool, Refusal>> { Box::pin(async { Ok(false) }) }
//! }
//!
//! impl ImageSource for Nothing {
//!     fn open(&self, _: u64, _: bool) -> io::Result<OpenedImage> { Err(io::ErrorKind::NotFound.into()) }
//! }
//!
//! impl ImageStore for Nothing {
//!     fn create(&self) -> io::Result<Box<dyn ImageFile>> { Err(io::ErrorKind::Unsupported.into()) }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let start = |id: u64| {
//!     let (sender, inbox) = unbounded_channel();
//!     let parts = Parts {
//!         receiver: Arc::new(Inbox(sender)),
//!         service: Arc::new(Nothing),
//!         images: Arc::new(Nothing),
//!         store: Arc::new(Nothing),
//!     };
//!     let config = Config::new(MemberId(id), ClusterId(7));
//!     let transport = Transport::start(config, parts, runtime.handle().clone())?;
//!     let address = transport.listen(std::net::TcpListener::bind("127.0.0.1:0")?)?;
//!     Ok::<_, quorate_transport::Error>((transport, format!("http://{address}"), inbox))
//! };
//! let (one, url_of_one, _) = start(1)?;
//! let (two, url_of_two, mut inbox_of_two) = start(2)?;
//! one.add_peer(MemberId(2), &[url_of_two])?;
//! two.add_peer(MemberId(1), &[url_of_one])?;
//!
//! let vote = Message { r#type: Some(MessageType::MsgVote.into()), from: Some(1), to: Some(2), ..Message::default() };
//! one.send(vec![vote.clone()]);
//! let received = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), inbox_of_two.recv()).await })?;
//! assert_eq!(received, Some(vote));
//! # Ok(())
//! # }
//! ```

mod budget;
mod codec;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod headers;
mod image_directory;
mod inbound;
mod io;
mod json;
mod lane;
mod link;
mod metrics;
mod outbound;
mod peer;
mod seam;
mod shared;
mod time;
mod transport;
mod url;
mod version;

pub use config::Config;
pub use error::{Error, Refusal};
pub use image_directory::ImageDirectory;
pub use metrics::{Histogram, PeerMetrics};
pub use outbound::PeerClient;
pub use seam::{
    Answer, HashKv, ImageFile, ImageSource, ImageStore, OpenedImage, Receiver, Service,
    SnapshotForm, TimeToLive, Versions,
};
pub use transport::{Parts, Transport};
