//! What a source has seen: connections with the processes at their ends, and the segments that pass
//! between them. Plain data: a live capture and a capture file make it, the worker takes it.

use std::net::SocketAddr;
use std::sync::Arc;

pub use ktrace_kafka::Direction;
use ktrace_kafka::Push;

use crate::span::Resource;

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
    pub(crate) fn with_bytes<'b>(&self, bytes: &'b [u8]) -> Segment<'b> {
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

/// What a source yields, in the order in which it happened.
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

/// A traced process, read once at first sight.
#[derive(Debug, Default)]
pub struct Process {
    /// In the initial pid namespace; 0 where it is not known (capture files).
    pub pid: u32,
    /// When it was started, in clock ticks since boot (`/proc/PID/stat`, field 22): another process
    /// with the same number has another. 0 where it had ended before it was read.
    pub start_time: u64,
    /// Whether it is below one of the cgroups that `--tls-cgroup` names. Without any, `false`.
    pub is_in_tls_cgroup: bool,
    /// What its spans say of it: `service.name`, `process.*`, `container.id`, `host.name`.
    pub resource: Arc<Resource>,
}
