//! Whether bpf(2) can be called at all, and if not, who forbids it: for `ktrace doctor`.
#![expect(unsafe_code, reason = "fork(2), and bpf(2) with attributes that no library makes")]

use std::fs;
use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::privilege;

/// What to do about a filter.
pub(super) const ALLOW: &str = "let the filter allow bpf(2): Kubernetes: seccompProfile of type \
Unconfined, or a Localhost profile with \
                                bpf; containers: --security-opt seccomp=…; systemd: SystemCallFilter=bpf";

/// What becomes of a call of bpf(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It reaches the kernel's code, which goes on to look at what is asked for.
    Through,
    /// It fails with this error before that.
    Denied(i32),
    /// The caller is killed.
    Killed,
}

/// What is known of this process, for the reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Whether it holds CAP_BPF, or CAP_SYS_ADMIN in its place.
    pub(super) has_capability: bool,
    /// `None` where /proc does not say.
    pub(super) in_host_user_namespace: Option<bool>,
    pub(super) is_filtered: bool,
}

impl Standing {
    pub(super) fn here() -> Self {
        Self {
            has_capability: privilege::holds(privilege::BPF) || privilege::holds(privilege::SYS_ADMIN),
            in_host_user_namespace: privilege::is_in_host_user_namespace().ok(),
            is_filtered: privilege::is_filtered(),
        }
    }
}

/// Calls it with attributes that are larger than any may be. Who may call it gets E2BIG for that,
/// before anything else is looked at, security modules included. A child does it, as a filter may
/// kill who calls.
pub(super) fn call() -> Call {
    // SAFETY: the child does nothing but two system calls, whatever locks other threads have held.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let error = error_of_call();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(error) };
    }
    let status = Pid::from_raw(child.max(0)).map(|child| waitpid(Some(child), WaitOptions::empty()));
    match status {
        Some(Ok(Some((_, status)))) => status.exit_status().map_or(Call::Killed, judge),
        _ => judge(error_of_call()),
    }
}

fn judge(error: i32) -> Call {
    if error == libc::E2BIG { Call::Through } else { Call::Denied(error) }
}

fn error_of_call() -> i32 {
    /// `BPF_MAP_CREATE`: what a capture calls it for first.
    const MAP_CREATE: libc::c_int = 0;
    /// More than a page, of whatever size.
    const SIZE: libc::c_uint = 1 << 24;
    // SAFETY: attributes of that size are refused before they are read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, std::ptr::null::<u8>(), SIZE) };
    if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

/// The reason in words, and what to do about it; nothing where the call goes through.
pub(super) fn reason(call: Call, standing: Standing) -> Option<(String, &'static str)> {
    const NAMESPACE: &str = "run ktrace in the host's user namespace: Kubernetes: hostUsers: true; podman: \
    not rootless, --userns=host";
    let Standing { has_capability, in_host_user_namespace, is_filtered } = standing;
    let error = match call {
        Call::Through => return None,
        Call::Killed => return Some(("a seccomp filter kills who calls it".to_owned(), ALLOW)),
        Call::Denied(error) => error,
    };
    let said = io::Error::from_raw_os_error(error);
    let forbids = error == libc::EPERM || error == libc::EACCES;
    Some(match (in_host_user_namespace, has_capability) {
        (Some(false), _) if forbids => {
            (format!("{said}: the capabilities of a user namespace do not count for it"), NAMESPACE)
        }
        (_, false) if forbids => {
            let setting =
                fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap_or_default();
            let setting = setting.trim();
            let setting = if setting.is_empty() {
                String::new()
            } else {
                format!(" (kernel.unprivileged_bpf_disabled = {setting})")
            };
            let filter = if is_filtered {
                "; a seccomp filter is in force too, and may forbid it as well"
            } else {
                ""
            };
            (format!("{said}: CAP_BPF is missing{setting}{filter}"), "give ktrace CAP_BPF, as said there")
        }
        (_, _) if is_filtered => {
            let though = if has_capability { ", though CAP_BPF is held" } else { "" };
            (format!("{said}: a seccomp filter denies it{though}"), ALLOW)
        }
        (None, true) if forbids => (
            format!(
                "{said}, though CAP_BPF is held: a user namespace's, if so; without /proc that is not to \
                be seen"
            ),
            NAMESPACE,
        ),
        _ if error == libc::ENOSYS => {
            (format!("{said}: this kernel is built without it"), "use a kernel with CONFIG_BPF_SYSCALL")
        }
        _ => (
            format!(
                "{said}, though CAP_BPF is held and no seccomp filter is in force: a security module \
                denies it"
            ),
            "let the security module allow it: SELinux: seLinuxOptions: {type: spc_t}; see its log \
            (ausearch -m avc, dmesg)",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_call_gets_through() {
        let standing = Standing::here();
        if !standing.has_capability || standing.is_filtered || standing.in_host_user_namespace != Some(true) {
            println!("skipped: bpf(2) may be forbidden here");
            return;
        }
        assert_eq!(call(), Call::Through);
    }

    #[test]
    fn each_reason() {
        let standing =
            Standing { has_capability: true, in_host_user_namespace: Some(true), is_filtered: false };
        let filtered = Standing { is_filtered: true, ..standing };
        let in_namespace = Standing { in_host_user_namespace: Some(false), ..standing };
        let denied = Call::Denied(libc::EPERM);
        let says = |call, standing, what: &str| {
            let (said, advice) = reason(call, standing).unwrap();
            assert!(said.contains(what), "{said}");
            assert!(!advice.is_empty());
        };
        assert_eq!(reason(Call::Through, filtered), None);
        says(Call::Killed, filtered, "kills");
        says(denied, filtered, "a seccomp filter denies it, though CAP_BPF is held");
        says(denied, Standing { has_capability: false, ..filtered }, "CAP_BPF is missing");
        says(denied, in_namespace, "user namespace");
        says(denied, Standing { in_host_user_namespace: None, ..standing }, "without /proc");
        says(denied, standing, "security module");
        says(Call::Denied(libc::ENOSYS), standing, "built without");
        says(Call::Denied(libc::ENOSYS), filtered, "a seccomp filter denies it");
    }
}
