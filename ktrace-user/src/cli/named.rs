//! A process or a network namespace that the user names: whether it is there, and what becomes of it while it
//! is watched.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::monitor::say;
use crate::capture::{NetnsName, ProcessError, WatchedProcess};

/// How soon an end that was asked for is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at the network namespace's name.
const NETNS_LOOK: Duration = Duration::from_secs(1);

pub struct Named {
    process: Option<(u32, WatchedProcess)>,
    netns: Option<NetnsName>,
    /// The process has ended while it was watched.
    has_ended: AtomicBool,
}

impl Named {
    /// # Errors
    /// [`Failure::Failed`] where there is no such process.
    pub fn new(pid: Option<u32>, netns: Option<&str>) -> Result<Self, Failure> {
        let process = pid.map(|pid| (pid, WatchedProcess::open(pid)));
        let process = match process {
            None => None,
            Some((pid, Ok(process))) => Some((pid, process)),
            // It is watched all the same: a kernel or a container that keeps it out of sight is no reason not
            // to.
            Some((_, Err(error @ ProcessError::OutOfSight(..)))) => {
                say(&format!("{error}; {}", error.advice()));
                None
            }
            Some((_, Err(error))) => {
                return Err(Failure::failed(format_args!("--pid: {error}"), error.advice()));
            }
        };
        Ok(Self { process, netns: netns.map(NetnsName::new), has_ended: AtomicBool::new(false) })
    }

    /// Sets `stop` when the process ends; says when the namespace's name no longer stands for it. Until
    /// `stop` is set by whomever.
    pub fn watch<T>(&self, stop: &AtomicBool, capture: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            if self.process.is_some() || self.netns.is_some() {
                let watching = thread::Builder::new().name("ktrace-named".to_owned());
                let started: io::Result<_> = watching.spawn_scoped(scope, || self.look_until(stop));
                if let Err(error) = started {
                    say(&format!(
                        "cannot start a thread ({error}): the end of what was named is not noticed"
                    ));
                }
            }
            let captured = capture();
            // A capture that has failed is the end too.
            stop.store(true, Ordering::Relaxed);
            captured
        })
    }

    fn look_until(&self, stop: &AtomicBool) {
        let mut netns = self.netns.as_ref();
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            match &self.process {
                Some((_, process)) => {
                    if process.ends_within(LOOK) {
                        self.has_ended.store(true, Ordering::Relaxed);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                None => thread::sleep(LOOK),
            }
            if Instant::now() >= next {
                next = Instant::now() + NETNS_LOOK;
                if let Some(line) = netns.and_then(NetnsName::change) {
                    say(&line);
                    netns = None;
                }
            }
        }
    }

    /// # Errors
    /// [`Failure::Failed`] where the process has ended: there is nothing left to watch, which a supervisor
    /// has to know.
    pub fn end(&self) -> Result<(), Failure> {
        match &self.process {
            Some((pid, _)) if self.has_ended.load(Ordering::Relaxed) => Err(Failure::failed(
                format_args!("process {pid}, named by --pid, has ended"),
                "what it did until then was shown; choose by --service or --cgroup to outlast a process",
            )),
            _ => Ok(()),
        }
    }
}
