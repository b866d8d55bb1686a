//! Sockets: which protocol they speak, and what happens to their bytes below HTTP.
mod detect;
mod prefixed;
mod scan;
mod wire;

pub(crate) use detect::{Protocol, detect, judge};
pub(crate) use prefixed::Prefixed;
pub(crate) use scan::FrameScanner;
pub(crate) use wire::{PingPolicy, Wire, WireHandle};
