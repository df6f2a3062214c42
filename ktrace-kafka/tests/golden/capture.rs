//! A golden capture: the TCP connections of a classic pcap file of Ethernet frames, as tcpdump
//! writes it on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ktrace_kafka::{Direction, Push};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError};

/// A packet of a connection.
#[derive(Clone, Debug)]
pub struct Segment {
    pub direction: Direction,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub bytes: Vec<u8>,
}

impl Segment {
    pub fn push(&self, time_ns: u64) -> Push<'_> {
        let Self { direction, seq, ack, syn, fin, .. } = *self;
        Push {
            direction,
            seq,
            ack,
            syn,
            fin,
            bytes: &self.bytes,
            len: self.bytes.len().try_into().unwrap(),
            time_ns,
        }
    }
}

/// The packets of each connection in their order. All connections begin in the capture.
pub fn connections(file: &Path) -> Vec<Vec<Segment>> {
    let mut reader = LegacyPcapReader::new(1 << 16, std::fs::File::open(file).unwrap()).unwrap();
    let mut places: HashMap<(SocketAddr, SocketAddr), (usize, Direction)> = HashMap::new();
    let mut connections: Vec<Vec<Segment>> = Vec::new();
    loop {
        let consumed = match reader.next() {
            Ok((consumed, PcapBlockOwned::Legacy(packet))) => {
                let (from, to, mut segment) = segment(packet.data);
                if segment.syn && segment.ack.is_none() {
                    places.insert((from, to), (connections.len(), Direction::ToBroker));
                    places.insert((to, from), (connections.len(), Direction::ToClient));
                    connections.push(Vec::new());
                }
                let (place, direction) = places[&(from, to)];
                segment.direction = direction;
                connections[place].push(segment);
                consumed
            }
            Ok((consumed, _)) => consumed,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().unwrap();
                continue;
            }
            Err(PcapError::Eof) => break,
            Err(error) => panic!("{}: {error}", file.display()),
        };
        reader.consume(consumed);
    }
    connections
}

/// The direction is not known yet.
fn segment(frame: &[u8]) -> (SocketAddr, SocketAddr, Segment) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport) else {
        panic!("not TCP over IPv4");
    };
    let from = (ip.header().source_addr(), tcp.source_port()).into();
    let to = (ip.header().destination_addr(), tcp.destination_port()).into();
    let segment = Segment {
        direction: Direction::ToBroker,
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        bytes: tcp.payload().to_vec(),
    };
    (from, to, segment)
}
