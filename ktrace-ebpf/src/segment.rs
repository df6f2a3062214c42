//! The bytes: `egress` and `ingress` see every packet of every socket below the cgroup that they
//! are attached to, at the socket, from the IP header on, before fragmentation and segmentation on
//! the way out and after reassembly on the way in.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use ktrace_common::{CLASSES, Counter, FULL_PIECES, Kind, SegmentHeader, ends, flags};

use crate::{
    maps::{
        captures, count, is_auto, is_kafka, is_refused, opens_tls, refusals, ring, ring_number, submit_flags,
    },
    recognition::{Look, PREFACE_PACKETS, Place, is_passed_by, look, precedes, role_of, wakes, was_in_vain},
    socket::{self, LISTEN, TCP, verdict},
};

/// The programs' verdict: a tracer never drops a packet.
const PASS: i32 = 1;

// Both are inlined into what the macro makes of them: the verifier sums the frames of calls,
// rounded up, and refuses more than 512 bytes.

/// What sockets send.
#[cgroup_skb(egress)]
#[inline(always)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet(&ctx, 0);
    PASS
}

/// What sockets receive.
#[cgroup_skb(ingress)]
#[inline(always)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    packet(&ctx, flags::INGRESS);
    PASS
}

/// A piece of a packet in the ring: the header and room for one size class.
#[repr(C)]
struct Piece<const SIZE: usize> {
    header: SegmentHeader,
    payload: [u8; SIZE],
}

/// Where a packet's payload begins, and what its headers say.
pub struct Parsed {
    pub header: SegmentHeader,
    /// The packet's own.
    source_port: u16,
    /// Bytes from the IP header to the payload.
    pub payload_at: u32,
    /// Bytes of payload.
    pub payload_len: u32,
}

#[inline(always)]
fn packet(ctx: &SkBuffContext, way: u8) {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the kernel passes a valid context; `remote_port` is the port in network order in the
    // upper half of the word's bytes (as `bpf_convert_ctx_access` in `net/core/filter.c` loads it),
    // `local_port` is in host order.
    let (remote_port, local_port) = unsafe {
        (
            u32::from_be((&raw const (*skb).remote_port).read_volatile()) as u16,
            (&raw const (*skb).local_port).read_volatile() as u16,
        )
    };
    let listed = if is_auto() {
        None
    } else if captures(ends::CLIENT) && is_kafka(remote_port) {
        Some(verdict::CLIENT)
    } else if captures(ends::BROKER) && is_kafka(local_port) {
        Some(verdict::BROKER)
    } else {
        return;
    };
    let Some(sk) = socket::of_packet(skb) else { return };
    // SAFETY: a socket that the kernel has handed out; both are 32-bit fields.
    let (protocol, state) =
        unsafe { ((&raw const (*sk).protocol).read_volatile(), (&raw const (*sk).state).read_volatile()) };
    if protocol != TCP {
        return;
    }
    // Of a listening socket's packets only those matter that bring data before the connection has a
    // socket of its own.
    let listening = state == LISTEN;
    let mut socket = if listening { None } else { socket::state(sk, listed.is_some()) };
    let known = socket.as_ref().map_or(verdict::NONE, |socket| socket.verdict);
    if known == verdict::IGNORED {
        return;
    }
    if known == verdict::NONE
        && listed.is_none()
        && let Some(socket) = &mut socket
        && is_passed_by(socket, way)
    {
        return;
    }
    let ports = Ports { local: local_port, remote: remote_port };
    let Some(mut parsed) = parse(skb, way, &ports) else {
        if known != verdict::NONE || listed.is_some() {
            // SAFETY: the kernel passes a valid context.
            count(Counter::Unparsed, u64::from(unsafe { (*skb).len }));
        }
        return;
    };
    if !listening {
        // The packet's own are another's where the host translates addresses: the socket's are
        // those that its process knows.
        socket::addresses(sk, &mut parsed.header);
    }
    let marks = parsed.header.flags & (flags::SYN | flags::FIN | flags::RST);
    if parsed.payload_len == 0 && (marks == 0 || listening || (known | listed.unwrap_or(0)) == verdict::NONE)
    {
        return;
    }
    // SAFETY: the helper takes the program's own context.
    parsed.header.cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    // SAFETY: no arguments.
    parsed.header.time_ns = unsafe { bpf_ktime_get_ns() };
    if listening {
        // It has no peer of its own.
        parsed.header.flags |= flags::LISTENING;
        parsed.header.remote_port = parsed.source_port;
    }

    let role = if known != verdict::NONE {
        if let Some(socket) = &mut socket
            && socket.refusals != refusals()
        {
            socket.refusals = refusals();
            if is_refused(parsed.header.cookie) {
                socket.verdict = verdict::IGNORED;
                return;
            }
        }
        if let Some(socket) = &mut socket
            && socket.looks != 0
            && parsed.payload_len > 0
            && !precedes(skb, &parsed, socket)
        {
            return;
        }
        known
    } else {
        let (place, first) = Place::of(sk, &parsed.header, listening);
        let mut looks = 0;
        let role = match listed {
            Some(role) => role,
            None => {
                if socket.is_none() && !listening {
                    socket = socket::state(sk, true);
                }
                let role = match look(skb, &parsed, place) {
                    Look::Kafka => role_of(way),
                    Look::Preface => {
                        looks = PREFACE_PACKETS;
                        role_of(way)
                    }
                    Look::Early => {
                        // Bytes before these decide, in the programs or in the agent.
                        announce(&parsed.header, first, verdict::BROKER);
                        parsed.header.flags |= flags::BROKER_END;
                        copy(skb, &mut parsed);
                        return;
                    }
                    Look::Other => verdict::IGNORED,
                    Look::Unknown => verdict::NONE,
                };
                if role == verdict::NONE || role == verdict::IGNORED {
                    if let Some(socket) = socket {
                        if role == verdict::IGNORED {
                            socket.verdict = verdict::IGNORED;
                        } else {
                            was_in_vain(socket, way);
                        }
                    }
                    return;
                }
                role
            }
        };
        if let Some(socket) = &mut socket {
            let ring = ring_number(local_port, remote_port);
            socket::take(socket, role, looks, parsed.header.cookie, ring as u8);
        }
        if place.tells_the_first() && parsed.header.flags & flags::SYN == 0 {
            announce(&parsed.header, first, role);
        }
        role
    };
    if role == verdict::BROKER {
        parsed.header.flags |= flags::BROKER_END;
    }
    if opens_tls()
        && parsed.payload_len > 0
        && let Some(socket) = &mut socket
        && wakes(skb, &parsed, socket)
    {
        parsed.header.flags |= flags::WAKES;
    }
    copy(skb, &mut parsed);
}

/// Reports to the agent where both directions of a connection begin, as the packets that opened it
/// would have done.
#[inline(always)]
fn announce(packet: &SegmentHeader, first: u32, role: u32) {
    let end = if role == verdict::BROKER { flags::BROKER_END } else { 0 };
    let mut header = *packet;
    header.len = 0;
    header.copied = 0;
    header.flags = (packet.flags & (flags::INGRESS | flags::LISTENING)) | end | flags::SYN;
    header.seq = first.wrapping_sub(1);
    header.ack = 0;
    hand_over(&header);
    header.flags ^= flags::INGRESS;
    header.seq = packet.ack.wrapping_sub(1);
    hand_over(&header);
}

/// Hands a header without payload to the ring.
#[inline(always)]
fn hand_over(header: &SegmentHeader) {
    let Some(ring) = ring(ring_number(header.local_port, header.remote_port)) else { return };
    let Some(mut entry) = ring.reserve_untyped::<SegmentHeader>(0) else {
        count(Counter::RingFull, 0);
        return;
    };
    // SAFETY: the reservation is exclusive and has room for the header.
    unsafe { entry.as_mut_ptr().write(*header) };
    count(Counter::Captured, 0);
    entry.submit(submit_flags(ring, size_of::<SegmentHeader>() as u64, 0));
}

/// Of the socket.
struct Ports {
    local: u16,
    remote: u16,
}

/// Reads `N` bytes of the packet. On the stack, so `N` is small.
///
/// Not zeroed before: the loop that would do so moves a pointer by a variable, which the verifier
/// refuses to programs loaded without CAP_PERFMON.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, at: u32) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the destination has room for N bytes; the kernel checks the range within the packet.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), at, bytes.as_mut_ptr().cast(), N as u32) };
    // SAFETY: the helper has written all of them, and zeros where it fails.
    (result == 0).then(|| unsafe { bytes.assume_init() })
}

/// Reads the IP and TCP headers.
#[inline(always)]
fn parse(skb: *mut __sk_buff, bits: u8, ports: &Ports) -> Option<Parsed> {
    let first: [u8; 1] = load(skb, 0)?;
    let mut header = SegmentHeader {
        kind: Kind::Segment as u8,
        flags: bits,
        local_port: ports.local,
        remote_port: ports.remote,
        ..SegmentHeader::default()
    };
    let ingress = bits & flags::INGRESS != 0;
    let tcp_at = if first[0] >> 4 == 4 {
        let ip: [u8; 20] = load(skb, 0)?;
        if ip[9] != TCP as u8 {
            return None;
        }
        let (source, target) =
            (v4_mapped([ip[12], ip[13], ip[14], ip[15]]), v4_mapped([ip[16], ip[17], ip[18], ip[19]]));
        (header.local, header.remote) = if ingress { (target, source) } else { (source, target) };
        u32::from(ip[0] & 15) * 4
    } else {
        let next: [u8; 1] = load(skb, 6)?;
        let source: [u8; 16] = load(skb, 8)?;
        let target: [u8; 16] = load(skb, 24)?;
        (header.local, header.remote) = if ingress { (target, source) } else { (source, target) };
        skip_extensions(skb, next[0])?
    };
    let tcp: [u8; 20] = load(skb, tcp_at)?;
    header.seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    header.ack = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
    // FIN, SYN, RST and ACK are bits 0, 1, 2 and 4 of the header's byte 13 (RFC 9293, section 3.1).
    header.flags |= (tcp[13] & 1) << 1 | (tcp[13] & 2) >> 1 | tcp[13] & 4 | (tcp[13] & 16) >> 1;
    let payload_at = tcp_at + u32::from(tcp[12] >> 4) * 4;
    // From the packet itself and not from the IP header: its length field is 0 in packets above 64
    // KiB (big TCP).
    // SAFETY: the kernel passes a valid context.
    let payload_len = unsafe { (*skb).len }.checked_sub(payload_at)?;
    let source_port = u16::from_be_bytes([tcp[0], tcp[1]]);
    Some(Parsed { header, source_port, payload_at, payload_len })
}

#[inline(always)]
fn v4_mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// As a "next header" of IPv6.
const TCP_HEADER: u8 = TCP as u8;

/// Where the TCP header of an IPv6 packet begins; `next` is the type of the header behind the fixed
/// one. More than four extension headers before TCP are not followed.
#[inline(always)]
fn skip_extensions(skb: *mut __sk_buff, mut next: u8) -> Option<u32> {
    let mut at = 40;
    for _ in 0..4 {
        // Numbers as in the registry "IPv6 Extension Header Types": hop-by-hop, routing,
        // destination options; fragment; authentication.
        match next {
            TCP_HEADER => return Some(at),
            0 | 43 | 60 => {
                let extension: [u8; 2] = load(skb, at)?;
                next = extension[0];
                at += (u32::from(extension[1]) + 1) * 8;
            }
            44 => {
                let extension: [u8; 2] = load(skb, at)?;
                next = extension[0];
                at += 8;
            }
            51 => {
                let extension: [u8; 2] = load(skb, at)?;
                next = extension[0];
                at += (u32::from(extension[1]) + 2) * 4;
            }
            _ => return None,
        }
    }
    (next == TCP_HEADER).then_some(at)
}

/// Hands the packet to the ring: full pieces of the largest class, then the rest in the smallest
/// class that holds it.
#[inline(always)]
fn copy(skb: *mut __sk_buff, parsed: &mut Parsed) {
    const FULL: usize = CLASSES[CLASSES.len() - 1];
    let header = &mut parsed.header;
    let mut at = parsed.payload_at;
    let mut left = parsed.payload_len;
    let ending = header.flags & (flags::FIN | flags::RST);

    for _ in 0..FULL_PIECES {
        if left <= FULL as u32 {
            break;
        }
        header.flags &= !ending;
        piece::<FULL>(skb, header, at, FULL as u32);
        // The SYN takes one number of its own.
        header.seq = header.seq.wrapping_add(FULL as u32 + u32::from(header.flags & flags::SYN != 0));
        header.flags &= !flags::SYN;
        at += FULL as u32;
        left -= FULL as u32;
    }
    header.flags |= ending;
    match left as usize {
        0..=64 => piece::<64>(skb, header, at, left),
        65..=128 => piece::<128>(skb, header, at, left),
        129..=256 => piece::<256>(skb, header, at, left),
        257..=512 => piece::<512>(skb, header, at, left),
        513..=1024 => piece::<1024>(skb, header, at, left),
        1025..=2048 => piece::<2048>(skb, header, at, left),
        2049..=4096 => piece::<4096>(skb, header, at, left),
        4097..=8192 => piece::<8192>(skb, header, at, left),
        8193..=16384 => piece::<16384>(skb, header, at, left),
        16385..=32768 => piece::<32768>(skb, header, at, left),
        32769..=FULL => piece::<FULL>(skb, header, at, left),
        _ => count(Counter::OverLimit, u64::from(left)),
    }
}

/// Copies `len` bytes (at most `SIZE`) of the packet straight into the ring.
#[inline(always)]
fn piece<const SIZE: usize>(skb: *mut __sk_buff, header: &mut SegmentHeader, at: u32, len: u32) {
    const {
        let mut known = false;
        let mut index = 0;
        while index < CLASSES.len() {
            known |= CLASSES[index] == SIZE;
            index += 1;
        }
        assert!(known);
    }
    let Some(ring) = ring(ring_number(header.local_port, header.remote_port)) else { return };
    let Some(mut entry) = ring.reserve_untyped::<Piece<SIZE>>(0) else {
        count(Counter::RingFull, u64::from(len));
        return;
    };
    let piece = entry.as_mut_ptr();
    header.len = len;
    header.copied = 0;
    if len > 0 {
        // SAFETY: the reservation has room for SIZE bytes of payload and `bounded` gives at most
        // SIZE.
        let result = unsafe {
            bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*piece).payload).cast(), bounded::<SIZE>(len))
        };
        if result == 0 {
            header.copied = len;
        } else {
            count(Counter::LoadFailed, u64::from(len));
        }
    }
    // SAFETY: the reservation is exclusive and has room for the header.
    unsafe { (&raw mut (*piece).header).write(*header) };
    count(Counter::Captured, u64::from(header.copied));
    entry.submit(submit_flags(ring, size_of::<Piece<SIZE>>() as u64, header.flags));
}

/// `len` (1 to `SIZE`, a power of two) in a form whose bounds every verifier sees: 5.10's does not
/// carry those of a comparison to the helper call, and the compiler would drop a mask that it can
/// prove to change nothing.
#[inline(always)]
fn bounded<const SIZE: usize>(len: u32) -> u32 {
    let mut value = u64::from(len);
    // SAFETY: arithmetic on one register.
    unsafe {
        asm!(
            "{value} += -1",
            "{value} &= {mask}",
            "{value} += 1",
            value = inout(reg) value,
            mask = const SIZE - 1,
            options(pure, nomem, nostack),
        );
    }
    value as u32
}
