//! Ports nobody uses.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the search begins and how many ports it covers: below the range from which the system takes ports of its own accord, so
/// that a port stays free while its server is down.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
/// The ports between the beginnings of two processes.
const STRIDE: u32 = 97;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on 127.0.0.1 that is free and was not given out before by this process.
///
/// # Panics
/// No port is free.
#[must_use]
pub fn free_port() -> u16 {
    let begin = std::process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + begin.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("the range ends below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
