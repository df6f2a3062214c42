//! Whether the memory of other processes may be read, tried and not guessed: what `--tls memory` takes.

use std::fs::{self, File};
use std::io;

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
                "Kubernetes: capabilities: {add: [SYS_PTRACE, DAC_READ_SEARCH]}; systemd: AmbientCapabilities=; or run as root; or use --tls keylog:FILE",
            ),
            Findings { dac: false, .. } => lack(
                "which pages of other users' processes are resident cannot be read without CAP_DAC_READ_SEARCH",
                "Kubernetes: capabilities: {add: [SYS_PTRACE, DAC_READ_SEARCH]}; systemd: AmbientCapabilities=; or run as root; or use --tls keylog:FILE",
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
                "allow it in the container's seccomp profile (Kubernetes: seccompProfile), or use --tls keylog:FILE",
            ),
            Findings { read: Some(error @ 1..), .. } => lack(
                &format!(
                    "the memory of other processes cannot be read: {}",
                    io::Error::from_raw_os_error(error)
                ),
                "a security module (AppArmor, SELinux), a seccomp filter or a user namespace forbids it: see deploy/README.md; or use --tls keylog:FILE",
            ),
            _ => None,
        }
    }
}

/// Tries some processes, the newest first, as one alone may be protected for reasons of its own; 0, or the
/// last error.
fn read_a_word_of_any() -> Option<i32> {
    /// A host where none of so many can be read is one where none can.
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

/// Reads eight bytes of a process, in the way of a search: where its memory is, which pages are resident, and
/// what stands in one. `false` where it has no memory.
fn read_a_word(pid: libc::pid_t) -> io::Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    File::open(format!("/proc/{pid}/pagemap"))?;
    let writable =
        maps.lines().find(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")));
    let start = writable.and_then(|line| usize::from_str_radix(line.split_once('-')?.0, 16).ok());
    // A thread of the kernel has none.
    let Some(start) = start else { return Ok(false) };
    let mut word = [0_u8; 8];
    let here = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: word.len() };
    let there = libc::iovec { iov_base: std::ptr::without_provenance_mut(start), iov_len: word.len() };
    // SAFETY: `here` is eight bytes that are ours alone; `there` is an address of the other process, which
    // the kernel checks.
    let read = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    word.fill(0);
    if read < 0 { Err(io::Error::last_os_error()) } else { Ok(true) }
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
