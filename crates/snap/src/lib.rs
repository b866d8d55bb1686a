//! Raft snapshot files: save, load the newest valid one, release; and etcd's database image, written and read.
//!
//! A snapshot file holds what a member needs besides its database to start from an index: the snapshot's metadata and the
//! membership, as bytes that this crate does not look at. [`Snapshotter::save`] makes one durable in one step,
//! [`Snapshotter::load_newest`] finds the newest that is whole and sets damaged ones aside, [`Snapshotter::release`] removes old ones.
//!
//! # Example
//!
//! ```
//! use quorate_disk::SimDisk;
//! use quorate_snap::{Identity, Snapshot, SnapshotId, Snapshotter};
//! use std::{path::Path, sync::Arc};
//!
//! let disk = Arc::new(SimDisk::new(1)); // `RealDisk` in earnest
//! let identity = Identity { cluster_id: 1, member_id: 2 };
//! let snapshotter = Snapshotter::open(disk, Path::new("/snap"), identity)?;
//! let id = SnapshotId { term: 3, index: 100 };
//! snapshotter.save(&Snapshot { id, body: "metadata and members".into() })?;
//!
//! let loaded = snapshotter.load_newest()?;
//! assert_eq!(loaded.snapshot.map(|snapshot| snapshot.id), Some(id));
//! assert_eq!(snapshotter.release(5)?, []);
//! # Ok::<(), quorate_snap::Error>(())
//! ```
//!
//! # Files
//!
//! `<term>-<index>.snap`, 16 hexadecimal digits each, as etcd names them. **Shape**: little-endian; the first three fields keep
//! their places in every version to come.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `QRTESNP\n` |
//! | 8 | 4 | format version |
//! | 12 | 4 | crc32 (IEEE) of the whole file but this field |
//! | 16 | 8 | cluster id |
//! | 24 | 8 | member id |
//! | 32 | 8 | term |
//! | 40 | 8 | index |
//! | 48 | 8 | bytes of the body |
//! | 56 | 8 | zeros |
//! | 64 | body | body |
//!
//! # What loading finds, and what happens
//!
//! | found | cause | action |
//! |---|---|---|
//! | no file | never saved | none loaded |
//! | whole file | | loaded, if it is the newest |
//! | wrong checksum, length, name, magic; too short or too long | damage | renamed to `<name>.broken` (`.broken.1`, … if that exists), the next older one is tried |
//! | whole file, newer version | a newer release wrote it | [`Error::NewerFormat`], nothing touched |
//! | whole file, other cluster or member | another member's file | [`Error::ForeignIdentity`], nothing touched |
//! | a file of etcd's form | etcd's directory | [`Error::NotASnapshot`], nothing touched |
//! | `<name>.snap.tmp` | crash while saving | removed when the directory is opened |
//! | any other name | not ours to judge | left alone |
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod image;
mod snapshotter;

pub use error::{Damage, Error};
pub use format::{Identity, Snapshot, SnapshotId};
pub use image::{IMAGE_HASH_BYTES, ImageHash, ImageReader, ImageWriter, Layout, Seal};
pub use snapshotter::{Loaded, SetAside, Snapshotter};
