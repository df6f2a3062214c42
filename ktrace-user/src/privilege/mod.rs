//! What this process may do, and what it gives up once it watches.
//!
//! Capabilities belong to threads, and a new thread begins with its parent's. So each thread that
//! is started before the programs are attached calls [`shed`] first of all; the main thread does so
//! in [`confine`], and all that it starts later begins with nothing. Threads share their memory:
//! what one keeps is within reach of whoever runs code of his own in another. It is little, and the
//! smaller the better.

pub mod filter;
pub mod memory;

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, thread};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, SecureComputingMode, capabilities, capability_is_in_bounding_set,
    no_new_privs, remove_capability_from_bounding_set, secure_computing_mode, set_capabilities,
    set_no_new_privs,
};

/// Bits of `include/uapi/linux/capability.h`.
pub const DAC_READ_SEARCH: u32 = 2;
pub const NET_ADMIN: u32 = 12;
pub const SYS_PTRACE: u32 = 19;
pub const SYS_ADMIN: u32 = 21;
pub const SYS_NICE: u32 = 23;
pub const SYS_RESOURCE: u32 = 24;
pub const PERFMON: u32 = 38;
pub const BPF: u32 = 39;

/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO` of `include/linux/proc_ns.h`: the inodes of the
/// initial namespaces.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// A thread that keeps capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// Its name, as in `/proc/PID/task/TID/comm`.
    pub thread: &'static str,
    /// Those of these that the process was given.
    pub keeps: &'static [u32],
}

/// All that keep any: `deploy/README.md` says why.
pub const KEEPERS: [Keeper; 8] = [
    Keeper { thread: "ktrace-bpf", keeps: &[BPF, NET_ADMIN] },
    // With --cgroup alone: it attaches anew.
    Keeper { thread: "ktrace-cgroup", keeps: &[BPF, NET_ADMIN] },
    // With --tls keylog alone: the file may be another user's, and made later.
    Keeper { thread: "ktrace-keylog", keeps: &[DAC_READ_SEARCH] },
    // With --tls memory alone.
    Keeper { thread: "ktrace-keys", keeps: &[SYS_PTRACE, DAC_READ_SEARCH] },
    Keeper { thread: "ktrace-owners", keeps: &[SYS_PTRACE, DAC_READ_SEARCH] },
    Keeper { thread: "ktrace-resolve", keeps: &[SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN] },
    // With --tls-uprobes alone: it looks at files that processes have mapped, and attaches to them:
    // before Linux 6.6 by events, for which kernels since July 2025 ask for SYS_ADMIN, and those
    // before for PERFMON (`perf_uprobe_event_init` in `kernel/events/core.c`).
    Keeper { thread: "ktrace-uprobes", keeps: &[BPF, PERFMON, SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH] },
    // It enters the namespaces for the one before, and ends.
    Keeper { thread: "ktrace-netns", keeps: &[SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN] },
];

/// Whether anything is given up: a program that uses this crate decides that itself, and
/// `--no-harden` says no.
static HARDENS: AtomicBool = AtomicBool::new(false);

/// From here on threads give up what they do not need. Called before any is started.
pub fn harden() {
    HARDENS.store(true, Ordering::Relaxed);
}

/// Gives up all capabilities of the calling thread that [`KEEPERS`] does not leave it, for good:
/// none can be had again, not by `execve` either.
pub fn shed() {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let kept = KEEPERS.iter().find(|keeper| keeper.thread == name).map_or(&[][..], |keeper| keeper.keeps);
    keep(kept);
}

/// Gives up all capabilities of the calling thread but these.
pub fn keep(capabilities: &[u32]) {
    if !HARDENS.load(Ordering::Relaxed) {
        return;
    }
    if let Err(error) = reduce(capabilities) {
        tracing::warn!(%error, "a thread goes on with capabilities that it does not need");
    }
}

/// Restricts the whole process: the calling thread keeps these capabilities, no thread gains any,
/// none makes a system call that the agent does not need, and only root reads the memory or has it
/// dumped. What needs a privilege that no thread keeps, has been done before. `also`: system calls
/// that threads which were started before make; those that are started later cannot.
pub fn confine(capabilities: &[u32], also: &[libc::c_long]) {
    if !HARDENS.load(Ordering::Relaxed) {
        return;
    }
    keep(capabilities);
    if let Err(error) = undumpable() {
        tracing::warn!(%error, "this process may be dumped");
    }
    if let Err(error) = filter::install(filter::Threads::All, also) {
        tracing::warn!("system calls are not restricted: {error}");
    } else if let Err(error) = filter::forbid(also) {
        tracing::warn!("threads may make system calls that they need not: {error}");
    }
}

/// No core files, and `/proc/PID/mem` and `ptrace` are for root alone.
fn undumpable() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Leaves the calling thread `wanted` of its permitted capabilities, in its permitted and effective
/// sets; empties all others.
fn reduce(wanted: &[u32]) -> io::Result<()> {
    set_no_new_privs(true)?;
    // Takes CAP_SETPCAP, and so comes first. Without it the set stays, and is of no use to who may
    // not gain privileges.
    for bit in 0..u64::BITS {
        if remove_capability_from_bounding_set(capability(bit)).is_err() {
            break;
        }
    }
    let permitted = capabilities(None)?.permitted.bits();
    let kept = CapabilitySet::from_bits_retain(among(permitted, wanted));
    // Ambient capabilities go with the permitted and inheritable ones.
    let inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?)
}

/// One that the library may not know by name.
const fn capability(bit: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << bit)
}

/// What of `permitted` is kept for the `wanted`. To the kernel SYS_ADMIN stands for BPF and
/// NET_ADMIN where `bpf(2)` asks for them (`bpf_capable` and `bpf_net_capable` in
/// `include/linux/bpf.h`), and for PERFMON (`perfmon_capable` in `include/linux/capability.h`).
pub(crate) fn among(permitted: u64, wanted: &[u32]) -> u64 {
    wanted.iter().fold(0, |kept, bit| {
        let stand_in = if matches!(*bit, BPF | NET_ADMIN | PERFMON) { permitted & 1 << SYS_ADMIN } else { 0 };
        kept | match permitted & 1 << bit {
            0 => stand_in,
            held => held,
        }
    })
}

/// All effective capabilities of the calling thread, a bit each. Needs no `/proc`.
pub(crate) fn effective() -> u64 {
    capabilities(None).map_or(0, |sets| sets.effective.bits())
}

/// Whether one of them is held.
pub(crate) fn holds(bit: u32) -> bool {
    effective() & 1 << bit != 0
}

/// Whether a program that this process starts could have the capability at all.
pub(crate) fn may_be_granted(bit: u32) -> bool {
    capability_is_in_bounding_set(capability(bit)).unwrap_or(false)
}

/// Whether capabilities of executable files are ignored (`no_new_privs`).
pub(crate) fn ignores_file_capabilities() -> bool {
    no_new_privs().unwrap_or(false)
}

/// Whether a seccomp filter is in force. (In the strict mode this very call would kill, as nearly
/// all others do.)
pub(crate) fn is_filtered() -> bool {
    secure_computing_mode() == Ok(SecureComputingMode::Filter)
}

/// Whether the capabilities are the host's, and not only those of a user namespace, which bpf(2)
/// does not ask for.
pub(crate) fn is_in_host_user_namespace() -> io::Result<bool> {
    Ok(fs::read_link("/proc/self/ns/user")?.to_str() == Some(INITIAL_USER_NAMESPACE))
}

/// Whether processes have the numbers here that the kernel's programs see.
pub(crate) fn is_in_host_pid_namespace() -> io::Result<bool> {
    Ok(fs::read_link("/proc/self/ns/pid")?.to_str() == Some(INITIAL_PID_NAMESPACE))
}

/// What a thread has left after [`shed`] and the filter, tried in a thread that then ends:
/// capabilities, or what failed.
pub(crate) fn rehearse() -> io::Result<Result<u64, filter::FilterError>> {
    let rehearsal = thread::Builder::new().name("ktrace-rehearse".to_owned()).spawn(|| {
        reduce(&[])?;
        Ok(filter::install(filter::Threads::This, &[]).map(|()| effective()))
    })?;
    rehearsal.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_as_the_status_file_says() {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap().to_owned()
        };
        assert_eq!(format!("{:016x}", effective()), field("CapEff:"));
        assert_eq!(is_filtered(), field("Seccomp:") == "2");
        assert_eq!(ignores_file_capabilities(), field("NoNewPrivs:") == "1");
        let bounding = u64::from_str_radix(&field("CapBnd:"), 16).unwrap();
        assert_eq!(may_be_granted(SYS_ADMIN), bounding & 1 << SYS_ADMIN != 0);
    }

    #[test]
    fn kept_is_what_was_given_or_stands_in_for_it() {
        assert_eq!(among(u64::MAX, &[BPF, NET_ADMIN]), 1 << BPF | 1 << NET_ADMIN);
        assert_eq!(among(1 << SYS_ADMIN, &[BPF, NET_ADMIN]), 1 << SYS_ADMIN);
        assert_eq!(among(1 << BPF | 1 << SYS_ADMIN, &[BPF]), 1 << BPF);
        assert_eq!(among(1 << SYS_ADMIN, &[SYS_PTRACE]), 0);
        assert_eq!(among(u64::MAX, &[]), 0);
    }

    #[test]
    fn a_thread_gives_up_its_own_and_no_other_thread_does() {
        let before = effective();
        assert_eq!(rehearse().unwrap().unwrap(), 0);
        assert_eq!(effective(), before);
    }
}
