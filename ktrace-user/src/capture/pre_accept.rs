//! Bytes that came before their connection had a socket of its own: payload on the SYN (TCP Fast
//! Open), or on the segment that ends the handshake.
//!
//! The kernel sees them at the listening socket. They are held here until the connection's first
//! piece comes, which has the same two addresses.

use std::collections::HashMap;

use ktrace_common::SegmentHeader;

use super::connections::ends;
use crate::seen::Ends;

/// Connections at once; more are not held, and show as a gap.
const CAPACITY: usize = 1024;
/// Bytes of each: a SYN carries one segment, the handshake's end one window.
const MOST_BYTES: usize = 128 << 10;
/// The rest of a connection follows at once, or never.
const KEPT_NS: u64 = 5_000_000_000;

/// Pieces whose connection has no socket yet, by its ends.
#[derive(Default)]
pub(super) struct PreAccept {
    held: HashMap<Ends, Held>,
}

#[derive(Default)]
struct Held {
    pieces: Vec<(SegmentHeader, Vec<u8>)>,
    bytes: usize,
    time_ns: u64,
}

impl PreAccept {
    /// Keeps a piece that a listening socket got.
    pub(super) fn hold(&mut self, header: SegmentHeader, payload: &[u8]) {
        let ends = ends(&header);
        if self.held.len() >= CAPACITY && !self.held.contains_key(&ends) {
            return;
        }
        let held = self.held.entry(ends).or_default();
        if held.bytes.saturating_add(payload.len()) <= MOST_BYTES {
            held.bytes = held.bytes.saturating_add(payload.len());
            held.time_ns = header.time_ns;
            held.pieces.push((header, payload.to_vec()));
        }
    }

    /// The pieces that came before this one, the first of its socket.
    pub(super) fn of(&mut self, first: &SegmentHeader) -> Vec<(SegmentHeader, Vec<u8>)> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let mut pieces = self.held.remove(&ends(first)).unwrap_or_default().pieces;
        for (header, _) in &mut pieces {
            header.cookie = first.cookie;
        }
        pieces
    }

    /// Forgets those whose rest never came.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.held.retain(|_, held| now_ns.saturating_sub(held.time_ns) < KEPT_NS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cookie: u64, port: u16, time_ns: u64) -> SegmentHeader {
        SegmentHeader { cookie, remote_port: port, time_ns, ..SegmentHeader::default() }
    }

    #[test]
    fn given_to_the_connection_of_the_same_addresses() {
        let mut pre_accept = PreAccept::default();
        pre_accept.hold(header(1, 40000, 5), b"one");
        pre_accept.hold(header(1, 40001, 5), b"two");
        let mine = pre_accept.of(&header(9, 40001, 6));
        assert_eq!(mine, [(header(9, 40001, 5), b"two".to_vec())]);
        assert!(pre_accept.of(&header(9, 40001, 6)).is_empty());
        pre_accept.expire(5 + KEPT_NS);
        assert!(pre_accept.of(&header(8, 40000, 6)).is_empty());
    }

    #[test]
    fn bounded() {
        let mut pre_accept = PreAccept::default();
        for port in 0..2 * CAPACITY as u16 {
            pre_accept.hold(header(1, port, 1), &[0; 100]);
        }
        assert_eq!(pre_accept.held.len(), CAPACITY);
        for _ in 0..100 {
            pre_accept.hold(header(1, 1, 1), &[0; 60_000]);
        }
        assert!(pre_accept.of(&header(2, 1, 1)).len() < 4);
    }
}
