//! Overwrites what the agent has read: the ring's data is read-only to the agent, so it has this
//! program write blank records behind it.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, macros::socket_filter, programs::SkBuffContext};
use ktrace_common::SECRETS_RING;

use crate::{
    kdf,
    maps::{blank, ring},
};

/// Appends a blank record to the ring whose number is the packet's first byte ([`SECRETS_RING`]:
/// the ring of secrets). It is attached to nothing: the agent has it run (`BPF_PROG_TEST_RUN`), as
/// often as it wants records. A full ring gets none.
#[socket_filter]
pub fn scrub(ctx: SkBuffContext) -> i64 {
    let Ok(number) = ctx.load::<u8>(0) else { return 0 };
    if number == SECRETS_RING {
        kdf::overwrite();
    } else if let Some(ring) = ring(u32::from(number))
        && let Some(blank) = blank()
    {
        // A full ring is overwritten by what fills it.
        let _ = ring.output_untyped(blank, u64::from(BPF_RB_NO_WAKEUP));
    }
    0
}
