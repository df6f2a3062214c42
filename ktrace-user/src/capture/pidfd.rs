//! A process that the user names: that there is one, and when it ends.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use super::privilege;

/// A process by its descriptor: another one that gets its number later is not taken for it.
#[derive(Debug)]
pub struct WatchedProcess {
    fd: OwnedFd,
}

/// Why it cannot be watched. [`ProcessError::advice`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("there is no process {0}")]
    Missing(u32),
    #[error("process {0} has ended")]
    Ended(u32),
    #[error("{0} is a thread of process {1}")]
    Thread(u32, u32),
    /// It may be there all the same.
    #[error("whether process {0} is there, and when it ends, cannot be seen: {1}")]
    OutOfSight(u32, String),
}

impl ProcessError {
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Missing(_) | Self::Ended(_) => {
                "name one that runs (pgrep, ps), or choose by --service or --cgroup, which outlast a process".to_owned()
            }
            Self::Thread(_, process) => format!("name the process: --pid {process}"),
            Self::OutOfSight(..) => {
                "--pid is its number on the host: run ktrace in the host's pid namespace (hostPID: true, --pid=host)"
                    .to_owned()
            }
        }
    }
}

impl WatchedProcess {
    /// By its number in the initial pid namespace.
    ///
    /// # Errors
    /// There is no such process, or none that can be watched.
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        match privilege::is_in_host_pid_namespace() {
            Ok(true) => {}
            Ok(false) => {
                return Err(ProcessError::OutOfSight(
                    pid,
                    "ktrace is in a container's pid namespace".to_owned(),
                ));
            }
            // Without /proc it cannot be known; most often it is the host's.
            Err(_) => {}
        }
        let missing = ProcessError::Missing(pid);
        let number = libc::pid_t::try_from(pid).ok().filter(|number| *number > 0).ok_or(missing)?;
        // SAFETY: no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
        let fd = RawFd::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match (error.raw_os_error(), thread_group(pid)) {
                (Some(libc::ESRCH), _) => ProcessError::Missing(pid),
                // EINVAL, since Linux 6.15 ENOENT.
                (Some(libc::EINVAL | libc::ENOENT), Some(process)) if process != pid => {
                    ProcessError::Thread(pid, process)
                }
                _ => ProcessError::OutOfSight(pid, error.to_string()),
            });
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let process = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        if process.ends_within(Duration::ZERO) { Err(ProcessError::Ended(pid)) } else { Ok(process) }
    }

    /// Waits for its end, or until the time is up.
    #[must_use]
    pub fn ends_within(&self, patience: Duration) -> bool {
        let mut descriptor = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&raw mut descriptor, 1, patience) };
        ready > 0 && descriptor.revents & libc::POLLIN != 0
    }
}

/// The process that a thread belongs to.
fn thread_group(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_and_its_end() {
        if !privilege::is_in_host_pid_namespace().unwrap_or(false) {
            println!("skipped: not in the host's pid namespace");
            return;
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = WatchedProcess::open(child.id()).unwrap();
        assert!(!process.ends_within(Duration::ZERO));
        drop(child.stdin.take());
        assert!(process.ends_within(Duration::from_secs(60)));
        // a zombie is a process that has ended
        assert!(matches!(WatchedProcess::open(child.id()), Err(ProcessError::Ended(_))));
        child.wait().unwrap();
        assert!(matches!(WatchedProcess::open(child.id()), Err(ProcessError::Missing(_))));
        assert!(matches!(WatchedProcess::open(u32::MAX), Err(ProcessError::Missing(_))));
    }

    #[test]
    fn a_thread_is_no_process() {
        if !privilege::is_in_host_pid_namespace().unwrap_or(false) {
            println!("skipped: not in the host's pid namespace");
            return;
        }
        let own = std::process::id();
        let opened = std::thread::spawn(|| {
            // SAFETY: no pointers.
            let tid = unsafe { libc::gettid() };
            WatchedProcess::open(tid.cast_unsigned())
        });
        let error = opened.join().unwrap().unwrap_err();
        assert!(matches!(error, ProcessError::Thread(_, process) if process == own), "{error}");
        assert_eq!(error.advice(), format!("name the process: --pid {own}"));
    }
}
