//! The allocator keeps what is freed for a second, as it is most often wanted again. Where memory is short it gives it back at once.

use std::sync::atomic::{AtomicBool, Ordering};

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc 2 and 3 (`mimalloc.h`): milliseconds until freed memory goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;
/// mimalloc's own delay.
const USUAL_DELAY_MS: std::ffi::c_long = 1000;

static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// Memory is short, or is not any more. What has been freed before goes back where it has become short.
pub fn is_short(short: bool) {
    if IS_SHORT.load(Ordering::Relaxed) == short || IS_SHORT.swap(short, Ordering::Relaxed) == short {
        return;
    }
    let delay = if short { 0 } else { USUAL_DELAY_MS };
    // SAFETY: a known option and a value that it takes; the allocator reads it as one word.
    unsafe { mi_option_set(PURGE_DELAY, delay) };
    if short {
        give_back();
    }
}

/// Gives back what is free of this thread's and of what threads share.
pub fn give_back() {
    // SAFETY: no pointers; it may be called at any time from any thread.
    unsafe { mi_collect(true) };
}
