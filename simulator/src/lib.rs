#![doc = include_str!("../README.md")]
//!
//! # Parts
//!
//! Everything below `transport`, `rpc` and `server` runs as it is; only the disk, the links between members and the clocks
//! are simulated. One seed makes a [`plan`], the plan makes a `world`, and a seed run twice does exactly the same.
//!
//! ```text
//! seed -> plan -> world: one queue of events by (time, sequence)      -> digest, trace, coverage
//!                 |  node: a machine, its disk, the member on it          what a member asks for is done as the server does
//!                 |  network, clock: what lies between machines
//!                 |  nemesis, operator: what goes wrong, who is replaced
//!                 +- client: what callers ask     check, model: what must hold
//! ```
//!
//! A run has four phases: faults within what the atlas allows, then none, in which the cluster must serve soon and all
//! members must agree, then copies of a member's data, which must hold what it holds, then a restart of everything, which
//! must change nothing.

mod canary;
pub mod check;
pub mod client;
mod clock;
pub mod coverage;
pub mod model;
mod network;
mod node;
pub mod plan;
mod random;
mod run;
mod shrink;
mod trace;
mod world;

pub use canary::{Lie, run_lie};
pub use clock::Clock;
pub use node::Machine;
pub use random::Random;
pub use run::{EVERYTHING_FROM, Ended, Report, run, run_seed};
pub use shrink::shrink;
pub use trace::Trace;
pub use world::{Committed, Note, Origin, World};
