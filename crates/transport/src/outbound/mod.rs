//! What this member begins: streams it reads, messages and snapshots it posts, probes and questions.
mod body;
mod calls;
mod kindred;
mod pipeline;
mod pool;
mod probe;
mod snapshot;
mod stream;

pub use calls::PeerClient;
pub(crate) use calls::on_runtime;
pub(crate) use kindred::{
    BODY_BYTES_MAX, LEASES, LeaseAsked, LeaseQuestion, LeaseSeconds, PREFIX as KINDRED_PREFIX,
    exchange, lease_queue, read_questions, run_lease_batches, write_answers,
};
pub(crate) use pipeline::{CONNECTIONS, Pipeline, run_pipeline};
pub(crate) use pool::{Dial, Pool};
pub(crate) use probe::{now_ns, run_probe};
pub(crate) use snapshot::{send_snapshot, snapshot_index};
pub(crate) use stream::run_stream;
