//! Seeds as tests: the same twice, and clean.
mod found;
mod seeds;
