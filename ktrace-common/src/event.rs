//! The records of the ring buffer.

#[cfg(feature = "zerocopy")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first byte of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing: it only takes the place of what was read.
    Blank = 0,
    /// [`SegmentHeader`], then the copied payload.
    Segment = 1,
    /// [`Owner`].
    Owner = 2,
    /// [`Closed`].
    Closed = 3,
}

impl Kind {
    /// The kind that `byte` stands for, if any.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Segment),
            2 => Some(Self::Owner),
            3 => Some(Self::Closed),
            _ => None,
        }
    }
}

/// Bits of [`SegmentHeader::flags`].
pub mod flags {
    pub const SYN: u8 = 1 << 0;
    pub const FIN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    /// `ack` is meant.
    pub const ACK: u8 = 1 << 3;
    /// Received by the socket; without it, sent.
    pub const INGRESS: u8 = 1 << 4;
    /// The socket is the broker's end: its *local* port is a Kafka port. Without it, the client's.
    pub const BROKER_END: u8 = 1 << 5;
    /// The cookie is that of the listening socket: these bytes came before the connection had a
    /// socket of its own.
    pub const LISTENING: u8 = 1 << 6;
    /// The agent is woken for it: it begins with a record of application data, and is among the
    /// first of a connection that may be TLS.
    pub const WAKES: u8 = 1 << 7;
}

/// Which ends of connections are captured: bits of the `ENDS` global of the eBPF programs.
pub mod ends {
    /// Sockets whose remote port is a Kafka port.
    pub const CLIENT: u8 = 1 << 0;
    /// Sockets whose local port is a Kafka port.
    pub const BROKER: u8 = 1 << 1;
}

/// A piece of a packet of one connection; `copied` payload bytes follow it, then bytes without
/// meaning to the end of the record.
///
/// A packet longer than the largest size class comes as several pieces, each with its own `seq`.
/// `SYN` is on the first of them, `FIN` and `RST` on the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct SegmentHeader {
    /// [`Kind::Segment`].
    pub kind: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Port of the captured socket.
    pub local_port: u16,
    /// Port of its peer.
    pub remote_port: u16,
    /// Zero.
    pub reserved: u16,
    /// The socket's cookie (`bpf_get_socket_cookie`, the same as sock_diag's).
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Address of the captured socket.
    pub local: [u8; 16],
    /// Address of its peer.
    pub remote: [u8; 16],
    /// Sequence number of the piece's first payload byte (of the SYN itself where `SYN` is set).
    pub seq: u32,
    /// Acknowledgement number, if `ACK` is set.
    pub ack: u32,
    /// Payload bytes of this piece that passed the socket.
    pub len: u32,
    /// Payload bytes that follow: `len`, or 0 where the copy failed.
    pub copied: u32,
}

/// A process has connected a socket that is captured from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Owner {
    /// [`Kind::Owner`].
    pub kind: u8,
    /// The ring that the socket's segments go to, or [`Owner::ANY_RING`].
    pub ring: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Process (thread group) in the initial pid namespace.
    pub pid: u32,
    /// The socket's cookie.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Inode number of the process's cgroup v2 directory.
    pub cgroup_id: u64,
    /// Cookie of the socket's network namespace.
    pub netns_cookie: u64,
    /// The thread's name, ended by a zero byte.
    pub comm: [u8; 16],
}

impl Owner {
    /// The ring is not known yet.
    pub const ANY_RING: u8 = u8::MAX;
}

/// The process has closed a socket that was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Closed {
    /// [`Kind::Closed`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// The socket's cookie.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
}

const _: () = {
    assert!(size_of::<SegmentHeader>() == 72);
    assert!(size_of::<Owner>() == 56);
    assert!(size_of::<Closed>() == 24);
    // The kernel aligns records to 8 bytes, so the payload behind the header is aligned too.
    assert!(size_of::<SegmentHeader>().is_multiple_of(8));
};
