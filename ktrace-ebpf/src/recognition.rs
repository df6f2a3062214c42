//! Whether a connection is Kafka's, where no port says so: by its first request, by what a client
//! says to a proxy before that, and by a later packet that begins with a request where the
//! connection is older than the agent.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::bpf_tcp_sock,
};
use ktrace_common::{SegmentHeader, ends, flags};

use crate::{
    maps::{captures, is_kafka, opens_tls},
    request::{HEAD, is_plausible, is_preface, is_socks5, is_start, is_tls_data, is_tls_hello, may_begin},
    segment::{Parsed, load},
    socket::{Socket, verdict},
};

/// Packets of a connection older than the agent that are all looked at for one that begins with a
/// request. A large request is mostly followed by the next within as many packets.
const LOOKS: u32 = 64;

/// From then on one packet of this number is looked at: that no request was seen says nothing of
/// the next, as a message may take thousands of packets. A prime, so that messages of equally many
/// packets do not hide their beginnings.
const SPARSE: u32 = 61;

/// In a socket's count of looks: a packet was seen of the way on which no requests are copied, and
/// nothing more is to be learnt there.
const OTHER_WAY: u32 = 1 << 31;

/// Packets of both ways that may follow a client's first words to a proxy before its first request:
/// SOCKS 5 with a password takes six, CONNECT with a refusal first four.
pub const PREFACE_PACKETS: u32 = 16;

/// Longer ones are not copied before the first request. Heads of HTTP messages are shorter.
const PREFACE_BYTES: u32 = 4096;

/// Whether a packet of a connection without a verdict is not looked at; counts it.
#[inline(always)]
pub fn is_passed_by(socket: &mut Socket, way: u8) -> bool {
    if !captures_requests(way) {
        return socket.looks & OTHER_WAY != 0;
    }
    let passed = socket.looks & !OTHER_WAY;
    if passed < LOOKS {
        return false;
    }
    let passed = (passed + 1) & !OTHER_WAY;
    socket.looks = socket.looks & OTHER_WAY | passed;
    !passed.is_multiple_of(SPARSE)
}

/// A packet of such a connection was looked at and has shown nothing.
#[inline(always)]
pub fn was_in_vain(socket: &mut Socket, way: u8) {
    if !captures_requests(way) {
        socket.looks |= OTHER_WAY;
    } else if socket.looks & !OTHER_WAY < LOOKS {
        socket.looks += 1;
    }
}

/// Whether requests that pass this way are copied.
#[inline(always)]
fn captures_requests(way: u8) -> bool {
    captures(if way & flags::INGRESS == 0 { ends::CLIENT } else { ends::BROKER })
}

/// Who sends requests on this way is the client.
#[inline(always)]
pub fn role_of(way: u8) -> u32 {
    if way & flags::INGRESS == 0 { verdict::CLIENT } else { verdict::BROKER }
}

/// Where in its connection a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its first byte is the first that passes the connection, in either direction.
    Beginning,
    /// Before `accept`: probably the first byte; the connection's own socket, which would know,
    /// does not exist yet.
    Listening,
    /// It was received, and nothing was sent yet; bytes before it are on their way, or have passed
    /// the listening socket.
    Early,
    /// The first that goes this way, after something that went the other way and was not seen, or
    /// showed nothing.
    Answer,
    Later,
}

impl Place {
    /// With the sequence number of the direction's first byte, where the place implies it.
    #[inline(always)]
    pub fn of(sk: *mut bpf_sock, header: &SegmentHeader, listening: bool) -> (Self, u32) {
        if listening {
            return (Self::Listening, header.seq);
        }
        // SAFETY: a whole socket, as the helper wants.
        let tcp = unsafe { bpf_tcp_sock(sk) };
        if tcp.is_null() {
            return (Self::Later, header.seq);
        }
        // SAFETY: not null, so a TCP socket; each field is read as a whole.
        let (received, acked, rcv_nxt, snd_una, snd_nxt) = unsafe {
            (
                (&raw const (*tcp).bytes_received).read_volatile(),
                (&raw const (*tcp).bytes_acked).read_volatile(),
                (&raw const (*tcp).rcv_nxt).read_volatile(),
                (&raw const (*tcp).snd_una).read_volatile(),
                (&raw const (*tcp).snd_nxt).read_volatile(),
            )
        };
        // The SYN counts as one byte that was acknowledged.
        let was_acked = acked > 1;
        if header.flags & flags::INGRESS == 0 {
            let place = match (was_acked, received > 0) {
                (false, false) if header.seq == snd_una || header.flags & flags::SYN != 0 => Self::Beginning,
                (false, true) => Self::Answer,
                _ => Self::Later,
            };
            return (place, snd_una);
        }
        // What this packet itself acknowledges is on its way still: an answer mostly acknowledges
        // its request.
        let has_sent = was_acked || snd_nxt != snd_una;
        let first = rcv_nxt.wrapping_sub(received as u32);
        let place = match (received > 0, has_sent) {
            (false, false) if header.seq == first || header.flags & flags::SYN != 0 => Self::Beginning,
            (false, true) => Self::Answer,
            (_, false) => Self::Early,
            (true, true) => Self::Later,
        };
        (place, first)
    }

    /// Whether the connection's first byte is known.
    #[inline(always)]
    pub fn tells_the_first(self) -> bool {
        matches!(self, Self::Beginning | Self::Early)
    }

    /// Whether what does not begin with a request is something else than Kafka.
    #[inline(always)]
    fn decides(self) -> bool {
        matches!(self, Self::Beginning | Self::Listening)
    }
}

/// What a packet shows of a connection that nothing is known of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Kafka,
    /// What a client says to a proxy. Whether it speaks Kafka behind it is to be seen.
    Preface,
    Other,
    Early,
    Unknown,
}

/// A Kafka client speaks first, and begins with a request, or with what a proxy wants to hear. In
/// the middle of a connection, most requests begin a packet. Only first bytes are evidence against
/// Kafka: what was said before the agent came may have been a request.
#[inline(always)]
pub fn look(skb: *mut __sk_buff, parsed: &Parsed, place: Place) -> Look {
    let sent = parsed.header.flags & flags::INGRESS == 0;
    match (place, captures_requests(parsed.header.flags)) {
        // The other side has opened the connection, or has greeted.
        (Place::Beginning | Place::Listening | Place::Early, false) => return Look::Other,
        // This side has sent nothing before, so it is not the client.
        (Place::Answer, _) if sent && !captures(ends::BROKER) => return Look::Other,
        (Place::Early, true) => return Look::Early,
        (Place::Answer, _) | (Place::Later, false) => return Look::Unknown,
        _ => {}
    }
    let at = parsed.payload_at;
    let len = parsed.payload_len;
    // A size that comes alone is believed at the beginning: the agent sees what follows.
    if len < 4 {
        return if !place.decides() {
            Look::Unknown
        } else if load::<2>(skb, at).is_some_and(|start| start[0] == 5 && is_socks5(start[1], len)) {
            Look::Preface
        } else {
            Look::Kafka
        };
    }
    let Some(start) = load::<4>(skb, at) else { return Look::Unknown };
    if place.decides() && starts_preface(skb, at, len, &start) {
        return Look::Preface;
    }
    let begins = if len < HEAD as u32 {
        place.decides() && is_start(&start)
    } else {
        let Some(head) = load::<HEAD>(skb, at) else { return Look::Unknown };
        if place.decides() { may_begin(&head) } else { is_plausible(&head) }
    };
    let is_tls = if place.decides() { is_tls_hello(&start) } else { is_tls_data(&start) };
    if begins || (is_tls && is_kafka(broker_port(&parsed.header))) {
        Look::Kafka
    } else if place.decides() {
        // A response that is being read may name the port as a broker's: clients connect there at
        // once.
        if is_tls && opens_tls() { Look::Unknown } else { Look::Other }
    } else {
        Look::Unknown
    }
}

/// Whether a first packet of at least 4 bytes is for a proxy.
#[inline(always)]
fn starts_preface(skb: *mut __sk_buff, at: u32, len: u32, start: &[u8; 4]) -> bool {
    if len < 8 {
        return start[0] == 5 && is_socks5(start[1], len);
    }
    load::<8>(skb, at).is_some_and(|start| is_preface(&start, len))
}

/// The port of the broker, of a packet of requests.
#[inline(always)]
fn broker_port(header: &SegmentHeader) -> u16 {
    if header.flags & flags::INGRESS == 0 { header.remote_port } else { header.local_port }
}

/// A packet of a connection that began with something for a proxy: whether it is copied. A request
/// says that the connection is Kafka's. TLS, or too many packets without a request, say that it is
/// not: then this packet is the last, so that the agent knows too.
#[inline(always)]
pub fn precedes(skb: *mut __sk_buff, parsed: &Parsed, socket: &mut Socket) -> bool {
    let (at, len) = (parsed.payload_at, parsed.payload_len);
    let is_request = role_of(parsed.header.flags) == socket.verdict;
    if is_request
        && len >= HEAD as u32
        && let Some(head) = load::<HEAD>(skb, at)
    {
        if may_begin(&head) {
            socket.looks = 0;
            return true;
        }
        if is_tls_hello(&[head[0], head[1], head[2], head[3]]) {
            // Who runs ktrace has named the proxy's port.
            if opens_tls() && is_kafka(broker_port(&parsed.header)) {
                socket.looks = 0;
                return true;
            }
            socket.looks = 1;
        }
    }
    // The other direction's program may have found a request meanwhile, on another CPU.
    let left = socket.looks;
    if left == 0 {
        return true;
    }
    socket.looks = left - 1;
    if left == 1 {
        socket.verdict = verdict::IGNORED;
    }
    len <= PREFACE_BYTES
}

/// Packets of a captured connection, of both directions, that are looked at for application data of
/// TLS. A handshake takes 4 to 8, of which certificates take most, and session tickets two more;
/// then come the first requests, for which keys are wanted.
const DATA_LOOKS: u32 = 24;

/// Whether the agent is to be woken for a packet with payload: it may be one of the first with
/// application data of a TLS connection. Keys are to be looked for at once, as clients that send
/// one message close within some 150 ms, and the agent looks into the ring every 10 to 100 ms.
#[inline(always)]
pub fn wakes(skb: *mut __sk_buff, parsed: &Parsed, socket: &mut Socket) -> bool {
    if socket.data_looks >= DATA_LOOKS {
        return false;
    }
    socket.data_looks += 1;
    load::<4>(skb, parsed.payload_at).is_some_and(|start| is_tls_data(&start))
}
