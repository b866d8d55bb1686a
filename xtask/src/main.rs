//! Checks as code.
fn main() {}
