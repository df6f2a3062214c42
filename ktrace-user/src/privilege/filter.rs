//! The system calls that the agent makes once it watches; all others fail with `ENOSYS`, and the
//! kernel logs them where it has audit records (type 1326, `dmesg` or `ausearch -m seccomp`).
//!
//! Not the death of the process: C libraries try new calls and fall back on old ones where the
//! kernel says that it has none, and an agent that misses one call still shows most of what passes.
//! `ENOSYS` and not `EPERM`, since that is what they fall back on.
//!
//! Among those left out: `execve`, `ptrace`, `process_vm_writev`, `process_vm_readv` (but for the
//! thread that searches for keys), `mount`, `unshare`, `clone3` (whose flags a filter cannot see,
//! so that C libraries take `clone`), `io_uring_setup`, `perf_event_open` (but for the thread that
//! probes libraries), `listen`, `accept4`, `init_module`, all that changes files by name, owner or
//! mode.
#![expect(unsafe_code, reason = "seccomp(2), which rustix does not have")]

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the filter cannot be made: {0}")]
    Made(#[from] seccompiler::BackendError),
    #[error("the kernel refuses it: {0}")]
    Refused(#[source] io::Error),
}

/// Whom a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling one.
    This,
    /// All of the process, and those that they start.
    All,
}

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

const REFUSED: SeccompAction = SeccompAction::Errno(libc::ENOSYS as u32);

/// Allowed whatever their arguments.
#[rustfmt::skip]
const ALLOWED: &[libc::c_long] = &[
    // memory
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_munmap,
    // threads and their waiting
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_get_robust_list, libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_membarrier, libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_sched_getaffinity, libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_setattr, libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list, libc::SYS_set_tid_address, libc::SYS_setpriority,
    // signals: to threads of its own; `kill` is below
    libc::SYS_rt_sigaction, libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack, libc::SYS_tgkill, libc::SYS_tkill,
    // time
    libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_times,
    // who and where it is, and what it uses
    libc::SYS_capget, libc::SYS_capset, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid, libc::SYS_getrandom, libc::SYS_getrusage, libc::SYS_getuid, libc::SYS_sysinfo,
    libc::SYS_uname,
    // descriptors
    libc::SYS_close, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_fcntl, libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch, libc::SYS_lseek, libc::SYS_pidfd_open, libc::SYS_pipe2, libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv, libc::SYS_pselect6, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write, libc::SYS_writev,
    // files: processes in /proc, certificates, resolv.conf, time zones, the summary
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_fdatasync, libc::SYS_fstat, libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_newfstatat, libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_statfs, libc::SYS_statx,
    // sockets: to the collector, to name servers, to the kernel's list of sockets
    libc::SYS_bind, libc::SYS_connect, libc::SYS_getpeername, libc::SYS_getsockname, libc::SYS_getsockopt,
    libc::SYS_recvfrom, libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt, libc::SYS_shutdown, libc::SYS_socketpair,
];

/// Older forms of some, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access, libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_open, libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink, libc::SYS_select, libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Allowed with one of these values of one argument, given by its place.
#[rustfmt::skip]
const WITH: &[(libc::c_long, u8, &[u64])] = &[
    // `enum bpf_cmd`: elements of maps looked up, set and deleted; programs listed and
    // opened by their number, queried, detached, run for a test, attached by a link
    (libc::SYS_bpf, 0, &[1, 2, 3, 9, 10, 11, 13, 15, 16, 28]),
    // terminals (TCGETS to TCSETSF, TCGETS2 to TCSETSF2, TIOCGPGRP, TIOCGWINSZ), descriptors
    // (FIONREAD, FIONBIO, FIONCLEX, FIOCLEX), probes (PERF_EVENT_IOC_SET_BPF,
    // PERF_EVENT_IOC_ENABLE)
    (libc::SYS_ioctl, 1, &[0x5401, 0x5402, 0x5403, 0x5404, 0x802c_542a, 0x402c_542b, 0x402c_542c, 0x402c_542d,
        0x540f, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451, 0x4004_2408, 0x2400]),
    // only whether there is such a process
    (libc::SYS_kill, 1, &[0]),
    // what threads do at their start and what lowers their privileges: PR_GET_DUMPABLE,
    // PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP,
    // PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, PR_SET_VMA
    (libc::SYS_prctl, 0, &[3, 15, 16, 21, 23, 24, 38, 39, 41, 42, 0x5356_4d41]),
    // a limit read; setting one needs a pointer here
    (libc::SYS_prlimit64, 2, &[0]),
    (libc::SYS_setns, 1, &[libc::CLONE_NEWNET as u64]),
    (libc::SYS_socket, 0, &[libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_INET6 as u64,
        libc::AF_NETLINK as u64]),
];

/// What a thread may call, too, that reads memory of other processes; others [`forbid`] themselves
/// to.
pub const READS_MEMORY: [libc::c_long; 1] = [libc::SYS_process_vm_readv];

/// For a thread that probes files.
pub const PROBES: [libc::c_long; 1] = [libc::SYS_perf_event_open];

/// A new thread, and neither a process nor a namespace.
const THREAD: u64 = libc::CLONE_THREAD as u64;
const NOT_IN_CLONE: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// How many system calls are allowed, some of them with some arguments alone.
#[must_use]
pub const fn allowed() -> usize {
    ALLOWED.len() + OLDER.len() + WITH.len() + 1
}

/// Puts the filter before the calling thread, or all, for good. `also` are allowed beside, and with
/// any of them to [`forbid`] what this allows.
///
/// # Errors
/// [`FilterError::Refused`] where the kernel has no seccomp, or is not let make use of it.
pub fn install(threads: Threads, also: &[libc::c_long]) -> Result<(), FilterError> {
    put(&program(also)?, threads)
}

/// Takes calls away from the calling thread, and those that it starts, that [`install`] has
/// allowed. Nothing is done for none.
///
/// # Errors
/// As of [`install`].
pub fn forbid(calls: &[libc::c_long]) -> Result<(), FilterError> {
    if calls.is_empty() {
        return Ok(());
    }
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let program = SeccompFilter::new(rules, SeccompAction::Allow, REFUSED, ARCH)?.try_into()?;
    put(&program, Threads::This)
}

fn put(program: &BpfProgram, threads: Threads) -> Result<(), FilterError> {
    let filter = libc::sock_fprog {
        // At most 4096 instructions, as the kernel takes no more (`BPF_MAXINSNS`); the library
        // refuses to make more.
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let all = if threads == Threads::All { libc::SECCOMP_FILTER_FLAG_TSYNC } else { 0 };
    let flags = all | libc::SECCOMP_FILTER_FLAG_LOG;
    rustix::thread::set_no_new_privs(true).map_err(|error| FilterError::Refused(error.into()))?;
    // By hand, as the library does not set the flag that has refusals logged.
    // SAFETY: a filter of as many instructions as it says, which the kernel copies.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) }
    {
        0 => Ok(()),
        // The number of a thread that has a filter of its own.
        thread if thread > 0 => Err(FilterError::Refused(io::ErrorKind::ResourceBusy.into())),
        _ => Err(FilterError::Refused(io::Error::last_os_error())),
    }
}

fn program(also: &[libc::c_long]) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> =
        ALLOWED.iter().chain(OLDER).chain(also).map(|call| (*call, Vec::new())).collect();
    let is = |argument, width, operator, value| {
        let condition = SeccompCondition::new(argument, width, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    for (call, argument, values) in WITH {
        // The kernel takes an `int` here, whose upper half may be anything; but a limit to be set
        // is a pointer.
        let width =
            if *call == libc::SYS_prlimit64 { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
        let allowed: Result<_, _> =
            values.iter().map(|value| is(*argument, width.clone(), SeccompCmpOp::Eq, *value)).collect();
        rules.insert(*call, allowed?);
    }
    let thread = is(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(THREAD | NOT_IN_CLONE), THREAD)?;
    rules.insert(libc::SYS_clone, vec![thread]);
    if !also.is_empty() {
        let filter = is(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::SECCOMP_SET_MODE_FILTER.into())?;
        rules.insert(libc::SYS_seccomp, vec![filter]);
    }
    SeccompFilter::new(rules, REFUSED, SeccompAction::Allow, ARCH)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{fs, thread};

    use super::*;

    /// In a thread that ends with the test: the filter stays with it.
    fn filtered<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(|| {
            install(Threads::This, &[]).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn it_is_made_for_this_architecture() {
        let len = program(&READS_MEMORY).unwrap().len();
        assert!((100..4096).contains(&len), "{len} instructions");
    }

    /// As musl's `raise` and `abort` do.
    #[test]
    fn a_thread_may_signal_itself() {
        // SAFETY: no pointers; the signal number 0 asks only whether it could be sent.
        let sent = filtered(|| unsafe { libc::syscall(libc::SYS_tkill, libc::gettid(), 0) });
        assert_eq!(sent, 0);
    }

    #[test]
    fn no_program_is_started() {
        let error = filtered(|| Command::new("/bin/true").status().unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
    }

    #[test]
    fn threads_start_and_files_and_sockets_open() {
        let text = filtered(|| {
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            thread::spawn(|| fs::read_to_string("/proc/self/status").unwrap()).join().unwrap()
        });
        assert!(text.contains("Threads:"));
    }

    #[test]
    fn arguments_count() {
        let errors = filtered(|| {
            // SAFETY: no pointers; the calls fail.
            let results = unsafe {
                [
                    libc::unshare(libc::CLONE_NEWUSER),
                    libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0),
                    libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
                    libc::kill(libc::getpid(), libc::SIGCONT),
                ]
            };
            (results, io::Error::last_os_error().raw_os_error())
        });
        assert_eq!(errors, ([-1; 4], Some(libc::ENOSYS)));
    }

    /// Reads, or writes, four bytes of this process as if it were another.
    fn copied(call: libc::c_long) -> Result<(), i32> {
        let (mut from, mut to) = ([1_u8; 4], [0_u8; 4]);
        let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: 4 };
        let remote = libc::iovec { iov_base: from.as_mut_ptr().cast(), iov_len: 4 };
        let (one, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: two ranges of four bytes each, which may be written to.
        match unsafe {
            libc::syscall(call, libc::getpid(), &raw const local, one, &raw const remote, one, none)
        } {
            4 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
    }

    #[test]
    fn memory_of_others_is_read_by_one_thread_and_never_written() {
        const READ: libc::c_long = libc::SYS_process_vm_readv;
        const WRITE: libc::c_long = libc::SYS_process_vm_writev;
        assert_eq!((copied(READ), copied(WRITE)), (Ok(()), Ok(())));
        assert_eq!(filtered(|| (copied(READ), copied(WRITE))), (Err(libc::ENOSYS), Err(libc::ENOSYS)));
        let reads = thread::spawn(|| {
            install(Threads::This, &READS_MEMORY).unwrap();
            // SAFETY: no pointers; the call fails.
            let traced = unsafe { libc::ptrace(libc::PTRACE_SEIZE, 1, 0, 0) };
            let traced = (traced, io::Error::last_os_error().raw_os_error());
            let before = (copied(READ), copied(WRITE), traced);
            forbid(&READS_MEMORY).unwrap();
            (before, thread::spawn(|| copied(READ)).join().unwrap(), fs::read("/proc/self/status").is_ok())
        });
        let before = (Ok(()), Err(libc::ENOSYS), (-1, Some(libc::ENOSYS)));
        assert_eq!(reads.join().unwrap(), (before, Err(libc::ENOSYS), true));
    }
}
