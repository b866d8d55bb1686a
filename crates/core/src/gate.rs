//! What a front door holds of a member: where to leave submissions, and what it may read itself.
use std::sync::Arc;

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

/// Everything a front door needs of a member. Cheap to clone.
#[derive(Clone)]
pub struct Handles {
    /// For what goes through the engine.
    pub intake: Arc<dyn Intake>,
    /// Ids, term, leader, alarms, members.
    pub view: Arc<View>,
    /// For reads of keys, history and hashes.
    pub reader: Reader,
    /// For tokens and permissions.
    pub auth: AuthReader,
    /// For sizes.
    pub backend: Backend,
    /// For the check before proposing.
    pub quota: Quota,
}
