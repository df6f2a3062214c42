//! How the kernel schedules the agent's threads: which of them run soon after they are woken.
//!
//! A thread that asks for a short slice is woken before those that ask for a long one, from Linux
//! 6.12 on (`sched_runtime` of an ordinary task: `kernel/sched/syscalls.c`, `sched_setattr(2)`). It
//! takes no privilege, and gives no more of the processor than others get. Kernels before that
//! ignore it.
#![expect(
    unsafe_code,
    reason = "sched_setattr(2) and sched_getattr(2), which neither the C library nor rustix has"
)]

use std::io;

use rustix::process::setpriority_process;

/// The shortest slice that the kernel takes, 0.1 ms. About as long as it takes to read what one
/// wake-up brings.
const SLICE_NS: u64 = 100_000;

/// Asks for short slices for the calling thread, if it is an ordinary one. Of a ring of 4 MiB on
/// two cores that were both in use, a sixth to a third was lost with this of what was lost without
/// it.
pub(crate) fn shorten() -> io::Result<()> {
    let attributes = get()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    set(&libc::sched_attr { sched_runtime: SLICE_NS, ..attributes })
}

/// The calling thread asks for short slices: a key is gone when its connection is. `more`: by how
/// much its nice value is to be below that of the process; for threads that run little, and only
/// where CAP_SYS_NICE is held.
pub(crate) fn be_prompt(more: i32) {
    // Not by getpriority(2), which the filter of system calls refuses.
    let nice = get().map_or(0, |now| now.sched_nice);
    let with = |nice| libc::sched_attr { sched_nice: nice, sched_runtime: SLICE_NS, ..ordinary() };
    let done = set(&with(nice.saturating_sub(more).max(-20))).or_else(|_| set(&with(nice)));
    if let Err(error) = done {
        tracing::debug!(%error, "a thread is woken no sooner than others");
    }
}

/// The calling thread runs before all others where that is allowed (CAP_SYS_NICE): the lowest
/// real-time priority, or else the lowest nice value.
pub(crate) fn hurry() -> io::Result<()> {
    let lowest = libc::sched_attr { sched_policy: libc::SCHED_RR as u32, sched_priority: 1, ..ordinary() };
    Ok(set(&lowest).or_else(|_| setpriority_process(None, -20))?)
}

const fn ordinary() -> libc::sched_attr {
    libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    }
}

fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: valid attributes of the size that they say; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get() -> io::Result<libc::sched_attr> {
    let mut attributes = ordinary();
    // SAFETY: room for as many bytes as it is said to have; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, attributes.size, 0) } {
        0 => Ok(attributes),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_shorter_and_all_else_as_it_was() {
        let before = get().unwrap();
        shorten().unwrap();
        let after = get().unwrap();
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        // Kernels that do not know slices report none.
        assert!([0, SLICE_NS].contains(&after.sched_runtime), "{}", after.sched_runtime);
        assert!(before.sched_runtime == 0 || after.sched_runtime == SLICE_NS);
    }
}
