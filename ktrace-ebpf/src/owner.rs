//! Who opens and closes sockets: `connect4` and `connect6` run in the connecting process before the first packet, `sock_release` when the
//! last descriptor is closed.

use core::mem;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_RB_NO_WAKEUP, bpf_sock},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, generated,
    },
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use ktrace_common::{Closed, Counter, Kind, Owner, ends};

use crate::maps::{OWNERS, RING, TRACKED, captures, count, is_kafka, may_name_threads};

/// The program's verdict: let the call go on.
const PASS: i32 = 1;
/// `SOCK_STREAM` (`include/linux/net.h`).
const SOCK_STREAM: u32 = 1;
/// `IPPROTO_TCP`.
const TCP: u32 = 6;

/// `connect()` of IPv4 sockets. Linux 5.8 for the process id and the cookie in this kind of program.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connecting(&ctx);
    PASS
}

/// `connect()` of IPv6 sockets, v4-mapped targets too.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connecting(&ctx);
    PASS
}

#[inline(always)]
fn connecting(ctx: &SockAddrContext) {
    // SAFETY: the kernel passes a valid context; each field is read with its declared size.
    let (port, stream) = unsafe {
        ((&raw const (*ctx.sock_addr).user_port).read_volatile(), (*ctx.sock_addr).type_ == SOCK_STREAM)
    };
    if !stream || !captures(ends::CLIENT) || !is_kafka(u16::from_be(port as u16)) {
        return;
    }
    // SAFETY: the helpers take the program's own context.
    let (cookie, netns_cookie) =
        unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), bpf_get_netns_cookie(ctx.as_ptr())) };
    // A failure (no memory) only means that the agent is not told of the socket's end.
    let _ = TRACKED.insert(&cookie, &1, 0);

    let Some(mut entry) = OWNERS.reserve::<Owner>(0) else {
        count(Counter::OwnerLost, 0);
        return;
    };
    let owner = entry.as_mut_ptr();
    // Field by field and in words: an array of zeros would be made in a loop that takes CAP_PERFMON to load.
    // SAFETY: the reservation is exclusive and has room for the whole; the first field with its padding is one word, and the words
    // of `comm` are aligned, as the layout's assertions say. The helpers take no arguments.
    unsafe {
        owner.cast::<u32>().write(u32::from_ne_bytes([Kind::Owner as u8, 0, 0, 0]));
        (&raw mut (*owner).pid).write(ctx.tgid());
        (&raw mut (*owner).cookie).write(cookie);
        (&raw mut (*owner).time_ns).write(bpf_ktime_get_ns());
        (&raw mut (*owner).cgroup_id).write(bpf_get_current_cgroup_id());
        (&raw mut (*owner).netns_cookie).write(netns_cookie);
        let comm = (&raw mut (*owner).comm).cast::<u64>();
        comm.write_volatile(0);
        comm.add(1).write_volatile(0);
        if may_name_threads() {
            generated::bpf_get_current_comm(comm.cast(), 16);
        }
    }
    // Wakes the agent unless it is reading: a short-lived process must be read from /proc while it is there.
    entry.submit(0);
}

/// The last descriptor of a socket is closed. Linux 5.9.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    releasing(&ctx);
    PASS
}

#[inline(always)]
fn releasing(ctx: &SockContext) {
    // SAFETY: the kernel passes a valid context; protocol is a 32-bit field, and the port is read as the two bytes that hold it on every
    // kernel (before 5.18 it was declared as 32 bits wide).
    let (protocol, port) = unsafe {
        (
            (&raw const (*ctx.sock).protocol).read_volatile(),
            ctx.sock.byte_add(mem::offset_of!(bpf_sock, dst_port)).cast::<u16>().read_volatile(),
        )
    };
    // A failed connect clears the port, so sockets without one are looked up too.
    if protocol != TCP || (port != 0 && !is_kafka(u16::from_be(port))) {
        return;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if TRACKED.remove(&cookie).is_err() {
        return;
    }
    let Some(mut entry) = RING.reserve::<Closed>(0) else {
        count(Counter::OwnerLost, 0);
        return;
    };
    let closed = entry.as_mut_ptr();
    // In words, as above.
    // SAFETY: the reservation is exclusive and has room for the whole; the first field with its padding is one word. The helper takes
    // no arguments.
    unsafe {
        closed.cast::<u64>().write(u64::from_ne_bytes([Kind::Closed as u8, 0, 0, 0, 0, 0, 0, 0]));
        (&raw mut (*closed).cookie).write(cookie);
        (&raw mut (*closed).time_ns).write(bpf_ktime_get_ns());
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
