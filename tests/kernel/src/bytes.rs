//! Known bytes and random choices, both from a seed.

use serde::{Deserialize, Serialize};

/// SplitMix64: small, and good enough that neighbouring seeds give different bytes.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From `least` to `most`.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    /// How much of `left` bytes the next call gets: few, a packet's worth, a buffer's, or up to all
    /// of them.
    pub fn part(&mut self, left: usize) -> usize {
        let most = match self.next() % 4 {
            0 => 16,
            1 => 1500,
            2 => 65_536,
            _ => left,
        };
        self.between(1, most.min(left).max(1)).min(left)
    }
}

/// Bytes that anybody can make who knows the seed. They differ everywhere, so that a piece in the
/// wrong place is noticed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Payload {
    pub seed: u64,
    pub len: usize,
}

impl Payload {
    pub fn bytes(self) -> Vec<u8> {
        let mut random = Random::new(self.seed);
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            bytes.extend(random.next().to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }
}
