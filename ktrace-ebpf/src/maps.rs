//! The maps and globals that the programs share with the agent, and the few operations on them.

use core::arch::asm;

use aya_ebpf::{
    Global,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use ktrace_common::{Counter, PORT_WORDS, Tally, ends, port_slot};

/// Which ends of connections are captured ([`ends`]); set before loading, so the kernel drops the code of the other end.
#[unsafe(no_mangle)]
static ENDS: Global<u8> = Global::new(ends::CLIENT);

/// Whether owners are told with the thread's name: reading it takes CAP_PERFMON. Set before loading.
#[unsafe(no_mangle)]
static COMM: Global<u8> = Global::new(0);

/// The agent is woken each time that 2 to this power more bytes wait in the ring; set before loading.
#[unsafe(no_mangle)]
static WAKE_SHIFT: Global<u32> = Global::new(20);

/// Kafka ports, as a bitmap. The agent may change it at any time.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// Segments and ends of sockets. The agent sets the size before loading.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Owners: a ring of their own, so that a process is not read from /proc only after all the bytes that came before it.
#[map]
pub static OWNERS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Indexed by [`Counter`].
#[map]
static COUNTERS: PerCpuArray<Tally> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Cookies of sockets that the agent has heard of, so that it hears of their end too. The agent adds those that were there before it.
/// Least recently used ones are forgotten when it is full: then the agent must let go of them by itself.
#[map]
pub static TRACKED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(65536, 0);

/// Whether `port` is a Kafka port.
#[inline(always)]
pub fn is_kafka(port: u16) -> bool {
    let (word, bit) = port_slot(port);
    PORTS.get(word).is_some_and(|bits| bits & bit != 0)
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
        // SAFETY: the kernel returned a pointer to this CPU's entry of two words, which lives as long as the map.
        unsafe {
            add(tally, 1);
            add(tally.add(1), bytes);
        }
    }
}

/// Adds atomically, because a program in softirq context may interrupt this one on the same CPU. An instruction of its own, since the form
/// that returns the old value is refused before Linux 5.12, and the target has no `AtomicU64::fetch_add`.
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

/// Flags to submit a record of `size` bytes with: no wake-up, unless it crossed a multiple of the wake-up amount.
///
/// A wake-up costs the sender of the packet about as much as the copy of a small payload; the agent looks into the ring by itself every few
/// milliseconds anyway, and needs waking only when data comes faster than that.
#[inline(always)]
pub fn submit_flags(size: u64) -> u64 {
    let waiting = RING.query(u64::from(BPF_RB_AVAIL_DATA));
    let shift = u64::from(WAKE_SHIFT.load() & 31);
    if waiting >> shift != waiting.saturating_sub(size) >> shift {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
