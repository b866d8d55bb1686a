//! What all tasks of a transport share.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use quorate_proto::MemberId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::budget::Budget;
use crate::headers::Identity;
use crate::inbound::RECEIVED_MAX;
use crate::metrics::Registry;
use crate::outbound::{Dial, Pool};
use crate::peer::{Peer, Remote};
use crate::{Config, ImageSource, ImageStore, Parts, Receiver, Service};

/// Questions about leases that are asked at the same time, one a connection; more wait.
const LEASE_CALLS_MAX: usize = 64;

/// Bytes that requests which have not come whole hold together.
const UNFINISHED_BYTES_MAX: usize = 256 << 20;

/// Peers, and everything that all of them need.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) receiver: Arc<dyn Receiver>,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) images: Arc<dyn ImageSource>,
    pub(crate) store: Arc<dyn ImageStore>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) registry: Registry,
    pub(crate) handle: Handle,
    pub(crate) peers: RwLock<BTreeMap<MemberId, Arc<Peer>>>,
    pub(crate) remotes: RwLock<BTreeMap<MemberId, Arc<Remote>>>,
    /// Room for requests that have not come whole.
    pub(crate) unfinished: Budget,
    /// Room for questions about leases, each of which takes a connection.
    pub(crate) asking: Semaphore,
    /// Room for snapshots to be received.
    pub(crate) receiving: Semaphore,
    /// Says "stopped" to connections and to listeners.
    pub(crate) stopped: watch::Sender<bool>,
    removed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: Config, identity: Identity, parts: Parts, handle: Handle) -> Self {
        Self {
            pool: Arc::new(Pool::new(Dial {
                time_max: config.election_timeout,
                stall_max: config.write_timeout,
                from: config.local_address,
            })),
            registry: Registry::new(),
            peers: RwLock::new(BTreeMap::new()),
            remotes: RwLock::new(BTreeMap::new()),
            unfinished: Budget::new(UNFINISHED_BYTES_MAX),
            asking: Semaphore::new(LEASE_CALLS_MAX),
            receiving: Semaphore::new(RECEIVED_MAX),
            stopped: watch::Sender::new(false),
            removed: AtomicBool::new(false),
            config,
            identity,
            receiver: parts.receiver,
            service: parts.service,
            images: parts.images,
            store: parts.store,
            handle,
        }
    }

    /// Tells the member once that it was removed.
    pub(crate) fn removed(&self) {
        if !self.removed.swap(true, Ordering::Relaxed) {
            tracing::error!("the member has been permanently removed from the cluster");
            self.receiver.removed();
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }
}
