//! The reference store: what etcd would answer, written from its behaviour and not from our code.
//!
//! [`Model`] is fed with the committed log, entry by entry, from the first one on, and works out for each what must have
//! come of it: the answer or the refusal, the events, the state after it. It keeps every version of everything, so that
//! any read at any index can be worked out later. It is naive on purpose: no index, no cache, no sharing with production
//! code but the Protobuf types.
//!
//! | file | what |
//! |---|---|
//! | `entry` | an entry's bytes, taken apart by hand; marks of clients |
//! | `answer` | answers and refusals |
//! | `keys` | keys with all their versions, events by revision |
//! | `hash` | the hash of a history |
//! | `range` | what a range request gives |
//! | `txn` | compares, checks before the first change, operations |
//! | `leases` | leases and who lived when |
//! | `auth` | users, roles, permissions, tokens |
//! | `cluster` | members and versions |
//! | `store` | all of them under one log |

mod answer;
mod auth;
mod cluster;
mod entry;
mod hash;
mod keys;
mod leases;
mod range;
mod span;
mod store;
mod txn;

pub use answer::{Answer, AuthReply, OpAnswer, Outcome, RangeAnswer, Refusal, TxnAnswer};
pub use auth::{Auth, Caller, Kind};
pub use cluster::{Cluster, Peer};
pub use entry::{Entry, EntryKind, Proposer, TAG_FIELD, tagged};
pub use keys::{Change, Keys};
pub use leases::{Leases, Life};
pub use range::range;
pub use span::Span;
pub use store::{Model, Step};
