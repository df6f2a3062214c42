//! A process that the user names: that there is one, and when it ends.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

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
                "name one that runs (pgrep, ps), or choose by --service or --cgroup, which outlast a \
                process"
                    .to_owned()
            }
            Self::Thread(_, process) => format!("name the process: --pid {process}"),
            Self::OutOfSight(..) => {
                "--pid is its number on the host: run ktrace in the host's pid namespace (hostPID: true, \
                --pid=host)"
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
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(missing)?;
        let fd =
            pidfd_open(number, PidfdFlags::empty()).map_err(|error| match (error, thread_group(pid)) {
                (Errno::SRCH, _) => ProcessError::Missing(pid),
                // EINVAL, since Linux 6.15 ENOENT.
                (Errno::INVAL | Errno::NOENT, Some(process)) if process != pid => {
                    ProcessError::Thread(pid, process)
                }
                _ => ProcessError::OutOfSight(pid, io::Error::from(error).to_string()),
            })?;
        let process = Self { fd };
        if process.ends_within(Duration::ZERO) { Err(ProcessError::Ended(pid)) } else { Ok(process) }
    }

    /// Waits for its end, or until the time is up.
    #[must_use]
    pub fn ends_within(&self, patience: Duration) -> bool {
        let mut descriptors = [PollFd::new(&self.fd, PollFlags::IN)];
        // One that is too long to be said is no limit.
        let patience = Timespec::try_from(patience).ok();
        let ready = poll(&mut descriptors, patience.as_ref());
        ready.is_ok_and(|ready| ready > 0) && descriptors[0].revents().contains(PollFlags::IN)
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
            let tid = rustix::thread::gettid();
            WatchedProcess::open(tid.as_raw_pid().cast_unsigned())
        });
        let error = opened.join().unwrap().unwrap_err();
        assert!(matches!(error, ProcessError::Thread(_, process) if process == own), "{error}");
        assert_eq!(error.advice(), format!("name the process: --pid {own}"));
    }
}
