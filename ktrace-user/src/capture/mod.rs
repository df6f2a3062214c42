//! Sources of Segments: the kernel's cgroup_skb programs, or a capture file. Both give the same [`Event`](crate::seen::Event)s.

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

use crate::privilege;

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
