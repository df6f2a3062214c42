//! Whether the memory of other processes may be read, tried and not guessed: what `--tls memory`
//! takes.
#![expect(unsafe_code, reason = "process_vm_readv(2), which rustix does not have")]

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::slice;

use super::{DAC_READ_SEARCH, SYS_PTRACE, holds, is_in_host_pid_namespace};

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub what: String,
    pub advice: &'static str,
}

/// What was found of what decides.
#[derive(Clone, Copy, Debug, Default)]
struct Findings {
    ptrace: bool,
    dac: bool,
    /// `kernel.yama.ptrace_scope`, where there is Yama.
    yama: Option<u8>,
    /// Processes have other numbers here than the kernel's programs see.
    renumbered: bool,
    /// The number of the error with which no word of another process could be read; 0 where one could, `None`
    /// where there is no other process.
    read: Option<i32>,
}

impl Lack {
    /// Of the calling thread, before it gives anything up.
    #[must_use]
    pub fn here() -> Option<Self> {
        let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
        let yama = yama.and_then(|scope| scope.trim().parse().ok());
        let read = read_a_word_of_any();
        let renumbered = !is_in_host_pid_namespace().unwrap_or(true);
        Self::of(Findings { ptrace: holds(SYS_PTRACE), dac: holds(DAC_READ_SEARCH), yama, renumbered, read })
    }

    fn of(findings: Findings) -> Option<Self> {
        let lack = |what: &str, advice| Some(Self { what: what.to_owned(), advice });
        match findings {
            Findings { ptrace: false, .. } => lack(
                "memory of other users' processes cannot be read without CAP_SYS_PTRACE",
                "Kubernetes: capabilities: {add: [SYS_PTRACE, DAC_READ_SEARCH]}; systemd: \
                AmbientCapabilities=; or run as root; or use --tls keylog:FILE",
            ),
            Findings { dac: false, .. } => lack(
                "which pages of other users' processes are resident cannot be read without \
                CAP_DAC_READ_SEARCH",
                "Kubernetes: capabilities: {add: [SYS_PTRACE, DAC_READ_SEARCH]}; systemd: \
                AmbientCapabilities=; or run as root; or use --tls keylog:FILE",
            ),
            Findings { yama: Some(3..), .. } => lack(
                "Yama forbids to read any process's memory (kernel.yama.ptrace_scope is 3)",
                "the next boot alone can change that; use --tls keylog:FILE",
            ),
            Findings { renumbered: true, .. } => lack(
                "other processes cannot be found in a container's pid namespace",
                "run the container with the host's pid namespace (hostPID: true, --pid=host), or use --tls keylog:FILE",
            ),
            Findings { read: Some(libc::ENOSYS), .. } => lack(
                "a seccomp filter forbids process_vm_readv",
                "allow it in the container's seccomp profile (Kubernetes: seccompProfile), or use --tls \
                keylog:FILE",
            ),
            Findings { read: Some(error @ 1..), .. } => lack(
                &format!(
                    "the memory of other processes cannot be read: {}",
                    io::Error::from_raw_os_error(error)
                ),
                "a security module (AppArmor, SELinux), a seccomp filter or a user namespace forbids it: \
                see deploy/README.md; or use --tls keylog:FILE",
            ),
            _ => None,
        }
    }
}

/// Tries some processes, the newest first, as one alone may be protected for reasons of its own; 0,
/// or the last error.
fn read_a_word_of_any() -> Option<i32> {
    /// A host where none of this number can be read is one where none can.
    const TRIES: usize = 16;
    let own = libc::pid_t::try_from(std::process::id()).unwrap_or(0);
    let names = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.file_name());
    let mut pids: Vec<libc::pid_t> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    pids.retain(|pid| *pid != own);
    pids.sort_unstable_by(|a, b| b.cmp(a));
    let mut last = None;
    for pid in pids {
        match read_a_word(pid) {
            Ok(false) => continue,
            Ok(true) => return Some(0),
            // It has ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => continue,
            Err(error) => {
                last =
                    Some((error.raw_os_error().unwrap_or(libc::EIO), last.map_or(1, |(_, tries)| tries + 1)))
            }
        }
        if last.is_some_and(|(_, tries)| tries >= TRIES) {
            break;
        }
    }
    last.map(|(error, _)| error)
}

/// Reads eight bytes of a process, in the way of a search: where its memory is, which pages are
/// resident, and what stands in one. `false` where it has no memory.
fn read_a_word(pid: libc::pid_t) -> io::Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    File::open(format!("/proc/{pid}/pagemap"))?;
    let writable =
        maps.lines().find(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")));
    let start = writable.and_then(|line| u64::from_str_radix(line.split_once('-')?.0, 16).ok());
    // A thread of the kernel has none.
    let Some(start) = start else { return Ok(false) };
    let mut word = [0_u8; 8];
    let range = start..start.saturating_add(8);
    let read = read(pid, &mut word, slice::from_ref(&range));
    word.fill(0);
    read.map(|_| true)
}

/// Reads ranges of a process's memory one behind the other, as far as they are there and have room;
/// how many bytes were read.
pub(crate) fn read(pid: libc::pid_t, into: &mut [u8], ranges: &[Range<u64>]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote: Vec<_> = ranges
        .iter()
        .map(|range| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(range.start as usize),
            iov_len: range.end.saturating_sub(range.start) as usize,
        })
        .collect();
    let count = remote.len() as libc::c_ulong;
    // SAFETY: as many ranges as are said, and room for what is written. Addresses of the other
    // process are looked at by the kernel alone.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let all = Findings { ptrace: true, dac: true, yama: Some(1), renumbered: false, read: Some(0) };
        assert_eq!(Lack::of(all), None);
        assert_eq!(Lack::of(Findings { yama: None, read: None, ..all }), None);
        for (findings, says) in [
            (Findings { ptrace: false, ..all }, "CAP_SYS_PTRACE"),
            (Findings { dac: false, ..all }, "CAP_DAC_READ_SEARCH"),
            (Findings { yama: Some(3), read: Some(libc::EPERM), ..all }, "ptrace_scope"),
            (Findings { renumbered: true, ..all }, "pid namespace"),
            (Findings { read: Some(libc::ENOSYS), ..all }, "seccomp"),
            (Findings { read: Some(libc::EPERM), ..all }, "other processes"),
        ] {
            let lack = Lack::of(findings).unwrap();
            assert!(lack.what.contains(says) && lack.advice.contains("keylog:FILE"), "{lack:?}");
        }
    }

    #[test]
    fn our_own_memory_may_be_read() {
        let own = libc::pid_t::try_from(std::process::id()).unwrap();
        assert!(read_a_word(own).unwrap());
    }
}
