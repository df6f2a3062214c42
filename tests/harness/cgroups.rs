//! Directories of a test's own in the cgroup v2 tree, and what is done by a process in one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// A directory, removed with all below it when this goes.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Below the root of the tree. The name is made the test's own.
    pub fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mounts.find(|fields| fields.get(2) == Some(&"cgroup2")).context("no cgroup v2 tree")?;
        let path = Path::new(root[1]).join(format!("ktrace-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a directory below.
    pub fn make(&self, below: &str) -> Result<PathBuf> {
        let path = self.0.join(below);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// Removes a directory with all below it, as soon as the last process has left it.
pub fn remove(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    for _ in 0..200 {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                sleep(Duration::from_millis(10))
            }
            other => return Ok(other?),
        }
    }
    anyhow::bail!("a process stays in {}", path.display())
}

/// Runs a script of bash in a cgroup; what it has printed.
pub fn run_in(group: &Path, script: &str) -> Result<String> {
    let script = format!("echo $$ > {}/cgroup.procs || exit\n{script}", group.display());
    let output = Command::new("bash").args(["-c", &script]).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
