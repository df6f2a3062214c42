//! How long a thread means to run at once. Who runs shortly is let run soon: of a ring of 4 MiB on two cores that were both in use, a sixth
//! to a third was lost of what was lost without it.
//!
//! The scheduler takes it from Linux 6.12 on (`sched_runtime` of an ordinary task: `kernel/sched/syscalls.c`, `include/uapi/linux/sched/types.h`);
//! before, it is ignored. It gives the thread no more of the processor than others have.

use std::io;

/// The shortest that the kernel takes. A wake-up's worth of the ring is read in about as much.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` in its first version (`SCHED_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;

/// Asks for short turns for the calling thread, if it is an ordinary one.
pub(super) fn shorten() -> io::Result<()> {
    let attributes = get()?;
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    let attributes = Attributes { runtime: SLICE_NS, ..attributes };
    // SAFETY: a valid structure of the size that it says; 0 is this thread.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get() -> io::Result<Attributes> {
    let mut attributes = Attributes { size: SIZE, ..Attributes::default() };
    // SAFETY: room for as many bytes as is said; 0 is this thread.
    match unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) } {
        0 => Ok(attributes),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shorter_and_all_else_as_it_was() {
        let before = get().unwrap();
        shorten().unwrap();
        let after = get().unwrap();
        assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        // Kernels that do not know it tell none.
        assert!([0, SLICE_NS].contains(&after.runtime), "{}", after.runtime);
        assert!(before.runtime == 0 || after.runtime == SLICE_NS);
    }
}
