//! A multi-version key-value store with watch, compaction and etcd's hashes.
