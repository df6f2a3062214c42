//! Threads that are to run soon after they are woken: a key is gone when its connection is.

/// How long such a thread wants to run at a time. Kernels from 6.12 on wake who wants little before those who want more, and ask for no
/// privilege for it (`sched_runtime` in `sched_setattr(2)`, 0.1 ms at least); those before look away.
const SLICE_NS: u64 = 100_000;

/// The calling thread runs soon after it is woken, before those that want to run for long. `more`: how much nearer the front its nice value is than
/// that of the process: for threads that use little; without effect where CAP_SYS_NICE is not held.
pub(crate) fn be_prompt(more: i32) {
    // SAFETY: no pointers; 0 is the calling thread. -1 is a nice value as much as an error, which this call does not have.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    for nice in [nice.saturating_sub(more).max(-20), nice] {
        let attributes = libc::sched_attr {
            size: size_of::<libc::sched_attr>() as u32,
            sched_policy: libc::SCHED_OTHER as u32,
            sched_flags: 0,
            sched_nice: nice,
            sched_priority: 0,
            sched_runtime: SLICE_NS,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: valid attributes of the size that they say; 0 is the calling thread.
        let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        if set == 0 {
            return;
        }
    }
    tracing::debug!("a thread is woken no sooner than others: {}", std::io::Error::last_os_error());
}
