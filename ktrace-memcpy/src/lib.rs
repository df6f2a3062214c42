//! Copying of bytes for static binaries, in place of musl's.
//!
//! musl's `memcpy` takes 10 to 35 ns for what is shorter than 256 bytes, five times as long as it
//! must (<https://git.musl-libc.org/cgit/musl/tree/src/string/x86_64/memcpy.s>); a program that
//! mostly copies short runs, as one that reads records and writes spans does, spends its time
//! there. Long copies go as musl does them.
//!
//! With the feature `export`, an optimised build for x86-64 and musl defines `memcpy` and `memmove`
//! themselves. Nowhere else: that is where it was measured, and glibc's are as fast. `cargo bench
//! -p ktrace-memcpy` compares, best with `--target x86_64-unknown-linux-musl`.
#![cfg(target_arch = "x86_64")]
#![no_std]
// Else the compiler might make a loop that copies into a call of `memcpy`: itself.
#![no_builtins]

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
use core::ffi::c_void;

/// From here on the processor's own copying is faster than a loop.
const LONG: usize = 2048;

/// C's symbols. Unoptimised, they would be made of calls to themselves.
#[cfg(all(feature = "export", target_env = "musl", not(debug_assertions)))]
mod symbols {
    use super::c_void;

    /// # Safety
    /// See [`copy`](super::copy).
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        // SAFETY: the caller's promise.
        unsafe { super::copy(to, from, len) }
    }

    /// # Safety
    /// See [`copy_within`](super::copy_within).
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        // SAFETY: the caller's promise.
        unsafe { super::copy_within(to, from, len) }
    }
}

/// C's `memcpy`: copies `len` bytes that do not overlap, and returns `to`.
///
/// # Safety
/// `from` can be read and `to` written for `len` bytes, and they do not overlap.
pub unsafe fn copy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
    let (into, from) = (to.cast(), from.cast());
    // SAFETY: what the caller promises.
    unsafe {
        match len {
            0..=128 => short(into, from, len),
            129..LONG => forwards(into, from, len),
            _ => long(into, from, len),
        }
    }
    to
}

/// C's `memmove`: copies `len` bytes that may overlap, and returns `to`.
///
/// # Safety
/// `from` can be read and `to` written for `len` bytes.
pub unsafe fn copy_within(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
    let (into, from): (*mut u8, *const u8) = (to.cast(), from.cast());
    let ahead = to.addr().wrapping_sub(from.addr());
    // SAFETY: what the caller promises; a copy from the first byte to the last reads no byte that
    // it has written unless `to` begins within `from`, and `long` is for what does not overlap at
    // all.
    unsafe {
        match len {
            0..=128 => short(into, from, len),
            _ if ahead < len => backwards(into, from, len),
            129..LONG => forwards(into, from, len),
            _ if ahead.wrapping_neg() < len => forwards(into, from, len),
            _ => long(into, from, len),
        }
    }
    to
}

/// As many as the largest registers take, at once.
type Block = [__m128i; 4];
const BLOCK: usize = size_of::<Block>();

/// # Safety
/// 64 bytes can be read.
#[inline(always)]
unsafe fn load(from: *const u8) -> Block {
    let from = from.cast::<__m128i>();
    // SAFETY: within the 64 bytes of the caller; the intrinsic wants no alignment.
    unsafe {
        [
            _mm_loadu_si128(from),
            _mm_loadu_si128(from.add(1)),
            _mm_loadu_si128(from.add(2)),
            _mm_loadu_si128(from.add(3)),
        ]
    }
}

/// # Safety
/// 64 bytes can be written.
#[inline(always)]
unsafe fn store(to: *mut u8, [a, b, c, d]: Block) {
    let to = to.cast::<__m128i>();
    // SAFETY: within the 64 bytes of the caller; the intrinsic wants no alignment.
    unsafe {
        _mm_storeu_si128(to, a);
        _mm_storeu_si128(to.add(1), b);
        _mm_storeu_si128(to.add(2), c);
        _mm_storeu_si128(to.add(3), d);
    }
}

/// Both ends, which meet or overlap in the middle: read before anything is written.
///
/// # Safety
/// `len` bytes can be read and written, and are one to two `T`s.
#[inline(always)]
unsafe fn ends<T: Copy>(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: `len` is at least a `T`'s, so both lie within.
    unsafe {
        let last = len - size_of::<T>();
        let (a, b) = (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
        to.cast::<T>().write_unaligned(a);
        to.add(last).cast::<T>().write_unaligned(b);
    }
}

/// # Safety
/// Up to 128 bytes can be read and written.
#[inline(always)]
unsafe fn short(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: each arm's type is at most `len` long, and twice it at least `len`.
    unsafe {
        match len {
            0 => {}
            1 => *to = *from,
            2..=4 => ends::<u16>(to, from, len),
            5..=8 => ends::<u32>(to, from, len),
            9..=16 => ends::<u64>(to, from, len),
            17..=32 => ends::<__m128i>(to, from, len),
            33..=64 => ends::<[__m128i; 2]>(to, from, len),
            _ => {
                let (a, b) = (load(from), load(from.add(len - BLOCK)));
                store(to, a);
                store(to.add(len - BLOCK), b);
            }
        }
    }
}

/// # Safety
/// More than 64 bytes can be read and written, and `to` does not begin within `from`.
#[inline(always)]
unsafe fn forwards(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: blocks begin at least a block before the end; the last is read before anything is
    // written.
    unsafe {
        let end = len - BLOCK;
        let last = load(from.add(end));
        let mut at = 0;
        while at < end {
            store(to.add(at), load(from.add(at)));
            at += BLOCK;
        }
        store(to.add(end), last);
    }
}

/// # Safety
/// More than 64 bytes can be read and written, and `from` does not begin within `to`, or they are
/// the same.
#[inline(always)]
unsafe fn backwards(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: blocks end at least a block behind the beginning; the first is read before anything
    // is written.
    unsafe {
        let first = load(from);
        let mut end = len;
        while end > BLOCK {
            store(to.add(end - BLOCK), load(from.add(end - BLOCK)));
            end -= BLOCK;
        }
        store(to, first);
    }
}

/// # Safety
/// At least 64 bytes can be read and written, and do not overlap.
#[inline(always)]
unsafe fn long(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the first 16 bytes, then words from the first aligned place behind `to` on, then the
    // last 16 bytes: all within `len`. The direction flag is clear by the calling convention.
    unsafe {
        let (head, tail) = (_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(len - 16).cast()));
        let skip = 16 - to.addr() % 16;
        asm!(
            "rep movsq",
            inout("rcx") (len - skip) / 8 => _,
            inout("rdi") to.add(skip) => _,
            inout("rsi") from.add(skip) => _,
            options(nostack, preserves_flags),
        );
        _mm_storeu_si128(to.cast(), head);
        _mm_storeu_si128(to.add(len - 16).cast(), tail);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    const LENS: [usize; 26] = [
        0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193, 2047, 2048,
        5001,
    ];

    fn numbered(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn what_is_copied_is_the_same_and_nothing_beside_it() {
        for len in LENS.into_iter().chain(0..300) {
            for (skew, from_skew) in [(0, 0), (1, 0), (0, 3), (9, 5), (15, 1)] {
                let (from, mut to) = (numbered(len + 64), vec![0xee; len + 64]);
                let mut expected = to.clone();
                expected[16 + skew..][..len].copy_from_slice(&from[from_skew..][..len]);
                // SAFETY: both are longer than the skew and `len`.
                unsafe { copy(to[16 + skew..].as_mut_ptr().cast(), from[from_skew..].as_ptr().cast(), len) };
                assert!(to == expected, "{len} {skew} {from_skew}");
            }
        }
    }

    #[test]
    fn what_overlaps_is_moved() {
        for len in LENS {
            for (from, to) in
                [(0, 1), (1, 0), (40, 40), (0, 63), (63, 0), (100, 10), (10, 100), (0, 200), (2500, 0)]
            {
                let mut bytes = numbered(len + 3000);
                let mut expected = bytes.clone();
                expected.copy_within(from..from + len, to);
                let start = bytes.as_mut_ptr();
                // SAFETY: both ends lie within `bytes`.
                unsafe { copy_within(start.add(to).cast(), start.add(from).cast(), len) };
                assert!(bytes == expected, "{len} from {from} to {to}");
            }
        }
    }
}
