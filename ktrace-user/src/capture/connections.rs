//! Which connections have been reported, so that each is opened once, before its first Segment, and
//! again when its process becomes known.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ktrace_common::{SegmentHeader, flags};

use crate::seen::{ConnectionId, Direction, Ends, Event, Process, Side};

/// Connections remembered at a time unless memory is limited: twice as many sockets as the kernel
/// side tracks.
pub const CAPACITY: usize = 131_072;
/// What one takes, with its place in a table that is half full.
pub const KNOWN_BYTES: usize = 2 * (size_of::<(u64, Connection)>() + 1);
/// How long the last segments of a closed socket may take: as long as Linux keeps an orphaned one
/// in FIN-WAIT-2 (`tcp_fin_timeout`, 60 s).
const LINGER_NS: u64 = 60_000_000_000;
/// A connection that was silent for so long is forgotten when there is no room; should it speak
/// again, it is opened again.
const SILENT_NS: u64 = 600_000_000_000;

/// The connections of one source.
pub(super) struct Connections {
    known: HashMap<u64, Connection>,
    /// At most this many are remembered at a time.
    capacity: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

#[derive(Default)]
struct Connection {
    /// Known from the first segment on.
    ends: Option<(Ends, Side)>,
    /// Kernel time of the first segment.
    opened_ns: u64,
    owner: Option<Arc<Process>>,
    closed: bool,
    /// It belongs to a process that is not watched.
    refused: bool,
    /// Kernel time of what was last heard of it.
    last_ns: u64,
}

impl Connections {
    /// No more than `capacity` are remembered at a time.
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), capacity: capacity.clamp(64, CAPACITY) }
    }

    /// A process connects the socket, or was found to hold it. Gives `Opened` if that was reported
    /// before without this process.
    pub(super) fn owned(&mut self, cookie: u64, owner: Arc<Process>, now_ns: u64) -> Option<Event<'static>> {
        let connection = self.entry(cookie, now_ns);
        let known = connection.owner.replace(Arc::clone(&owner));
        let (ends, side) = connection.ends?;
        let same = known.is_some_and(|known| Arc::ptr_eq(&known, &owner));
        (!same).then_some(Event::Opened { connection: ConnectionId(cookie), ends, side, owner: Some(owner) })
    }

    /// A process has connected the socket at `time_ns`. Gives `Opened` if its first segment was
    /// faster than this word of it.
    pub(super) fn connecting(
        &mut self,
        cookie: u64,
        owner: Arc<Process>,
        time_ns: u64,
    ) -> Option<Event<'static>> {
        let connection = self.entry(cookie, time_ns);
        if connection.ends.is_some() && connection.opened_ns >= time_ns {
            return self.owned(cookie, owner, time_ns);
        }
        // New, or it failed to connect before and now goes elsewhere.
        *connection = Connection { owner: Some(owner), last_ns: time_ns, ..Connection::default() };
        None
    }

    /// A segment passes. Gives `Opened` if it is the connection's first, with the owner if it is
    /// known.
    pub(super) fn passes(&mut self, header: &SegmentHeader) -> Option<Event<'static>> {
        let connection = self.entry(header.cookie, header.time_ns);
        if connection.ends.is_some() {
            return None;
        }
        let (ends, side) = (ends(header), side(header));
        connection.ends = Some((ends, side));
        connection.opened_ns = header.time_ns;
        let owner = connection.owner.clone();
        Some(Event::Opened { connection: ConnectionId(header.cookie), ends, side, owner })
    }

    /// The socket is closed. Gives `Closed` if the connection was opened.
    pub(super) fn closed(&mut self, cookie: u64, now_ns: u64) -> Option<Event<'static>> {
        let connection = self.known.get_mut(&cookie)?;
        connection.last_ns = now_ns;
        let first = !std::mem::replace(&mut connection.closed, true);
        (first && connection.ends.is_some()).then_some(Event::Closed { connection: ConnectionId(cookie) })
    }

    /// Reports nothing more of a connection.
    pub(super) fn refuse(&mut self, cookie: u64) {
        if let Some(connection) = self.known.get_mut(&cookie) {
            connection.refused = true;
        }
    }

    /// Whether nothing is reported of it.
    pub(super) fn is_refused(&self, cookie: u64) -> bool {
        self.known.get(&cookie).is_some_and(|connection| connection.refused)
    }

    /// Whether the process is not known.
    pub(super) fn lacks_owner(&self, cookie: u64) -> bool {
        self.known.get(&cookie).is_none_or(|connection| connection.owner.is_none() && !connection.closed)
    }

    /// Forgets closed connections whose last segments have had their time.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.known.retain(|_, connection| {
            !connection.closed || now_ns.saturating_sub(connection.last_ns) < LINGER_NS
        });
    }

    fn entry(&mut self, cookie: u64, now_ns: u64) -> &mut Connection {
        if self.known.len() >= self.capacity && !self.known.contains_key(&cookie) {
            self.make_room(now_ns);
        }
        let connection = self.known.entry(cookie).or_default();
        connection.last_ns = connection.last_ns.max(now_ns);
        connection
    }

    fn make_room(&mut self, now_ns: u64) {
        self.known.retain(|_, connection| {
            !connection.closed && now_ns.saturating_sub(connection.last_ns) < SILENT_NS
        });
        if self.known.len() >= self.capacity {
            // All of them speak: forget the half that spoke least recently. They are opened again
            // when they speak.
            let mut times: Vec<u64> = self.known.values().map(|connection| connection.last_ns).collect();
            let (_, &mut median, _) = times.select_nth_unstable(self.capacity / 2);
            self.known.retain(|_, connection| connection.last_ns > median);
        }
    }
}

/// The two ends, by role.
pub(super) fn ends(header: &SegmentHeader) -> Ends {
    let local = address(header.local, header.local_port);
    let remote = address(header.remote, header.remote_port);
    match side(header) {
        Side::Client => Ends { client: local, broker: remote },
        Side::Broker => Ends { client: remote, broker: local },
    }
}

/// Whose socket it was.
pub(super) fn side(header: &SegmentHeader) -> Side {
    if header.flags & flags::BROKER_END == 0 { Side::Client } else { Side::Broker }
}

/// Which way the bytes go, by role.
pub(super) fn direction(header: &SegmentHeader) -> Direction {
    let sent = header.flags & flags::INGRESS == 0;
    let by_client = side(header) == Side::Client;
    if sent == by_client { Direction::ToBroker } else { Direction::ToClient }
}

/// An address as the programs and the kernel write it, v4-mapped ones as IPv4.
pub(super) fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Resource;

    fn process(pid: u32) -> Arc<Process> {
        Arc::new(Process { pid, resource: Arc::new(Resource::default()), ..Process::default() })
    }

    fn header(cookie: u64, bits: u8) -> SegmentHeader {
        SegmentHeader {
            cookie,
            flags: bits,
            local: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
            remote: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            local_port: 40000,
            remote_port: 9092,
            time_ns: 1,
            ..Default::default()
        }
    }

    #[test]
    fn roles_follow_from_end_and_way() {
        assert_eq!(direction(&header(1, 0)), Direction::ToBroker);
        assert_eq!(direction(&header(1, flags::INGRESS)), Direction::ToClient);
        assert_eq!(direction(&header(1, flags::BROKER_END)), Direction::ToClient);
        assert_eq!(direction(&header(1, flags::BROKER_END | flags::INGRESS)), Direction::ToBroker);
        let client_end = ends(&header(1, 0));
        assert_eq!(client_end.client, "10.0.0.1:40000".parse().unwrap());
        assert_eq!(client_end.broker, "[fd00::2]:9092".parse().unwrap());
        assert_eq!(ends(&header(1, flags::BROKER_END)).broker, client_end.client);
        assert_eq!((side(&header(1, 0)), side(&header(1, flags::BROKER_END))), (Side::Client, Side::Broker));
    }

    #[test]
    fn opened_once_with_its_owner() {
        let mut connections = Connections::default();
        connections.connecting(5, process(7), 1);
        let opened = connections.passes(&header(5, 0));
        assert!(
            matches!(opened, Some(Event::Opened { connection: ConnectionId(5), owner: Some(owner), .. }) if owner.pid == 7)
        );
        assert!(connections.passes(&header(5, 0)).is_none());
        assert!(!connections.lacks_owner(5));
    }

    #[test]
    fn opened_again_when_the_owner_is_found() {
        let mut connections = Connections::default();
        assert!(matches!(connections.passes(&header(5, 0)), Some(Event::Opened { owner: None, .. })));
        assert!(connections.lacks_owner(5));
        let found = process(8);
        assert!(matches!(
            connections.owned(5, Arc::clone(&found), 2),
            Some(Event::Opened { owner: Some(_), .. })
        ));
        assert!(connections.owned(5, found, 3).is_none());
        // One that has not spoken yet is opened by its first segment.
        assert!(connections.owned(6, process(9), 3).is_none());
        assert!(matches!(connections.passes(&header(6, 0)), Some(Event::Opened { owner: Some(_), .. })));
    }

    #[test]
    fn word_of_the_owner_may_come_late() {
        let mut connections = Connections::default();
        connections.passes(&SegmentHeader { time_ns: 10, ..header(5, flags::SYN) });
        connections.closed(5, 11);
        assert!(matches!(
            connections.connecting(5, process(7), 9),
            Some(Event::Opened { owner: Some(_), .. })
        ));
        assert!(connections.passes(&header(5, 0)).is_none());
    }

    #[test]
    fn closed_once_and_not_reopened_by_stragglers() {
        let mut connections = Connections::default();
        assert!(connections.closed(5, 1).is_none());
        connections.passes(&header(5, 0));
        assert!(matches!(connections.closed(5, 2), Some(Event::Closed { connection: ConnectionId(5) })));
        assert!(connections.closed(5, 2).is_none());
        assert!(connections.passes(&header(5, flags::FIN)).is_none());
        connections.expire(2 + LINGER_NS);
        assert!(connections.known.is_empty());
    }

    #[test]
    fn a_socket_that_connects_again_is_opened_again() {
        let mut connections = Connections::default();
        connections.connecting(5, process(7), 1);
        connections.passes(&header(5, flags::SYN));
        connections.connecting(5, process(7), 2);
        assert!(connections.passes(&header(5, flags::SYN)).is_some());
    }

    #[test]
    fn bounded() {
        let mut connections = Connections::default();
        for cookie in 0..CAPACITY as u64 + 10 {
            connections.passes(&SegmentHeader { time_ns: cookie, ..header(cookie, 0) });
        }
        assert!(connections.known.len() <= CAPACITY);
        assert!(connections.known.contains_key(&(CAPACITY as u64 + 9)));
    }
}
