//! Processes seen, each read once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Process;
use super::name::ServiceNames;
use super::read::{Facts, executable, host_name, start_time};
use crate::purge;

/// Processes remembered at a time.
const CAPACITY: usize = 8192;
/// How long a process that was not asked for is remembered.
const KEPT: Duration = Duration::from_secs(900);

/// Processes by number; entries outlive their process for a while, since its last messages come after it.
pub struct Table {
    names: ServiceNames,
    host: String,
    entries: HashMap<u32, Entry>,
}

struct Entry {
    /// What makes it this process and not another with the same number, and this program and not the one before `execve`.
    start_time: Option<u64>,
    executable: Option<PathBuf>,
    process: Arc<Process>,
    used: Instant,
}

impl Table {
    /// An empty table; `names` are the user's own.
    #[must_use]
    pub fn new(names: ServiceNames) -> Self {
        Self { names, host: host_name(), entries: HashMap::new() }
    }

    /// The process with this number (in the agent's view of /proc, so in the initial pid namespace). If it is gone before it could be read,
    /// and was not seen before, all that is known of it is `comm`, the name of its thread.
    pub fn get(&mut self, pid: u32, comm: &str) -> Arc<Process> {
        let now = Instant::now();
        if let Some(entry) = self.entries.get_mut(&pid) {
            let start_time = start_time(pid);
            let gone = start_time.is_none();
            if gone || start_time == entry.start_time && executable(pid) == entry.executable {
                entry.used = now;
                return Arc::clone(&entry.process);
            }
        }
        // At once: it may be about to end.
        let facts =
            Facts::read(pid).unwrap_or_else(|| Facts { pid, comm: comm.to_owned(), ..Facts::default() });
        let start_time = start_time(pid);
        let executable = facts.executable.clone();
        let resource = Arc::new(facts.resource(&self.names, &self.host));
        // Environments and command lines may hold passwords.
        purge::overwrite_stack();
        let process = Arc::new(Process { pid, resource });
        self.make_room(now);
        self.entries.insert(pid, Entry { start_time, executable, process: Arc::clone(&process), used: now });
        process
    }

    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < CAPACITY {
            return;
        }
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.used) < KEPT);
        if self.entries.len() >= CAPACITY {
            // All of them are recent: forget the half that was used least recently. They are read again when asked for.
            let mut times: Vec<Instant> = self.entries.values().map(|entry| entry.used).collect();
            let (_, &mut median, _) = times.select_nth_unstable(CAPACITY / 2);
            self.entries.retain(|_, entry| entry.used > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn read_once_and_kept_after_the_end() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let mut table = Table::new(ServiceNames::default());
        // Until execve is done it is still this test.
        let deadline = Instant::now() + Duration::from_secs(5);
        let process = loop {
            let process = table.get(child.id(), "x");
            if process.resource.service_name() != "x"
                && executable(child.id()) != std::env::current_exe().ok()
            {
                break table.get(child.id(), "x");
            }
            assert!(Instant::now() < deadline, "{process:?}");
        };
        assert!(Arc::ptr_eq(&process, &table.get(child.id(), "x")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Arc::ptr_eq(&process, &table.get(child.id(), "x")));
    }

    #[test]
    fn gone_before_it_was_read() {
        let process = Table::new(ServiceNames::default()).get(u32::MAX, "brief");
        assert_eq!(process.resource.service_name(), "brief");
        assert_eq!(process.pid, u32::MAX);
    }

    #[test]
    fn bounded() {
        let mut table = Table::new(ServiceNames::default());
        for pid in (0..CAPACITY as u32 + 10).map(|n| u32::MAX - n) {
            table.get(pid, "x");
        }
        assert!(table.entries.len() <= CAPACITY);
    }
}
