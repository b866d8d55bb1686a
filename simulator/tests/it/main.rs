//! Seeds as tests: the same twice, and clean.
mod seeds;
