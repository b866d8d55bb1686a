//! etcd's database image: the bbolt file that backups, restores and snapshots between members are made of.
//!
//! [`ImageWriter`] lays buckets out front to back, so that an image can be streamed; [`ImageReader`] reads one in order of
//! keys. Both need memory for a few pages, however large the image is.
//!
//! # Shape
//!
//! The file is a sequence of pages, of 4096 bytes when we write it; numbers are little-endian. The first two pages are meta
//! pages; of those that are whole the one with the larger transaction id counts. Every page, or run of pages when what it holds
//! is larger, begins with a header, 16 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | the page's own number |
//! | 8 | 2 | kind: 1 branch, 2 leaf, 4 meta, 16 list of free pages |
//! | 10 | 2 | number of elements |
//! | 12 | 4 | pages that follow in this run |
//!
//! Behind it a meta page has
//!
//! | offset | size | field |
//! |---|---|---|
//! | 16 | 4 | magic `0xed0cdaed` |
//! | 20 | 4 | version, 2 |
//! | 24 | 4 | bytes in a page |
//! | 28 | 4 | flags, 0 |
//! | 32 | 8 | page of the root bucket |
//! | 40 | 8 | sequence of the root bucket |
//! | 48 | 8 | page of the list of free pages; all ones when there is none |
//! | 56 | 8 | number of pages |
//! | 64 | 8 | transaction id |
//! | 72 | 8 | FNV-1a, 64 bits, of bytes 16 to 72 |
//!
//! and the other two have elements of 16 bytes, then the bytes that these point to, as distances from the element's own start:
//!
//! | kind | element |
//! |---|---|
//! | branch | 4 distance, 4 key size, 8 page |
//! | leaf | 4 flags (1: a bucket), 4 distance, 4 key size, 4 value size; the value is behind the key |
//!
//! A bucket is a row of the root bucket: 8 bytes page of its tree, 8 bytes sequence; when the page is 0, a leaf page follows in
//! the value itself.
//!
//! A backup that a client has saved, and an image that a member has received, has the SHA-256 of the image behind it, 32 bytes.
//!
//! Source: bbolt v1.5.0 internal/common/page.go, meta.go, bucket.go; etcd v3.7.1 server/storage/backend/config_linux.go (no
//! list of free pages is written), etcdutl/snapshot/v3_snapshot.go hasChecksum.

mod hash;
mod page;
mod reader;
mod rows;
mod writer;

pub use hash::{IMAGE_HASH_BYTES, ImageHash};
pub use reader::{ImageReader, Seal};
pub use writer::{ImageWriter, Layout};

#[cfg(test)]
mod tests;
