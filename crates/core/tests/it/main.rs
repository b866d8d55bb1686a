//! A whole member on a simulated disk, stepped by hand.
mod harness;
mod member;
