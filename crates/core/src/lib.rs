//! One cluster member as a deterministic state machine: submissions, log completions and ticks in, actions out.

mod api;
mod error;
mod view;

pub use api::{Applied, AuthAnswer, Outcome, Proposal, Request, Submission, Token};
pub use error::Error;
pub use view::View;
