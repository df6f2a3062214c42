//! Sources of Segments: the kernel's cgroup_skb programs, or a capture file. Both give the same
//! [`Event`]s.

mod accepting;
mod attachment;
mod bpf_call;
mod calls;
mod cgroup;
mod clock;
mod connections;
mod counters;
mod directory_watch;
mod epoll;
mod existing;
pub mod file;
mod following;
mod hierarchy;
mod live;
mod netlink;
mod netns;
mod owners;
mod page;
mod pidfd;
mod ports;
mod pre_accept;
pub mod probe;
mod programs;
mod reader;
mod refusals;
mod resolver;
mod ring;
mod scrubber;
mod taken_ports;

use std::net::SocketAddr;
use std::sync::Arc;

use ktrace_kafka::Push;

use crate::privilege;
use crate::process::Process;

pub(crate) use clock::monotonic_ns;
pub(crate) use epoll::{Alarm, Sleeper};
pub(crate) use page::page_size;
pub(crate) use scrubber::Scrubber;

pub use connections::{CAPACITY, KNOWN_BYTES};
pub use ktrace_kafka::Direction;

pub use counters::{Count, CounterReader, Counters};
pub use live::{CaptureError, Live, LiveOptions, RING_BYTES, ring_bounds, ring_size_of};
pub use netns::{NetnsError, NetnsName};
pub use pidfd::{ProcessError, WatchedProcess};
pub use ports::{PortSet, PortsError};
pub use refusals::Refusals;
pub use ring::LEAST_RING_BYTES;
pub use taken_ports::TakenPorts;

/// Names a connection within one source: the kernel's socket cookie, or a running number in a
/// capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// At which end of the connection its bytes were captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// At the client's socket; a capture file, which has no sockets, counts as such too.
    #[default]
    Client,
    /// At the broker's socket.
    Broker,
}

/// The two ends of a connection, v4-mapped IPv6 addresses written as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pub client: SocketAddr,
    pub broker: SocketAddr,
}

/// A run of payload bytes of one direction of one TCP connection, as it passed the socket.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub connection: ConnectionId,
    pub ends: Ends,
    pub side: Side,
    pub rst: bool,
    /// What the parser takes. Its bytes may be none (SYN, FIN, RST), and are fewer than passed the
    /// socket where the copy failed or was cut; its time is the wall clock's, nanoseconds since
    /// 1970.
    pub push: Push<'a>,
}

impl Segment<'_> {
    /// The same with other bytes: what is held keeps them by itself.
    fn with_bytes<'b>(&self, bytes: &'b [u8]) -> Segment<'b> {
        let Self { connection, ends, side, rst, push } = *self;
        let Push { direction, seq, ack, syn, fin, len, time_ns, .. } = push;
        Segment {
            connection,
            ends,
            side,
            rst,
            push: Push { direction, seq, ack, syn, fin, bytes, len, time_ns },
        }
    }
}

/// What a source of Segments reports, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A connection with its ends and its process, once, before its first Segment; again when more
    /// is known of it.
    Opened {
        connection: ConnectionId,
        ends: Ends,
        side: Side,
        /// Of the captured socket.
        owner: Option<Arc<Process>>,
    },
    Segment(Segment<'a>),
    /// The client has closed the socket; segments on their way may still follow.
    Closed {
        connection: ConnectionId,
    },
    /// Nothing more for now; the wall clock moves on (nanoseconds since 1970).
    Tick {
        time_ns: u64,
    },
}
