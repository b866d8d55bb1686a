//! One cluster member as a deterministic state machine: submissions, log completions and ticks in, actions out.
//!
//! A [`Member`] owns raft and everything replicated ([`Stores`]). It has no threads, clocks, files or sockets: its driver
//! calls `handle_*` with what happened, then takes [`Actions`] with what is to be done, and reports each back. The same
//! member runs under the server's threads and in simulation.
//!
//! ```text
//! submissions --> admit --> raft --> Actions::persist --> (log) --> handle_synced --> raft: committed
//!                                                                                       |
//! Actions::replies <-- publish <-- one ApplyTxn per batch <-- apply in log order <------+
//! ```
//!
//! | promise | where |
//! |---|---|
//! | nothing is answered before its entry is durable and applied | [`Member::handle_synced`] takes a [`quorate_wal::Synced`], which only the log makes |
//! | data, leases, auth, members, alarms, applied index and digest commit together | `apply_committed` |
//! | configuration changes keep etcd's bytes and are translated in one place | `apply_change` |
//! | no message from another member can end the process or break a promise | `edge`, before anything reaches raft |
//! | what acknowledges the log, or a vote, is sent when it is durable; nothing else waits for the disk | `persist` |
//! | an installed snapshot takes the place of all stores in one step | [`Member::handle_installed`] |
//! | an entry commits as soon as a quorum has it durable, with this member in it or not | raft; a leader sends before it writes |
//! | all randomness comes from [`Config::seed`] | `set_election_timeout` |
//!
//! # What waits for the disk
//!
//! Only what acknowledges the log, and votes. Heartbeats and their answers, questions for the commit index, renewals and
//! forwarded proposals never do, except while a change of term or vote is itself not durable.
//!
//! Raft 0.7.0 hands a committed entry out for applying only when the member's own log has it too. So a leader whose disk is
//! slower than those of a quorum commits at their pace but answers its callers at its own; when it has stored nothing for an
//! election timeout it hands leadership over, which bounds the wait. Followers are not held up by it. It could be lifted
//! by applying up to the commit index straight from the log in memory, if the backend were then flushed only as far as the
//! own log is durable: a database ahead of its log is refused at the next start.
//!
//! # In which form a state goes to another member
//!
//! To and from members of etcd, and in backups, as etcd's database image ([`ImageStream`], [`install_image`]). Between members of
//! our own as rows ([`StateStream`], [`StateReader`]), which differs from etcd because a member that is far behind is to catch up
//! in half of etcd's time: an image must be measured before it is sent and be whole before it is read, rows are read once, and
//! fill the new database ([`Filling`]) while they come. Either is durable under its name before raft hears of it; what follows is
//! the same for both.

mod actions;
mod alarms;
mod api;
mod apply;
mod authorize;
mod auto_compaction;
mod cluster;
mod config;
mod convert;
mod digest;
mod divergence;
mod edge;
mod envelope;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod ids;
mod image;
mod log;
mod member;
mod membership;
mod promotions;
mod quota;
mod read_index;
mod redact;
mod rng;
mod tally;
mod versions;
mod view;
mod waiters;

pub use actions::{
    Actions, MemberChangeKind, Notice, PeerChange, SnapshotInstall, SnapshotSource, SnapshotToSave,
};
pub use alarms::Alarms;
pub use api::{
    Applied, AuthAnswer, DowngradeAction, MemberChange, Outcome, Proposal, Request, Submission,
    Token,
};
pub use apply::Stores;
pub use auto_compaction::AutoCompaction;
pub use cluster::{ChangeError, Cluster, Member as ClusterMember, RestoreError};
pub use config::{Bounds, Config, request_timeout_ms};
pub use convert::CONF_STATE_KEY;
pub use digest::{DIGEST_KEY, digest_of_row, digest_row, fold_digest};
pub use divergence::{Comparison, DIVERGED, Suspicion, Verdict};
pub use edge::Refusal;
pub use error::Error;
pub use gate::{Current, Handles, Intake, LiveStores, Outlet};
pub use ids::{cluster_id, member_id};
pub use image::{
    BACKEND_FILE, Carrier, Filling, FoundingMember, ImageError, ImageFacts, ImageMeasure,
    ImageStream, Import, InTurn, RECEIVED_END, ReceivedState, Restore, Restored, StateReader,
    StateStream, backend_path, check_image, image_file, import_image, install_image,
    install_image_by, install_received, received_file, restore_backup,
};
pub use member::{LogStart, Member, Stopwatch, align_snapshot};
pub use promotions::Promotions;
pub use quorate_snap::ImageHash;
pub use quota::{DEFAULT_QUOTA_BYTES, Quota, cost, put_cost, txn_cost};
pub use redact::{delete_text, put_text, range_text, request_text, txn_text};
pub use tally::{APPLY_BOUNDS, Count, Doubling, FIRST_APPLY_BOUND_NS, KeyWork, TTL_BOUNDS, Tally};
pub use view::View;
