//! What memory holds that nothing uses any more. The allocator keeps what is freed for a second, as it is most often wanted
//! again. Where memory is limited it gives it back sooner, and where it is short at once.
#![expect(unsafe_code, reason = "calls of mimalloc")]

use std::ffi::c_long;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc 2 and 3 (`mimalloc.h`): milliseconds until freed memory goes back to the kernel.
const PURGE_DELAY: mi_option_t = 15;
/// mimalloc's own delay.
const USUAL_DELAY_MS: i64 = 1000;
/// Threads that read in turn use the same memory again in this time.
const LIMITED_DELAY_MS: i64 = 50;

static IS_SHORT: AtomicBool = AtomicBool::new(false);
static DELAY_MS: AtomicI64 = AtomicI64::new(USUAL_DELAY_MS);

/// Memory is limited, perhaps to so little that nothing that is freed is kept.
pub fn is_limited(to_little: bool) {
    DELAY_MS.store(if to_little { 0 } else { LIMITED_DELAY_MS }, Ordering::Relaxed);
    set_delay(IS_SHORT.load(Ordering::Relaxed));
}

/// Memory is short, or is not any more. What has been freed before goes back where it has become short.
pub fn is_short(short: bool) {
    if IS_SHORT.load(Ordering::Relaxed) == short || IS_SHORT.swap(short, Ordering::Relaxed) == short {
        return;
    }
    set_delay(short);
    if short {
        give_back();
    }
}

/// Gives back what is free of this thread's and of what threads share.
pub fn give_back() {
    // SAFETY: no pointers; it may be called at any time from any thread.
    unsafe { mi_collect(true) };
}

/// Overwrites what functions that have returned left on the calling thread's stack: small copies of what they read, such as the literals
/// of a compressed batch. So far down as the deepest of them goes.
#[inline(never)]
pub fn overwrite_stack() {
    const BYTES: usize = 64 << 10;
    let mut below = [0_u8; BYTES];
    // Its last use, or the compiler would leave it out.
    std::hint::black_box(&mut below);
}

fn set_delay(short: bool) {
    let delay = if short { 0 } else { DELAY_MS.load(Ordering::Relaxed) };
    // SAFETY: a known option and a value that it takes; the allocator reads it as one word.
    unsafe { mi_option_set(PURGE_DELAY, c_long::from(delay)) };
}
