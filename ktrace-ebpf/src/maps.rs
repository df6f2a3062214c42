//! The maps and globals that the programs share with the agent, and the few operations on them.

use core::arch::asm;

use aya_ebpf::{
    Global,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{ArrayOfMaps, RingBuf as Ring},
    helpers::bpf_ringbuf_query,
    macros::{btf_map, map},
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use ktrace_common::{
    BLANK_BYTES, Counter, MAX_RINGS, PORT_WORDS, RING_TEMPLATE_BYTES, Tally, ends, flags, port_slot, ring_of,
};

/// Which ends of connections are captured ([`ends`]); set before loading, so the kernel drops the
/// code of the other end.
#[unsafe(no_mangle)]
static ENDS: Global<u8> = Global::new(ends::CLIENT);

/// Whether owners are reported with the thread's name: reading it takes CAP_PERFMON. Set before
/// loading.
#[unsafe(no_mangle)]
static COMM: Global<u8> = Global::new(0);

/// Whether Kafka is looked for on all ports; else it is what is spoken on [`PORTS`]. Set before
/// loading.
#[unsafe(no_mangle)]
static AUTO: Global<u8> = Global::new(0);

/// Whether TLS connections may be opened. Set before loading: without it, the kernel drops the code
/// for them.
#[unsafe(no_mangle)]
static TLS: Global<u8> = Global::new(0);

/// Only sockets that this process connects, where not 0. Set before loading.
#[unsafe(no_mangle)]
static PID: Global<u32> = Global::new(0);

/// Only sockets of the network namespace with this cookie, where not 0. Set before loading.
#[unsafe(no_mangle)]
static NETNS_COOKIE: Global<u64> = Global::new(0);

/// Number of rings less one; the number is a power of two. Set before loading.
#[unsafe(no_mangle)]
static RING_MASK: Global<u32> = Global::new(0);

/// The agent is woken each time that 2 to this power more bytes wait in the ring; set before
/// loading.
#[unsafe(no_mangle)]
static WAKE_SHIFT: Global<u32> = Global::new(20);

/// Kafka ports, as a bitmap: all there are, or (`AUTO`) those on which TLS is taken for Kafka. The
/// agent may change it at any time.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// A ring as the agent makes them; before Linux 5.10 it has to have just this size.
type Segments = Ring<u64, RING_TEMPLATE_BYTES>;

/// Segments and ends of sockets. The agent makes the rings. A socket's are always in the same one
/// ([`ring_of`]).
#[btf_map]
static RINGS: ArrayOfMaps<Segments, MAX_RINGS> = ArrayOfMaps::new();

/// Owners: a ring of their own, so that a process is not read from /proc only after all the bytes
/// that came before it.
#[map]
pub static OWNERS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Indexed by [`Counter`].
#[map]
static COUNTERS: PerCpuArray<Tally> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Cookies of sockets that the agent has heard of, with their ring, so that it hears of their end
/// too. The agent adds those that were there before it. Least recently used ones are forgotten when
/// it is full: then the agent must let go of them by itself.
#[map]
pub static TRACKED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(65536, 0);

/// Cookies of sockets that the agent wants no more of: they speak something else, or belong to a
/// process that is not watched.
#[map]
static REFUSED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(16384, 0);

/// How often the agent has added to [`REFUSED`]: as long as it stays the same, no socket needs to
/// look there.
#[map]
static REFUSALS: Array<u32> = Array::with_max_entries(1, 0);

/// A record of zeros, [`Kind::Blank`](ktrace_common::Kind::Blank).
#[map]
static BLANK: Array<[u8; BLANK_BYTES]> = Array::with_max_entries(1, 0);

/// Whether `port` is a Kafka port.
#[inline(always)]
pub fn is_kafka(port: u16) -> bool {
    let (word, bit) = port_slot(port);
    PORTS.get(word).is_some_and(|bits| bits & bit != 0)
}

/// Whether Kafka is looked for on all ports.
#[inline(always)]
pub fn is_auto() -> bool {
    AUTO.load() != 0
}

/// Whether TLS connections may be opened.
#[inline(always)]
pub fn opens_tls() -> bool {
    TLS.load() != 0
}

/// Whether sockets of this process in this network namespace are wanted.
#[inline(always)]
pub fn wants(pid: u32, netns_cookie: u64) -> bool {
    let (only_pid, only_netns) = (PID.load(), NETNS_COOKIE.load());
    (only_pid == 0 || only_pid == pid) && (only_netns == 0 || only_netns == netns_cookie)
}

/// How often the agent has refused a socket so far.
#[inline(always)]
pub fn refusals() -> u32 {
    // SAFETY: the agent writes the word as a whole.
    REFUSALS.get_ptr(0).map_or(0, |count| unsafe { count.read_volatile() })
}

/// Whether the agent has refused this socket.
#[inline(always)]
pub fn is_refused(cookie: u64) -> bool {
    REFUSED.get_ptr(&cookie).is_some()
}

/// The socket begins another connection.
#[inline(always)]
pub fn forget_refusal(cookie: u64) {
    // Most were never refused.
    let _ = REFUSED.remove(&cookie);
}

/// The number of the ring of a socket with these ports.
#[inline(always)]
pub fn ring_number(local_port: u16, remote_port: u16) -> u32 {
    ring_of(local_port, remote_port, RING_MASK.load())
}

/// The ring of this number.
#[inline(always)]
pub fn ring(number: u32) -> Option<&'static Segments> {
    RINGS.get(number)
}

/// A record that says nothing.
#[inline(always)]
pub fn blank() -> Option<&'static [u8; BLANK_BYTES]> {
    BLANK.get(0)
}

/// Whether the thread's name may be read.
#[inline(always)]
pub fn may_name_threads() -> bool {
    COMM.load() != 0
}

/// Whether sockets of this end ([`ends`]) are captured.
#[inline(always)]
pub fn captures(end: u8) -> bool {
    ENDS.load() & end != 0
}

/// Adds to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter, bytes: u64) {
    if let Some(tally) = COUNTERS.get_ptr_mut(counter as u32) {
        let tally = tally.cast::<u64>();
        // SAFETY: the kernel returned a pointer to this CPU's entry of two words, which lives as
        // long as the map.
        unsafe {
            add(tally, 1);
            add(tally.add(1), bytes);
        }
    }
}

/// Adds atomically, because a program in softirq context may interrupt this one on the same CPU. An
/// instruction of its own, since the form that returns the old value is refused before Linux 5.12,
/// and the target has no `AtomicU64::fetch_add`.
///
/// # Safety
///
/// `word` points into a map's value.
#[inline(always)]
unsafe fn add(word: *mut u64, amount: u64) {
    // SAFETY: the caller's promise; nothing but the word is touched.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {amount}",
            word = in(reg) word,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}

/// Flags to submit a record of `size` bytes with: no wake-up, unless it crossed a multiple of the
/// wake-up amount, or its header asks for one ([`flags::WAKES`] among `bits`).
///
/// A wake-up costs the sender of the packet about as much as the copy of a small payload; the agent
/// looks into the ring by itself every few milliseconds anyway, and needs waking only when data
/// comes faster than that.
#[inline(always)]
pub fn submit_flags(ring: &Segments, size: u64, bits: u8) -> u64 {
    if opens_tls() && bits & flags::WAKES != 0 {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    // SAFETY: the ring is a map that the kernel has handed out.
    let waiting =
        unsafe { bpf_ringbuf_query((&raw const *ring).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    let shift = u64::from(WAKE_SHIFT.load() & 31);
    if waiting >> shift != waiting.saturating_sub(size) >> shift {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
