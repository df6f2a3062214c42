//! Processes seen, each read once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::name::ServiceNames;
use super::read::{Facts, executable, host_name, start_time};
use crate::hop::store::{Bound, Bounded, drop_evicted};
use crate::purge;
use crate::seen::Process;

/// Processes remembered at a time. The one used least recently is evicted, and read again when it is asked for.
const CAPACITY: usize = 8192;

/// Processes by number; entries outlive their process, since its last messages come after it.
pub struct Table {
    names: ServiceNames,
    host: String,
    /// See [`Process::is_in_tls_cgroup`].
    tls_cgroups: Vec<PathBuf>,
    entries: Bounded<u32, Entry>,
}

struct Entry {
    /// What makes it this process and not another with the same number, and this program and not
    /// the one before `execve`.
    start_time: Option<u64>,
    executable: Option<PathBuf>,
    process: Arc<Process>,
}

impl Table {
    /// An empty table; `names` are the user's own.
    #[must_use]
    pub fn new(names: ServiceNames) -> Self {
        Self {
            names,
            host: host_name(),
            tls_cgroups: Vec::new(),
            entries: Bounded::new(Bound::entries(CAPACITY)),
        }
    }

    /// Marks the processes below these directories.
    #[must_use]
    pub fn with_tls_cgroups(self, tls_cgroups: Vec<PathBuf>) -> Self {
        Self { tls_cgroups, ..self }
    }

    /// The process with this number (in the agent's view of /proc, so in the initial pid
    /// namespace). If it is gone before it could be read, and was not seen before, all that is
    /// known of it is `comm`, the name of its thread.
    pub fn get(&mut self, pid: u32, comm: &str) -> Arc<Process> {
        if let Some(entry) = self.entries.get(&pid) {
            let start_time = start_time(pid);
            let gone = start_time.is_none();
            if gone || start_time == entry.start_time && executable(pid) == entry.executable {
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
        let is_in_tls_cgroup = self.tls_cgroups.iter().any(|dir| is_below(dir, pid));
        let process =
            Arc::new(Process { pid, start_time: start_time.unwrap_or(0), is_in_tls_cgroup, resource });
        let entry = Entry { start_time, executable, process: Arc::clone(&process) };
        self.entries.insert(pid, entry, 0, drop_evicted);
        process
    }
}

/// Directories of a cgroup that are looked through for a process. A host of the largest size has
/// some thousands.
const MOST_DIRECTORIES: usize = 1 << 16;

/// Whether a cgroup's directory, or one below it, lists the process. Its own word of where it is
/// (`/proc/PID/cgroup`) is relative to the agent's cgroup namespace, and a directory's path to the
/// agent's mounts: where these differ, neither says where the other is.
fn is_below(dir: &Path, pid: u32) -> bool {
    let mut dirs = vec![dir.to_owned()];
    let mut looked = 0;
    while let Some(dir) = dirs.pop() {
        let listed = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if listed.lines().any(|line| line.parse() == Ok(pid)) {
            return true;
        }
        looked += 1;
        if looked >= MOST_DIRECTORIES {
            tracing::warn!(dir = %dir.display(), "more cgroups than are looked through: a process may be \
            taken for one outside");
            return false;
        }
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.extend(below.map(|entry| entry.path()));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

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
        assert_eq!((process.pid, process.start_time), (u32::MAX, 0));
    }

    #[test]
    fn what_names_it_for_good_is_known_too() {
        let own = std::process::id();
        let process = Table::new(ServiceNames::default()).get(own, "x");
        assert_eq!(Some(process.start_time), start_time(own));
        assert!(process.start_time > 0 && !process.is_in_tls_cgroup);
    }

    #[test]
    fn processes_below_a_cgroup_are_marked() {
        let own = std::process::id();
        let root = std::env::temp_dir().join(format!("ktrace-tls-cgroup-{own}"));
        fs::create_dir_all(root.join("pod/container")).unwrap();
        fs::create_dir_all(root.join("other")).unwrap();
        fs::write(root.join("cgroup.procs"), "1\n").unwrap();
        fs::write(root.join("other/cgroup.procs"), format!("{own}0\n")).unwrap();
        fs::write(root.join("pod/container/cgroup.procs"), format!("1\n{own}\n")).unwrap();
        let marked = |name: &str| {
            let table = Table::new(ServiceNames::default());
            table.with_tls_cgroups(vec![root.join(name)]).get(own, "x").is_in_tls_cgroup
        };
        assert!(marked("") && marked("pod") && marked("pod/container"));
        assert!(!marked("other") && !marked("no such cgroup"));
        fs::remove_dir_all(&root).unwrap();
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
