//! What a front door holds of a member: where to leave submissions, and what it may read itself.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use quorate_auth::AuthReader;
use quorate_backend::Backend;
use quorate_mvcc::Reader;

use crate::quota::Quota;
use crate::view::View;
use crate::{Outcome, Submission, Token};

/// Where a front door leaves submissions for the engine's thread.
pub trait Intake: Send + Sync {
    /// Takes submissions from the front of `submissions`, in order, as many as there is room for, and wakes the engine.
    ///
    /// What is left in the vector found no room: its callers are to be told "too many requests". Never blocks.
    fn submit(&self, submissions: &mut Vec<Submission>);

    /// Ends the member, because state that must be readable is not. Never blocks.
    fn fail(&self, why: String);
}

/// Where the engine's thread leaves outcomes for a front door.
pub trait Outlet: Send {
    /// Takes all outcomes of one turn of the engine; every caller's thread is woken once. Never blocks.
    fn deliver(&mut self, replies: Vec<(Token, Outcome)>);

    /// Tells every watch stream to look for new events. Never blocks.
    fn published(&mut self);
}

/// What readers read: the stores as they are now.
#[derive(Clone)]
pub struct Current {
    /// For reads of keys, history and hashes.
    pub reader: Reader,
    /// For sizes and images.
    pub backend: Backend,
    /// For the check before proposing.
    pub quota: Quota,
}

/// The place where readers find the stores. It stays; what is in it is replaced as a whole when a snapshot is installed.
#[derive(Clone)]
pub struct LiveStores {
    shared: Arc<Shared>,
}

struct Shared {
    generation: AtomicU64,
    current: RwLock<Current>,
}

impl LiveStores {
    pub(crate) fn new(current: Current) -> Self {
        Self {
            shared: Arc::new(Shared {
                generation: AtomicU64::new(0),
                current: RwLock::new(current),
            }),
        }
    }

    /// Returns how often the stores have been replaced. One atomic load: whoever keeps what [`Self::current`] gave asks
    /// again when it has moved.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Returns the stores as they are now.
    pub fn current(&self) -> Current {
        self.shared.current.read().clone()
    }

    /// Returns the reader of keys.
    pub fn reader(&self) -> Reader {
        self.shared.current.read().reader.clone()
    }

    /// Returns the backend.
    pub fn backend(&self) -> Backend {
        self.shared.current.read().backend.clone()
    }

    /// Returns the quota.
    pub fn quota(&self) -> Quota {
        self.shared.current.read().quota.clone()
    }

    pub(crate) fn replace(&self, current: Current) {
        let old = std::mem::replace(&mut *self.shared.current.write(), current);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        drop(old);
    }
}

/// Everything a front door needs of a member. Cheap to clone, and valid as long as the member lives.
#[derive(Clone)]
pub struct Handles {
    /// For what goes through the engine.
    pub intake: Arc<dyn Intake>,
    /// Ids, term, leader, alarms, members.
    pub view: Arc<View>,
    /// For keys, sizes and the quota.
    pub live: LiveStores,
    /// For tokens and permissions.
    pub auth: AuthReader,
}
