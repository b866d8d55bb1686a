//! What must hold, whatever goes wrong.
use std::fmt;

mod answers;
mod contents;
mod durability;
mod end;
mod history;
mod invariants;
mod leases;
mod watches;

pub use answers::{Ledger, Said, range_answer, read, refusal, txn_answer};
pub use contents::{Differs, backup_holds, holds};
pub(crate) use durability::Durable;
pub use end::State;
pub(crate) use end::{can_be_read, check_agreement, check_floor, state_of};
pub use history::History;
pub(crate) use invariants::Invariants;
pub(crate) use leases::SPREAD_S_MAX;
pub use leases::{Clocks, LeaseTimes};
pub use watches::{Heard, Watched};

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check that found it: short, the same for the same kind of bug.
    pub check: &'static str,
    /// What was seen, in plain words.
    pub text: String,
}

impl Violation {
    /// Makes one.
    pub fn new(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            check,
            text: text.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.text)
    }
}

impl std::error::Error for Violation {}
