//! What this process may do: its capabilities, and what they are worth where it runs.

use std::fs;
use std::io;

/// Bits of `include/uapi/linux/capability.h`.
pub(super) const DAC_READ_SEARCH: u32 = 2;
pub(super) const NET_ADMIN: u32 = 12;
pub(super) const SYS_PTRACE: u32 = 19;
pub(super) const SYS_ADMIN: u32 = 21;
pub(super) const SYS_NICE: u32 = 23;
pub(super) const SYS_RESOURCE: u32 = 24;
pub(super) const PERFMON: u32 = 38;
pub(super) const BPF: u32 = 39;

/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO` of `include/linux/proc_ns.h`: the inodes of the initial
/// namespaces.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// An argument of prctl(2), which has to be zero in its whole width.
const UNUSED: libc::c_ulong = 0;

/// All effective capabilities of the calling thread, a bit each. Needs no /proc.
pub(super) fn effective() -> u64 {
    /// `_LINUX_CAPABILITY_VERSION_3` of `include/uapi/linux/capability.h`.
    const VERSION: u32 = 0x2008_0522;
    /// `struct __user_cap_header_struct`.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `struct __user_cap_data_struct`; the second has the upper 32 bits.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: a header, and room for as much as its version says.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let [low, high] = data;
    if result == 0 { u64::from(high.effective) << 32 | u64::from(low.effective) } else { 0 }
}

/// Whether one of them is held.
pub(super) fn holds(bit: u32) -> bool {
    effective() & 1 << bit != 0
}

/// Whether a program that this process starts could have the capability at all.
pub(super) fn may_be_granted(bit: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(bit), UNUSED, UNUSED, UNUSED) == 1 }
}

/// Whether capabilities of executable files are ignored (`no_new_privs`).
pub(super) fn ignores_file_capabilities() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, UNUSED, UNUSED, UNUSED, UNUSED) == 1 }
}

/// Whether a seccomp filter is in force. (In the strict mode this very call would kill, as nearly all others
/// do.)
pub(super) fn is_filtered() -> bool {
    // SAFETY: no pointers.
    unsafe {
        libc::prctl(libc::PR_GET_SECCOMP, UNUSED, UNUSED, UNUSED, UNUSED)
            == libc::SECCOMP_MODE_FILTER.cast_signed()
    }
}

/// Whether the capabilities are the host's, and not only those of a user namespace, which bpf(2) does not ask
/// for.
pub(super) fn is_in_host_user_namespace() -> io::Result<bool> {
    Ok(fs::read_link("/proc/self/ns/user")?.to_str() == Some(INITIAL_USER_NAMESPACE))
}

/// Whether processes have the numbers here that the kernel's programs see.
pub(super) fn is_in_host_pid_namespace() -> io::Result<bool> {
    Ok(fs::read_link("/proc/self/ns/pid")?.to_str() == Some(INITIAL_PID_NAMESPACE))
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
}
