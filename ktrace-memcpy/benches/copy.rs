//! Nanoseconds a copy takes: this crate's and the C library's, for the lengths of keys, spans,
//! records and buffers.
//!
//! No assertion: what a processor takes is its own, and this one may be busy elsewhere. `--test`,
//! which `cargo test --benches` passes, runs each once.

#[cfg(target_arch = "x86_64")]
use std::hint::black_box;
#[cfg(target_arch = "x86_64")]
use std::time::Instant;

/// The shortest round counts: what else runs can only make one longer.
#[cfg(target_arch = "x86_64")]
const ROUNDS: u32 = 20;

#[cfg(target_arch = "x86_64")]
fn main() {
    const LENGTHS: [usize; 12] = [1, 7, 16, 24, 36, 64, 100, 200, 500, 1500, 4096, 65_536];
    let is_test = std::env::args().any(|arg| arg == "--test");
    println!("{:>8}  {:>12}  {:>12}", "bytes", "this, ns", "libc, ns");
    for len in LENGTHS {
        let times = if is_test { 1 } else { 20_000_000 / (len + 100) };
        let own = shortest(len, times, |to, from, len| {
            // SAFETY: both slices have `len` bytes, and are two.
            unsafe { ktrace_memcpy::copy(to.as_mut_ptr().cast(), from.as_ptr().cast(), len) };
        });
        // Its length is not known to the compiler, so that this is a call of the C library.
        let libc = shortest(len, times, |to, from, len| to[..len].copy_from_slice(&from[..len]));
        println!("{len:>8}  {own:>12.2}  {libc:>12.2}");
    }
}

/// Nanoseconds of one copy.
#[cfg(target_arch = "x86_64")]
fn shortest(len: usize, times: usize, mut copy: impl FnMut(&mut [u8], &[u8], usize)) -> f64 {
    let (mut to, from) = (vec![0_u8; len], vec![7_u8; len]);
    let rounds = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        for _ in 0..times {
            copy(black_box(&mut to), black_box(&from), black_box(len));
        }
        begin.elapsed().as_nanos() as f64 / times as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {}
