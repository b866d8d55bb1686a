//! What the backend promises, shown from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod append;
mod crash;
mod damage;
mod defragment;
mod guards;
mod model;
mod open_cost;
mod support;
mod tables;
mod threads;
