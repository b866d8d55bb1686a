//! Decides whether what clients saw of a cluster can have been.
//!
//! Every write that changes anything has a revision of its own, so the members themselves name the order in which writes took effect:
//! nothing needs to be searched for. Watches of every key show what each revision did. Held against that:
//!
//! | rule | what must hold |
//! |---|---|
//! | [`Rule::Dense`] | revisions follow each other without a gap |
//! | [`Rule::Members`] | whoever is watched shows the same for a revision |
//! | [`Rule::Lost`] | an acknowledged write is what its revision did, the whole of it |
//! | [`Rule::Answer`] | an answer is what the request gives on the state at its revision |
//! | [`Rule::Duplicate`] | no write took effect twice, none that was refused at all, none that nobody asked for |
//! | [`Rule::Order`] | what began after something had been seen comes after it |
//! | [`Rule::Backwards`] | serializable reads of a member do not go back |
//! | [`Rule::Watch`] | a watch brings every event of its range once, in order, revisions whole |
//! | [`Rule::Lease`] | a lease lives as long as it was promised to |
//! | [`Rule::Compacted`] | a revision is refused as compacted only when somebody asked for that |
//! | [`Rule::Hash`] | members have the same hash at the same revision |
//!
//! With the first six a history is linearizable, and without them it is not: answers follow from the order of revisions, and that
//! order agrees with the order in time. Requests without an answer may have happened at any time after they began, or never; those
//! that have are found in the history by the value they wrote.
//!
//! All of it sorts and then walks the history once or twice: n log n in the number of operations.

mod evaluate;
mod judge;
mod leases;
mod lies;
mod order;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod truth;
mod watches;

pub use judge::{Rule, Verdict, Violation, check};
pub use lies::Lie;
pub use record::{
    Answer, Call, Comparison, Event, Hash, KeyRange, Kv, Message, Op, OpResult, Reading, Recording,
    Relation, Reply, Request, Txn, Watch, shorten,
};
