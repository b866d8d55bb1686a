//! The key index: which revisions each key has, in key order.

mod key_index;
mod packed_keys;
mod recent;
mod tree;
mod versions;

pub(crate) use key_index::{KeyIndex, RestoredRow, Walk};
pub(crate) use packed_keys::KeyParts;
