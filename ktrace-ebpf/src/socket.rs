//! What is known of each socket: kept by the kernel with the socket itself, so that it goes when
//! the socket goes.

use core::{arch::asm, mem::offset_of, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_sk_fullsock,
        bpf_sk_storage_get, generated,
    },
    macros::btf_map,
    programs::SockAddrContext,
};
use ktrace_common::{Counter, Kind, Owner, SegmentHeader};

use crate::maps::{OWNERS, TRACKED, count, forget_refusal, may_name_threads, refusals, wants};

/// `IPPROTO_TCP`.
pub const TCP: u32 = 6;
/// `AF_INET`.
const AF_INET: u32 = 2;
/// The third word of a v4-mapped address (RFC 4291, section 2.5.5.2), in network order.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
/// `TCP_LISTEN` of `include/net/tcp_states.h`.
pub const LISTEN: u32 = 10;

/// What the programs make of a socket.
pub mod verdict {
    /// Nothing yet.
    pub const NONE: u32 = 0;
    /// Captured as a client's.
    pub const CLIENT: u32 = 1;
    /// Captured as a broker's.
    pub const BROKER: u32 = 2;
    /// Not looked at any more.
    pub const IGNORED: u32 = 3;
}

/// A socket's state.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Socket {
    /// See [`verdict`].
    pub verdict: u32,
    /// Without a verdict: packets that were looked at in vain. With one: packets that may still
    /// come before the first request, where the client has begun with something else
    /// ([`is_preface`](crate::request::is_preface)), and 0 once the connection is known to be
    /// Kafka's.
    pub looks: u32,
    /// [`refusals`] when it was last looked for among the refused ones.
    pub refusals: u32,
    /// Packets of both directions that were looked at for application data of TLS
    /// ([`recognition::wakes`](crate::recognition::wakes)).
    pub data_looks: u32,
    /// Of the process that has connected it; 0 if that was not seen. The rest is meant only with
    /// it.
    pid: u32,
    connected_ns: u64,
    cgroup_id: u64,
    netns_cookie: u64,
    comm: [u64; 2],
}

#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// The socket of a packet, where it is a whole one (not one that is half open, or in TIME-WAIT).
#[inline(always)]
pub fn of_packet(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the kernel passes a valid context; the field is a pointer, read as a whole.
    let sk = unsafe { (&raw const (*skb).__bindgen_anon_2.sk).read_volatile() };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null, as the helper wants.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    (!sk.is_null()).then_some(sk)
}

/// A 32-bit word of a socket. The offset stands in the instruction: the verifier refuses one that
/// the compiler has made a variable of.
///
/// # Safety
///
/// `sk` is a whole socket that the kernel has handed out, and the word one of its fields.
#[inline(always)]
unsafe fn word<const OFFSET: usize>(sk: *mut bpf_sock) -> u32 {
    let value: u64;
    // SAFETY: the caller's promise; nothing is written.
    unsafe {
        asm!(
            "{value} = *(u32 *)({sk} + {offset})",
            sk = in(reg) sk,
            value = out(reg) value,
            offset = const OFFSET,
            options(readonly, nostack),
        );
    }
    value as u32
}

/// Writes the addresses of a connected socket.
#[inline(always)]
pub fn addresses(sk: *mut bpf_sock, header: &mut SegmentHeader) {
    const FAMILY: usize = offset_of!(bpf_sock, family);
    const LOCAL4: usize = offset_of!(bpf_sock, src_ip4);
    const REMOTE4: usize = offset_of!(bpf_sock, dst_ip4);
    const LOCAL: usize = offset_of!(bpf_sock, src_ip6);
    const REMOTE: usize = offset_of!(bpf_sock, dst_ip6);
    // SAFETY: a whole socket that the kernel has handed out; all are 32-bit words of it, the
    // addresses in network order.
    unsafe {
        if word::<FAMILY>(sk) == AF_INET {
            header.local = octets([0, 0, MAPPED, word::<LOCAL4>(sk)]);
            header.remote = octets([0, 0, MAPPED, word::<REMOTE4>(sk)]);
        } else {
            header.local = octets([
                word::<LOCAL>(sk),
                word::<{ LOCAL + 4 }>(sk),
                word::<{ LOCAL + 8 }>(sk),
                word::<{ LOCAL + 12 }>(sk),
            ]);
            header.remote = octets([
                word::<REMOTE>(sk),
                word::<{ REMOTE + 4 }>(sk),
                word::<{ REMOTE + 8 }>(sk),
                word::<{ REMOTE + 12 }>(sk),
            ]);
        }
    }
}

#[inline(always)]
fn octets(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding, and any bytes are octets.
    unsafe { core::mem::transmute(words) }
}

/// What is known of a socket; `None` where it was not seen before, or (`create`) where there is no
/// memory.
#[inline(always)]
pub fn state(sk: *mut bpf_sock, create: bool) -> Option<&'static mut Socket> {
    let flags = if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 };
    // SAFETY: a map of this kind and a socket, neither null. A new state is all zeros.
    let state = unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk.cast(), ptr::null_mut(), flags)
    };
    // SAFETY: null, or a pointer to the socket's own state, which lives as long as this program
    // runs.
    unsafe { state.cast::<Socket>().as_mut() }
}

/// The current process connects this socket. Whether it is wanted.
#[inline(always)]
pub fn connecting(ctx: &SockAddrContext) -> bool {
    let Some(socket) = (
        // SAFETY: the map keeps the state as long as the socket lives, and nothing else in this
        // program refers to it.
        unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() }
    ) else {
        // No memory for a moment, or a lock that another CPU holds. What cannot be kept with the
        // socket is reported at once.
        return tell_at_once(ctx);
    };
    if socket.verdict != verdict::NONE {
        // It was connected elsewhere before: what the agent refused was that connection.
        // SAFETY: the helper takes the program's own context.
        forget_refusal(unsafe { generated::bpf_get_socket_cookie(ctx.as_ptr()) });
    }
    socket.looks = 0;
    socket.data_looks = 0;
    socket.pid = ctx.tgid();
    // SAFETY: the helpers take no arguments, or the program's own context.
    unsafe {
        socket.connected_ns = bpf_ktime_get_ns();
        socket.cgroup_id = bpf_get_current_cgroup_id();
        socket.netns_cookie = bpf_get_netns_cookie(ctx.as_ptr());
        // It may have failed to connect elsewhere before.
        socket.verdict =
            if wants(socket.pid, socket.netns_cookie) { verdict::NONE } else { verdict::IGNORED };
        let comm = &raw mut socket.comm;
        comm.cast::<u64>().write_volatile(0);
        comm.cast::<u64>().add(1).write_volatile(0);
        if may_name_threads() {
            generated::bpf_get_current_comm(comm.cast(), 16);
        }
    }
    socket.verdict == verdict::NONE
}

/// The owner of a socket that is perhaps never captured, and whose ring is not known yet: that
/// depends on its own port.
#[inline(always)]
fn tell_at_once(ctx: &SockAddrContext) -> bool {
    let pid = ctx.tgid();
    // SAFETY: the helper takes the program's own context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if !wants(pid, netns_cookie) {
        return false;
    }
    // SAFETY: the helpers take no arguments, or the program's own context.
    let (connected_ns, cgroup_id, cookie) = unsafe {
        (bpf_ktime_get_ns(), bpf_get_current_cgroup_id(), generated::bpf_get_socket_cookie(ctx.as_ptr()))
    };
    let (verdict, looks, refusals, data_looks, comm) = (verdict::NONE, 0, 0, 0, [0; 2]);
    let socket =
        Socket { verdict, looks, refusals, data_looks, pid, connected_ns, cgroup_id, netns_cookie, comm };
    tell(&socket, cookie, Owner::ANY_RING);
    true
}

/// The socket is captured from now on: its owner is reported, if it is known. `looks` as in
/// [`Socket::looks`].
#[inline(always)]
pub fn take(socket: &mut Socket, verdict: u32, looks: u32, cookie: u64, ring: u8) {
    socket.verdict = verdict;
    socket.looks = looks;
    socket.refusals = refusals();
    // A failure (no memory) only means that the socket's end is not reported.
    let _ = TRACKED.insert(&cookie, &ring, 0);
    if socket.pid != 0 {
        tell(socket, cookie, ring);
    }
}

/// Reports to the agent who has connected a socket.
#[inline(always)]
fn tell(socket: &Socket, cookie: u64, ring: u8) {
    let Some(mut entry) = OWNERS.reserve::<Owner>(0) else {
        count(Counter::OwnerLost, 0);
        return;
    };
    let owner = entry.as_mut_ptr();
    // Field by field and in words: an array of zeros would be made in a loop that takes CAP_PERFMON
    // to load.
    // SAFETY: the reservation is exclusive and has room for the whole; the first field with its
    // padding is one word, and the words of `comm` are aligned, as the layout's assertions say.
    unsafe {
        owner.cast::<u32>().write(u32::from_ne_bytes([Kind::Owner as u8, ring, 0, 0]));
        (&raw mut (*owner).pid).write(socket.pid);
        (&raw mut (*owner).cookie).write(cookie);
        (&raw mut (*owner).time_ns).write(socket.connected_ns);
        (&raw mut (*owner).cgroup_id).write(socket.cgroup_id);
        (&raw mut (*owner).netns_cookie).write(socket.netns_cookie);
        let comm = (&raw mut (*owner).comm).cast::<u64>();
        comm.write_volatile(socket.comm[0]);
        comm.add(1).write_volatile(socket.comm[1]);
    }
    // Wakes the agent unless it is reading: a short-lived process must be read from /proc while it
    // is there.
    entry.submit(0);
}
