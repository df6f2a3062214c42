//! Which connection a captured packet belongs to, and which way it goes: what the socket says in
//! live capture.

use std::collections::HashMap;

use ktrace_kafka::protocol::RequestHeader;

use super::copies::{Copies, Marks, Twin};
use super::order::Order;
use super::packet::Packet;
use super::take::Waiting;
use crate::capture::PortSet;
use crate::seen::{ConnectionId, Direction, Ends};

/// At most this many connections are remembered at once, so that memory does not grow with the
/// file; those closed or longest silent are forgotten first. A packet of a forgotten one begins a
/// new connection in its middle.
const MAX_CONNECTIONS: usize = 65_536;

/// The connections of a capture file, numbered from 1 in the order of their first packets.
#[derive(Debug)]
pub struct Connections {
    ports: PortSet,
    pub(super) by_ends: HashMap<Ends, Known>,
    last_id: u64,
    pub(super) packets: u64,
    /// Those that others have replaced, or that had to make room, with what they still hold.
    pub(super) gone: Vec<Known>,
    pub(super) copies: Copies,
    pub(super) waiting: Waiting,
}

#[derive(Debug)]
pub(super) struct Known {
    pub id: ConnectionId,
    /// Sequence number of the client's SYN, where the file has it or the answer to it.
    pub client_isn: Option<u32>,
    client_fin: bool,
    broker_fin: bool,
    closed: bool,
    last_packet: u64,
    /// Its first event was given.
    pub opened: bool,
    live: Option<Box<Live>>,
}

/// What is known of a connection while packets of it may be held, or copied.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub order: Order,
    pub marks: Marks,
    pub twin: Twin,
}

impl Known {
    pub fn live(&mut self) -> &mut Live {
        self.live.get_or_insert_default()
    }

    /// Most connections of a file are over: then nothing of that is kept, unless it is needed.
    pub fn rest(&mut self) {
        let is_idle = |live: &mut Box<Live>| live.order.is_empty() && live.twin.is_nothing();
        if self.closed {
            self.live.take_if(is_idle);
        }
    }
}

/// Where a packet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub connection: ConnectionId,
    pub direction: Direction,
    /// An earlier connection of the same ends, still open as far as the file shows, that this one's
    /// SYN ends.
    pub replaces: Option<ConnectionId>,
    pub ends: Ends,
    /// This is the connection's first packet.
    pub opens: bool,
    /// After this packet the connection is closed.
    pub closes: bool,
}

impl Connections {
    /// None yet. Kafka's ports distinguish the ends.
    #[must_use]
    pub fn new(ports: PortSet) -> Self {
        Self {
            ports,
            by_ends: HashMap::new(),
            last_id: 0,
            packets: 0,
            gone: Vec::new(),
            copies: Copies::default(),
            waiting: Waiting::default(),
        }
    }

    /// `None` for packets that have no Kafka port.
    pub(super) fn place(&mut self, packet: &Packet<'_>) -> Option<Placed> {
        self.packets = self.packets.saturating_add(1);
        let (ends, direction) = self.orient(packet)?;
        let syn_isn = match (packet.syn, direction) {
            (true, Direction::ToBroker) => Some(packet.seq),
            (true, Direction::ToClient) => packet.ack.map(|ack| ack.wrapping_sub(1)),
            (false, _) => None,
        };
        let mut replaces = None;
        let known = self.by_ends.get(&ends);
        let new = match (known, syn_isn) {
            (None, _) => true,
            // A SYN seen again is a retransmission; one with another number is a new connection on
            // old ports.
            (Some(known), Some(isn)) if known.client_isn != Some(isn) => {
                replaces = (!known.closed).then_some(known.id);
                true
            }
            (Some(_), _) => false,
        };
        if new {
            self.forget_if_full();
            self.last_id = self.last_id.saturating_add(1);
            let known = Known {
                id: ConnectionId(self.last_id),
                client_isn: syn_isn,
                client_fin: false,
                broker_fin: false,
                closed: false,
                last_packet: self.packets,
                opened: false,
                live: None,
            };
            self.gone.extend(self.by_ends.insert(ends, known));
        }
        let known = self.by_ends.get_mut(&ends)?;
        known.last_packet = self.packets;
        match direction {
            Direction::ToBroker => known.client_fin |= packet.fin,
            Direction::ToClient => known.broker_fin |= packet.fin,
        }
        let over = packet.rst || (known.client_fin && known.broker_fin);
        let closes = over && !known.closed;
        known.closed |= over;
        Some(Placed { connection: known.id, direction, replaces, ends, opens: new, closes })
    }

    /// By port: who listens on a Kafka port is the broker. On other ports, where Kafka is to be
    /// recognised: who opens the connection, or sends what begins with a request, is the client;
    /// whether it speaks Kafka shows later. Where both ends have one: a connection that is known;
    /// else by the SYN; else the broker is the end with the lower port, since ports for clients are
    /// taken from high ranges.
    fn orient(&self, packet: &Packet<'_>) -> Option<(Ends, Direction)> {
        let to_broker = (Ends { client: packet.source, broker: packet.destination }, Direction::ToBroker);
        let to_client = (Ends { client: packet.destination, broker: packet.source }, Direction::ToClient);
        let destination_is_kafka = self.ports.contains(packet.destination.port());
        let source_is_kafka = self.ports.contains(packet.source.port());
        match (source_is_kafka, destination_is_kafka) {
            (false, false) if !self.ports.is_auto() => None,
            (false, false) if packet.syn => Some(if packet.ack.is_some() { to_client } else { to_broker }),
            (false, false) if self.by_ends.contains_key(&to_broker.0) => Some(to_broker),
            (false, false) if self.by_ends.contains_key(&to_client.0) => Some(to_client),
            (false, false) => RequestHeader::is_plausible(packet.payload).then_some(to_broker),
            (false, true) => Some(to_broker),
            (true, false) => Some(to_client),
            (true, true) if packet.syn => Some(if packet.ack.is_some() { to_client } else { to_broker }),
            (true, true) if self.by_ends.contains_key(&to_broker.0) => Some(to_broker),
            (true, true) if self.by_ends.contains_key(&to_client.0) => Some(to_client),
            (true, true) => {
                let lower = packet.source.port() < packet.destination.port();
                Some(if lower { to_client } else { to_broker })
            }
        }
    }

    fn forget_if_full(&mut self) {
        if self.by_ends.len() < MAX_CONNECTIONS {
            return;
        }
        self.gone.extend(self.by_ends.extract_if(|_, known| known.closed).map(|(_, known)| known));
        if self.by_ends.len() < MAX_CONNECTIONS {
            return;
        }
        let mut last: Vec<u64> = self.by_ends.values().map(|known| known.last_packet).collect();
        let half = last.len() / 2;
        let (_, median, _) = last.select_nth_unstable(half);
        let median = *median;
        let silent = self.by_ends.extract_if(|_, known| known.last_packet < median);
        self.gone.extend(silent.map(|(_, known)| known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: u16, destination: u16) -> Packet<'static> {
        Packet {
            source: ([10, 0, 0, 1], source).into(),
            destination: ([10, 0, 0, 2], destination).into(),
            seq: 1,
            ack: Some(1),
            syn: false,
            fin: false,
            rst: false,
            payload: &[],
            len: 0,
        }
    }

    fn answer(packet: Packet<'static>) -> Packet<'static> {
        Packet { source: packet.destination, destination: packet.source, ..packet }
    }

    fn connections() -> Connections {
        Connections::new("9092,9093".parse().unwrap())
    }

    #[test]
    fn the_kafka_port_tells_the_direction() {
        let mut connections = connections();
        let request = packet(40000, 9092);
        let first = connections.place(&request).unwrap();
        assert_eq!((first.connection, first.direction), (ConnectionId(1), Direction::ToBroker));
        assert!(first.opens);
        let second = connections.place(&answer(request)).unwrap();
        assert_eq!((second.connection, second.direction), (ConnectionId(1), Direction::ToClient));
        assert!(!second.opens);
        assert_eq!(connections.place(&packet(1, 2)), None);
    }

    #[test]
    fn two_kafka_ports_are_told_apart_by_the_syn_or_the_lower_port() {
        let mut connections = connections();
        let syn = Packet { syn: true, ack: None, ..packet(9092, 9093) };
        assert_eq!(connections.place(&syn).unwrap().direction, Direction::ToBroker);
        assert_eq!(connections.place(&packet(9092, 9093)).unwrap().direction, Direction::ToBroker);
        let mut connections = self::connections();
        assert_eq!(connections.place(&packet(9092, 9093)).unwrap().direction, Direction::ToClient);
    }

    #[test]
    fn a_syn_with_another_number_begins_a_new_connection() {
        let mut connections = connections();
        let syn = Packet { syn: true, ack: None, seq: 100, ..packet(40000, 9092) };
        assert_eq!(connections.place(&syn).unwrap().connection, ConnectionId(1));
        let syn_ack = Packet { syn: true, ack: Some(101), seq: 900, ..answer(syn) };
        assert_eq!(connections.place(&syn_ack).unwrap().connection, ConnectionId(1));
        assert_eq!(connections.place(&syn).unwrap().connection, ConnectionId(1));
        let again = connections.place(&Packet { seq: 500, ..syn }).unwrap();
        assert_eq!((again.connection, again.replaces), (ConnectionId(2), Some(ConnectionId(1))));
    }

    #[test]
    fn the_opener_or_the_sender_of_a_request_is_the_client() {
        let mut connections = Connections::new(PortSet::default());
        let syn = Packet { syn: true, ack: None, ..packet(40000, 29092) };
        assert_eq!(connections.place(&syn).unwrap().direction, Direction::ToBroker);
        assert_eq!(connections.place(&answer(packet(40000, 29092))).unwrap().direction, Direction::ToClient);
        let later = packet(40001, 29092);
        assert_eq!(connections.place(&later), None, "nothing tells");
        let request = b"\0\0\0\x10\0\x12\0\x03\0\0\0\x01\0\x02me\0\0\0\0";
        let placed = connections.place(&Packet { payload: request, len: 20, ..later }).unwrap();
        assert_eq!((placed.connection, placed.direction), (ConnectionId(2), Direction::ToBroker));
        assert_eq!(connections.place(&answer(later)).unwrap().direction, Direction::ToClient);
    }

    #[test]
    fn both_fins_or_a_reset_close_once() {
        let mut connections = connections();
        let fin = Packet { fin: true, ..packet(40000, 9092) };
        assert!(!connections.place(&fin).unwrap().closes);
        assert!(connections.place(&answer(fin)).unwrap().closes);
        assert!(!connections.place(&answer(fin)).unwrap().closes);
        let syn = Packet { syn: true, ack: None, ..packet(40000, 9092) };
        let next = connections.place(&syn).unwrap();
        assert_eq!((next.connection, next.replaces), (ConnectionId(2), None));
    }

    #[test]
    fn memory_is_bounded() {
        let mut connections = connections();
        for number in 0..=u32::try_from(MAX_CONNECTIONS).unwrap() {
            let client = (std::net::Ipv4Addr::from(number), 40000).into();
            connections.place(&Packet { source: client, ..packet(40000, 9092) });
        }
        assert!(connections.by_ends.len() <= MAX_CONNECTIONS / 2 + 1);
    }
}
