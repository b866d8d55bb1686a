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
    BODY_BYTES_MAX, LEASES, PREFIX as KINDRED_PREFIX, RENEWALS_MAX, Renewal, exchange, renewals,
    run_renewals, write_renewed,
};
pub(crate) use pipeline::{CONNECTIONS, Pipeline, run_pipeline};
pub(crate) use pool::{Dial, Pool};
pub(crate) use probe::{now_ns, run_probe};
pub(crate) use snapshot::{send_snapshot, snapshot_index};
pub(crate) use stream::run_stream;
