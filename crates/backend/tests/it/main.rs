//! What the backend promises, shown from outside.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod guards;
mod support;
mod tables;
