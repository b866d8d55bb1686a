//! How the process ends after a signal: by the signal, so that whoever started it sees what happened.
//!
//! Source: etcd v3.7.1 pkg/osutil/interrupt_unix.go.
use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// The signal that asked for the end; 0 before.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Remembers the signal that asked for the end.
pub(crate) fn received(signal: Signal) {
    RECEIVED.store(signal.as_raw(), Ordering::Relaxed);
}

/// Ends the process by the signal that was received, if one was. The first process of a system, which the system does not
/// end by signals, goes on to its ordinary end, as does one without a signal.
pub(crate) fn end_by_received() {
    let Some(signal) = Signal::from_named_raw(RECEIVED.load(Ordering::Relaxed)) else {
        return;
    };
    if getpid() == Pid::INIT {
        return;
    }
    restore_default(signal);
    // When it fails the process ends with 0.
    let _ = kill_process(getpid(), signal);
}

#[expect(
    unsafe_code,
    reason = "the default action of a signal can be had from the C library alone"
)]
fn restore_default(number: Signal) {
    const DEFAULT: usize = 0;
    unsafe extern "C" {
        fn signal(number: c_int, action: usize) -> usize;
    }
    // SAFETY: the function is the C library's, as its header declares it; the default action is a number that it knows, and
    // nothing of this process relies on the action that it replaces: the process is about to end.
    unsafe { signal(number.as_raw(), DEFAULT) };
}
