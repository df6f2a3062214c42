//! One captured packet: from the link layer down to the TCP payload, as slices of the file's
//! buffer.

use std::net::SocketAddr;

use etherparse::{IpNumber, LaxIpSlice, LenSource, TcpSlice};
use pcap_parser::Linktype;

/// A TCP packet; `payload` borrows from the capture file's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    /// Payload bytes that are in the file.
    pub payload: &'a [u8],
    /// Payload bytes that were on the wire.
    pub len: u32,
}

/// Why a packet gives no TCP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// ARP, UDP and the like.
    NotTcp,
    /// A part of a fragmented IP packet. Fragments are not put together: hosts avoid them for TCP.
    Fragment,
    /// The capture's snapshot length has cut off headers, or headers contradict themselves.
    Headers,
    /// A link type that is not read here.
    LinkType,
    /// A packet inside another one, or encrypted.
    Tunnel,
}

/// Reads one packet of a capture file. `original` is its length on the wire, `data` what was
/// captured of it.
pub(super) fn parse(link: Linktype, data: &[u8], original: usize) -> Result<Packet<'_>, Skipped> {
    let ip = strip_link(link, data)?;
    let cut_off = original.saturating_sub(data.len());
    let (slice, stopped) = LaxIpSlice::from_slice(ip).map_err(|_| Skipped::Headers)?;
    let payload = slice.payload();
    if payload.fragmented {
        return Err(Skipped::Fragment);
    }
    if payload.ip_number != IpNumber::TCP {
        return Err(match payload.ip_number {
            _ if stopped.is_some() => Skipped::Headers,
            IpNumber::IPV4 | IpNumber::IPV6 | IpNumber::GRE | IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => {
                Skipped::Tunnel
            }
            IpNumber::UDP if be16(payload.payload, 2).is_some_and(is_tunnel) => Skipped::Tunnel,
            _ => Skipped::NotTcp,
        });
    }
    let tcp = TcpSlice::from_slice(payload.payload).map_err(|_| Skipped::Headers)?;
    // A length of zero is how segmentation offload shows packets above 64 KiB: then the packet
    // fills the frame.
    let missing = if payload.incomplete {
        claimed_len(&slice).saturating_sub(ip.len())
    } else if payload.len_source == LenSource::Slice {
        cut_off
    } else {
        0
    };
    Ok(Packet {
        source: SocketAddr::new(slice.source_addr().to_canonical(), tcp.source_port()),
        destination: SocketAddr::new(slice.destination_addr().to_canonical(), tcp.destination_port()),
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload: tcp.payload(),
        len: u32::try_from(tcp.payload().len().saturating_add(missing)).unwrap_or(u32::MAX),
    })
}

/// UDP ports to which packets go in others: VXLAN (and Linux's port for it), Geneve.
fn is_tunnel(port: u16) -> bool {
    matches!(port, 4789 | 8472 | 6081)
}

/// The number of a link type, with its name where it has one here.
pub(super) fn link_name(link: Linktype) -> String {
    let number = link.0;
    let name = match number {
        9 => "PPP",
        105 => "IEEE802_11",
        127 => "IEEE802_11_RADIOTAP",
        147..=162 => "USER",
        189 | 220 => "USB_LINUX",
        239 => "NFLOG",
        249 => "USBPCAP",
        258 => "PKTAP",
        _ => return number.to_string(),
    };
    format!("{number} ({name})")
}

/// The IP packet's length with its header, as the header says it.
fn claimed_len(ip: &LaxIpSlice<'_>) -> usize {
    match ip {
        LaxIpSlice::Ipv4(v4) => usize::from(v4.header().total_len()),
        LaxIpSlice::Ipv6(v6) => etherparse::Ipv6Header::LEN + usize::from(v6.header().payload_length()),
    }
}

/// The IP packet within a frame of `link` (<https://www.tcpdump.org/linktypes.html>).
fn strip_link(link: Linktype, frame: &[u8]) -> Result<&[u8], Skipped> {
    match link {
        Linktype::ETHERNET => by_ether_type(frame, 12, 14),
        Linktype::LINUX_SLL => by_ether_type(frame, 14, 16),
        Linktype::LINUX_SLL2 => by_ether_type(frame, 0, 20),
        // Four bytes name the address family, in the byte order of the capturing host; the IP
        // version says the same.
        Linktype::NULL | Linktype::LOOP => frame.get(4..).ok_or(Skipped::Headers),
        // 12 and 14 are what RAW is called by captures of some BSDs.
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12 | 14) => Ok(frame),
        _ => Err(Skipped::LinkType),
    }
}

/// Follows VLAN tags from the ether type at `at`; the payload without tags begins at `payload`.
fn by_ether_type(frame: &[u8], at: usize, payload: usize) -> Result<&[u8], Skipped> {
    const TAG: usize = 4;
    let mut ether_type = be16(frame, at).ok_or(Skipped::Headers)?;
    let mut rest = frame.get(payload..).ok_or(Skipped::Headers)?;
    loop {
        match ether_type {
            0x0800 | 0x86dd => return Ok(rest),
            0x8100 | 0x88a8 | 0x9100 => {
                ether_type = be16(rest, 2).ok_or(Skipped::Headers)?;
                rest = rest.get(TAG..).ok_or(Skipped::Headers)?;
            }
            // MPLS, PPPoE.
            0x8847 | 0x8848 | 0x8864 => return Err(Skipped::Tunnel),
            _ => return Err(Skipped::NotTcp),
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|pair| u16::from_be_bytes(*pair))
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, VlanId};

    use super::*;

    fn ipv4(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40000, 9092, 7, 1000)
            .ack(9)
            .write(&mut out, payload)
            .unwrap();
        out
    }

    #[test]
    fn every_link_type_leads_to_the_same_payload() {
        let ip = ipv4(b"hello");
        let framed = |prefix: &[u8]| [prefix, &ip].concat();
        let mut ethernet = vec![0; 12];
        ethernet.extend([0x08, 0x00]);
        let mut tagged = vec![0; 12];
        tagged.extend([0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 0x08, 0x00]);
        let mut sll = vec![0; 14];
        sll.extend([0x08, 0x00]);
        let mut sll2 = vec![0x08, 0x00];
        sll2.extend([0; 18]);
        for (link, frame) in [
            (Linktype::ETHERNET, framed(&ethernet)),
            (Linktype::ETHERNET, framed(&tagged)),
            (Linktype::LINUX_SLL, framed(&sll)),
            (Linktype::LINUX_SLL2, framed(&sll2)),
            (Linktype::NULL, framed(&[2, 0, 0, 0])),
            (Linktype::LOOP, framed(&[0, 0, 0, 2])),
            (Linktype::RAW, ip.clone()),
            (Linktype::IPV4, ip.clone()),
        ] {
            let packet = parse(link, &frame, frame.len()).unwrap();
            assert_eq!((packet.payload, packet.len, packet.seq, packet.ack), (&b"hello"[..], 5, 7, Some(9)));
            assert_eq!(packet.destination, "10.0.0.2:9092".parse().unwrap());
        }
        assert_eq!(parse(Linktype(105), &ip, ip.len()), Err(Skipped::LinkType));
    }

    #[test]
    fn ethernet_padding_is_no_payload() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(ipv4(b""));
        frame.resize(60, 0);
        let packet = parse(Linktype::ETHERNET, &frame, 60).unwrap();
        assert_eq!((packet.payload, packet.len), (&b""[..], 0));
    }

    #[test]
    fn snapshot_length_cuts_the_payload_but_not_its_length() {
        let ip = ipv4(&[1; 100]);
        let packet = parse(Linktype::RAW, &ip[..60], ip.len()).unwrap();
        assert_eq!((packet.payload.len(), packet.len), (20, 100));
        assert_eq!(parse(Linktype::RAW, &ip[..30], ip.len()), Err(Skipped::Headers));
    }

    #[test]
    fn a_packet_without_length_fills_the_frame() {
        let mut ip = ipv4(&[1; 100]);
        ip[2..4].copy_from_slice(&[0, 0]);
        let packet = parse(Linktype::RAW, &ip[..60], ip.len()).unwrap();
        assert_eq!((packet.payload.len(), packet.len), (20, 100));
    }

    #[test]
    fn ipv6_with_extension_headers_and_mapped_addresses() {
        let mapped = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let mut tcp = Vec::new();
        PacketBuilder::ipv6(mapped, [1; 16], 64).tcp(40000, 9092, 7, 1000).write(&mut tcp, b"hi").unwrap();
        // a hop-by-hop header of eight bytes between IPv6 and TCP
        let mut ip = tcp[..40].to_vec();
        ip[6] = 0;
        ip[4..6].copy_from_slice(&(8 + 20 + 2u16).to_be_bytes());
        ip.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        ip.extend(&tcp[40..]);
        let packet = parse(Linktype::RAW, &ip, ip.len()).unwrap();
        assert_eq!((packet.payload, packet.len), (&b"hi"[..], 2));
        assert_eq!(packet.source, "10.0.0.1:40000".parse().unwrap());
    }

    #[test]
    fn fragments_and_udp_are_told_apart() {
        let mut ip = ipv4(b"hello");
        ip[6] = 0x20;
        assert_eq!(parse(Linktype::RAW, &ip, ip.len()), Err(Skipped::Fragment));
        let mut udp = Vec::new();
        PacketBuilder::ethernet2([0; 6], [0; 6])
            .single_vlan(VlanId::try_new(3).unwrap())
            .ipv4([1; 4], [2; 4], 1)
            .udp(1, 9092)
            .write(&mut udp, b"x")
            .unwrap();
        assert_eq!(parse(Linktype::ETHERNET, &udp, udp.len()), Err(Skipped::NotTcp));
    }
}
