//! Settings of the memory allocator.
use std::ffi::{c_int, c_long};

/// Number of mimalloc's option `purge_delay`. Source: mimalloc v3 include/mimalloc.h, mi_option_e.
const PURGE_DELAY: c_int = 15;
/// How long memory that was freed is kept before it is given back to the system, in milliseconds. What the flushes free is
/// used again by the next ones; giving it back after a second, as is the default, made every one of them pay for new pages.
const PURGE_DELAY_MS: c_long = 10_000;

/// Sets the allocator's options where the environment does not (`MIMALLOC_PURGE_DELAY`).
#[expect(
    unsafe_code,
    reason = "the allocator's options are set by a C function"
)]
pub(crate) fn configure() {
    unsafe extern "C" {
        fn mi_option_set_default(option: c_int, value: c_long);
    }
    // SAFETY: the function is part of the allocator that this program is linked with, as declared in its header; it takes
    // numbers, stores one of them in a table if the other is in its range, and may be called at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}
