//! The storage engine: redb behind transactions that carry the consistent index.
