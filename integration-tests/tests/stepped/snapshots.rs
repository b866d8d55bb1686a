//! Snapshots between members, step by step.
