//! Every cut: wherever the bytes of a conversation are cut, and in whatever pieces they then come, the same is told.
//!
//! The conversation is cut at one byte, and what stands around the cut (the run of bytes of one direction that it falls
//! into, and the run that answers it) is read in each of the patterns; the rest comes in whole runs. That keeps a case
//! cheap. A stride through the bytes is tried always, every byte with `KTRACE_FULL=1`.

use ktrace_kafka::{Direction, Push};

use crate::capture::Segment;
use crate::told::{Text, tell};
use crate::{Golden, goldens};

/// A prime, so that it falls into step with no structure.
const STRIDE: usize = 61;

/// A memory page: what a read with a small buffer gives.
const PAGE: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Whole,
    /// Close to the cut: the rest of the run is the same wherever the cut is.
    Bytes,
    /// The size prefix, then what it announces.
    FourThenRest,
    Halves,
    Pages,
    Random,
}

const PATTERNS: [Pattern; 6] = [
    Pattern::Whole,
    Pattern::Bytes,
    Pattern::FourThenRest,
    Pattern::Halves,
    Pattern::Pages,
    Pattern::Random,
];

impl Pattern {
    /// The length of the next piece of a run that has `left` bytes, of which `taken` were given; `to_cut` is how far the
    /// cut is from here, on either side.
    fn next(self, taken: usize, left: usize, to_cut: usize, random: &mut u64) -> usize {
        const NEAR: usize = 16;
        let len = match self {
            Self::Whole => left,
            Self::Bytes if to_cut > NEAR => to_cut - NEAR,
            Self::Bytes => 1,
            Self::FourThenRest if taken == 0 => 4,
            Self::FourThenRest => left,
            Self::Halves if taken == 0 => left / 2,
            Self::Halves => left,
            Self::Pages => PAGE,
            Self::Random => {
                // xorshift
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                (*random % 64) as usize
            }
        };
        len.clamp(1, left)
    }
}
