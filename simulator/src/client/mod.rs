//! Callers of the cluster, as state machines that the world wakes.
//!
//! # The door
//!
//! A workload sees the cluster as the service layer of one member does (`crates/rpc/src/service`), through methods of
//! [`World`]:
//!
//! | in the service layer | here |
//! |---|---|
//! | a submission is left in the engine's inbox | [`World::submit`], answered by [`Note::Answered`] or [`Note::Lost`] |
//! | reads, on the connection's thread | [`World::live`], then its reader, at once: a linearizable one after `ReadIndex` |
//! | ids, leader, alarms, members | [`World::view`] |
//! | tokens and permissions | [`World::auth`] |
//! | the watch hub of a connection thread | [`World::hub`], then [`World::nudge`]; [`Note::StreamsReady`] says when to take |
//! | asking the leader | [`World::machine_of`], then [`World::submit`] there |
//!
//! Calls act on the member in the same instant. What lies between a client and the member is the workload's to act out: the
//! world says what becomes of a request and of its answer, [`Note::CutOff`] that connections broke, and [`World::wake`] sets an
//! alarm.
//!
//! What happens comes back as [`Note`]s, in order; entries of the log come before the answers that rest on them.
use crate::World;
use crate::check::Violation;
use crate::world::Note;

mod callers;
mod puts;

pub use callers::Callers;
pub use puts::Puts;

/// What callers do in a run, and what is checked about the answers.
///
/// The run calls [`start`](Self::start), then hands over every note as it comes. When faults stop it calls
/// [`stop`](Self::stop): nothing new is begun, what is under way may end. [`check`](Self::check) comes when all members have
/// caught up and agree, and once more after everything was restarted.
pub trait Workload {
    /// Begins: sets the first alarms.
    fn start(&mut self, world: &mut World);

    /// Takes what has happened.
    ///
    /// # Errors
    /// What must not happen, and did.
    fn note(&mut self, world: &mut World, note: Note) -> Result<(), Violation>;

    /// Begins nothing new from now on, and closes watches.
    fn stop(&mut self, world: &mut World);

    /// Says whether nothing is under way any more.
    fn is_idle(&self) -> bool;

    /// Checks at the end, when all members hold the same.
    ///
    /// # Errors
    /// What must not be, and is.
    fn check(&mut self, world: &mut World) -> Result<(), Violation>;
}
