//! A cgroup that limits memory, version 1 or 2, and what the kernel says of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Removed when it goes; what runs in it has to have ended.
#[derive(Debug)]
pub struct MemoryCgroup {
    dir: PathBuf,
    is_v2: bool,
}

impl MemoryCgroup {
    /// A new one with this limit.
    pub fn new(name: &str, bytes: u64) -> Result<Self> {
        let (parent, is_v2) = tree().context("no tree of cgroups limits memory")?;
        let dir = parent.join(format!("ktrace-{name}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cgroup = Self { dir, is_v2 };
        cgroup.write(if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string())?;
        Ok(cgroup)
    }

    /// `program`, to be run in it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = process::command("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.dir.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// The most that was charged to it; `None` before Linux 5.19 in version 2.
    pub fn peak(&self) -> Option<u64> {
        self.read(if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" })?.trim().parse().ok()
    }

    /// Processes that the kernel has killed in it for want of memory.
    pub fn killed(&self) -> Result<u64> {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        let text = self.read(file).with_context(|| format!("no {file}"))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.with_context(|| format!("{file} does not say how many were killed"))?.trim().parse()?)
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(file)).ok()
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // a process that has just ended is counted for a moment
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Where a cgroup can be made that limits memory, and whether that is version 2.
#[must_use]
pub fn tree() -> Option<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let (point, kind, options) = (Path::new(fields.get(1)?), *fields.get(2)?, fields.get(3)?);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                let own = fs::read_to_string("/proc/self/cgroup").ok()?;
                let own = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
                Some((point.join(own.trim_start_matches('/')), false))
            }
            "cgroup2" => {
                let given = fs::read_to_string(point.join("cgroup.subtree_control")).ok()?;
                given.split_whitespace().any(|name| name == "memory").then(|| (point.to_owned(), true))
            }
            _ => None,
        }
    })
}
