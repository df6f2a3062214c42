//! Which ring a socket's segments go to.

/// Rings at most.
pub const MAX_RINGS: usize = 32;

/// Bytes of a ring as the object declares it. Rings of any size take its place from Linux 5.10 on,
/// of this size alone before.
pub const RING_TEMPLATE_BYTES: usize = 16 << 20;

/// The ring of a connection, by the ports of its socket, which are known before the socket is;
/// `mask` is the number of rings less one, and that number is a power of two.
#[inline(always)]
#[must_use]
pub const fn ring_of(local_port: u16, remote_port: u16, mask: u32) -> u32 {
    let ports = (local_port as u32) << 16 | remote_port as u32;
    // Ports are given out in order, and often only every second one; the golden ratio spreads them.
    ports.wrapping_mul(0x9e37_79b1) >> 24 & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_spread_over_the_rings() {
        for step in 1..=2 {
            let mut sockets = [0_u32; 8];
            for port in 0..8000 {
                sockets[ring_of(32768 + port * step, 9092, 7) as usize] += 1;
            }
            assert!(sockets.iter().all(|count| (800..1200).contains(count)), "{sockets:?}");
        }
        assert_eq!(ring_of(u16::MAX, u16::MAX, 0), 0);
    }
}
