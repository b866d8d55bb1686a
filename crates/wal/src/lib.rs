//! A write-ahead log for raft, with group commit, repair, and checksums that carry identity.
//!
//! The log is a directory of segments. [`Wal::append`] writes any number of [`Batch`]es (entries, hard state, snapshot mark) with
//! one gather write that copies no payload, and one sync. It returns [`Synced`], which nothing else can make: what may only
//! happen once something is durable takes that token. [`Wal::open`] reads everything back.
//!
//! The log knows nothing of raft but its words. It has no threads and no clock: making the next segment is a [`PrepareJob`]
//! that the caller runs where it likes.
//!
//! # Example
//!
//! ```
//! use quorate_disk::SimDisk;
//! use quorate_wal::{Batch, Entry, HardState, Identity, Options, Wal};
//! use std::{path::Path, sync::Arc};
//!
//! let disk = Arc::new(SimDisk::new(1)); // `RealDisk` in earnest
//! let dir = Path::new("/wal");
//! let identity = Identity { cluster_id: 1, member_id: 2 };
//! let options = Options { segment_bytes: 4096, identity: Some(identity) };
//!
//! let mut wal = Wal::create(disk.clone(), dir, identity, options.clone())?;
//! let synced = wal.append(&[Batch {
//!     ticket: 17,
//!     entries: vec![Entry { term: 1, index: 1, kind: 0, data: "put".into() }],
//!     hard_state: Some(HardState { term: 1, vote: 2, commit: 0 }),
//!     must_sync: true,
//!     ..Batch::default()
//! }])?;
//! assert_eq!(synced.ticket(), 17);
//! drop(wal);
//!
//! let (_wal, recovered) = Wal::open(disk, dir, options)?;
//! assert_eq!(recovered.entries[0].data, "put");
//! assert_eq!(recovered.hard_state.vote, 2);
//! # Ok::<(), quorate_wal::Error>(())
//! ```
//!
//! # Files
//!
//! `<sequence>-<index>.wal`, both 16 hexadecimal digits: sequence numbers have no gaps, the index is that of the next entry when
//! the segment was made. A segment has its full size from the start and is zeros behind its last record. Files ending in `.tmp`
//! are segments in the making and one that was released, which the next is made of; opening removes them.
//!
//! A segment that is used again is first filled with zeros in its place: they cost a millisecond of CPU for 20 MiB past the
//! system's cache, and without them a torn write in the last append could not be told from damage to it. Its new sequence
//! number is in every checksum besides.
//!
//! **Shape** of a segment, all little-endian, all checksums crc32 (IEEE):
//!
//! | part | bytes | holds |
//! |---|---|---|
//! | head | 128 | magic, version, checksum, cluster, member, sequence, next index, snapshot mark, hard state, end and last checksum of the segment before |
//! | record | 48 + payload + 1..8 | header, payload, the byte 0xa5, zeros to a multiple of 8 |
//!
//! A record's header holds a checksum over the cluster, the member, the segment, its own offset and the rest of the header; the
//! checksum of the record before it; that of its payload; and how far the segment was durable when it was written. So no stale or
//! misdirected bytes parse, a hole differs from an end, and every record proves what must be there before it.
//! A header never crosses a 512-byte sector, which disks write whole or not at all.
//!
//! # What opening finds, and what happens
//!
//! | found | cause | action |
//! |---|---|---|
//! | no segment | no log | [`Error::NotFound`] |
//! | last segment locked | another process | [`Error::InUse`] |
//! | a segment's magic is not ours | etcd's log, or any other file | [`Error::NotALog`], nothing touched |
//! | whole head, newer version | a newer release wrote it | [`Error::NewerFormat`], nothing touched |
//! | whole head, other cluster or member, or not the one asked for | another member's files | [`Error::ForeignIdentity`], nothing touched |
//! | damaged head, in any segment | damage: a head is durable before its segment has a name | [`Error::Corrupt`], nothing touched |
//! | sequence number left out | lost file | [`Error::MissingSegment`], nothing touched |
//! | first entries do not reach back to the snapshot mark, or commit lies behind the last entry | lost files | [`Error::MissingEntries`], nothing touched |
//! | anything but whole records, up to the recorded end, in a segment before the last | damage: all of it was durable before the next was named | [`Error::Corrupt`], nothing touched |
//! | in the last segment: whole records, then zeros to the end | the usual end | opened |
//! | … then a batch without its last records | torn write | cut at the end of the last complete batch |
//! | … then a record with a sector of zeros it should not have, or without its end mark | torn write: a sector not written is still zeros | cut |
//! | … then zeros in place of a header, and later bytes, but no later record that knows of durable bytes from here on | torn, reordered write | cut |
//! | … then any of the three, and a later valid record which says that bytes from here on were durable | damage: a lost or zeroed sector | [`Error::Corrupt`], nothing touched |
//! | … then a header or payload with all its sectors there and a wrong checksum | damage: flipped bits, a misdirected write | [`Error::Corrupt`], nothing touched |
//! | … then a whole record chained to another than the one before it | damage: stale bytes, a lost write | [`Error::Corrupt`], nothing touched |
//! | bytes behind the end that are not zero | as torn | set to zero and synced, so that they can never come back |
//! | `.tmp` files | crash while a segment was made, or after one was released | removed |
//!
//! Cutting sets to zero and syncs. Before opening returns, all that it returns is made durable: what an earlier process wrote
//! and did not sync, or synced in vain, is written again first.
//!
//! Not told apart, since a single disk has nothing to tell by: sectors of the very last append that were durable and are zeros
//! now look like a torn write.
//!
//! # When something fails
//!
//! A write or sync that fails poisons the log for good ([`Error::Poisoned`]); the process must end, and opening recovers. Failing
//! to make a new segment, for example on a full disk, changes nothing: the append may be tried again.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod batch;
mod encoder;
mod error;
mod error_at;
mod fields;
#[doc(hidden)]
pub mod fuzz;
mod head;
mod record;
mod recovery;
mod segment;
mod span;
mod wal;

pub use batch::{Batch, Entry, HardState, Identity, Recovered, SnapshotMark, Synced, TornTail};
pub use error::{Corruption, Error};
pub use segment::{PrepareJob, PreparedSegment, Preparing};
pub use wal::{Options, Wal};
