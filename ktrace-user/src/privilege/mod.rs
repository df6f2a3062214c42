//! What this process may do, and what it gives up once it watches.
//!
//! Capabilities belong to threads, and a new thread begins with its parent's. So each thread that is started before the programs are attached
//! calls [`shed`] first of all; the main thread does so in [`confine`], and all that it starts later begins with nothing. Threads share their
//! memory: what one keeps is within reach of whoever runs code of his own in another. It is little, and the smaller the better.

pub mod filter;

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, thread};

/// Bits of `include/uapi/linux/capability.h`.
pub const DAC_READ_SEARCH: u32 = 2;
pub const NET_ADMIN: u32 = 12;
pub const SYS_PTRACE: u32 = 19;
pub const SYS_ADMIN: u32 = 21;
pub const SYS_RESOURCE: u32 = 24;
pub const PERFMON: u32 = 38;
pub const BPF: u32 = 39;

/// A thread that keeps capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// Its name, as in `/proc/PID/task/TID/comm`.
    pub thread: &'static str,
    /// Those of these that the process was given.
    pub keeps: &'static [u32],
}

/// All that keep any: `deploy/README.md` says why.
pub const KEEPERS: [Keeper; 4] = [
    Keeper { thread: "ktrace-bpf", keeps: &[BPF, NET_ADMIN] },
    Keeper { thread: "ktrace-owners", keeps: &[SYS_PTRACE, DAC_READ_SEARCH] },
    Keeper { thread: "ktrace-resolve", keeps: &[SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN] },
    // It enters the namespaces for the one before, and ends.
    Keeper { thread: "ktrace-netns", keeps: &[SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN] },
];

/// Whether anything is given up: a program that uses this crate decides that itself, and `--no-harden` says no.
static HARDENS: AtomicBool = AtomicBool::new(false);

/// From here on threads give up what they do not need. Called before any is started.
pub fn harden() {
    HARDENS.store(true, Ordering::Relaxed);
}

/// Gives up all capabilities of the calling thread that [`KEEPERS`] does not leave it, for good: none can be had again, not by `execve` either.
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

/// Restricts the whole process: the calling thread keeps these capabilities, no thread gains any, none makes a system call that the agent does
/// not need, and nobody reads the memory or has it dumped who is not root. What needs a privilege that no thread keeps, has been done before.
pub fn confine(capabilities: &[u32]) {
    if !HARDENS.load(Ordering::Relaxed) {
        return;
    }
    keep(capabilities);
    if let Err(error) = undumpable() {
        tracing::warn!(%error, "this process may be dumped");
    }
    if let Err(error) = filter::install(filter::Threads::All) {
        tracing::warn!("system calls are not restricted: {error}");
    }
}

/// No core files, and `/proc/PID/mem` and `ptrace` are for root alone.
fn undumpable() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid limit.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    prctl(libc::PR_SET_DUMPABLE, [0; 4])
}

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// The kernel's `struct __user_cap_data_struct`: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two times 32 capabilities.
const VERSION: u32 = 0x2008_0522;

/// Leaves the calling thread `wanted` of its permitted capabilities, in its permitted and effective sets; empties all others.
fn reduce(wanted: &[u32]) -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0])?;
    // Takes CAP_SETPCAP, and so comes first. Without it the set stays, and is of no use to who may not gain privileges.
    for bit in 0..u64::BITS {
        if prctl(libc::PR_CAPBSET_DROP, [bit.into(), 0, 0, 0]).is_err() {
            break;
        }
    }
    let header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: a valid header, and room for the two sets of its version; 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let permitted = u64::from(sets[0].permitted) | u64::from(sets[1].permitted) << 32;
    let kept = among(permitted, wanted);
    // Cast on purpose: one half each.
    for (set, half) in sets.iter_mut().zip([kept as u32, (kept >> 32) as u32]) {
        *set = Sets { effective: half, permitted: half, inheritable: 0 };
    }
    // Ambient capabilities go with the permitted and inheritable ones.
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What of `permitted` is kept for the `wanted`. To the kernel SYS_ADMIN stands for BPF and NET_ADMIN where `bpf(2)` asks for them
/// (`bpf_capable` and `bpf_net_capable` in `include/linux/bpf.h`).
pub(crate) fn among(permitted: u64, wanted: &[u32]) -> u64 {
    wanted.iter().fold(0, |kept, bit| {
        let stand_in = if matches!(*bit, BPF | NET_ADMIN) { permitted & 1 << SYS_ADMIN } else { 0 };
        kept | match permitted & 1 << bit {
            0 => stand_in,
            held => held,
        }
    })
}

fn prctl(option: libc::c_int, arguments: [libc::c_ulong; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: none of the options used takes a pointer.
    match unsafe { libc::prctl(option, a, b, c, d) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// All effective capabilities of the main thread, a bit each; none where `/proc` does not tell.
pub(crate) fn effective() -> u64 {
    of_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Whether one of them is held.
pub(crate) fn holds(bit: u32) -> bool {
    effective() & 1 << bit != 0
}

/// The effective capabilities in the text of a status file.
fn of_status(status: &str) -> u64 {
    field(status, "CapEff:").and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What a thread has left after [`shed`] and the filter, tried in a thread that then ends: capabilities as `/proc` shows them, and what failed.
pub(crate) fn rehearse() -> io::Result<Result<u64, filter::FilterError>> {
    let rehearsal = thread::Builder::new().name("ktrace-rehearse".to_owned()).spawn(|| {
        reduce(&[])?;
        let installed = filter::install(filter::Threads::This);
        let status = fs::read_to_string("/proc/thread-self/status")?;
        Ok(installed.map(|()| of_status(&status)))
    })?;
    rehearsal.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_status_file() {
        assert_eq!(of_status("Name:\tx\nCapEff:\t0000000000200000\n"), 1 << 21);
        assert_eq!(of_status("Name:\tx\n"), 0);
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
