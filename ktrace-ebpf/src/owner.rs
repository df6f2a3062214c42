//! Who opens and closes sockets: `connect4` and `connect6` run in the connecting process before the
//! first packet, `sock_release` when the last descriptor is closed.

use core::mem;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_RB_NO_WAKEUP, bpf_sock},
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use ktrace_common::{Closed, Counter, Kind, ends};

use crate::{
    kdf,
    maps::{TRACKED, captures, count, is_auto, is_kafka, ring},
    socket::{self, TCP},
};

/// The program's verdict: let the call go on.
const PASS: i32 = 1;
/// `SOCK_STREAM` (`include/linux/net.h`).
const SOCK_STREAM: u32 = 1;

/// `connect()` of IPv4 sockets. Linux 5.8 for the process id in this kind of program.
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
    let kafka = is_kafka(u16::from_be(port as u16));
    if stream && captures(ends::CLIENT) && (is_auto() || kafka) {
        let wanted = socket::connecting(ctx);
        if wanted && kafka {
            kdf::connecting(ctx);
        }
    }
}

/// The last descriptor of a socket is closed. Linux 5.9.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    releasing(&ctx);
    PASS
}

#[inline(always)]
fn releasing(ctx: &SockContext) {
    // SAFETY: the kernel passes a valid context; protocol is a 32-bit field, and the port is read
    // as the two bytes that hold it on every kernel (before 5.18 it was declared as 32 bits wide).
    let (protocol, port) = unsafe {
        (
            (&raw const (*ctx.sock).protocol).read_volatile(),
            ctx.sock.byte_add(mem::offset_of!(bpf_sock, dst_port)).cast::<u16>().read_volatile(),
        )
    };
    // A failed connect clears the port, so sockets without one are looked up too; and those of
    // brokers' ends have any.
    let listed = port == 0 || captures(ends::BROKER) || is_kafka(u16::from_be(port));
    if protocol != TCP || !(listed || is_auto()) {
        return;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the agent and the programs write the byte as a whole.
    let Some(number) = TRACKED.get_ptr(&cookie).map(|number| unsafe { number.read_volatile() }) else {
        return;
    };
    // It may be gone already: it is the least recently used ones that have to go.
    let _ = TRACKED.remove(&cookie);
    let Some(mut entry) = ring(u32::from(number)).and_then(|ring| ring.reserve_untyped::<Closed>(0)) else {
        count(Counter::OwnerLost, 0);
        return;
    };
    let closed = entry.as_mut_ptr();
    // In words, as above.
    // SAFETY: the reservation is exclusive and has room for the whole; the first field with its
    // padding is one word. The helper takes no arguments.
    unsafe {
        closed.cast::<u64>().write(u64::from_ne_bytes([Kind::Closed as u8, 0, 0, 0, 0, 0, 0, 0]));
        (&raw mut (*closed).cookie).write(cookie);
        (&raw mut (*closed).time_ns).write(bpf_ktime_get_ns());
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
