//! What the kernel side and the agent both read: event layouts, `#[repr(C)]`, without padding.
//!
//! Every record in the ring buffer begins with its [`Kind`] as one byte, so a reader knows the
//! layout from the first byte. Numbers are in the byte order of the machine, addresses in network
//! order as in the packet; IPv4 addresses are written v4-mapped (`::ffff:a.b.c.d`).
#![no_std]

mod counter;
mod event;
mod port;
mod ring;
mod secret;

pub use counter::{Counter, Tally};
pub use event::{Closed, Kind, Owner, SegmentHeader, ends, flags};
pub use port::{PORT_WORDS, port_slot};
pub use ring::{MAX_RINGS, RING_TEMPLATE_BYTES, ring_of};
pub use secret::{KEY_EXPANSION, LABEL_BYTES, Parameter, SECRET_BYTES, SECRETS_RING, Secret, SecretKind};

/// Payload bytes of the size classes that a piece of a packet is copied in. The piece reserves the
/// smallest class that holds it, so it never takes more than twice its size from the ring (and 64
/// bytes at least); longer packets go as several pieces of the largest class. Of Kafka traffic in
/// bulk and in single messages they take 4.4 % more of the ring than the payload has, with the
/// headers; 41 classes would take 3.8 % (`./dev bench classes`, figures in `docs/performance.md`).
pub const CLASSES: [usize; 11] = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// Of a blank record: with the kernel's header before it, half of the smallest ring there is (a
/// page), which two of them would fill.
pub const BLANK_BYTES: usize = 2048 - RECORD_HEADER_BYTES;

/// Bytes that the kernel puts before each record (`BPF_RINGBUF_HDR_SZ`).
pub const RECORD_HEADER_BYTES: usize = 8;

/// Pieces of the largest class that one packet may fill before its last piece. Linux caps a packet
/// (GSO, big TCP) at 8 × 65535 bytes (`GSO_MAX_SIZE` in `include/linux/netdevice.h`), so nothing
/// that Linux sends today is over the limit.
pub const FULL_PIECES: u32 = 8;
