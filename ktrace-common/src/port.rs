//! The set of Kafka ports as a bitmap: the `PORTS` map, one 64-bit word an entry.

/// Words of the bitmap.
pub const PORT_WORDS: u32 = 65536 / 64;

/// Where the bit of `port` is: the word's index and the word with only this bit set.
#[inline(always)]
#[must_use]
pub const fn port_slot(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_its_own_bit() {
        assert_eq!(port_slot(0), (0, 1));
        assert_eq!(port_slot(63), (0, 1 << 63));
        assert_eq!(port_slot(64), (1, 1));
        assert_eq!(port_slot(u16::MAX), (PORT_WORDS - 1, 1 << 63));
    }
}
