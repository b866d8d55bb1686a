//! Raft snapshot files: save, load the newest valid, release.
